/* One channel of a signal as a line: a map of one row is too flat to be seen or pointed at. */

import { useMemo } from "preact/hooks";

import { channelOf, value, type Atlas } from "../data/atlas";
import { difference } from "../data/difference";
import type { Cell, Look } from "../drawing/wall";

const HEIGHT = 100; // of the drawing, whatever it is stretched to
const MOST_POINTS = 1000; // of more the least and the greatest of each of so many parts are drawn

interface Props {
  atlas: Atlas;
  second?: Atlas | null;
  channel: number;
  mode?: Look["mode"];
  label: string;
  cell?: Cell | null;
  onCell?: (cell: Cell | null) => void;
}

/** Whether maps have one row or one column. */
export function isLine({ height, width }: Atlas): boolean {
  return Math.min(height, width) === 1 && height * width > 1;
}

export function Plot({ atlas, second, channel, mode, label, cell, onCell }: Props) {
  const line = useMemo(() => {
    const [a, b] = [channelOf(atlas, channel), second && channelOf(second, channel)];
    return b && mode === "b" ? b : b && mode === "difference" ? difference(a, b) : a;
  }, [atlas, second, channel, mode]);
  const path = useMemo(() => pathOf(line), [line]);
  const count = line.index.length;
  const point = (event: PointerEvent) => {
    const { left, width } = (event.currentTarget as Element).getBoundingClientRect();
    const i = Math.min(count - 1, Math.max(0, Math.floor(((event.clientX - left) / width) * count)));
    onCell!(line.width > 1 ? { y: 0, x: i } : { y: i, x: 0 });
  };
  return (
    <svg
      class="plot"
      viewBox={`0 0 ${count} ${HEIGHT}`}
      preserveAspectRatio="none"
      {...(label ? { role: "img", "aria-label": label } : { "aria-hidden": true })}
      {...(onCell && { onPointerMove: point, onPointerDown: point, onPointerLeave: () => onCell(null) })}
    >
      {cell && <path class="pointed" d={`M${cell.y + cell.x + 0.5} 0V${HEIGHT}`} />}
      <path d={path} />
    </svg>
  );
}

/** The line through the values of an atlas of one channel, from the least at the bottom to the greatest at the top;
broken where they are not finite. */
function pathOf(atlas: Atlas): string {
  const count = atlas.index.length;
  const [low, high] = [atlas.vmin[0]!, atlas.vmax[0]!];
  const place = (i: number): number => {
    const found = atlas.width > 1 ? value(atlas, 0, 0, i) : value(atlas, 0, i, 0);
    return Number.isFinite(found) ? HEIGHT * (high > low ? (high - found) / (high - low) : 0.5) : NaN;
  };
  const part = count > MOST_POINTS ? Math.ceil((2 * count) / MOST_POINTS) : 1;
  let [path, pen] = ["", "M"];
  for (let start = 0; start < count; start += part) {
    const places = Array.from({ length: Math.min(part, count - start) }, (_, k) => place(start + k));
    for (const y of part > 1 ? [Math.max(...places), Math.min(...places)] : places) {
      if (y === y) path += `${pen}${start + part / 2} ${Number(y.toFixed(2))}`;
      pen = y === y ? "L" : "M";
    }
  }
  return path;
}
