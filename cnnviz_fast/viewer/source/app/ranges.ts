/* The range that the state asks for. */

import type { Atlas } from "../data/atlas";
import type { Range } from "../drawing/levels";
import { rangeOf } from "../drawing/ranges";
import type { State } from "./state";

const PERCENTILES: [number, number] = [1, 99];

/** The percentiles that the state asks for: an address may hold other ends, such as those of a fixed range. */
export function percentilesIn({ ends }: State): [number, number] {
  return ends && ends[0] >= 0 && ends[1] <= 100 ? ends : PERCENTILES;
}

/** The range that is drawn: the address, or the layer before, may have that of a data set, which this one has not. */
export function rangeName({ range }: State, { min, max }: Record<string, Float32Array>): State["range"] {
  return range === "dataset" && !(min && max) ? "channel" : range;
}

/** Range of the maps of one image, or of two on one scale. `columns`: statistics over the data set. */
export function rangeFor(state: State, atlases: Atlas[], columns: Record<string, Float32Array>): Range {
  const { ends } = state;
  const range = rangeName(state, columns);
  switch (range) {
    case "percentile":
      return rangeOf(atlases, { by: range, percentile: percentilesIn(state) });
    case "fixed":
      return ends ? rangeOf(atlases, { by: range, vmin: ends[0], vmax: ends[1] }) : rangeOf(atlases, { by: "layer" });
    case "dataset":
      return { low: columns.min!, high: columns.max!, flat: 0 };
    default:
      return rangeOf(atlases, { by: range });
  }
}

/** Range of a difference: about 0, each channel on its own, or all on that of the greatest. */
export function rangeAbout0({ range }: State, difference: Atlas): Range {
  const own = rangeOf([difference], { by: "symmetric" });
  if (range === "channel") return own;
  const most = own.high.reduce((found, end) => Math.max(found, Math.abs(end) || 0), 0);
  return { low: own.low.map(() => -most), high: own.high.map(() => most), flat: 0.5 };
}
