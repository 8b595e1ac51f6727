/* What follows from the state: the atlases looked at, channels and their order, ranges, the look of tiles. */

import { useMemo, useRef } from "preact/hooks";

import type { Image, Layer, Run } from "../catalogue";
import type { Atlas } from "../data/atlas";
import { fromBase64 } from "../data/base64";
import { difference } from "../data/difference";
import type { Range, Rgb } from "../drawing/levels";
import type { Look } from "../drawing/wall";
import { rangeAbout0, rangeFor } from "./ranges";
import { orderOf, type Known, type Order } from "./selection";
import type { Found, Photo, Session } from "./session";
import { alignOf } from "./state";

export interface Shown {
  /** What is on the page, which while others load are not those that the state names. */
  run: Run;
  layer: Layer;
  image: Image;
  known: Known;
  /** Of the image that is compared with. */
  second: Atlas | null;
  order: Order;
  /** What maps are drawn with, over no photo: of two images on one scale. */
  look: Look;
  /** What the difference to `second` is drawn with. */
  changes: Look | null;
  /** Name of the colours of what the wall shows. */
  colors: string;
  photo: Found<Photo>;
  /** Why nothing can be compared, if so. */
  unlike: string;
  /** Whether the maps asked for are not there yet, and those before them are still shown. */
  late: boolean;
}

const NONE: Record<string, Float32Array> = {};
const BAD: Rgb = [255, 0, 255]; // magenta, as in sheets
const DIVERGING = "coolwarm";

/** Everything shown, or why nothing is. */
export function useShown(session: Session): { shown?: Shown; error?: string } {
  const { state, run, layer, image, other } = session;
  const last = useRef<Pick<Shown, "run" | "layer" | "image" | "photo"> & { a: Atlas }>(null);
  const found: Found<Atlas> = run && layer && image ? session.atlas(run, layer, image) : { error: session.unlisted };
  const beside: Found<Atlas> = other ? session.atlas(other.run, other.layer, other.image) : {};
  const second = beside.value ?? null;
  if (found.value) {
    last.current = { a: found.value, run: run!, layer: layer!, image: image!, photo: session.photo(image!, layer!) };
  }
  const at = found.error ? null : last.current;
  const a = at?.a;
  const columns = useColumns(session, at?.layer);
  const layout = useLayout(session, at?.layer);
  const both = a && second && sameShape(a, second) ? second : null;
  const changed = useMemo(() => a && both && difference(a, both), [a, both]);
  const known = useMemo(() => a && { a, difference: changed ?? null, columns, layout }, [a, changed, columns, layout]);
  const { sort, like, kind, channels } = state;
  const order = useMemo(() => known && orderOf(state, known), [known, sort, like, kind, channels]);
  const { palettes } = session.catalogue;
  const chosen = Object.hasOwn(palettes, state.colormap) ? state.colormap : "";
  const own = chosen || Object.keys(palettes)[0] || "";
  const diverging = chosen || DIVERGING;
  const align = at ? alignOf(state, at.layer) : "center";
  const lookOf = (range: Range, colors: string, mode: Look["mode"]): Look => ({
    ...range,
    palette: paletteOf(palettes, colors),
    align,
    mode,
    interpolation: state.upsampling,
    nan: BAD,
    minus_inf: BAD,
    plus_inf: BAD,
  });
  const mode = both ? state.mode : "a";
  const ends = [state.range, state.ends];
  const range = useMemo(() => a && rangeFor(state, both ? [a, both] : [a], columns), [a, both, columns, ...ends]);
  const about0 = useMemo(() => changed && rangeAbout0(state, changed), [changed, ...ends]);
  const drawn = [align, state.upsampling, state.colormap];
  const look = useMemo(() => range && lookOf(range, own, mode === "difference" ? "a" : mode), [range, mode, ...drawn]);
  const changes = useMemo(() => about0 && lookOf(about0, diverging, "difference"), [about0, ...drawn]);
  const unlike =
    beside.error ?? (second && !both ? "maps of another shape" : state.other && !other ? "no such layer or image" : "");
  if (!at || !known || !order || !look) {
    return found.error ? { error: found.error } : {};
  }
  const colors = mode === "difference" ? diverging : own;
  return {
    shown: {
      ...at,
      known,
      second: both,
      order,
      look,
      changes: changes ?? null,
      colors,
      unlike,
      late: a !== found.value,
    },
  };
}

/** Statistics over the data set by name. */
function useColumns(session: Session, layer: Layer | undefined): Record<string, Float32Array> {
  const tensors = session.tensors(layer?.statistics ?? null);
  return useMemo(() => {
    const entries = Object.entries(tensors ?? NONE).filter(([, { values }]) => values instanceof Float32Array);
    return Object.fromEntries(entries.map(([name, { values }]) => [name, values as Float32Array]));
  }, [tensors]);
}

function useLayout(session: Session, layer: Layer | undefined): Known["layout"] {
  // Python computes it when it is asked for.
  const tensors = session.tensors(session.state.sort === "layout" ? (layer?.similarity ?? null) : null);
  return useMemo(() => {
    const { order, columns } = tensors ?? {};
    return order && columns ? { order: Int32Array.from(order.values), columns: columns.values[0]! } : null;
  }, [tensors]);
}

/** A palette by its name; the first one for a name that is not there, grey where there is none at all, or where it is damaged. */
function paletteOf(palettes: Record<string, string>, name: string): Uint8Array {
  const text = Object.hasOwn(palettes, name) ? palettes[name] : Object.values(palettes)[0];
  try {
    if (text) return fromBase64(text);
  } catch {
    // A damaged page shows its maps at least.
  }
  return Uint8Array.from({ length: 768 }, (_, i) => Math.floor(i / 3));
}

function sameShape(a: Atlas, b: Atlas): boolean {
  return a.channels === b.channels && a.height === b.height && a.width === b.width;
}
