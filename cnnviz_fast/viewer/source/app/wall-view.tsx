/* The wall on the page: pointer and wheel, marks over tiles, and what a screen reader hears of the grid. */

import type { RefObject } from "preact";
import { useImperativeHandle, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

import { shapeOf, type Canvas } from "../drawing/view";
import { Wall, type Box, type Hit } from "../drawing/wall";
import { kinds } from "./measures";
import { usePointers } from "./pointers";
import type { Session } from "./session";
import type { Shown } from "./shown";
import { brief } from "./state";
import { fieldText, number } from "./text";

const TILE_PX = 64;
const GAP_PX = 4;
const NUMBERED_PX = 48; // longer side of the tiles that have their channel's number in a corner
const NUMBER_PX = 18; // what a number takes

export interface WallHandle {
  columns: number;
  zoom(factor: number): void;
  /** Fill the view with the chosen channel; or show all again. */
  toggleZoom(): void;
  /** Bring a channel into view. */
  reveal(channel: number): void;
  pixels(): ImageData;
}

export function WallView({
  session,
  shown,
  handle,
  onDrawn,
}: {
  session: Session;
  shown: Shown;
  handle: RefObject<WallHandle>;
  onDrawn: () => void;
}) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const wall = useRef<Wall>(null);
  const [size, setSize] = useState<Canvas>({ height: 0, width: 0, ratio: 1 });
  const [hover, setHover] = useState<Hit | null>(null);
  const [[method, why], setMethod] = useState(["", ""]);
  const [place, moved] = useState({});
  const { state } = session;
  const { known, order, second, photo } = shown;
  const look = (state.mode === "difference" && shown.changes) || shown.look;
  const { a } = known;
  const [tile_h, tile_w] = shapeOf(a);
  const columns = useMemo(() => {
    const layout = state.sort === "layout" && known.layout?.order.length === order.length ? known.layout.columns : null;
    return (
      layout ??
      state.view?.[3] ??
      columnsFor(order.length, size.width / size.height, tile_h / tile_w / (look.mode === "pair" ? 2 : 1))
    );
  }, [order, known.layout, state.sort, state.view?.[3], size, a.height, a.width, look.mode]);
  const bitmap = state.overlay ? photo.value?.bitmap : undefined;

  useLayoutEffect(() => {
    const made = (wall.current = new Wall(canvas.current!, {
      onMethod: (name, why) => setMethod([name, why]),
      onSize: () => setSize(made.canvasSize),
      onDrawn,
    }));
    setSize(made.canvasSize);
    return () => made.close();
  }, []);
  useLayoutEffect(() => wall.current!.setAtlas(a, second), [a, second]);
  useLayoutEffect(() => {
    wall.current!.setOrder(order);
    wall.current!.setGrid({ tile_px: TILE_PX, gap_px: GAP_PX, columns });
  }, [order, columns, a.height, a.width]);
  useLayoutEffect(() => {
    wall.current!.setLook({ ...look, ...(bitmap && { photo: bitmap, opacity: state.opacity }) });
  }, [look, bitmap, state.opacity]);
  useLayoutEffect(() => {
    if (state.view) wall.current!.setView({ x: state.view[0], y: state.view[1], zoom: state.view[2] });
    else wall.current!.fit();
    moved({});
  }, [state.view, order, columns, size, a.height, a.width, look.mode]);

  const keepView = () => {
    const { x, y, zoom } = wall.current!.view;
    session.set({ view: [brief(x), brief(y), brief(zoom), columns] }, "replace");
  };
  useImperativeHandle(handle, () => ({
    columns,
    zoom: (factor) => (wall.current!.zoomAt(size.width / 2, size.height / 2, factor), keepView()),
    toggleZoom: () =>
      state.view || state.channel === null ? session.set({ view: null }, "replace") : fill(state.channel),
    reveal: (channel) => {
      const tile = wall.current!.tile(channel);
      if (!tile || !state.view) return;
      const by = (start: number, length: number, room: number) =>
        start < 0 ? -start : start + length > room ? Math.max(room - start - length, -start) : 0;
      const [dx, dy] = [by(tile.x, tile.width, size.width), by(tile.y, tile.height, size.height)];
      if (dx || dy) (wall.current!.pan(dx, dy), keepView());
    },
    pixels: () => wall.current!.pixels(),
  }));
  const fill = (channel: number) => {
    const tile = wall.current!.tile(channel);
    if (!tile) return;
    const factor = 0.9 * Math.min(size.width / tile.width, size.height / tile.height);
    wall.current!.zoomAt(0, 0, factor);
    const grown = wall.current!.tile(channel)!;
    wall.current!.pan((size.width - grown.width) / 2 - grown.x, (size.height - grown.height) / 2 - grown.y);
    keepView();
  };
  const pointers = usePointers(canvas, wall, {
    onHover: setHover,
    onMove: () => (setHover(null), moved({})),
    onEnd: keepView,
    onClick: (x, y) => {
      const hit = wall.current!.hit(x, y);
      if (hit) session.set({ channel: hit.channel });
    },
  });
  const chosen = state.channel !== null && order.includes(state.channel) ? state.channel : null;
  const position = chosen === null ? 0 : order.indexOf(chosen);
  // Where tiles lie is known once the view is set, which `place` tells.
  const numbered = useMemo(() => {
    const any = order.length > 0 && wall.current?.tile(order[0]!);
    return any && hasRoom(any) ? wall.current!.inView : [];
  }, [place]);
  return (
    <section class="wall" aria-label="Channels">
      <div
        role="grid"
        tabIndex={0}
        class="canvas"
        aria-label={`${order.length} channels of ${shown.layer.name}; walk with the arrow keys`}
        aria-rowcount={Math.ceil(order.length / columns)}
        aria-colcount={columns}
        aria-activedescendant={chosen === null ? undefined : "cell"}
        onDblClick={(event) => {
          const hit = wall.current!.hit(event.offsetX, event.offsetY);
          if (hit) fill(hit.channel);
        }}
      >
        <div class="inner">
          <canvas ref={canvas} aria-hidden="true" class={shown.late ? "late" : ""} {...pointers} />
          {numbered.map(({ channel, box }) => (
            <span key={channel} class="number" aria-hidden="true" style={{ left: `${box.x}px`, top: `${box.y}px` }}>
              {channel}
            </span>
          ))}
          {state.pins.map((pin) => (
            <Mark key={pin} kind="pin" wall={wall.current} channel={pin} />
          ))}
          {hover && hover.channel !== chosen && (
            <Mark kind="hover" wall={wall.current} channel={hover.channel} width={size.width} />
          )}
          {chosen !== null && <Mark kind="chosen" wall={wall.current} channel={chosen} width={size.width} />}
        </div>
        <div role="row" class="hidden" aria-rowindex={Math.floor(position / columns) + 1}>
          <div
            role="gridcell"
            id="cell"
            aria-selected={chosen !== null}
            aria-colindex={(position % columns) + 1}
          >
            {chosen === null
              ? "no channel chosen"
              : `channel ${chosen}, mean ${number(a.mean[chosen]!)}, ${[...kinds(a)[chosen]!].join(", ")}`}
          </div>
        </div>
        {order.length === 0 && <p class="empty">No channel is left by the filter.</p>}
      </div>
      <p class="readout">
        {hover ? (
          <>
            <b>{hover.channel}</b> ({hover.y}, {hover.x}) = <b>{number(hover.value)}</b>
            <span class="soft">{fieldText(shown.layer.field, hover)}</span>
          </>
        ) : (
          <span class="soft">
            {order.length === a.channels ? `${a.channels} channels` : `${order.length} of ${a.channels} channels`} of{" "}
            {a.height} × {a.width}
          </span>
        )}
        {method && (
          <span class="soft method" title={why}>
            {method === "webgl2" ? "WebGL2" : "Canvas2D"}
          </span>
        )}
      </p>
    </section>
  );
}

/** A frame over a tile. `width` of the wall: with it the number of a tile that is too small for one stands beside it. */
function Mark({ kind, wall, channel, width }: { kind: string; wall: Wall | null; channel: number; width?: number }) {
  const tile = wall?.tile(channel);
  if (!tile) return null;
  const style = { left: `${tile.x}px`, top: `${tile.y}px`, width: `${tile.width}px`, height: `${tile.height}px` };
  const across = width && (tile.x > width / 2 ? "right" : "left");
  const down = tile.y < NUMBER_PX ? "top" : "bottom";
  return (
    <span class={`mark ${kind}`} aria-hidden="true" style={style}>
      {across && !hasRoom(tile) && (
        <span class="number" style={{ [across]: 0, [down]: "100%" }}>
          {channel}
        </span>
      )}
    </span>
  );
}

/** Whether a tile has room for its channel's number. */
function hasRoom({ height, width }: Box): boolean {
  return Math.max(height, width) >= NUMBERED_PX && Math.min(height, width) >= NUMBER_PX;
}

/** The number of columns with which tiles are largest in a room of this shape. */
function columnsFor(count: number, room_aspect: number, tile_aspect: number): number {
  const guess = Math.sqrt(count * tile_aspect * (room_aspect || 1));
  const side = (columns: number) => Math.min(room_aspect / columns, 1 / (tile_aspect * Math.ceil(count / columns)));
  const candidates = [Math.floor(guess), Math.ceil(guess), Math.ceil(guess) + 1].map((each) =>
    Math.max(1, Math.min(each, count || 1)),
  );
  return candidates.reduce((best, each) => (side(each) > side(best) ? each : best));
}
