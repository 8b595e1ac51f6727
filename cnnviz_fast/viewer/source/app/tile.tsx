/* One channel on a canvas of its own, drawn as on the wall. */

import { useLayoutEffect, useRef } from "preact/hooks";

import type { Atlas } from "../data/atlas";
import { Wall, type Hit, type Look } from "../drawing/wall";

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
  onHit?: (hit: Hit | null) => void;
}

export function Tile({ atlas, second = null, channel, look, mode = "a", photo, opacity = 1, label, onHit }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const wall = useRef<Wall>(null);
  useLayoutEffect(() => {
    // Canvas2D: browsers allow few contexts of WebGL in a page, and one tile needs none.
    const made = (wall.current = new Wall(canvas.current!, { method: "canvas2d" }));
    const observer = new ResizeObserver(() => made.fit());
    observer.observe(canvas.current!);
    return () => (observer.disconnect(), made.close());
  }, []);
  useLayoutEffect(() => {
    const made = wall.current!;
    const ends = { low: look.low.subarray(channel, channel + 1), high: look.high.subarray(channel, channel + 1) };
    made.setAtlas(only(atlas, channel), second && only(second, channel));
    made.setOrder(Int32Array.of(0));
    made.setGrid({ tile_px: 100, gap_px: 0, columns: 1 });
    made.setLook({ ...look, ...ends, mode, photo: photo ?? null, opacity });
    made.fit();
  }, [atlas, second, channel, look, mode, photo, opacity]);
  const point = (event: PointerEvent) => onHit!(wall.current!.hit(event.offsetX, event.offsetY));
  return (
    <canvas
      ref={canvas}
      class="tile"
      style={{ aspectRatio: `${atlas.width} / ${atlas.height}` }}
      {...(label ? { role: "img", "aria-label": label } : { "aria-hidden": true })}
      {...(onHit && { onPointerMove: point, onPointerDown: point, onPointerLeave: () => onHit(null) })}
    />
  );
}

/** An atlas of one channel of another: nothing is computed for the rest. */
function only(atlas: Atlas, channel: number): Atlas {
  const area = atlas.height * atlas.width;
  const part = <T extends Float32Array | Int32Array>(column: T): T => column.subarray(channel, channel + 1) as T;
  const { vmin, vmax, mean, std, zeros } = atlas;
  const index = atlas.index.subarray(channel * area, (channel + 1) * area);
  return {
    ...atlas,
    channels: 1,
    index,
    vmin: part(vmin),
    vmax: part(vmax),
    mean: part(mean),
    std: part(std),
    zeros: part(zeros),
  };
}
