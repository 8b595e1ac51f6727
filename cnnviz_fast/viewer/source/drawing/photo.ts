/* The photo under the tiles, resized as Pillow does it (bilinear, smoothed where it shrinks), for the pixels in view. */

import type { Axis } from "./axis";
import { triangle, type Taps } from "./positions";

/** A photo at the size of a tile, of which it holds what is in view. */
export interface Backdrop {
  /** RGBA as it lies in the memory of a canvas, (rows, columns). */
  pixels: Int32Array;
  columns: number;
}

export function backdropOf(photo: ImageData, down: Axis, across: Axis): Backdrop {
  const [rows, columns] = [down.shown.length, across.shown.length];
  const narrow = new Uint8Array(photo.height * columns * 4);
  across.shown.forEach((d, column) => {
    const taps = triangle(d, photo.width, across.tile_px);
    for (let y = 0; y < photo.height; y++) average(photo.data, 4 * y * photo.width, 4, taps, narrow, 4 * (y * columns + column));
  });
  const pixels = new Uint8Array(rows * columns * 4);
  down.shown.forEach((d, row) => {
    const taps = triangle(d, photo.height, down.tile_px);
    for (let x = 0; x < columns; x++) average(narrow, 4 * x, 4 * columns, taps, pixels, 4 * (row * columns + x));
  });
  return { pixels: new Int32Array(pixels.buffer), columns };
}

/** Average three colours, rounded to bytes as Pillow does after each direction. */
function average(from: Uint8Array | Uint8ClampedArray, at: number, step: number, { rows, weights }: Taps, to: Uint8Array, place: number): void {
  let [red, green, blue] = [0.5, 0.5, 0.5];
  for (let k = 0; k < rows.length; k++) {
    const i = at + rows[k]! * step;
    red += weights[k]! * from[i]!;
    green += weights[k]! * from[i + 1]!;
    blue += weights[k]! * from[i + 2]!;
  }
  to[place] = red;
  to[place + 1] = green;
  to[place + 2] = blue;
}

/** Lay a colour over another by a weight of 0 to 256: kernels.reference.over, for the components of an opaque colour. */
export function over(weight: number, color: number, under: number): number {
  const rest = 256 - weight;
  const red = (weight * (color & 255) + rest * (under & 255) + 128) >> 8;
  const green = (weight * ((color >> 8) & 255) + rest * ((under >> 8) & 255) + 128) >> 8;
  const blue = (weight * ((color >> 16) & 255) + rest * ((under >> 16) & 255) + 128) >> 8;
  return 0xff000000 | (blue << 16) | (green << 8) | red;
}
