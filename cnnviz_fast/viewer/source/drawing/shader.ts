/* The shader of the wall: for each pixel of the canvas, what canvas2d.ts does in loops. */

/** Texels of a row of a page, and rows of a page: all that WebGL2 promises. Both are powers of two. */
export const PAGE = 2048;

export const VERTICES = `#version 300 es
void main() {
  gl_Position = vec4(vec2(gl_VertexID & 1, gl_VertexID >> 1) * 4.0 - 1.0, 0, 1); // one triangle over everything
}`;

/* An axis holds for each of its pixels: column of tiles + 1 (0 for none), place in the backdrop, then taps, each a column
of the map and a weight. */
export const PIXELS = `#version 300 es
precision highp float;
precision highp int;
precision highp sampler2DArray;
precision highp usampler2DArray;

uniform sampler2DArray values;
uniform usampler2DArray levels, order, down, across, colors, backdrop;
uniform ivec3 shape; // channels, height and width of the maps
uniform ivec2 taps; // down, across
uniform int rows, sides, columns, count;
uniform int backdrop_columns, weight; // 0 columns: no backdrop
out vec4 pixel;

ivec3 place(int i) {
  return ivec3(i & ${PAGE - 1}, (i >> 11) & ${PAGE - 1}, i >> 22);
}

uint at(usampler2DArray table, int i) {
  return texelFetch(table, place(i), 0).r;
}

uvec3 bytes(uint color) {
  return uvec3(color, color >> 8, color >> 16) & 255u;
}

void main() {
  int y = (rows - 1 - int(gl_FragCoord.y)) * (2 + 2 * taps.x);
  int x = int(gl_FragCoord.x) * (2 + 2 * taps.y);
  int row = int(at(down, y)) - 1, column = int(at(across, x)) - 1;
  int position = row * columns + column / sides;
  pixel = vec4(0);
  if (row < 0 || column < 0 || position >= count) return;

  int channel = int(at(order, position)) + column % sides * shape.x; // the second atlas lies behind the first
  float level = 0.0;
  int greatest = 0;
  for (int j = 0; j < taps.x; j++) {
    int from = (channel * shape.y + int(at(down, y + 2 + 2 * j))) * shape.z;
    float height = uintBitsToFloat(at(down, y + 3 + 2 * j));
    for (int k = 0; k < taps.y; k++) {
      int entry = int(texelFetch(values, place(from + int(at(across, x + 2 + 2 * k))), 0).r * 255.0 + 0.5);
      greatest = max(greatest, entry);
      level += height * uintBitsToFloat(at(across, x + 3 + 2 * k)) * uintBitsToFloat(at(levels, channel * 256 + entry));
    }
  }
  bool finite = greatest < 253;
  uvec3 color = bytes(at(colors, finite ? int(level + 0.5) : greatest + 3));
  if (finite && backdrop_columns > 0) {
    uvec3 under = bytes(at(backdrop, int(at(down, y + 1)) * backdrop_columns + int(at(across, x + 1))));
    color = (uint(weight) * color + uint(256 - weight) * under + 128u) >> 8;
  }
  pixel = vec4(vec3(color) / 255.0, 1);
}`;
