/* What is shown, and its address: the hash of the URL holds whatever differs from the start, in a few letters.

    #1;i=12;l=layer4.1;c=45;s=-mean        the first part is the version of this notation

Whatever in an address is unknown, of another form or out of bounds is left out: the rest is shown. */

import type { Align, Layer } from "../catalogue";

export const SORTS = ["index", "mean", "max", "variance", "sparsity", "norm"] as const;
export const KINDS = ["all", "alive", "dead", "flat", "saturated", "nonfinite"] as const;
export const RANGES = ["channel", "layer", "percentile", "symmetric", "sigmoid", "fixed", "dataset"] as const;
export const ALIGNS = ["left", "center", "corners", "field"] as const;
export const UPSAMPLINGS = ["bilinear", "nearest"] as const;
export const MODES = ["a", "b", "pair", "difference"] as const;

export interface State {
  run: number;
  image: number;
  /** See addressOf; "" for the first. */
  layer: string;
  channel: number | null;
  /** Run and image that are compared with. */
  other: [number, number] | null;
  mode: (typeof MODES)[number];
  /** One of SORTS, "difference", "similarity", "layout", or "set." and a column; "-" in front for the greatest first. */
  sort: string;
  /** The channel that others are compared with. */
  like: number;
  kind: (typeof KINDS)[number];
  /** Such as 0-63,128; "" for all. */
  channels: string;
  /** "" for the first. */
  colormap: string;
  range: (typeof RANGES)[number];
  /** Percentiles, or the ends of the fixed range. */
  ends: [number, number] | null;
  align: (typeof ALIGNS)[number] | "";
  upsampling: (typeof UPSAMPLINGS)[number];
  /** Whether the wall lies over the photo. */
  overlay: boolean;
  /** Of maps over the photo. */
  opacity: number;
  pins: number[];
  /** x and y of the wall's corner, the zoom, and the columns that it has in a window of any size; null: all of it. */
  view: [x: number, y: number, zoom: number, columns?: number] | null;
}

export const START: Readonly<State> = {
  run: 0,
  image: 0,
  layer: "",
  channel: null,
  other: null,
  mode: "a",
  sort: "index",
  like: 0,
  kind: "all",
  channels: "",
  colormap: "",
  range: "channel",
  ends: null,
  align: "",
  upsampling: "bilinear",
  overlay: false,
  opacity: 0.6,
  pins: [],
  view: null,
};

const VERSION = "1";
const MOST_PINS = 100;
/** Of a name or a list in an address. */
export const MOST_LENGTH = 300;

/** How a field is read; undefined for what it does not take. Written, all are text, lists with commas. */
type Reader<T> = (text: string) => T | undefined;

const whole: Reader<number> = (text) => (/^\d{1,7}$/.test(text) ? Number(text) : undefined);
const real: Reader<number> = (text) =>
  /^-?\d{1,21}(\.\d{1,20})?(e[+-]?\d{1,2})?$/.test(text) ? Number(text) : undefined;
const short: Reader<string> = (text) => (text.length <= MOST_LENGTH ? text : undefined);
const one =
  <T extends string>(of: readonly T[]): Reader<T> =>
  (text) =>
    of.find((each) => each === text);
const list =
  <T>(reader: Reader<T>, least: number, most: number) =>
  (text: string): T[] | undefined => {
    const parts = text.split(",", most + 1).map(reader);
    return parts.length >= least && parts.length <= most && !parts.includes(undefined) ? (parts as T[]) : undefined;
  };

const FIELDS: { [K in keyof State]: [letter: string, reader: Reader<State[K]>] } = {
  run: ["r", whole],
  image: ["i", whole],
  layer: ["l", short],
  channel: ["c", whole],
  other: ["b", list(whole, 2, 2) as Reader<[number, number]>],
  mode: ["d", one(MODES)],
  sort: ["s", (text) => (/^-?[a-z][\w. -]{0,60}$/.test(text) ? text : undefined)],
  like: ["k", whole],
  kind: ["f", one(KINDS)],
  channels: ["h", (text) => (isChannels(text) ? short(text) : undefined)],
  colormap: ["m", short],
  range: ["n", one(RANGES)],
  ends: ["e", (text) => ordered(list(real, 2, 2)(text))],
  align: ["a", one(ALIGNS)],
  upsampling: ["u", one(UPSAMPLINGS)],
  overlay: ["o", (text) => (text === "true" ? true : undefined)],
  opacity: ["t", (text) => within(real(text), 0, 1)],
  pins: ["p", list(whole, 1, MOST_PINS)],
  view: [
    "z",
    (text) => {
      const view = list(real, 3, 4)(text) as [number, number, number, number?] | undefined;
      const [, , zoom, columns = 1] = view ?? [];
      return within(zoom, 1e-3, 1e4) && within(columns, 1, 1e7) && Number.isInteger(columns) ? view : undefined;
    },
  ],
};
const ENTRIES = Object.entries(FIELDS) as [keyof State, [string, Reader<never>]][];

export function readHash(hash: string): State {
  const state = { ...START };
  const [version, ...parts] = hash.replace(/^#/, "").slice(0, 4000).split(";");
  if (version !== VERSION) return state;
  for (const part of parts) {
    const [letter, text = ""] = part.split("=", 2);
    const entry = ENTRIES.find(([, [known]]) => known === letter);
    const plain = decoded(text);
    const found = entry && plain !== undefined ? entry[1][1](plain) : undefined;
    if (entry && found !== undefined) Object.assign(state, { [entry[0]]: found });
  }
  return state;
}

export function writeHash(state: State): string {
  const parts = ENTRIES.filter(([name]) => String(state[name]) !== String(START[name])).map(
    ([name, [letter]]) => `${letter}=${encodeURIComponent(String(state[name])).replaceAll("%2C", ",")}`,
  );
  return `#${[VERSION, ...parts].join(";")}`;
}

const CHANNELS = /^\s*\d{1,7}(-\d{1,7})?\s*(,\s*\d{1,7}(-\d{1,7})?\s*)*$/;

/** Whether text is a list such as 0-63,128, or nothing. */
export function isChannels(text: string): boolean {
  return text.trim() === "" || CHANNELS.test(text);
}

/** Channels of such a list below `count`, each once, in its order. */
export function channelsOf(text: string, count: number): number[] {
  const found = new Set<number>();
  for (const part of isChannels(text) && text.trim() ? text.split(",") : []) {
    const [first, last = first] = part.split("-").map(Number) as [number, number?];
    for (let channel = first; channel <= Math.min(last, count - 1); channel++) found.add(channel);
  }
  return [...found];
}

/** How an address names a layer: by its name, or by its number where the name is too long, or no text at all. */
export function addressOf({ name, id }: Layer): string {
  return short(name) !== undefined && encoded(name) !== undefined ? name : `#${id}`;
}

/** The layer, and the step of the clip or the plane of the volume, of what is named LAYER@tSTEP or LAYER@dPLANE. */
export function planeOf(name: string): { layer: string; plane: string } | null {
  const [, layer, plane] = /^(.*)@[td](\d+)$/s.exec(name) ?? [];
  return plane === undefined ? null : { layer: layer!, plane };
}

/** How maps are aligned: the address, or the layer before, may ask for fields, which this layer has not. */
export function alignOf({ align }: State, layer: Layer): Align {
  return !align || (align === "field" && !layer.field) ? layer.align : align;
}

/** A number as text of at most four digits, as in an address. */
export function brief(value: number): number {
  return Number(value.toPrecision(4));
}

function ordered(ends: number[] | undefined): [number, number] | undefined {
  return ends && ends[0]! < ends[1]! ? (ends as [number, number]) : undefined;
}

function within(value: number | undefined, low: number, high: number): number | undefined {
  return value !== undefined && value >= low && value <= high ? value : undefined;
}

const tried =
  (code: (text: string) => string): Reader<string> =>
  (text) => {
    try {
      return code(text);
    } catch {
      return undefined;
    }
  };
const encoded = tried(encodeURIComponent); // which a lone surrogate is not
const decoded = tried(decodeURIComponent);
