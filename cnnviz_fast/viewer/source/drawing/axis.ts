/* One side of the canvas, pixel by pixel: in which column of tiles each lies, and what it shows of a map there. */

import { tapsAt, type Sampling, type Taps } from "./positions";

/** Where tiles lie along one side of the canvas, in px of the screen. */
export interface Side {
  /** Of the canvas. */
  length: number;
  /** Px of the wall before the canvas begins. */
  origin: number;
  tile: number;
  gap: number;
  /** Columns of tiles. */
  tiles: number;
}

export interface Axis {
  length: number;
  /** Width of a tile. */
  tile_px: number;
  /** Column of tiles of each pixel; -1 where there is none. */
  tile: Int32Array;
  /** Which px of a tile are in view, in order, and which of these each pixel is. */
  shown: Int32Array;
  place: Int32Array;
  /** Each pixel shows the sum of `taps` columns of the map: `columns` times `weights`, (length, taps). */
  taps: number;
  columns: Int32Array;
  weights: Float32Array;
  stretches: Stretch[];
}

/** Pixels of one tile, from `start` to before `stop`, and the first and last column of the map that they show. */
export interface Stretch {
  tile: number;
  start: number;
  stop: number;
  first: number;
  last: number;
}

export function layAxis({ length, origin, tile, gap, tiles }: Side, sampling: Sampling): Axis {
  const tileOf = new Int32Array(length).fill(-1);
  const within = new Int32Array(length);
  const found = new Map<number, Taps>();
  for (let p = 0; p < length; p++) {
    const at = Math.floor((origin + p) / (tile + gap));
    const d = origin + p - at * (tile + gap);
    if (at < 0 || at >= tiles || d >= tile) continue;
    tileOf[p] = at;
    within[p] = d;
    if (!found.has(d)) found.set(d, tapsAt(d, sampling));
  }
  const shown = Int32Array.from(found.keys()).sort();
  const places = new Map(Array.from(shown, (d, place) => [d, place]));
  const taps = Math.max(1, ...Array.from(found.values(), ({ rows }) => rows.length));
  const place = new Int32Array(length);
  const columns = new Int32Array(length * taps);
  const weights = new Float32Array(length * taps);
  for (let p = 0; p < length; p++) {
    if (tileOf[p]! < 0) continue;
    const own = found.get(within[p]!)!;
    place[p] = places.get(within[p]!)!;
    columns.fill(own.rows[0]!, p * taps, (p + 1) * taps); // what is left over has no weight
    columns.set(own.rows, p * taps);
    weights.set(own.weights, p * taps);
  }
  const stretches = stretchesOf(tileOf, taps, columns);
  return { length, tile_px: tile, tile: tileOf, shown, place, taps, columns, weights, stretches };
}

function stretchesOf(tile: Int32Array, taps: number, columns: Int32Array): Stretch[] {
  const { length } = tile;
  const stretches: Stretch[] = [];
  for (let start = 0, stop = 0; start < length; start = stop) {
    while (stop < length && tile[stop] === tile[start]) stop++;
    const shown = columns.subarray(start * taps, stop * taps);
    const [first, last] = [shown.reduce((a, b) => Math.min(a, b)), shown.reduce((a, b) => Math.max(a, b))];
    if (tile[start]! >= 0) stretches.push({ tile: tile[start]!, start, stop, first, last });
  }
  return stretches;
}
