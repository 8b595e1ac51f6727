/* Fingers, pen and mouse on the wall: drag with one pointer, pinch with two, turn the wheel, click. */

import type { RefObject } from "preact";
import { useEffect, useRef } from "preact/hooks";

import type { Hit, Wall } from "../drawing/wall";

const CLICK_PX = 4; // a pointer that moves less means a tile

interface Gestures {
  onHover: (hit: Hit | null) => void;
  onMove: () => void;
  onEnd: () => void;
  onClick: (x: number, y: number) => void;
}

/** Drag with one pointer, pinch with two, turn the wheel. */
export function usePointers(canvas: RefObject<HTMLCanvasElement>, wall: RefObject<Wall>, gestures: Gestures) {
  const latest = useRef(gestures);
  latest.current = gestures;
  const down = useRef(new Map<number, { x: number; y: number }>());
  const travelled = useRef(0);
  useEffect(() => {
    let ending = 0;
    const turn = (event: WheelEvent) => {
      event.preventDefault(); // which a listener of Preact's, being passive, may not
      const unit = event.deltaMode ? 20 : 1;
      // Browsers tell of a pinch on a touchpad as of a wheel with Ctrl, 100 for a factor of e.
      const rate = event.ctrlKey ? 0.01 : 0.002;
      wall.current!.zoomAt(event.offsetX, event.offsetY, Math.exp(-event.deltaY * unit * rate));
      latest.current.onMove();
      clearTimeout(ending);
      ending = setTimeout(() => latest.current.onEnd(), 200); // no event says that a wheel has come to rest
    };
    const at = canvas.current!;
    at.addEventListener("wheel", turn, { passive: false });
    return () => (clearTimeout(ending), at.removeEventListener("wheel", turn));
  }, []);
  const release = (event: PointerEvent) => {
    if (!down.current.delete(event.pointerId) || down.current.size) return;
    if (travelled.current >= CLICK_PX) latest.current.onEnd();
    else if (event.type === "pointerup") latest.current.onClick(event.offsetX, event.offsetY);
  };
  return {
    onPointerDown: (event: PointerEvent) => {
      if (event.button) return; // another one opens the browser's menu, or scrolls
      canvas.current!.setPointerCapture(event.pointerId);
      if (!down.current.size) travelled.current = 0;
      down.current.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    },
    onPointerMove: (event: PointerEvent) => {
      const before = down.current.get(event.pointerId);
      if (!before) return latest.current.onHover(wall.current!.hit(event.offsetX, event.offsetY));
      const here = { x: event.offsetX, y: event.offsetY };
      travelled.current += Math.hypot(here.x - before.x, here.y - before.y);
      down.current.set(event.pointerId, here);
      if (travelled.current < CLICK_PX) return;
      const other = [...down.current].find(([id]) => id !== event.pointerId)?.[1];
      if (other) {
        const factor =
          Math.hypot(here.x - other.x, here.y - other.y) / Math.hypot(before.x - other.x, before.y - other.y);
        wall.current!.zoomAt(other.x, other.y, Number.isFinite(factor) && factor > 0 ? factor : 1);
      } else {
        wall.current!.pan(here.x - before.x, here.y - before.y);
      }
      latest.current.onMove();
    },
    onPointerUp: release,
    onPointerCancel: release,
    onPointerLeave: () => latest.current.onHover(null),
  };
}
