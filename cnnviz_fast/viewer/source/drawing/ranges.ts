/* The range of values that the palette spans, for each channel: channels/ranges.py, of one atlas or of two that share
their ranges. */

import { LAST_LEVEL, MINUS_INF, NAN, PLUS_INF, valueOf, type Atlas } from "../data/atlas";
import { countsOf } from "../data/counts";
import type { Range } from "./levels";

const LEVELS = LAST_LEVEL + 1;

export type Normalize =
  | { by: "channel" | "layer" | "symmetric" | "sigmoid" }
  | { by: "percentile"; percentile: [number, number] }
  | { by: "fixed"; vmin: number; vmax: number };

export function rangeOf(atlases: Atlas[], normalize: Normalize): Range {
  const low = atlases.map(({ vmin }) => vmin).reduce((ends, more) => ends.map((end, c) => lesser(end, more[c]!)));
  const high = atlases.map(({ vmax }) => vmax).reduce((ends, more) => ends.map((end, c) => greater(end, more[c]!)));
  const { height, width } = atlases[0]!;
  if (height * width > 1) return ranged(low, high, normalize, (c, percents) => percentilesOf(atlases, c, percents));
  // The cells of a vector have the range of all of them.
  const cells = Float32Array.from(atlases.flatMap(({ vmin }) => [...vmin.filter((end) => !Number.isNaN(end))])).sort();
  const all = ranged(cells.slice(0, 1), cells.slice(-1), normalize, (_, percents) => between((i) => cells[i]!, cells.length - 1, percents));
  return { ...all, low: spread(all.low[0]!, low), high: spread(all.high[0]!, high) };
}

function ranged(low: Float32Array, high: Float32Array, normalize: Normalize, percentiles: (c: number, percents: number[]) => number[]): Range {
  const flat = normalize.by === "symmetric" ? 0.5 : 0;
  switch (normalize.by) {
    case "channel":
      return { low, high, flat };
    case "layer":
      return { low: spread(low.reduce(lesser, NaN), low), high: spread(high.reduce(greater, NaN), high), flat };
    case "symmetric": {
      // A flat channel keeps its range without width: it is drawn in the middle colour.
      const reach = low.map((end, c) => Math.max(Math.abs(end), Math.abs(high[c]!)));
      const end = (sign: number) => (_: number, c: number) => low[c] === high[c] ? low[c]! : sign * reach[c]!;
      return { low: low.map(end(-1)), high: high.map(end(1)), flat };
    }
    case "percentile": {
      // Where most values are equal both ends may be. The full range then shows the others.
      const ends = Array.from(low, (_, c) => percentiles(c, normalize.percentile));
      const end = (i: 0 | 1) => (own: number, c: number) => ends[c]![0] === ends[c]![1] ? own : ends[c]![i]!;
      return { low: low.map(end(0)), high: high.map(end(1)), flat };
    }
    case "fixed":
      return { low: low.map(() => normalize.vmin), high: high.map(() => normalize.vmax), flat };
    case "sigmoid":
      return { low: low.map(() => 0), high: high.map(() => 1), flat, squash: true };
  }
}

/** Return an end of a range for each channel that has finite values. */
function spread(end: number, own: Float32Array): Float32Array {
  return own.map((each) => (Number.isNaN(each) ? NaN : end));
}

function lesser(a: number, b: number): number {
  return a <= b || Number.isNaN(b) ? a : b;
}

function greater(a: number, b: number): number {
  return a >= b || Number.isNaN(b) ? a : b;
}

/** Return percentiles of a channel's finite values, linear between neighbours as in numpy.nanpercentile. */
export function percentilesOf(atlases: Atlas[], channel: number, percents: number[]): number[] {
  const first = channel * 256;
  const each = atlases.map(countsOf);
  const bad = each.reduce((sum, own) => sum + own[first + NAN]! + own[first + MINUS_INF]! + own[first + PLUS_INF]!, 0);
  const last = atlases.length * atlases[0]!.height * atlases[0]!.width - bad - 1;
  if (atlases.length === 1) {
    const counts = each[0]!.subarray(first, first + LEVELS);
    return between((position) => valueOf(atlases[0]!, channel, placeOf(counts, position, last)), last, percents);
  }
  const found = atlases
    .flatMap((atlas, i) =>
      Array.from({ length: LEVELS }, (_, level) => ({ value: valueOf(atlas, channel, level), count: each[i]![first + level]! })),
    )
    .filter(({ count }) => count)
    .sort((a, b) => a.value - b.value);
  const counts = Uint32Array.from(found, ({ count }) => count);
  return between((position) => found[placeOf(counts, position, last)]!.value, last, percents);
}

/** Return which of `counts`, each added to those before it, takes in a position of 0 .. last: from the nearer end, where
percentiles mostly lie. */
function placeOf(counts: Uint32Array, position: number, last: number): number {
  const step = 2 * position > last ? -1 : 1;
  let i = step < 0 ? counts.length - 1 : 0;
  for (let left = (step < 0 ? last - position : position) - counts[i]!; left >= 0; left -= counts[i]!) i += step;
  return i;
}

/** Return percentiles of sorted values 0 .. last. */
function between(at: (position: number) => number, last: number, percents: number[]): number[] {
  return percents.map((percent) => {
    if (last < 0) return NaN;
    const position = (last * percent) / 100;
    const below = Math.floor(position);
    const [before, after] = [at(below), at(Math.min(below + 1, last))];
    return Math.fround(before + (position - below) * (after - before));
  });
}
