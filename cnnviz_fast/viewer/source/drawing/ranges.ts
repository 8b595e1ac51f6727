/* The range of values that the palette spans, for each channel: channels/ranges.py, of one atlas or of two that share
their ranges. */

import { LAST_LEVEL, valueOf, type Atlas } from "../data/atlas";
import { countsOf } from "../data/counts";
import type { Range } from "./levels";

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
  const levels = LAST_LEVEL + 1;
  const each = atlases.map((atlas) => countsOf(atlas).subarray(channel * 256, channel * 256 + levels));
  const counts = each.length > 1 ? Uint32Array.from(each.flatMap((own) => [...own])) : each[0]!;
  const valueAt = (i: number): number => valueOf(atlases[Math.floor(i / levels)]!, channel, i % levels);
  // Those of one atlas are in order.
  const order = atlases.length > 1 ? Uint16Array.from(counts.keys()).sort((a, b) => valueAt(a) - valueAt(b)) : null;
  const cells = atlases.length * atlases[0]!.height * atlases[0]!.width;
  const bad = atlases.flatMap((atlas) => [...countsOf(atlas).subarray(channel * 256 + levels, (channel + 1) * 256)]);
  const last = cells - 1 - bad.reduce((sum, count) => sum + count);
  // Positions from `first` up to `next` hold the value at `i`. They are asked for in order, but for odd percentiles.
  let [i, first, next] = [-1, 0, 0];
  const at = (position: number): number => {
    if (position < first) [i, next] = [-1, 0];
    while (next <= position) {
      first = next;
      next += counts[order ? order[++i]! : ++i]!;
    }
    return valueAt(order ? order[i]! : i);
  };
  return between(at, last, percents);
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
