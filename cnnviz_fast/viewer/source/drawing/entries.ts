/* Which colour each pixel of a scene has: most of the work of drawing, none of which is done again for other colours. */

import { LAST_LEVEL, NAN } from "../data/atlas";
import type { Axis, Stretch } from "./axis";
import { NOTHING } from "./levels";
import type { Scene } from "./scene";

/** Write the entry of `colors` of each pixel, (height, width). */
export function drawEntries(scene: Scene, out: Uint16Array): void {
  const { down, across, atlases, order } = scene;
  out.fill(NOTHING);
  const room = roomFor(scene);
  for (const row of down.stretches) {
    for (const column of across.stretches) {
      const position = row.tile * scene.columns + Math.floor(column.tile / atlases.length);
      if (position < order.length) drawTile(scene, column.tile % atlases.length, order[position]!, row, column, room, out);
    }
  }
}

/** Memory that all tiles use, one after another. */
interface Room {
  /** Levels of a row of a map. */
  levels: Float64Array;
  /** Rows of a map, averaged along x to the pixels of a tile. */
  wide: Float64Array;
  sums: Float64Array;
  /** Those of `across`. */
  weights: Float64Array;
}

function roomFor({ atlases, across }: Scene): Room {
  const { height, width } = atlases[0]!;
  const widest = Math.max(0, ...across.stretches.map(({ start, stop }) => stop - start));
  return {
    levels: new Float64Array(width),
    wide: new Float64Array(height * widest),
    sums: new Float64Array(widest),
    weights: new Float64Array(across.weights),
  };
}

function drawTile(scene: Scene, side: number, channel: number, rows: Stretch, columns: Stretch, room: Room, out: Uint16Array): void {
  const { down, across } = scene;
  const { height, width, index } = scene.atlases[side]!;
  const levels = scene.levels[side]!;
  const map = channel * height * width;
  const size = columns.stop - columns.start;
  const single = down.taps === 1 && across.taps === 1;
  const { wide, sums } = room;
  if (!single) widen(index, map, levels, 256 * channel, across, rows, columns, room);
  for (let y = rows.start; y < rows.stop; y++) {
    const start = y * across.length + columns.start;
    if (single && y > rows.start && down.columns[y] === down.columns[y - 1]) {
      out.copyWithin(start, start - across.length, start - across.length + size);
    } else if (single) {
      const from = map + down.columns[y]! * width;
      for (let i = 0; i < size; i++) {
        const entry = index[from + across.columns[columns.start + i]!]!;
        out[start + i] = entry > LAST_LEVEL ? 256 + entry - NAN : levels[256 * channel + entry]! + 0.5;
      }
    } else {
      // Up to three taps are rows as they are; of more all but two are added up before.
      const [first, last] = [y * down.taps, (y + 1) * down.taps - 1];
      const several = down.taps > 3;
      if (several) addRows(down, first, last - 1, rows.first, size, room);
      const before = several ? sums : wide;
      const at = several ? 0 : (down.columns[first]! - rows.first) * size;
      const weight = several ? 1 : down.weights[first]!;
      const last_at = (down.columns[last]! - rows.first) * size;
      const last_weight = first === last ? 0 : down.weights[last]!;
      if (down.taps > 2) {
        const middle_at = (down.columns[last - 1]! - rows.first) * size;
        const middle_weight = down.weights[last - 1]!;
        for (let i = 0; i < size; i++) {
          const level = weight * before[at + i]! + middle_weight * wide[middle_at + i]! + last_weight * wide[last_at + i]!;
          out[start + i] = level === level ? level + 0.5 : notFinite(index, map, width, down, y, across, columns.start + i);
        }
      } else {
        for (let i = 0; i < size; i++) {
          const level = weight * before[at + i]! + last_weight * wide[last_at + i]!;
          out[start + i] = level === level ? level + 0.5 : notFinite(index, map, width, down, y, across, columns.start + i);
        }
      }
    }
  }
}

/** Average along x the rows of a map that a stretch of a tile shows. Nearly all views have two taps or three. */
function widen(index: Uint8Array, map: number, table: Float32Array, first_entry: number, { taps, columns: x }: Axis, rows: Stretch, columns: Stretch, { levels, wide, weights }: Room): void {
  const [begin, end] = [columns.start * taps, columns.stop * taps];
  const tap = (k: number) => weights[k]! * levels[x[k]!]!;
  let at = 0;
  for (let y = rows.first; y <= rows.last; y++) {
    const from = map + y * levels.length;
    for (let j = columns.first; j <= columns.last; j++) levels[j] = table[first_entry + index[from + j]!]!;
    if (taps === 2) for (let k = begin; k < end; k += 2) wide[at++] = tap(k) + tap(k + 1);
    else if (taps === 3) for (let k = begin; k < end; k += 3) wide[at++] = tap(k) + tap(k + 1) + tap(k + 2);
    else
      for (let k = begin; k < end; ) {
        let level = tap(k);
        for (const stop = k++ + taps; k < stop; k++) level += tap(k);
        wide[at++] = level;
      }
  }
}

/** Add widened rows up, from tap `k` to before `stop`, of which there are two at least. */
function addRows({ columns: rows, weights }: Axis, k: number, stop: number, first_row: number, size: number, { wide, sums }: Room): void {
  const at = (k: number) => (rows[k]! - first_row) * size;
  const [a, b, p, q] = [at(k), at(k + 1), weights[k]!, weights[k + 1]!];
  for (let i = 0; i < size; i++) sums[i] = p * wide[a + i]! + q * wide[b + i]!;
  for (k += 2; k < stop; k++) {
    const [from, weight] = [at(k), weights[k]!];
    for (let i = 0; i < size; i++) sums[i]! += weight * wide[from + i]!;
  }
}

/** Return the entry of `colors` of a pixel that something touches that is not finite. */
function notFinite(index: Uint8Array, map: number, width: number, down: Axis, y: number, across: Axis, x: number): number {
  let most = 0;
  for (let j = y * down.taps; j < (y + 1) * down.taps; j++) {
    for (let k = x * across.taps; k < (x + 1) * across.taps; k++) {
      most = Math.max(most, index[map + down.columns[j]! * width + across.columns[k]!]!);
    }
  }
  return 256 + most - NAN;
}
