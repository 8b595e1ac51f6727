/* Drawing without WebGL: pixel by pixel in JavaScript, then onto a Canvas2D. */

import { LAST_LEVEL, NAN } from "../data/atlas";
import { stretchesOf, type Axis, type Stretch } from "./axis";
import { over, type Backdrop } from "./photo";
import type { Painter, Scene } from "./scene";

export class CanvasPainter implements Painter {
  private image = new ImageData(1, 1);

  paint(scene: Scene, onto: CanvasRenderingContext2D): void {
    this.draw(scene);
    onto.putImageData(this.image, 0, 0);
  }

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
  const columns = stretchesOf(scene.across);
  const rows = stretchesOf(scene.down);
  const room = roomFor(scene, rows, columns);
  for (const row of rows) {
    for (const column of columns) {
      const position = row.tile * scene.columns + Math.floor(column.tile / sides);
      if (position < scene.order.length) drawTile(scene, column.tile % sides, scene.order[position]!, row, column, room, out);
    }
  }
}

/** Memory that all tiles use, one after another. */
interface Room {
  /** Levels of a row of a map. */
  row: Float64Array;
  /** Rows of a map, averaged along x to the pixels of a tile. */
  wide: Float64Array;
  sums: Float64Array;
  line: Uint16Array;
}

function roomFor({ atlases }: Scene, rows: Stretch[], columns: Stretch[]): Room {
  const widest = Math.max(0, ...columns.map(({ start, stop }) => stop - start));
  return {
    row: new Float64Array(atlases[0]!.width),
    wide: new Float64Array(rows.length ? atlases[0]!.height * widest : 0),
    sums: new Float64Array(widest),
    line: new Uint16Array(widest),
  };
}

function drawTile(scene: Scene, side: number, channel: number, rows: Stretch, columns: Stretch, room: Room, out: Int32Array): void {
  const { down, across, colors, backdrop } = scene;
  const { height, width, index } = scene.atlases[side]!;
  const map = index.subarray(channel * height * width, (channel + 1) * height * width);
  const levels = scene.levels[side]!.subarray(channel * 256, (channel + 1) * 256);
  const { line } = room;
  const size = columns.stop - columns.start;
  const single = down.taps === 1 && across.taps === 1;
  if (!single) widen(map, levels, down, rows, across, columns, room);
  for (let y = rows.start; y < rows.stop; y++) {
    if (!single) average(room, down, y, size, (i) => notFinite(map, width, down, y, across, columns.start + i));
    else if (y === rows.start || down.columns[y] !== down.columns[y - 1]) {
      const from = down.columns[y]! * width;
      for (let i = 0; i < size; i++) {
        const entry = map[from + across.columns[columns.start + i]!]!;
        line[i] = entry > LAST_LEVEL ? 256 + entry - NAN : levels[entry]! + 0.5;
      }
    }
    const start = y * across.length + columns.start;
    for (let i = 0; i < size; i++) out[start + i] = colors[line[i]!]!;
    if (backdrop) layOver(backdrop, scene, y, columns, line, out.subarray(start, start + size));
  }
}

/** Average along x the rows of a map that a stretch of a tile shows. */
function widen(map: Uint8Array, levels: Float32Array, down: Axis, rows: Stretch, across: Axis, columns: Stretch, { row, wide }: Room): void {
  const { taps, columns: x, weights } = across;
  const first = columns.start * taps;
  const last = columns.stop * taps;
  const shown = down.columns.subarray(rows.start * down.taps, rows.stop * down.taps);
  let at = shown.reduce(lesser) * (columns.stop - columns.start);
  for (let y = shown.reduce(lesser), end = shown.reduce(greater); y <= end; y++) {
    const from = y * row.length;
    for (let j = 0; j < row.length; j++) row[j] = levels[map[from + j]!]!;
    if (taps === 2) {
      for (let k = first; k < last; k += 2) wide[at++] = weights[k]! * row[x[k]!]! + weights[k + 1]! * row[x[k + 1]!]!;
      continue;
    }
    for (let k = first; k < last; ) {
      let level = 0;
      for (const stop = k + taps; k < stop; k++) level += weights[k]! * row[x[k]!]!;
      wide[at++] = level;
    }
  }
}

/** Average widened rows along y into a line of entries of `colors`. */
function average({ wide, sums, line }: Room, { taps, columns: rows, weights }: Axis, y: number, size: number, bad: (i: number) => number): void {
  sums.fill(0);
  const last = (y + 1) * taps - 1;
  for (let k = y * taps; k < last; k++) {
    const from = rows[k]! * size;
    const weight = weights[k]!;
    for (let i = 0; i < size; i++) sums[i]! += weight * wide[from + i]!;
  }
  const from = rows[last]! * size;
  const weight = weights[last]!;
  for (let i = 0; i < size; i++) {
    const level = sums[i]! + weight * wide[from + i]!;
    line[i] = level === level ? level + 0.5 : bad(i);
  }
}

/** Return the entry of `colors` of a pixel that something touches that is not finite. */
function notFinite(map: Uint8Array, width: number, down: Axis, y: number, across: Axis, x: number): number {
  let most = 0;
  for (let j = y * down.taps; j < (y + 1) * down.taps; j++) {
    for (let k = x * across.taps; k < (x + 1) * across.taps; k++) {
      most = Math.max(most, map[down.columns[j]! * width + across.columns[k]!]!);
    }
  }
  return 256 + most - NAN;
}

/** Lay colours over the photo; what is not finite stands out whatever lies under it. */
function layOver(backdrop: Backdrop, { down, across, weight }: Scene, y: number, columns: Stretch, line: Uint16Array, out: Int32Array): void {
  const row = backdrop.rowOf.get(down.within[y]!)! * backdrop.columns;
  for (let i = 0; i < out.length; i++) {
    const under = backdrop.pixels[row + backdrop.columnOf.get(across.within[columns.start + i]!)!]!;
    if (line[i]! < 256) out[i] = over(weight, out[i]!, under);
  }
}

function lesser(a: number, b: number): number {
  return Math.min(a, b);
}

function greater(a: number, b: number): number {
  return Math.max(a, b);
}
