/* From entries of an atlas to levels of the palette, and from levels to colours. */

import { LAST_LEVEL, type Atlas } from "../data/atlas";

/** Range of values that the palette spans, for each channel; see ranges.ts. */
export interface Range {
  /** NaN for a channel without finite values. */
  low: Float32Array;
  high: Float32Array;
  /** Where between 0 and 1 a channel is drawn whose ends are equal. */
  flat: number;
  /** Whether values go through a sigmoid first. */
  squash?: boolean;
}

/** Behind the colours of the palette come those of what is not finite, in the order of the entries of an atlas, and none:
that of what is no tile. */
export const NOTHING = 256 + 3;

/** Return the level of each entry that a channel holds, (channels, 256), 0 to 255 and not rounded; NaN for what is not
finite: kernels.reference.normalize. They come into `before`, levels that nothing needs any more: new memory takes longer
than what is put into it. */
export function levelsOf(atlas: Atlas, { low, high, flat, squash }: Range, before?: Float32Array): Float32Array {
  const { channels, height, width, index, vmin, vmax } = atlas;
  const levels = before?.length === channels * 256 ? before : new Float32Array(channels * 256);
  levels.fill(NaN);
  const cells = height * width;
  for (let c = 0; c < channels; c++) {
    const [bottom, top, least, most] = [low[c]!, high[c]!, vmin[c]!, vmax[c]!];
    // Small maps hold fewer entries than there are.
    for (let i = 0, end = Math.min(cells, LAST_LEVEL + 1); i < end; i++) {
      const entry = cells <= LAST_LEVEL ? index[c * cells + i]! : i;
      if (entry > LAST_LEVEL) continue;
      let v = Math.fround(least * (1 - entry / LAST_LEVEL) + most * (entry / LAST_LEVEL)); // valueOf, in half of its time
      if (squash) v = 1 / (1 + Math.exp(-v));
      v = bottom === top ? flat : (v - bottom) / (top - bottom);
      levels[c * 256 + entry] = 255 * Math.min(Math.max(v, 0), 1);
    }
  }
  return levels;
}

export type Rgb = [number, number, number];

/** Return the colours of levels, of NaN, -inf and inf, and of nothing, as they lie in the memory of a canvas. */
export function colorsOf(palette: Uint8Array, ...others: [Rgb, Rgb, Rgb]): Int32Array {
  const bytes = new Uint8Array(4 * (NOTHING + 1)).fill(255, 0, 4 * NOTHING);
  for (let i = 0; i < 256 * 3; i++) bytes[i + Math.floor(i / 3)] = palette[i]!;
  others.forEach((color, i) => bytes.set(color, 4 * (256 + i)));
  return new Int32Array(bytes.buffer);
}
