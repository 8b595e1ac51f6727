/* Which channels are shown, and in which order. */

import type { Atlas } from "../data/atlas";
import { kinds, likeness, magnitudes, measures, type Kind } from "./measures";
import { channelsOf, type State } from "./state";

/** Channels as a wall shows them. */
export type Order = Int32Array<ArrayBuffer>;

export interface Known {
  a: Atlas;
  /** Of the image that is compared with, where its maps have this shape. */
  difference: Atlas | null;
  /** Statistics over the data set, by name. */
  columns: Record<string, Float32Array>;
  /** A layout by similarity: channels row by row. */
  layout: { order: Order; columns: number } | null;
}

/** The column that a sort goes by, without its sign; null for the order of numbers. */
export function columnOf(sort: string, like: number, known: Known): ArrayLike<number> | null {
  const name = sort.replace(/^-/, "");
  if (name === "index") return null;
  if (name === "similarity") return likeness(known.a, Math.min(like, known.a.channels - 1));
  if (name === "difference") return known.difference && magnitudes(known.difference);
  if (name.startsWith("set.")) return known.columns[name.slice(4)] ?? null;
  return measures(known.a)[name] ?? null;
}

/** Channels in the order of the wall. NaN comes last, equals stay in the order of their numbers. */
export function orderOf(state: State, known: Known): Order {
  const count = known.a.channels;
  const all = state.channels.trim() ? channelsOf(state.channels, count) : Array.from({ length: count }, (_, c) => c);
  const { kind, sort, like } = state;
  const is = (c: number, each: Kind) => kinds(known.a)[c]!.has(each);
  const shown = kind === "all" ? all : all.filter((c) => (kind === "alive" ? !is(c, "dead") : is(c, kind)));
  if (sort === "layout" && known.layout) {
    const wanted = new Set(shown);
    return known.layout.order.filter((c) => wanted.has(c));
  }
  const column = columnOf(sort, like, known);
  if (!column) return Int32Array.from(sort === "-index" ? shown.reverse() : shown);
  const sign = sort.startsWith("-") ? -1 : 1;
  const rest = shown.filter((c) => Number.isNaN(column[c]!));
  const numbers = shown
    .filter((c) => !Number.isNaN(column[c]!))
    .sort((p, q) => sign * (column[p]! - column[q]!) || p - q);
  return Int32Array.from([...numbers, ...rest]);
}
