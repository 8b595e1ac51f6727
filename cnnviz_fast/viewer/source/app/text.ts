/* Numbers as people read them. */

import type { Field } from "../catalogue";
import type { Box, Cell } from "../drawing/view";

export function number(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0 || (Math.abs(value) >= 1e-3 && Math.abs(value) < 1e6))
    return `${Number(value.toPrecision(4))}`.replace("-", "−");
  return value.toExponential(2).replaceAll("-", "−");
}

/** A file's name without its folders, for where there is little room. */
export function shortName(name: string): string {
  return name.replace(/^.*[/\\](?=.)/, "");
}

/** Short names of files, some of which may be missing: of those that are equal the ends of their paths that are not, and
where the whole paths are equal, their places. */
export function namesApart(paths: string[]): string[] {
  const places = new Map<string, number[]>();
  paths.forEach((path, i) => {
    const name = shortName(path);
    if (!places.get(name)?.push(i)) places.set(name, [i]);
  });
  const names: string[] = [];
  for (const [name, alike] of places) {
    const parts = alike.map((i) => paths[i]!.split(/(?<=[/\\])/));
    const longest = parts.reduce((most, { length }) => Math.max(most, length), 0);
    let tails = alike.map(() => name);
    for (let length = 2; length <= longest && new Set(tails).size < alike.length; length++)
      tails = parts.map((each) => each.slice(-length).join(""));
    const distinct = new Set(tails).size === alike.length;
    alike.forEach((i, k) => (names[i] = distinct ? tails[k]! : `${name} (${i + 1})`));
  }
  return names;
}

const ROUNDING = 1e-6; // of sums of strides

/** The receptive field of a cell, in px of the view, as ReceptiveField.box: it may reach beyond it. */
export function fieldOf(field: Field, cell: Cell): Box {
  const [height, width] = field.size;
  const [y, x] = middleOf(field, cell);
  // The middle is that of a pixel, which begins half of one before it.
  const first = (middle: number, size: number) => Math.ceil(middle - (size - 1) / 2 - ROUNDING);
  return { y: first(y, height), x: first(x, width), height, width };
}

/** The style of what lies in a box of something of this size, however large that is drawn. */
export function placedIn(of: { height: number; width: number }, { y, x, height, width }: Box): Record<string, string> {
  const share = (px: number, whole: number) => `${(100 * px) / whole}%`;
  return {
    left: share(x, of.width),
    top: share(y, of.height),
    width: share(width, of.width),
    height: share(height, of.height),
  };
}

function middleOf({ offset, stride }: Field, { y, x }: Cell): [number, number] {
  return [offset[0] + y * stride[0], offset[1] + x * stride[1]];
}

export function fieldText(field: Field | null, cell: Cell): string {
  if (!field) return "";
  const [y, x] = middleOf(field, cell);
  return ` sees ${field.size[0]} × ${field.size[1]} px about (${number(y)}, ${number(x)})`;
}
