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
    for (let y = 0; y < photo.height; y++) averagePixels(photo.data, 4 * y * photo.width, taps, narrow, 4 * (y * columns + column));
  });
  const pixels = new Uint8Array(rows * columns * 4);
  const sums = new Float64Array(columns * 4);
  down.shown.forEach((d, row) => {
    averageRows(narrow, triangle(d, photo.height, down.tile_px), sums);
    pixels.set(sums, row * sums.length);
  });
  return { pixels: new Int32Array(pixels.buffer), columns };
}

/* Pillow rounds to bytes after each direction. Here sums begin at 0.5, and bytes are cut off. */

function averagePixels(row: Uint8ClampedArray, at: number, { rows: columns, weights }: Taps, to: Uint8Array, place: number): void {
  let [red, green, blue] = [0.5, 0.5, 0.5];
  for (let k = 0; k < columns.length; k++) {
    const i = at + 4 * columns[k]!;
    red += weights[k]! * row[i]!;
    green += weights[k]! * row[i + 1]!;
    blue += weights[k]! * row[i + 2]!;
  }
  to[place] = red;
  to[place + 1] = green;
  to[place + 2] = blue;
}

function averageRows(from: Uint8Array, { rows, weights }: Taps, sums: Float64Array): void {
  sums.fill(0.5);
  for (let k = 0; k < rows.length; k++) {
    const at = rows[k]! * sums.length;
    const weight = weights[k]!;
    for (let i = 0; i < sums.length; i++) sums[i]! += weight * from[at + i]!;
  }
}

/** Lay a colour over another by a weight of 0 to 256: kernels.reference.over, of red and blue at once. */
export function over(weight: number, color: number, under: number): number {
  const rest = 256 - weight;
  const red_blue = (Math.imul(weight, color & 0xff00ff) + Math.imul(rest, under & 0xff00ff) + 0x800080) >>> 8;
  const green = Math.imul(weight, (color >>> 8) & 255) + Math.imul(rest, (under >>> 8) & 255) + 128;
  return 0xff000000 | (red_blue & 0xff00ff) | (green & 0xff00);
}
