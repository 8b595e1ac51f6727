/* What is to be drawn, down to the pixel: the same for every way of drawing. */

import type { Atlas } from "../data/atlas";
import type { Axis } from "./axis";
import type { Backdrop } from "./photo";

export interface Scene {
  /** Rows of the canvas, and its columns. */
  down: Axis;
  across: Axis;
  /** One atlas, or two of one shape whose tiles lie side by side, each with the level of every entry; see levelsOf. */
  atlases: Atlas[];
  levels: Float32Array[];
  /** Channels in the order of the grid, and columns of the grid: each holds a tile for every atlas. */
  order: Int32Array;
  columns: number;
  /** See colorsOf. */
  colors: Int32Array;
  /** What lies under the tiles, and the weight of their colours over it, 0 to 256. */
  backdrop: Backdrop | null;
  weight: number;
}

/** A way of drawing. */
export interface Painter {
  /** Draw onto a canvas of the size of the scene. */
  paint(scene: Scene, onto: CanvasRenderingContext2D): void;
  close(): void;
}
