/* Which rows of a map a row of a tile shows, and with which weights: geometry.sampling_positions and the shrinking of
channels/values.py as one list of taps. Columns are the same. */

export type Align = "left" | "center" | "corners" | "field";

/** Where the samples of a map lie along a side of the model's input, in samples; see geometry.Lattice. */
export interface Lattice {
  span: number;
  start: number;
}

/** Rows that one row of a tile averages: `rows[i]` with `weights[i]`. A value that is not finite in any of them shows. */
export interface Taps {
  rows: number[];
  weights: number[];
}

export interface Sampling {
  /** Rows of the map, and of the tile. */
  n: number;
  size: number;
  align: Align;
  nearest: boolean;
  /** With align "field". */
  lattice: Lattice | null;
}

/** Return the taps of row `d` of a tile. */
export function tapsAt(d: number, { n, size, align, nearest, lattice }: Sampling): Taps {
  const shrunk = nearest ? n : Math.min(n, size);
  const [row, fraction] = positionOf(d, shrunk, size, align, nearest, lattice && scaled(lattice, shrunk / n));
  if (shrunk === n) return fraction ? { rows: [row, row + 1], weights: [1 - fraction, fraction] } : one(row);
  const taps = triangle(row, n, shrunk);
  return fraction ? mixed(taps, triangle(row + 1, n, shrunk), fraction) : taps;
}

/** Return where row `d` samples a map: a row, and how far on towards the next one. */
function positionOf(d: number, n: number, size: number, align: Align, nearest: boolean, lattice: Lattice | null): [number, number] {
  let position: number;
  if (align === "left") position = (d * n) / size;
  else if (align === "corners") position = size > 1 ? (d * (n - 1)) / (size - 1) : 0;
  else if (align === "field" && lattice) position = (d * lattice.span) / size - lattice.start;
  else position = ((d + 0.5) * n) / size - 0.5;
  if (nearest) position = Math.floor(align === "left" || align === "field" ? position : position + 0.5);
  position = Math.min(Math.max(position, 0), n - 1);
  const row = Math.floor(position);
  const fraction = Math.fround(position - row);
  return fraction === 1 ? [row + 1, 0] : [row, fraction];
}

/** Return the rows that row `i` of a smaller map averages: a triangle twice as wide as the scale, or at least two rows.
Rounded as ATen does (_compute_weights_aa), so that a NaN reaches the same pixels; Pillow's differ in the last bits. */
export function triangle(i: number, n: number, size: number): Taps {
  if (n === size) return one(i);
  const scale = Math.fround(n / size);
  const reach = Math.max(scale, 1);
  const center = Math.fround(scale * (i + 0.5));
  const first = Math.trunc(Math.max(Math.fround(center - reach) + 0.5, 0));
  const stop = Math.trunc(Math.min(Math.fround(center + reach) + 0.5, n));
  const rows = Array.from({ length: stop - first }, (_, k) => first + k);
  const heights = rows.map((row) => Math.max(1 - Math.abs((row + 0.5 - center) / reach), 0));
  const total = heights.reduce((sum, height) => sum + height, 0);
  return { rows, weights: heights.map((height) => height / total) };
}

function mixed(before: Taps, after: Taps, fraction: number): Taps {
  const weights = new Map(before.rows.map((row, k) => [row, (1 - fraction) * before.weights[k]!]));
  after.rows.forEach((row, k) => weights.set(row, (weights.get(row) ?? 0) + fraction * after.weights[k]!));
  return { rows: [...weights.keys()], weights: [...weights.values()] };
}

function one(row: number): Taps {
  return { rows: [row], weights: [1] };
}

function scaled({ span, start }: Lattice, factor: number): Lattice {
  return { span: span * factor, start: start * factor };
}
