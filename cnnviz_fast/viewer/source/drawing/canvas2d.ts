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
    drawScene(scene, new Uint32Array(this.image.data.buffer));
  }

  close(): void {
    this.image = new ImageData(1, 1);
  }
}

/** Draw a scene into (height, width) pixels of RGBA. */
function drawScene(scene: Scene, out: Uint32Array): void {
  out.fill(0);
  const sides = scene.atlases.length;
  const columns = stretchesOf(scene.across);
  for (const rows of stretchesOf(scene.down)) {
    for (const stretch of columns) {
      const position = rows.tile * scene.columns + Math.floor(stretch.tile / sides);
      if (position < scene.order.length) drawTile(scene, stretch.tile % sides, scene.order[position]!, rows, stretch, out);
    }
  }
}

function drawTile(scene: Scene, side: number, channel: number, rows: Stretch, columns: Stretch, out: Uint32Array): void {
  const { down, across, colors, backdrop } = scene;
  const { height, width, index } = scene.atlases[side]!;
  const map = index.subarray(channel * height * width, (channel + 1) * height * width);
  const levels = scene.levels[side]!.subarray(channel * 256, (channel + 1) * 256);
  const entries = entriesOf(levels);
  const line = new Uint16Array(columns.stop - columns.start);
  const averages = new Float32Array(width);
  const single = down.taps === 1 && across.taps === 1;
  for (let y = rows.start; y < rows.stop; y++) {
    if (!single) {
      averageRows(map, levels, down, y, averages);
      averageColumns(averages, across, columns.start, line, (x) => notFinite(map, width, down, y, across, x));
    } else if (y === rows.start || down.columns[y] !== down.columns[y - 1]) {
      const row = down.columns[y]! * width;
      for (let i = 0; i < line.length; i++) line[i] = entries[map[row + across.columns[columns.start + i]!]!]!;
    }
    const start = y * across.length + columns.start;
    for (let i = 0; i < line.length; i++) out[start + i] = colors[line[i]!]!;
    if (backdrop) layOver(backdrop, scene, y, columns.start, line, out.subarray(start, start + line.length));
  }
}

/** Return the entry of `colors` for each entry of an index, where nothing is averaged. */
function entriesOf(levels: Float32Array): Uint16Array {
  const entries = new Uint16Array(256);
  for (let i = 0; i < 256; i++) entries[i] = i > LAST_LEVEL ? 256 + i - NAN : levels[i]! + 0.5;
  return entries;
}

/** Average rows of a map into one row of levels. */
function averageRows(map: Uint8Array, levels: Float32Array, { taps, columns: rows, weights }: Axis, y: number, out: Float32Array): void {
  const width = out.length;
  for (let k = 0; k < taps; k++) {
    const [from, weight] = [rows[y * taps + k]! * width, weights[y * taps + k]!];
    if (k === 0) for (let x = 0; x < width; x++) out[x] = weight * levels[map[from + x]!]!;
    else for (let x = 0; x < width; x++) out[x]! += weight * levels[map[from + x]!]!;
  }
}

/** Average columns of a row of levels into entries of `colors`. */
function averageColumns(row: Float32Array, { taps, columns, weights }: Axis, first: number, out: Uint16Array, bad: (x: number) => number): void {
  for (let i = 0; i < out.length; i++) {
    const at = (first + i) * taps;
    let level = weights[at]! * row[columns[at]!]!;
    for (let k = at + 1; k < at + taps; k++) level += weights[k]! * row[columns[k]!]!;
    out[i] = level === level ? level + 0.5 : bad(first + i);
  }
}

/** Return the entry of `colors` of a pixel that something touches that is not finite. */
function notFinite(map: Uint8Array, width: number, down: Axis, y: number, across: Axis, x: number): number {
  let greatest = 0;
  for (let j = y * down.taps; j < (y + 1) * down.taps; j++) {
    for (let k = x * across.taps; k < (x + 1) * across.taps; k++) {
      greatest = Math.max(greatest, map[down.columns[j]! * width + across.columns[k]!]!);
    }
  }
  return 256 + greatest - NAN;
}

/** Lay colours over the photo; what is not finite stands out whatever lies under it. */
function layOver(backdrop: Backdrop, { down, across, weight }: Scene, y: number, first: number, line: Uint16Array, out: Uint32Array): void {
  const row = backdrop.rowOf.get(down.within[y]!)! * backdrop.columns;
  for (let i = 0; i < line.length; i++) {
    const under = backdrop.pixels[row + backdrop.columnOf.get(across.within[first + i]!)!]!;
    if (line[i]! < 256) out[i] = over(weight, out[i]!, under);
  }
}
