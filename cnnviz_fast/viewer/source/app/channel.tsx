/* One channel: large over the photo, its values, what it sees, its numbers, and the same channel elsewhere. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";

import { value } from "../data/atlas";
import type { Tensor } from "../data/tensors";
import type { Cell } from "../drawing/wall";
import { HistogramChart } from "./histogram";
import { beside, togglePin } from "./keys";
import { histogram, kinds, measures, rank } from "./measures";
import { Across, Attributions, Pins } from "./elsewhere";
import { LayerSummary } from "./layer-summary";
import { isLine } from "./plot";
import type { Session } from "./session";
import type { Shown } from "./shown";
import { fieldOf, fieldText, number, placedIn } from "./text";
import { Tile } from "./tile";

const MOST_HIGH_PX = 420; // the frame has the tile's shape, so that what is drawn over it lies where it should

/** Rows and columns that a key walks. */
const STEPS: Record<string, [down: number, across: number]> = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
};

interface Props {
  session: Session;
  shown: Shown;
}

export function ChannelPanel({ session, shown }: Props) {
  const chosen = session.state.channel;
  const channel = chosen !== null && chosen < shown.known.a.channels ? chosen : null;
  return (
    <aside class="right" aria-label={channel === null ? "Layer" : `Channel ${channel}`}>
      {channel === null ? (
        <LayerSummary {...{ session, shown }} />
      ) : (
        <Channel {...{ session, shown, channel }} />
      )}
      <Pins {...{ session, shown }} />
    </aside>
  );
}

function Channel({ session, shown, channel }: Props & { channel: number }) {
  const { state } = session;
  const { known, layer, order } = shown;
  const pinned = state.pins.includes(channel);
  const step = (by: number) => session.set({ channel: beside(order, channel, by) });
  const patches = layer.patches ? session.picture(`${layer.patches}-${channel}`).value : undefined;
  const values = useMemo(() => histogram(known.a, channel, 64), [known.a, channel]);
  const kernel = session.tensors(layer.kernels)?.kernel;
  return (
    <>
      <div class="row head">
        <h2>Channel {channel}</h2>
        {[...kinds(known.a)[channel]!].map((kind) => (
          <span class="badge">{kind === "nonfinite" ? "not finite" : kind}</span>
        ))}
        <span class="room" />
        <button class="icon" aria-label="Channel before" onClick={() => step(-1)}>
          ‹
        </button>
        <button class="icon" aria-label="Channel after" onClick={() => step(1)}>
          ›
        </button>
        <button class="icon" aria-label="Close the channel" onClick={() => session.set({ channel: null })}>
          ×
        </button>
      </div>
      <Large {...{ session, shown, channel }} />
      <div class="row">
        <button aria-pressed={pinned} onClick={() => togglePin(session, channel)}>
          {pinned ? "Unpin" : "Pin"}
        </button>
        <button onClick={() => session.set({ sort: "-similarity", like: channel })}>Sort by likeness</button>
      </div>
      <HistogramChart histogram={values} label="values" />
      <Numbers {...{ shown, channel }} />
      {patches && (
        <section>
          <h3>Strongest patches</h3>
          <img class="patches" src={patches} alt={`strongest patches of channel ${channel}`} />
        </section>
      )}
      {kernel && channel < kernel.shape[0]! && (
        <section>
          <h3>Kernel</h3>
          <Kernel {...{ kernel, channel }} />
        </section>
      )}
      <Attributions {...{ session, shown }} />
      <Across {...{ session, shown, channel }} />
    </>
  );
}

/** The map over the photo; of the cell under the pointer, or where the arrow keys have led, its value and what it sees. */
function Large({ session, shown, channel }: Props & { channel: number }) {
  const { state } = session;
  const { known, look, changes, second, photo, layer, image } = shown;
  const [at, setAt] = useState<Cell | null>(null);
  const [walked, setWalked] = useState(false); // by keys, of which a screen reader tells: not of each move of a pointer
  const { height, width } = known.a;
  const cell = at && at.y < height && at.x < width ? at : null; // the maps of an image may be smaller
  const field = cell && layer.field && (
    <span class="seen" aria-hidden="true" style={placedIn(image, fieldOf(layer.field, cell))} />
  );
  const walk = (event: KeyboardEvent) => {
    const [down, across] = STEPS[event.key] ?? [];
    if (across === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault(); // which keeps the channel
    const by = event.shiftKey ? 10 : 1;
    const held = (place: number, most: number) => Math.min(Math.max(place, 0), most - 1);
    setAt(cell ? { y: held(cell.y + by * down!, height), x: held(cell.x + by * across, width) } : { y: 0, x: 0 });
  };
  const parts = { a: "this", b: "other", difference: "difference" } as const;
  return (
    <figure class="large">
      <div
        class="frame"
        role="application"
        tabIndex={0}
        aria-label={`values of channel ${channel}: walk with the arrow keys`}
        style={isLine(known.a) ? {} : { maxWidth: `${(MOST_HIGH_PX * width) / height}px` }}
        onKeyDown={walk}
        onFocus={(event) => setWalked(event.currentTarget.matches(":focus-visible"))}
        onBlur={() => (setWalked(false), setAt(null))}
      >
        <Tile
          atlas={known.a}
          {...{ channel, look }}
          photo={photo.value?.bitmap}
          opacity={state.opacity}
          label={`map of channel ${channel}`}
          cell={cell}
          onCell={setAt}
        />
        {field}
      </div>
      {second && (
        <div class="trio">
          {(Object.keys(parts) as (keyof typeof parts)[]).map((mode) => (
            <figure key={mode}>
              <Tile
                atlas={known.a}
                {...{ second, channel, mode }}
                look={mode === "difference" ? changes! : look}
                label={`${parts[mode]}, channel ${channel}`}
              />
              <figcaption>{parts[mode]}</figcaption>
            </figure>
          ))}
        </div>
      )}
      <figcaption class="value" aria-live={walked ? "polite" : "off"}>
        {cell ? (
          <>
            ({cell.y}, {cell.x}) = <b>{number(value(known.a, channel, cell.y, cell.x))}</b>
            <span class="soft">{fieldText(layer.field, cell)}</span>
          </>
        ) : (
          <span class="soft">point at the map, or walk it with the arrow keys, to read its values</span>
        )}
      </figcaption>
      {photo.value && (
        <div class="row over">
          <span class="frame small">
            <img src={photo.value.url} alt="the photo" />
            {field}
          </span>
          <label>
            Map over photo{" "}
            <input
              type="range"
              min={0}
              max={1}
              step={0.05}
              value={state.opacity}
              onInput={(event) => session.set({ opacity: event.currentTarget.valueAsNumber }, "replace")}
            />
          </label>
        </div>
      )}
    </figure>
  );
}

function Numbers({ shown, channel }: { shown: Shown; channel: number }) {
  const { known } = shown;
  const rows = [
    ...Object.entries(measures(known.a)),
    ...Object.entries(known.columns).map(([name, column]) => [`set: ${name}`, column] as const),
  ];
  return (
    <table class="numbers">
      <thead>
        <tr>
          <th scope="col">of the map</th>
          <th scope="col">value</th>
          <th scope="col">rank of {known.a.channels}</th>
        </tr>
      </thead>
      <tbody>
        {rows.map(([name, column]) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td>{number(column[channel]!)}</td>
            <td>{rank(column, channel) ?? "–"}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** The kernel of a channel of a first layer, in its colours. */
function Kernel({ kernel, channel }: { kernel: Tensor; channel: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [, planes, height, width] = kernel.shape as [number, number, number, number];
  useEffect(() => {
    const image = new ImageData(width, height);
    const area = height * width;
    for (let i = 0; i < area; i++)
      for (let plane = 0; plane < 4; plane++)
        image.data[i * 4 + plane] =
          plane === 3 ? 255 : kernel.values[(channel * planes + Math.min(plane, planes - 1)) * area + i]!;
    canvas.current!.getContext("2d")!.putImageData(image, 0, 0);
  }, [kernel, channel]);
  return (
    <canvas
      ref={canvas}
      class="kernel"
      width={width}
      height={height}
      role="img"
      aria-label={`kernel of channel ${channel}`}
    />
  );
}
