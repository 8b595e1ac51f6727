/* One channel on a canvas of its own, drawn as on the wall; of a signal as a line. */

import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

import { channelOf, type Atlas } from "../data/atlas";
import { Wall, type Box, type Cell, type Look } from "../drawing/wall";
import { isLine, Plot } from "./plot";
import { placedIn } from "./text";

interface Props {
  atlas: Atlas;
  second?: Atlas | null;
  channel: number;
  look: Look;
  mode?: Look["mode"];
  photo?: ImageBitmap | undefined;
  opacity?: number;
  /** "" where what is around says it. */
  label: string;
  /** That is marked. */
  cell?: Cell | null;
  /** Told what is pointed at. */
  onCell?: (cell: Cell | null) => void;
}

export function Tile(props: Props) {
  return isLine(props.atlas) ? <Plot {...props} /> : <Picture {...props} />;
}

function Picture({ atlas, second = null, channel, look, mode = "a", photo, opacity = 1, label, cell, onCell }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const wall = useRef<Wall>(null);
  const [mark, setMark] = useState<Box | null>(null);
  useLayoutEffect(() => {
    // Canvas2D: browsers allow few contexts of WebGL in a page, and one tile needs none.
    const made = (wall.current = new Wall(canvas.current!, { method: "canvas2d", onSize: () => made.fit() }));
    return () => made.close();
  }, []);
  const { low, high } = look;
  const ends = useMemo(() => ({ low: low.subarray(channel, channel + 1), high: high.subarray(channel, channel + 1) }), [low, high, channel]);
  useLayoutEffect(() => {
    const made = wall.current!;
    made.setAtlas(channelOf(atlas, channel), second && channelOf(second, channel));
    made.setOrder(Int32Array.of(0));
    made.setGrid({ tile_px: 100, gap_px: 0, columns: 1 });
  }, [atlas, second, channel]);
  useLayoutEffect(() => wall.current!.setLook({ ...look, ...ends, mode, photo: photo ?? null, opacity }), [look, ends, mode, photo, opacity]);
  useLayoutEffect(() => wall.current!.fit(), [atlas, second, mode]);
  useLayoutEffect(() => setMark(cell ? wall.current!.cell(cell) : null), [cell, atlas, look.align]);
  const point = (event: PointerEvent) => onCell!(wall.current!.hit(event.offsetX, event.offsetY));
  return (
    <>
      <canvas
        ref={canvas}
        class="tile"
        style={{ aspectRatio: `${atlas.width} / ${atlas.height}` }}
        {...(label ? { role: "img", "aria-label": label } : { "aria-hidden": true })}
        {...(onCell && { onPointerMove: point, onPointerDown: point, onPointerLeave: () => onCell(null) })}
      />
      {mark && <span class="cell" aria-hidden="true" style={placedIn(wall.current!.canvasSize, mark)} />}
    </>
  );
}
