/* Drawing by WebGL2: one context for all of the page, since browsers allow few, and one shader. */

import type { Atlas } from "../data/atlas";
import type { Axis } from "./axis";
import { Kept } from "./kept";
import type { Painter, Scene } from "./scene";
import { PAGE, PIXELS, VERTICES } from "./shader";

const NAMES = ["values", "levels", "order", "down", "across", "colors", "backdrop"] as const;
type Name = (typeof NAMES)[number];

interface Context {
  gl: WebGL2RenderingContext;
  program: WebGLProgram;
}

let shared: Context | null = null;

/** Return the context of the page; null where the browser has none. */
function contextOf(only_fast: boolean): Context | null {
  if (shared && !shared.gl.isContextLost()) return shared;
  const gl = document.createElement("canvas").getContext("webgl2", {
    antialias: false,
    depth: false,
    failIfMajorPerformanceCaveat: only_fast,
  });
  if (!gl) return null;
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, VERTICES], [gl.FRAGMENT_SHADER, PIXELS]] as const) {
    const shader = gl.createShader(kind)!;
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) return null;
  gl.useProgram(program);
  NAMES.forEach((name, unit) => gl.uniform1i(gl.getUniformLocation(program, name), unit));
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  shared = { gl, program };
  return shared;
}

export class WebglPainter implements Painter {
  private readonly tables: Record<Name, Table>;

  private constructor(
    private readonly context: Context,
    private readonly onLost: () => void,
  ) {
    context.gl.canvas.addEventListener("webglcontextlost", onLost);
    this.tables = Object.fromEntries(NAMES.map((name, unit) => [name, new Table(context.gl, unit)])) as Record<Name, Table>;
  }

  /** Return a painter; null where there is no WebGL2, or only one of which the browser says that it is slow. */
  static open(only_fast: boolean, onLost: () => void): WebglPainter | null {
    const context = contextOf(only_fast);
    return context && new WebglPainter(context, onLost);
  }

  paint(scene: Scene, onto: CanvasRenderingContext2D): void {
    this.draw(scene);
    onto.globalCompositeOperation = "copy";
    onto.drawImage(this.context.gl.canvas as HTMLCanvasElement, 0, 0);
  }

  /** Return how long it takes to draw a share of a scene, in ms. */
  time(scene: Scene, share: number): number {
    const { gl } = this.context;
    const start = performance.now();
    gl.enable(gl.SCISSOR_TEST);
    gl.scissor(0, 0, scene.across.length, Math.ceil(scene.down.length * share));
    this.draw(scene);
    gl.disable(gl.SCISSOR_TEST);
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)); // waits
    return performance.now() - start;
  }

  private draw(scene: Scene): void {
    const { gl, program } = this.context;
    const { down, across, atlases, backdrop } = scene;
    const [height, width] = [down.length, across.length];
    if (gl.isContextLost()) throw new Error("the WebGL2 context was lost");
    if (gl.canvas.height !== height || gl.canvas.width !== width) [gl.canvas.height, gl.canvas.width] = [height, width];
    if (gl.drawingBufferHeight !== height || gl.drawingBufferWidth !== width) throw new Error("the canvas is too large for WebGL2");
    this.tables.values.set([atlases], () => joined(atlases.map(({ index }) => index), Uint8Array));
    this.tables.levels.set([scene.levels], () => bitsOf(joined(scene.levels, Float32Array)));
    this.tables.order.set([scene.order], () => bitsOf(scene.order));
    this.tables.down.set([down], () => axisTable(down));
    this.tables.across.set([across], () => axisTable(across));
    this.tables.colors.set([scene.colors], () => bitsOf(scene.colors));
    this.tables.backdrop.set([backdrop], () => bitsOf(backdrop?.pixels ?? new Int32Array(1)));
    const { channels, height: map_h, width: map_w } = atlases[0] as Atlas;
    const integers = { rows: height, sides: atlases.length, columns: scene.columns, count: scene.order.length, backdrop_columns: backdrop?.columns ?? 0, weight: scene.weight };
    for (const [name, number] of Object.entries(integers)) gl.uniform1i(gl.getUniformLocation(program, name), number);
    gl.uniform3i(gl.getUniformLocation(program, "shape"), channels, map_h, map_w);
    gl.uniform2i(gl.getUniformLocation(program, "taps"), down.taps, across.taps);
    gl.viewport(0, 0, width, height);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  close(): void {
    this.context.gl.canvas.removeEventListener("webglcontextlost", this.onLost);
    for (const table of Object.values(this.tables)) table.close();
  }
}

/** A long array in the pages of a texture: a row of a page has 2048 texels at most, and a page as many rows. */
class Table {
  private readonly texture: WebGLTexture;
  private readonly uploaded = new Kept<void>();

  constructor(
    private readonly gl: WebGL2RenderingContext,
    private readonly unit: number,
  ) {
    this.texture = gl.createTexture();
    this.bind();
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_MIN_FILTER, gl.NEAREST); // integers have no other filter
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  }

  /** Make it hold what is made of `sources`, unless it does already. */
  set(sources: unknown[], make: () => Uint8Array | Uint32Array): void {
    this.bind();
    this.uploaded.of(sources, () => this.upload(make()));
  }

  private upload(array: Uint8Array | Uint32Array): void {
    const rows = Math.ceil(array.length / PAGE);
    const [height, depth] = [Math.min(rows, PAGE), Math.ceil(rows / PAGE)];
    const Kind = array.constructor as typeof Uint8Array | typeof Uint32Array;
    const padded = new Kind(PAGE * height * depth);
    padded.set(array);
    const { gl } = this;
    const [internal, format, type] = array instanceof Uint8Array ? [gl.R8, gl.RED, gl.UNSIGNED_BYTE] : [gl.R32UI, gl.RED_INTEGER, gl.UNSIGNED_INT];
    gl.texImage3D(gl.TEXTURE_2D_ARRAY, 0, internal, PAGE, height, depth, 0, format, type, padded);
    if (depth > 1 && gl.getError() === gl.OUT_OF_MEMORY) throw new Error("the graphics card has no room for this layer");
  }

  private bind(): void {
    this.gl.activeTexture(this.gl.TEXTURE0 + this.unit);
    this.gl.bindTexture(this.gl.TEXTURE_2D_ARRAY, this.texture);
  }

  close(): void {
    this.gl.deleteTexture(this.texture);
  }
}

/** Return an axis as the shader reads it. */
function axisTable({ length, tile, place, taps, columns, weights }: Axis): Uint32Array {
  const table = new Uint32Array(length * (2 + 2 * taps));
  const bits = bitsOf(weights);
  for (let p = 0, i = 0; p < length; p++) {
    table[i++] = tile[p]! + 1;
    table[i++] = place[p]!;
    for (let k = p * taps; k < (p + 1) * taps; k++) {
      table[i++] = columns[k]!;
      table[i++] = bits[k]!;
    }
  }
  return table;
}

function bitsOf({ buffer, byteOffset, length }: Float32Array | Int32Array): Uint32Array {
  return new Uint32Array(buffer, byteOffset, length);
}

function joined<T extends Uint8Array | Float32Array>(arrays: T[], Kind: new (length: number) => T): T {
  if (arrays.length === 1) return arrays[0]!;
  const all = new Kind(arrays.reduce((sum, { length }) => sum + length, 0));
  arrays.reduce((at, array) => (all.set(array, at), at + array.length), 0);
  return all;
}
