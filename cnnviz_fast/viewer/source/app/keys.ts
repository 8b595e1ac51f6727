/* The keyboard: what each key does, wherever the focus is but in a field that takes text. */

import type { RefObject } from "preact";
import { useEffect, useRef } from "preact/hooks";

import { addressOf, RANGES } from "./state";
import type { Session } from "./session";
import type { Shown } from "./shown";
import type { WallHandle } from "./wall-view";

export const KEYS: [keys: string, meaning: string][] = [
  ["← → ↑ ↓", "walk the grid, or the large map in focus (Shift: by ten)"],
  ["Enter", "zoom to the channel, and back to all"],
  ["/", "search layers"],
  ["[ ]", "layer before, after"],
  [", .", "image before, after"],
  ["c", "colormap (C: the one before)"],
  ["n", "range"],
  ["o", "over the photo"],
  ["p", "pin the channel"],
  ["+ − 0", "zoom in, out, all"],
  ["Esc", "leave the channel, or what is open"],
  ["?", "this help"],
];

export function useKeys(
  session: Session,
  shown: Shown | undefined,
  wall: RefObject<WallHandle>,
  onHelp: () => void,
): void {
  const latest = useRef<(event: KeyboardEvent) => void>(() => {});
  latest.current = (event) => {
    const target = event.target as HTMLElement;
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (target.closest("input:not([type=range], [type=checkbox]), select, textarea, dialog")) return;
    const arrows = target.closest("[type=range], [role=tree], [role=separator]");
    const act = actionOf(event.key, session, shown, wall, onHelp);
    if (
      !act ||
      (arrows && event.key.startsWith("Arrow")) ||
      (event.key === "Enter" && target.closest("button, a, summary, [role=tree]"))
    )
      return;
    event.preventDefault();
    act();
  };
  useEffect(() => {
    const listen = (event: KeyboardEvent) => latest.current(event);
    addEventListener("keydown", listen);
    return () => removeEventListener("keydown", listen);
  }, []);
}

function actionOf(
  key: string,
  session: Session,
  shown: Shown | undefined,
  wall: RefObject<WallHandle>,
  onHelp: () => void,
): (() => void) | undefined {
  const { state } = session;
  const walk = (by: number) => () => {
    const channel = shown ? beside(shown.order, state.channel, by) : null;
    if (channel === null) return;
    session.set({ channel }, "replace");
    wall.current?.reveal(channel);
  };
  const columns = wall.current?.columns ?? 1;
  switch (key) {
    case "ArrowLeft":
      return walk(-1);
    case "ArrowRight":
      return walk(1);
    case "ArrowUp":
      return walk(-columns);
    case "ArrowDown":
      return walk(columns);
    case "Enter":
      return () => wall.current?.toggleZoom();
    case "/":
      return () => document.getElementById("search")?.focus();
    case "[":
      return () => stepLayer(session, -1);
    case "]":
      return () => stepLayer(session, 1);
    case ",":
      return () => stepImage(session, -1);
    case ".":
      return () => stepImage(session, 1);
    case "c":
      return () => session.set({ colormap: next(Object.keys(session.catalogue.palettes), state.colormap, 1) });
    case "C":
      return () => session.set({ colormap: next(Object.keys(session.catalogue.palettes), state.colormap, -1) });
    case "n":
      return () => session.set({ range: next(rangesFor(shown), state.range, 1), ends: null });
    case "o":
      return () => session.set({ overlay: !state.overlay });
    case "p":
      return () => state.channel !== null && togglePin(session, state.channel);
    case "+":
    case "=":
      return () => wall.current?.zoom(1.5);
    case "-":
      return () => wall.current?.zoom(1 / 1.5);
    case "0":
      return () => session.set({ view: null });
    case "Escape":
      return () => session.set({ channel: null });
    case "?":
      return onHelp;
    default:
      return undefined;
  }
}

export function rangesFor(shown: Shown | undefined): (typeof RANGES)[number][] {
  const { columns } = shown?.known ?? {};
  return RANGES.filter((name) => name !== "dataset" || (columns?.min && columns.max));
}

export function stepLayer(session: Session, by: number): void {
  const { run, layer } = session;
  if (!run || !layer) return;
  const to = run.layers[run.layers.indexOf(layer) + by];
  if (to) session.set({ layer: addressOf(to), view: null });
}

export function stepImage(session: Session, by: number): void {
  const { run, state } = session;
  const to = Math.min(state.image, (run?.image_count ?? 1) - 1) + by;
  if (run && to >= 0 && to < run.image_count) session.set({ image: to });
}

export function togglePin(session: Session, channel: number): void {
  const { pins } = session.state;
  session.set({
    pins: pins.includes(channel) ? pins.filter((pin) => pin !== channel) : [...pins, channel].slice(-100),
  });
}

/** The channel `by` places further in the order, as far as there are any; the first one where none is chosen. */
export function beside(order: Int32Array, channel: number | null, by: number): number | null {
  const at = channel === null ? -1 : order.indexOf(channel);
  if (at < 0) return order[0] ?? null;
  return order[at + by] ?? channel;
}

function next<T extends string>(of: T[], current: string, by: number): T {
  return of[(Math.max(0, of.indexOf(current as T)) + by + of.length) % of.length]!;
}
