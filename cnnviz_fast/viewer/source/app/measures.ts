/* What is known of each channel of an atlas: counts of its levels, measures to sort by, kinds, likeness to others.

Minimum, maximum, mean, standard deviation and zeros are exact, from the atlas; what compares maps is from its levels. */

import { LAST_LEVEL, valueOf, type Atlas } from "../data/atlas";
import { countsOf, perAtlas } from "../data/counts";

const LEVELS = LAST_LEVEL + 1;

/** Number of finite values of each channel. */
const finite = perAtlas((atlas) => {
  const found = countsOf(atlas);
  const area = atlas.height * atlas.width;
  return Float64Array.from(
    { length: atlas.channels },
    (_, c) => area - found[c * 256 + 253]! - found[c * 256 + 254]! - found[c * 256 + 255]!,
  );
});

export const measures = perAtlas((atlas): Record<string, Float64Array> => {
  const n = finite(atlas);
  const each = (of: (c: number) => number) => Float64Array.from({ length: atlas.channels }, (_, c) => of(c));
  return {
    mean: each((c) => atlas.mean[c]!),
    max: each((c) => atlas.vmax[c]!),
    min: each((c) => atlas.vmin[c]!),
    variance: each((c) => atlas.std[c]! ** 2),
    sparsity: each((c) => atlas.zeros[c]! / (atlas.height * atlas.width)),
    norm: each((c) => (n[c] ? Math.sqrt(n[c]! * (atlas.mean[c]! ** 2 + atlas.std[c]! ** 2)) : NaN)),
  };
});

export type Kind = "dead" | "flat" | "saturated" | "nonfinite";

/** The kinds of a channel, as `channels/report.py` defines them. */
export const kinds = perAtlas((atlas): Set<Kind>[] => {
  const found = countsOf(atlas);
  const n = finite(atlas);
  const area = atlas.height * atlas.width;
  return Array.from({ length: atlas.channels }, (_, c) => {
    const is = new Set<Kind>();
    const flat = atlas.vmin[c] === atlas.vmax[c] && area > 1;
    // Within 1/255 of the range from an end is the last of 252 levels.
    const at_ends = found[c * 256 + LEVELS - 1]! + (atlas.vmin[c] === 0 ? 0 : found[c * 256]!);
    if (atlas.zeros[c] === area) is.add("dead");
    if (flat) is.add("flat");
    else if (n[c]! > 0 && area > 1 && at_ends * 2 >= n[c]!) is.add("saturated");
    if (n[c]! < area) is.add("nonfinite");
    return is;
  });
});

/** The correlation of each channel's map with that of `like`; NaN where either is flat. Levels will do: it does not
change with a channel's scale. */
export function likeness(atlas: Atlas, like: number): Float64Array {
  const area = atlas.height * atlas.width;
  const reference = deviations(atlas, like);
  return Float64Array.from({ length: atlas.channels }, (_, c) => {
    const other = deviations(atlas, c);
    let product = 0,
      own = 0,
      theirs = 0;
    for (let i = 0; i < area; i++) {
      product += reference[i]! * other[i]!;
      own += reference[i]! ** 2;
      theirs += other[i]! ** 2;
    }
    return product / Math.sqrt(own * theirs);
  });
}

/** A channel's levels from their mean; 0 for what is not finite. */
function deviations(atlas: Atlas, c: number): Float32Array {
  const area = atlas.height * atlas.width;
  const levels = atlas.index.subarray(c * area, (c + 1) * area);
  let sum = 0,
    n = 0;
  for (const level of levels) if (level < LEVELS) ((sum += level), n++);
  return Float32Array.from(levels, (level) => (level < LEVELS ? level - sum / n : 0));
}

/** The mean magnitude of each channel's finite values: of a difference, how far two images lie apart. */
export const magnitudes = perAtlas((atlas) => {
  const found = countsOf(atlas);
  const n = finite(atlas);
  return Float64Array.from({ length: atlas.channels }, (_, c) => {
    let sum = 0;
    for (let level = 0; level < LEVELS; level++) {
      const count = found[c * 256 + level]!;
      if (count) sum += count * Math.abs(valueOf(atlas, c, level));
    }
    return sum / n[c]!;
  });
});

export interface Histogram {
  low: number;
  high: number;
  bins: Float64Array;
}

/** Values of a channel, or of the whole layer, between its least and its greatest in bins of one width. */
export function histogram(atlas: Atlas, channel: number | null, bin_count: number): Histogram {
  const found = countsOf(atlas);
  const all = channel === null ? Array.from({ length: atlas.channels }, (_, c) => c) : [channel];
  const known = all.filter((c) => Number.isFinite(atlas.vmin[c]!));
  const low = known.reduce((least, c) => Math.min(least, atlas.vmin[c]!), Infinity);
  const high = known.reduce((most, c) => Math.max(most, atlas.vmax[c]!), -Infinity);
  const bins = new Float64Array(bin_count);
  for (const c of known)
    for (let level = 0; level < LEVELS; level++) {
      const count = found[c * 256 + level]!;
      if (!count) continue;
      const at = valueOf(atlas, c, level);
      bins[high > low ? Math.min(bin_count - 1, Math.floor(((at - low) / (high - low)) * bin_count)) : 0]! += count;
    }
  return { low, high, bins };
}

/** The place of a channel, from 1 for the greatest; null for NaN. */
export function rank(column: ArrayLike<number>, channel: number): number | null {
  const own = column[channel]!;
  if (Number.isNaN(own)) return null;
  let above = 0;
  for (let c = 0; c < column.length; c++) if (column[c]! > own) above++;
  return above + 1;
}
