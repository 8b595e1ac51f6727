/* Drawing without WebGL: pixel by pixel in JavaScript, then onto a Canvas2D. */

import { LAST_LEVEL, NAN } from "../data/atlas";
import type { Axis, Stretch } from "./axis";
import { over, type Backdrop } from "./photo";
import type { Painter, Scene } from "./scene";

export class CanvasPainter implements Painter {
  private image = new ImageData(1, 1);

  paint(scene: Scene, onto: CanvasRenderingContext2D): void {
    this.draw(scene);
    onto.putImageData(this.image, 0, 0);
  }

  /** Return how long drawing takes, in ms. */
  time(scene: Scene): number {
    const start = performance.now();
    this.draw(scene);
    return performance.now() - start;
  }

  private draw(scene: Scene): void {
    const [height, width] = [scene.down.length, scene.across.length];
    if (this.image.height !== height || this.image.width !== width) this.image = new ImageData(width, height);
    drawScene(scene, new Int32Array(this.image.data.buffer));
  }

  close(): void {
    this.image = new ImageData(1, 1);
  }
}

/** Draw a scene into (height, width) pixels of RGBA. */
function drawScene(scene: Scene, out: Int32Array): void {
  out.fill(0);
  const sides = scene.atlases.length;
  const columns = scene.across.stretches;
  const room = roomFor(scene, columns);
  for (const row of scene.down.stretches) {
    for (const column of columns) {
      const position = row.tile * scene.columns + Math.floor(column.tile / sides);
      if (position < scene.order.length) drawTile(scene, column.tile % sides, scene.order[position]!, row, column, room, out);
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
  /** Entries of `colors` of a row of a tile. */
  line: Uint16Array;
}

function roomFor({ atlases }: Scene, columns: Stretch[]): Room {
  const { height, width } = atlases[0]!;
  const widest = Math.max(0, ...columns.map(({ start, stop }) => stop - start));
  return {
    levels: new Float64Array(width),
    wide: new Float64Array(height * widest),
    sums: new Float64Array(widest),
    line: new Uint16Array(widest),
  };
}

function drawTile(scene: Scene, side: number, channel: number, rows: Stretch, columns: Stretch, room: Room, out: Int32Array): void {
  const { down, across, colors, backdrop } = scene;
  const { height, width, index } = scene.atlases[side]!;
  const levels = scene.levels[side]!;
  const map = channel * height * width;
  const size = columns.stop - columns.start;
  const single = down.taps === 1 && across.taps === 1;
  const { line, wide, sums } = room;
  if (!single) widen(index, map, levels, channel, across, rows, columns, room);
  for (let y = rows.start; y < rows.stop; y++) {
    const start = y * across.length + columns.start;
    if (single && !backdrop && y > rows.start && down.columns[y] === down.columns[y - 1]) {
      out.copyWithin(start, start - across.length, start - across.length + size);
    } else if (single) {
      const from = map + down.columns[y]! * width;
      for (let i = 0; i < size; i++) {
        const entry = index[from + across.columns[columns.start + i]!]!;
        line[i] = entry > LAST_LEVEL ? 256 + entry - NAN : levels[channel * 256 + entry]! + 0.5;
        out[start + i] = colors[line[i]!]!;
      }
    } else {
      // All taps but the last, which for up to two is one row as it is.
      const [first, last] = [y * down.taps, (y + 1) * down.taps - 1];
      const several = down.taps > 2;
      if (several) addRows(down, first, last, rows.first, size, room);
      const before = several ? sums : wide;
      const at = several ? 0 : (down.columns[first]! - rows.first) * size;
      const weight = several ? 1 : down.weights[first]!;
      const last_at = (down.columns[last]! - rows.first) * size;
      const last_weight = first === last ? 0 : down.weights[last]!;
      for (let i = 0; i < size; i++) {
        const level = weight * before[at + i]! + last_weight * wide[last_at + i]!;
        line[i] = level === level ? level + 0.5 : notFinite(index, map, width, down, y, across, columns.start + i);
        out[start + i] = colors[line[i]!]!;
      }
    }
    if (backdrop) layOver(backdrop, scene, y, columns, line, out.subarray(start, start + size));
  }
}

/** Average along x the rows of a map that a stretch of a tile shows. */
function widen(index: Uint8Array, map: number, table: Float32Array, channel: number, across: Axis, rows: Stretch, columns: Stretch, { levels, wide }: Room): void {
  const { taps, columns: x, weights } = across;
  const [begin, end] = [columns.start * taps, columns.stop * taps];
  let at = 0;
  for (let y = rows.first; y <= rows.last; y++) {
    const from = map + y * levels.length;
    for (let j = columns.first; j <= columns.last; j++) levels[j] = table[channel * 256 + index[from + j]!]!;
    for (let k = begin; k < end; ) {
      let level = weights[k]! * levels[x[k]!]!;
      for (const stop = k++ + taps; k < stop; k++) level += weights[k]! * levels[x[k]!]!;
      wide[at++] = level;
    }
  }
}

/** Add widened rows up, from tap `k` to before `last`. */
function addRows({ columns: rows, weights }: Axis, k: number, last: number, first_row: number, size: number, { wide, sums }: Room): void {
  sums.fill(0);
  for (; k < last; k++) {
    const from = (rows[k]! - first_row) * size;
    const weight = weights[k]!;
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

/** Lay colours over the photo; what is not finite stands out whatever lies under it. */
function layOver(backdrop: Backdrop, { down, across, weight }: Scene, y: number, columns: Stretch, line: Uint16Array, out: Int32Array): void {
  const row = down.place[y]! * backdrop.columns;
  for (let i = 0; i < out.length; i++) {
    const under = backdrop.pixels[row + across.place[columns.start + i]!]!;
    if (line[i]! < 256) out[i] = over(weight, out[i]!, under);
  }
}
