/* Where tiles lie on the canvas. Tiles and gaps are whole px of the screen at every zoom, so that each tile is drawn as
the package draws one of that size. */

import type { Side } from "./axis";

export interface Grid {
  /** Longer side of a tile and px between tiles, at zoom 1, in CSS px. */
  tile_px: number;
  gap_px: number;
  /** 0: as many as suit the shape of the canvas. */
  columns: number;
}

/** The point of the wall at the top left corner of the canvas, in CSS px at zoom 1; x as if one tile stood for each
channel, so that the same channels are there when two stand side by side. */
export interface View {
  x: number;
  y: number;
  zoom: number;
}

/** What is laid out: tiles of maps, `sides` of them side by side for each channel. */
export interface Content {
  count: number;
  height: number;
  width: number;
  sides: number;
}

/** Of the canvas in CSS px, and px of the screen in each. */
export interface Canvas {
  height: number;
  width: number;
  ratio: number;
}

/** In CSS px of the canvas. */
export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** Of a map. */
export interface Cell {
  y: number;
  x: number;
}

/** Width of the tile of a signal in heights, at most. Sheets keep proportions: there a row of a thousand values is a line
of one px, which nobody could point at. */
const FLATTEST = 8;

/** Return height and width of the tiles of maps, in proportion to each other. */
export function shapeOf({ height, width }: { height: number; width: number }): [number, number] {
  if (Math.min(height, width) > 1) return [height, width];
  return [Math.max(height, width / FLATTEST), Math.max(width, height / FLATTEST)];
}

/** Part of the wall that stays in view, in CSS px. */
const HELD_PX = 48;

export class Layout {
  readonly tile_h: number;
  readonly tile_w: number;
  readonly gap: number;
  readonly columns: number;
  readonly rows: number;

  constructor(
    private readonly grid: Grid,
    private readonly content: Content,
    private readonly canvas: Canvas,
    readonly view: View,
  ) {
    const { count, height, width } = content;
    const longer = Math.max(1, Math.round(grid.tile_px * view.zoom * canvas.ratio));
    this.tile_h = Math.max(1, halfToEven((longer * height) / Math.max(height, width)));
    this.tile_w = Math.max(1, halfToEven((longer * width) / Math.max(height, width)));
    this.gap = Math.round(grid.gap_px * view.zoom * canvas.ratio);
    const [down, across] = this.cell(grid);
    const suiting = Math.ceil(Math.sqrt(((canvas.width / canvas.height) * count * down) / (across * content.sides)));
    const columns = grid.columns || Math.max(1, Math.min(count, suiting));
    this.rows = Math.max(1, Math.ceil(count / columns));
    this.columns = grid.columns || Math.ceil(count / this.rows); // no more than these rows need
  }

  /** Rows of the canvas, in px of the screen, and its columns. */
  get down(): Side {
    const { height, ratio } = this.canvas;
    return { length: Math.round(height * ratio), origin: this.origin[0], tile: this.tile_h, gap: this.gap, tiles: this.rows };
  }

  get across(): Side {
    const { width, ratio } = this.canvas;
    return { length: Math.round(width * ratio), origin: this.origin[1], tile: this.tile_w, gap: this.gap, tiles: this.columns * this.content.sides };
  }

  /** Px of the screen from the top left corner of the wall to that of the canvas, (y, x). */
  private get origin(): [number, number] {
    const [down, across] = this.scale;
    return [Math.round(this.view.y * down), Math.round(this.view.x * across)];
  }

  /** Px of the screen in a CSS px at zoom 1, (y, x): of whole tiles, so not quite zoom times ratio. */
  private get scale(): [number, number] {
    const [down, across] = this.cell(this.grid);
    return [(this.tile_h + this.gap) / down, ((this.tile_w + this.gap) * this.content.sides) / across];
  }

  /** Height and width of a tile and the gap behind it in CSS px at zoom 1. */
  private cell({ tile_px, gap_px }: Grid): [number, number] {
    const { height, width } = this.content;
    const unit = tile_px / Math.max(height, width);
    return [unit * height + gap_px, unit * width + gap_px];
  }

  /** Return the positions of the order whose tiles are on the canvas, at least in part. */
  get inView(): number[] {
    const { down, across, columns } = this;
    const { sides, count } = this.content;
    const span = ({ length, origin, tile, gap }: Side, of: number, most: number): [number, number] => {
      const step = (tile + gap) * of;
      return [Math.max(0, Math.floor((origin + gap) / step)), Math.min(most, Math.ceil((origin + length) / step))];
    };
    const [[top, bottom], [left, right]] = [span(down, 1, this.rows), span(across, sides, columns)];
    const found: number[] = [];
    for (let row = top; row < bottom; row++)
      for (let column = left; column < right; column++) found.push(row * columns + column);
    return found.filter((position) => position < count);
  }

  /** Return the box of the tiles at a position of the order, in CSS px of the canvas. */
  box(position: number): Box {
    const { ratio } = this.canvas;
    const [top, left] = this.origin;
    const y = Math.floor(position / this.columns) * (this.tile_h + this.gap) - top;
    const x = (position % this.columns) * (this.tile_w + this.gap) * this.content.sides - left;
    const width = (this.tile_w + this.gap) * this.content.sides - this.gap;
    return { x: x / ratio, y: y / ratio, width: width / ratio, height: this.tile_h / ratio };
  }

  /** Return the view in which this point of the canvas, in CSS px, shows the same at another zoom. */
  zoomedAt(x: number, y: number, zoom: number): View {
    const { ratio } = this.canvas;
    const next = new Layout(this.grid, this.content, this.canvas, { ...this.view, zoom });
    const [[down, across], [next_down, next_across]] = [this.scale, next.scale];
    return next.moved({
      x: (this.view.x * across + x * ratio) / across - (x * ratio) / next_across,
      y: (this.view.y * down + y * ratio) / down - (y * ratio) / next_down,
      zoom,
    });
  }

  /** Return the view after a move, in CSS px of the canvas. */
  pannedBy(dx: number, dy: number): View {
    const [down, across] = this.scale;
    const { ratio } = this.canvas;
    return this.moved({ ...this.view, x: this.view.x - (dx * ratio) / across, y: this.view.y - (dy * ratio) / down });
  }

  /** Return a view of the same zoom that does not leave the wall. */
  private moved({ x, y, zoom }: View): View {
    const held = (at: number, cells: number, cell: number, length: number, scale: number): number => {
      const [shown, edge] = [(length * this.canvas.ratio) / scale, (HELD_PX * this.canvas.ratio) / scale];
      return Math.min(Math.max(at, Math.min(edge, cells * cell) - shown), Math.max(0, cells * cell - edge));
    };
    const [[down, across], [cell_h, cell_w]] = [this.scale, this.cell(this.grid)];
    return {
      x: held(x, this.columns, cell_w, this.canvas.width, across),
      y: held(y, this.rows, cell_h, this.canvas.height, down),
      zoom,
    };
  }

  /** Return the zoom at which one value of a map fills the canvas: there is nothing to see beyond it. */
  get closest(): number {
    const { height, width } = this.content;
    return (Math.max(this.canvas.height, this.canvas.width) * Math.max(height, width)) / this.grid.tile_px;
  }

  /** Return the view of all of the wall, in the middle of the canvas. */
  get whole(): View {
    const { height, width, ratio } = this.canvas;
    const [cell_h, cell_w] = this.cell(this.grid);
    const { gap_px } = this.grid;
    const { sides } = this.content;
    const [wall_h, wall_w] = [this.rows * cell_h - gap_px, this.columns * cell_w - gap_px / sides];
    const fits = (layout: Layout): boolean => {
      const { x, width: last } = layout.box(layout.columns - 1);
      const { y, height: lowest } = layout.box((layout.rows - 1) * layout.columns);
      return x + last <= width && y + lowest <= height;
    };
    const at = (px: number): Layout => new Layout(this.grid, this.content, this.canvas, { x: 0, y: 0, zoom: px / this.grid.tile_px / ratio });
    // The largest whole tile; rounding of tiles and gaps can make the wall larger than in proportion.
    let px = Math.ceil(Math.min(height / wall_h, width / (wall_w * sides)) * this.grid.tile_px * ratio);
    while (px > 1 && !fits(at(px))) px--;
    const { zoom } = at(px).view;
    const [down, across] = at(px).scale;
    return { x: (wall_w - (width * ratio) / across) / 2, y: (wall_h - (height * ratio) / down) / 2, zoom };
  }
}

/** Round as Python does. */
function halfToEven(number: number): number {
  const rounded = Math.round(number);
  return rounded - number === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
