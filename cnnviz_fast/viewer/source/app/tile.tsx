/* One channel on a canvas of its own, drawn as on the wall. */

import { useEffect, useRef } from "preact/hooks";

import type { Atlas } from "../data/atlas";
import { Wall, type Hit, type Look } from "../drawing/wall";

interface Props {
  atlas: Atlas;
  second?: Atlas | null;
  channel: number;
  look: Look;
  label: string;
  onHit?: (hit: Hit | null) => void;
}

export function Tile({ atlas, second = null, channel, look, label, onHit }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const wall = useRef<Wall>(null);
  useEffect(() => {
    // Canvas2D: browsers allow few contexts of WebGL in a page, and one tile needs none.
    const made = (wall.current = new Wall(canvas.current!, { method: "canvas2d" }));
    return () => made.close();
  }, []);
  useEffect(() => {
    const made = wall.current!;
    made.setAtlas(atlas, second);
    made.setOrder(Int32Array.of(channel));
    made.setGrid({ tile_px: 100, gap_px: 0, columns: 1 });
    made.setLook(look);
    made.fit();
  }, [atlas, second, channel, look]);
  const point = (event: PointerEvent) => onHit!(wall.current!.hit(event.offsetX, event.offsetY));
  return (
    <canvas
      ref={canvas} role="img" aria-label={label} class="tile" style={{ aspectRatio: `${atlas.width} / ${atlas.height}` }}
      {...(onHit && { onPointerMove: point, onPointerDown: point, onPointerLeave: () => onHit(null) })}
    />
  );
}
