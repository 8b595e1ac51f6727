/* Numbers as people read them. */

import type { Field } from "../catalogue";

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

export interface Box {
  y: number;
  x: number;
  height: number;
  width: number;
}

/** The receptive field of a cell, in px of the view: it may reach beyond it. */
export function fieldOf(field: Field, cell: { y: number; x: number }): Box {
  const [height, width] = field.size;
  const y = field.offset[0] + cell.y * field.stride[0] - height / 2;
  const x = field.offset[1] + cell.x * field.stride[1] - width / 2;
  return { y, x, height, width };
}

export function fieldText(field: Field | null, cell: { y: number; x: number }): string {
  if (!field) return "";
  const { y, x, height, width } = fieldOf(field, cell);
  return ` sees ${height} × ${width} px about (${number(y + height / 2)}, ${number(x + width / 2)})`;
}
