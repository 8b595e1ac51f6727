/* The wall: the channels of a layer as tiles on one canvas. What is in view is drawn on the frame after a change. */

import { value, type Atlas } from "../data/atlas";
import type { Axis } from "./axis";
import { ChosenPainter, type Method } from "./choice";
import { Composer, type Composed, type Look } from "./composer";
import type { Scene } from "./scene";
import { Layout, shapeOf, type Box, type Canvas, type Cell, type Grid, type View } from "./view";

export type { Box, Cell, Grid, Look, Method, View };

/** With the cell of the map that has most weight there. */
export interface Hit extends Cell {
  channel: number;
  /** Position in the order. */
  index: number;
  value: number;
  /** Of a pair, which; and "a" else. */
  side: "a" | "b";
}

export interface WallOptions {
  /** Chosen by the time of the first frames, if not given. */
  method?: Method;
  /** Told which method draws, once that is settled, and when it changes. */
  onMethod?: (method: Method, why: string) => void;
  /** Told after each frame. */
  onDrawn?: () => void;
  /** Told when the canvas has another size, and when the screen has other px. */
  onSize?: () => void;
}

/** How long nothing has to change until what was drawn coarsely is drawn again. */
const SETTLED_MS = 120;

export class Wall {
  view: View = { x: 0, y: 0, zoom: 1 };

  private atlas: Atlas | null = null;
  private second: Atlas | null = null;
  private order = new Int32Array(0);
  private grid: Grid = { tile_px: 56, gap_px: 4, columns: 0 };
  private look: Look | null = null;

  private readonly onto: CanvasRenderingContext2D;
  private readonly composer = new Composer();
  private readonly painter: ChosenPainter;
  private readonly sizes = new ResizeObserver(([entry]) => {
    this.box = entry?.devicePixelContentBoxSize?.[0];
    this.resized();
  });
  private box: ResizeObserverSize | undefined;
  private readonly endDensity = onDensity(() => this.resized());
  /** As it was for the last frame: asked of the canvas in the middle of a change, the browser lays out the page first. */
  private size: Canvas = { height: 0, width: 0, ratio: 1 };
  private frame = 0;
  private settling = 0;

  constructor(
    readonly canvas: HTMLCanvasElement,
    private readonly options: WallOptions = {},
  ) {
    this.onto = canvas.getContext("2d")!;
    this.painter = new ChosenPainter(options.method, (method, why) => options.onMethod?.(method, why), () => this.ask());
    const is_exact = "devicePixelContentBoxSize" in ResizeObserverEntry.prototype; // not in Safari
    this.sizes.observe(canvas, { box: is_exact ? "device-pixel-content-box" : "content-box" });
    this.measure();
  }

  /** Height and width in CSS px, and px of the screen in each. */
  get canvasSize(): Canvas {
    return this.size;
  }

  get method(): Method {
    return this.painter.method;
  }

  /** Show an atlas; `second`, of the same shape, for the modes that compare. */
  setAtlas(atlas: Atlas | null, second: Atlas | null = null): void {
    [this.atlas, this.second] = [atlas, second];
    this.ask();
  }

  setOrder(channels: Int32Array<ArrayBuffer>): void {
    this.order = channels;
    this.ask();
  }

  setGrid(grid: Grid): void {
    this.grid = grid;
    this.ask();
  }

  setLook(look: Look): void {
    this.look = look;
    this.ask();
  }

  setView(view: View): void {
    this.view = view;
    this.ask();
  }

  /** Show all of the wall. */
  fit(): void {
    this.setView(this.layout.whole);
  }

  /** Move what is seen, in CSS px. */
  pan(dx: number, dy: number): void {
    this.setView(this.layout.pannedBy(dx, dy));
  }

  /** Zoom about a point of the canvas, in CSS px. */
  zoomAt(x: number, y: number, factor: number): void {
    const { layout } = this;
    const farthest = Math.min(layout.whole.zoom, this.view.zoom);
    this.setView(layout.zoomedAt(x, y, Math.min(Math.max(this.view.zoom * factor, farthest), layout.closest)));
  }

  /** Return where the tiles of a channel lie on the canvas, in CSS px, in view or not; null where it is not shown. */
  tile(channel: number): Box | null {
    const position = this.order.indexOf(channel);
    return position < 0 ? null : this.layout.box(position);
  }

  /** Return the channels in view, and where their tiles lie. */
  get inView(): { channel: number; box: Box }[] {
    const { layout, order } = this;
    return layout.inView.map((position) => ({ channel: order[position]!, box: layout.box(position) }));
  }

  /** Return what lies under a point of the canvas, in CSS px; null between tiles. */
  hit(x: number, y: number): Hit | null {
    const scene = this.compose(false)?.scene;
    if (!scene) return null;
    const { down, across, atlases, columns, order } = scene;
    const { ratio } = this.size;
    const [row, column] = [Math.floor(y * ratio), Math.floor(x * ratio)];
    const [tile_row, tile] = [down.tile[row] ?? -1, across.tile[column] ?? -1];
    const index = tile_row * columns + Math.floor(tile / atlases.length);
    if (tile_row < 0 || tile < 0 || index >= order.length) return null;
    const side = tile % atlases.length;
    const [cell_y, cell_x] = [heaviest(down, row), heaviest(across, column)];
    const [channel, atlas] = [order[index]!, atlases[side]!];
    return { channel, index, y: cell_y, x: cell_x, value: value(atlas, channel, cell_y, cell_x), side: side ? "b" : "a" };
  }

  /** Return the pixels of the first tile on which a cell has most weight, as in `hit`, in CSS px of the canvas. */
  cell({ y, x }: Cell): Box | null {
    const scene = this.compose(false)?.scene;
    if (!scene) return null;
    const [[top, height], [left, width]] = [stretchOf(scene.down, y), stretchOf(scene.across, x)];
    const { ratio } = this.size;
    return { y: top / ratio, x: left / ratio, height: height / ratio, width: width / ratio };
  }

  /** Return the canvas, as exact as it gets. */
  pixels(): ImageData {
    const composed = this.compose(false);
    if (!composed) return new ImageData(1, 1);
    this.paint(composed.scene);
    return this.onto.getImageData(0, 0, this.canvas.width, this.canvas.height);
  }

  private get atlases(): Atlas[] {
    return this.atlas ? this.composer.shown(this.atlas, this.second, this.look?.mode ?? "a") : [];
  }

  private get layout(): Layout {
    const { atlases } = this;
    const [height, width] = shapeOf(atlases[0] ?? { height: 1, width: 1 });
    const content = { count: this.order.length, height, width, sides: Math.max(1, atlases.length) };
    return new Layout(this.grid, content, this.size, this.view);
  }

  private compose(coarse: boolean): Composed | null {
    const { atlases, layout, look } = this;
    const something = look && atlases.length && this.order.length && layout.down.length && layout.across.length;
    return something ? this.composer.compose(atlases, this.order, look, layout, coarse) : null;
  }

  /** Measure the canvas. Where a CSS px is 1.25 px of the screen, only the browser knows to which of these it rounds a
  side: drawn one px longer, all would be smoothed. */
  private measure(): void {
    const { canvas, box } = this;
    const ratio = devicePixelRatio;
    // Before the browser has told, px is NaN, which is near to nothing.
    const side = (css_px: number, px = NaN) => (Math.abs(px - css_px * ratio) < 2 ? px / ratio : css_px);
    const [height, width] = [side(canvas.clientHeight, box?.blockSize), side(canvas.clientWidth, box?.inlineSize)];
    this.size = { height, width, ratio };
  }

  private resized(): void {
    const { height, width, ratio } = this.size;
    this.measure();
    if (height === this.size.height && width === this.size.width && ratio === this.size.ratio) return;
    this.options.onSize?.();
    this.ask();
  }

  /** Have all drawn on the next frame. */
  private ask(): void {
    clearTimeout(this.settling);
    this.frame ||= requestAnimationFrame(() => this.draw(true));
  }

  private draw(coarse: boolean): void {
    this.frame = 0;
    this.resized(); // which is laid out for this frame anyway
    const composed = this.compose(coarse);
    if (composed) this.paint(composed.scene);
    else this.onto.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (composed?.is_coarse) this.settling = setTimeout(() => this.draw(false), SETTLED_MS);
    this.options.onDrawn?.();
  }

  private paint(scene: Scene): void {
    const [height, width] = [scene.down.length, scene.across.length];
    if (this.canvas.height !== height || this.canvas.width !== width) [this.canvas.height, this.canvas.width] = [height, width];
    this.painter.paint(scene, this.onto);
  }

  close(): void {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.settling);
    this.sizes.disconnect();
    this.endDensity();
    this.painter.close();
  }
}

/** Return the column of the map that has most weight in a pixel. */
function heaviest({ taps, columns, weights }: Axis, pixel: number): number {
  let most = pixel * taps;
  for (let k = most; k < (pixel + 1) * taps; k++) if (weights[k]! > weights[most]!) most = k;
  return columns[most]!;
}

/** Return the first pixel of the first tile that shows a column of the map most, and how many do: those next to it where
the tile is smaller than the map, and none does. */
function stretchOf(axis: Axis, column: number): [first: number, count: number] {
  let [least, first, count] = [Infinity, 0, 0];
  for (let pixel = 0; pixel < axis.length; pixel++) {
    const distance = axis.tile[pixel] ? Infinity : Math.abs(heaviest(axis, pixel) - column);
    if (distance < least) [least, first, count] = [distance, pixel, 0];
    if (distance === least) count++;
  }
  return [first, count];
}

/** Call `act` whenever a CSS px has another number of px of the screen, as in a window that is moved to another one.
Return what ends that. */
function onDensity(act: () => void): () => void {
  const ending = new AbortController();
  const wait = () =>
    matchMedia(`(resolution: ${devicePixelRatio}dppx)`).addEventListener("change", () => (wait(), act()), {
      once: true,
      signal: ending.signal,
    });
  wait();
  return () => ending.abort();
}
