/* From what is to be seen to a scene. What did not change is kept from one frame to the next. */

import type { Atlas } from "../data/atlas";
import { difference } from "../data/difference";
import { layAxis, type Axis, type Side } from "./axis";
import { Kept } from "./kept";
import { colorsOf, levelsOf, type Range, type Rgb } from "./levels";
import { backdropOf, type Backdrop } from "./photo";
import type { Align, Lattice } from "./positions";
import type { Scene } from "./scene";
import type { Layout } from "./view";

/** How tiles are drawn. None of its arrays may change afterwards: another array is a change. */
export interface Look extends Range {
  /** RGB, (256, 3). */
  palette: Uint8Array;
  align: Align;
  interpolation: "bilinear" | "nearest";
  nan: Rgb;
  minus_inf: Rgb;
  plus_inf: Rgb;
  /** The first atlas, the second, both side by side, or the second minus the first. */
  mode: "a" | "b" | "pair" | "difference";
  photo?: ImageBitmap | null;
  /** Weight of the colours over the photo, 0 to 1. */
  opacity?: number;
}

/** Cells in view that are averaged within a frame, 30 a second, without a GPU. */
const MOST_CELLS = 2 ** 20;

export interface Composed {
  scene: Scene;
  /** Whether it is less than exact, since it would take longer than a frame otherwise. */
  is_coarse: boolean;
}

export class Composer {
  private readonly atlases = new Kept<Atlas[]>();
  private readonly levels = new Kept<Float32Array[]>();
  private readonly colors = new Kept<Int32Array>();
  private readonly down = new Kept<Axis>();
  private readonly across = new Kept<Axis>();
  private readonly photo = new Kept<ImageData>();
  private readonly backdrop = new Kept<Backdrop>();

  /** Return the atlases that a mode shows; those of two shapes cannot be compared, and the first one is shown. */
  shown(atlas: Atlas, second: Atlas | null, mode: Look["mode"]): Atlas[] {
    return this.atlases.of([atlas, second, mode], () => {
      if (second && mode === "b") return [second];
      if (!second || mode === "a" || second.index.length !== atlas.index.length || second.width !== atlas.width) return [atlas];
      return mode === "pair" ? [atlas, second] : [difference(atlas, second)];
    });
  }

  /** Return the scene. `coarse`: whether it may be less than exact. */
  compose(atlases: Atlas[], order: Int32Array, look: Look, layout: Layout, coarse: boolean): Composed {
    const { height, width, provenance } = atlases[0]!;
    const { palette, nan, minus_inf, plus_inf, low, high, flat, squash, photo } = look;
    const lattices = look.align === "field" ? latticesOf(provenance) : null;
    const lay = (kept: Kept<Axis>, side: Side, n: number, lattice: Lattice | null, nearest: boolean): Axis => {
      const align = look.align === "field" && !lattice ? "center" : look.align;
      return kept.of([...Object.values(side), n, align, lattice?.span, lattice?.start, nearest], () =>
        layAxis(side, { n, size: side.tile, align, nearest, lattice }),
      );
    };
    const axes = (nearest: boolean): [Axis, Axis] => [
      lay(this.down, layout.down, height, lattices && lattices[0], nearest),
      lay(this.across, layout.across, width, lattices && lattices[1], nearest),
    ];
    const nearest = look.interpolation === "nearest";
    const is_coarse = coarse && !nearest && isHeavy(layout, height, width);
    const [down, across] = axes(nearest || is_coarse);
    const pixels = photo ? this.photo.of([photo], () => pixelsOf(photo)) : null;
    const scene = {
      down,
      across,
      atlases,
      levels: this.levels.of([atlases, low, high, flat, squash], (before) => atlases.map((atlas, i) => levelsOf(atlas, look, before?.[i]))),
      order,
      columns: layout.columns,
      colors: this.colors.of([palette, ...nan, ...minus_inf, ...plus_inf], () => colorsOf(palette, nan, minus_inf, plus_inf)),
      backdrop:
        pixels &&
        this.backdrop.of([pixels, down.tile_px, across.tile_px, String(down.shown), String(across.shown)], () =>
          backdropOf(pixels, down, across),
        ),
      weight: Math.round(256 * (look.opacity ?? 0.5)),
    };
    return { scene, is_coarse };
  }
}

/** Return whether tiles are smaller than their maps, and more cells are in view than a frame has time for. */
function isHeavy({ down, across }: Layout, height: number, width: number): boolean {
  if (down.tile >= height && across.tile >= width) return false;
  const tiles = [down, across].map(({ length, tile, gap, tiles }) => Math.min(tiles, Math.ceil(length / (tile + gap))));
  return tiles[0]! * tiles[1]! * height * width > MOST_CELLS;
}

/** Return where the samples of maps lie on the model's input, for rows and columns; null where that is not known. */
function latticesOf({ field }: Record<string, unknown>): [Lattice, Lattice] | null {
  const { stride, offset, input_size, whole } = (field ?? {}) as Record<string, number[]>;
  if (whole || !stride || !offset || !input_size) return null;
  const lattice = (i: number): Lattice => {
    const found = { span: input_size[i]! / stride[i]!, start: offset[i]! / stride[i]! };
    return stride[i] ? found : { span: 1, start: 0 }; // of maps of one row, as those of signals are
  };
  const both: [Lattice, Lattice] = [lattice(0), lattice(1)];
  return both.every(({ span, start }) => Number.isFinite(span) && Number.isFinite(start)) ? both : null;
}

function pixelsOf(photo: ImageBitmap): ImageData {
  const canvas = document.createElement("canvas");
  [canvas.height, canvas.width] = [photo.height, photo.width];
  const context = canvas.getContext("2d")!;
  context.drawImage(photo, 0, 0);
  return context.getImageData(0, 0, photo.width, photo.height);
}
