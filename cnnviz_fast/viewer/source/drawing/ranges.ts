/* The range of values that the palette spans, for each channel: channels/ranges.py, of one atlas or of two that share
their ranges. */

import { LAST_LEVEL, valueOf, type Atlas } from "../data/atlas";
import type { Range } from "./levels";

export type Normalize =
  | { by: "channel" | "layer" | "symmetric" | "sigmoid" }
  | { by: "percentile"; percentile: [number, number] }
  | { by: "fixed"; vmin: number; vmax: number };

export function rangeOf(atlases: Atlas[], normalize: Normalize): Range {
  const low = atlases.map(({ vmin }) => vmin).reduce((ends, more) => ends.map((end, c) => lesser(end, more[c]!)));
  const high = atlases.map(({ vmax }) => vmax).reduce((ends, more) => ends.map((end, c) => greater(end, more[c]!)));
  switch (normalize.by) {
    case "channel":
      return { low, high, flat: 0 };
    case "layer": {
      const [bottom, top] = [low.reduce(lesser), high.reduce(greater)];
      const whole = (end: number) => (ends: number): number => (Number.isNaN(ends) ? NaN : end);
      return { low: low.map(whole(bottom)), high: high.map(whole(top)), flat: 0 };
    }
    case "symmetric": {
      const reach = low.map((end, c) => Math.max(Math.abs(end), Math.abs(high[c]!)));
      // A flat channel keeps its range without width: it is drawn in the middle colour.
      const wide = reach.map((_, c) => (low[c] === high[c] ? 0 : 1));
      return { low: low.map((end, c) => (wide[c] ? -reach[c]! : end)), high: high.map((end, c) => (wide[c] ? reach[c]! : end)), flat: 0.5 };
    }
    case "percentile": {
      const ends = Array.from(low, (_, c) => percentilesOf(atlases, c, normalize.percentile));
      // Where most values are equal both ends may be. The full range then shows the others.
      const level = ends.map(([bottom, top]) => bottom === top);
      return {
        low: low.map((end, c) => (level[c] ? end : ends[c]![0]!)),
        high: high.map((end, c) => (level[c] ? end : ends[c]![1]!)),
        flat: 0,
      };
    }
    case "fixed":
      return { low: low.map(() => normalize.vmin), high: high.map(() => normalize.vmax), flat: 0 };
    case "sigmoid":
      return { low: low.map(() => 0), high: high.map(() => 1), flat: 0, squash: true };
  }
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
  const counts = new Uint32Array(atlases.length * levels);
  atlases.forEach((atlas, i) => counts.set(countsOf(atlas, channel), i * levels));
  const valueAt = (i: number): number => valueOf(atlases[Math.floor(i / levels)]!, channel, i % levels);
  // Those of one atlas are in order.
  const order = atlases.length > 1 ? Uint16Array.from(counts.keys()).sort((a, b) => valueAt(a) - valueAt(b)) : null;
  let last = -1;
  for (let i = 0; i < counts.length; i++) last += counts[i]!;
  const at = (position: number): number => {
    let [i, passed] = [-1, 0];
    while (passed <= position) passed += counts[order ? order[++i]! : ++i]!;
    return valueAt(order ? order[i]! : i);
  };
  return percents.map((percent) => {
    if (last < 0) return NaN;
    const position = (last * percent) / 100;
    const below = Math.floor(position);
    const [before, after] = [at(below), at(Math.min(below + 1, last))];
    return Math.fround(before + (position - below) * (after - before));
  });
}

/** Count how often a channel's index holds each level. */
export function countsOf({ index, height, width }: Atlas, channel: number): Uint32Array {
  const counts = new Uint32Array(256);
  const cells = height * width;
  for (let i = channel * cells; i < (channel + 1) * cells; i++) counts[index[i]!]! += 1;
  return counts.subarray(0, LAST_LEVEL + 1);
}
