/* What is shown of a layer, in which order, on which range and in which colours. */

import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";

import { HistogramChart } from "./histogram";
import { rangesFor } from "./keys";
import { histogram } from "./measures";
import { percentilesIn, rangeName } from "./ranges";
import type { Session } from "./session";
import type { Shown } from "./shown";
import { alignOf, ALIGNS, isChannels, KINDS, MODES, MOST_LENGTH, SORTS, UPSAMPLINGS, type State } from "./state";

const MEANINGS: Record<string, string> = {
  index: "number",
  nonfinite: "not finite",
  a: "this image",
  b: "the other",
  pair: "side by side",
  channel: "each channel",
  layer: "whole layer",
  symmetric: "about 0",
  dataset: "over the data set",
  similarity: "likeness",
  layout: "map of likeness",
};

function Select<T extends string>({
  label,
  value,
  of,
  onChange,
  children,
}: {
  label: string;
  value: string;
  of: readonly T[];
  onChange: (value: T) => void;
  children?: ComponentChildren;
}) {
  return (
    <div class="field">
      <label>
        <span>{label}</span>
        <select aria-label={label} value={value} onChange={(event) => onChange(event.currentTarget.value as T)}>
          {of.map((each) => (
            <option value={each}>{MEANINGS[each] ?? each.replace(/^set\./, "set: ")}</option>
          ))}
        </select>
      </label>
      {children}
    </div>
  );
}

export function Toolbar({ session, shown }: { session: Session; shown: Shown }) {
  const { state } = session;
  const { known, layer, second } = shown;
  const sorts = [
    ...SORTS,
    ...(known.difference ? ["difference"] : []),
    "similarity",
    ...(layer.similarity ? ["layout"] : []),
    ...Object.keys(known.columns).map((name) => `set.${name}`),
  ];
  const named = state.sort.replace(/^-/, "");
  const by = sorts.includes(named) ? named : "index";
  const down = by === named && state.sort.startsWith("-");
  const range = rangeName(state, known.columns);
  const palettes = Object.keys(session.catalogue.palettes);
  const sortBy = (name: string) => {
    // From the greatest, which is what is looked for; numbers from the first.
    const sort = name === "index" || name === "layout" ? name : `-${name}`;
    session.set({
      sort,
      ...(name === "similarity" && { like: state.channel ?? state.like }),
      ...(name === "layout" && { view: null }),
    });
  };
  return (
    <div class="toolbar" role="toolbar" aria-label="What is shown">
      <Select label="Sort" value={by} of={sorts} onChange={sortBy}>
        {by !== "layout" && (
          <button
            class="icon"
            aria-label={down ? "Greatest first" : "Least first"}
            title={down ? "greatest first" : "least first"}
            onClick={() => session.set({ sort: down ? by : `-${by}` })}
          >
            {down ? "↓" : "↑"}
          </button>
        )}
      </Select>
      <Select label="Show" value={state.kind} of={KINDS} onChange={(kind) => session.set({ kind, view: null })} />
      <div class="field">
        <label>
          <span>Channels</span>
          <input
            type="text"
            size={8}
            maxLength={MOST_LENGTH}
            placeholder="0-63,128"
            aria-label="Channels"
            value={state.channels}
            onInput={(event) => {
              const text = event.currentTarget.value;
              event.currentTarget.setCustomValidity(isChannels(text) ? "" : "a list such as 0-63,128");
              if (isChannels(text)) session.set({ channels: text, view: null }, "replace");
            }}
          />
        </label>
      </div>
      <Select label="Colours" value={shown.colors} of={palettes} onChange={(colormap) => session.set({ colormap })}>
        <Swatch palette={(state.mode === "difference" && shown.changes ? shown.changes : shown.look).palette} />
      </Select>
      <Select
        label="Range"
        value={range}
        of={rangesFor(shown)}
        onChange={(range) => session.set({ range, ends: null })}
      >
        {range === "percentile" && <Percentiles session={session} />}
      </Select>
      <Select<NonNullable<State["align"]>>
        label="Align"
        value={alignOf(state, layer)}
        of={ALIGNS.filter((each) => each !== "field" || layer.field)}
        onChange={(align) => session.set({ align })}
      />
      <Select
        label="Pixels"
        value={state.upsampling}
        of={UPSAMPLINGS}
        onChange={(upsampling) => session.set({ upsampling })}
      />
      {shown.photo.value && (
        <label class="field check">
          <input type="checkbox" checked={state.overlay} onChange={() => session.set({ overlay: !state.overlay })} />{" "}
          over the photo
        </label>
      )}
      {state.other && (
        <Select label="Compare" value={second ? state.mode : "a"} of={MODES} onChange={(mode) => session.set({ mode })}>
          <span class="soft with" role="status" dir="auto">
            {shown.unlike || withName(session)}
          </span>
          <button class="icon" aria-label="End the comparison" onClick={() => session.set({ other: null, mode: "a" })}>
            ×
          </button>
        </Select>
      )}
      {!state.other && session.catalogue.runs.length > 1 && <OtherRun session={session} />}
    </div>
  );
}

/** What is compared with: the image, and of another run its name. */
function withName(session: Session): string {
  const { other, run, state } = session;
  if (!other) return "";
  const image = session.nameAt(other.run, state.other![1]) ?? other.image.name;
  return other.run === run ? `with ${image}` : `with ${other.run.name}, ${image}`;
}

function OtherRun({ session }: { session: Session }) {
  const others = session.catalogue.runs.filter((run) => run !== session.run);
  return (
    <div class="field">
      <label>
        <span>Compare</span>
        <select
          aria-label="Compare with a run"
          value=""
          onChange={(event) => {
            const run = others.find(({ id }) => id === Number(event.currentTarget.value))!;
            // The image of this name, as far as the names are known: runs may hold others, or in another order.
            const same = run.images.findIndex((image) => image?.name === session.image?.name);
            session.set({ other: [run.id, same < 0 ? session.state.image : same], mode: "pair" });
          }}
        >
          <option value="">with a run…</option>
          {others.map((run) => (
            <option value={run.id}>{run.name}</option>
          ))}
        </select>
      </label>
    </div>
  );
}

function Percentiles({ session }: { session: Session }) {
  const ends = percentilesIn(session.state);
  const field = (end: 0 | 1) => (
    <input
      type="number"
      min={0}
      max={100}
      step={0.5}
      value={ends[end]}
      aria-label={end ? "Upper percentile" : "Lower percentile"}
      onChange={(event) => {
        const value = event.currentTarget.valueAsNumber;
        const changed: [number, number] = end ? [ends[0], value] : [value, ends[1]];
        if (changed[0] >= 0 && changed[0] < changed[1] && changed[1] <= 100) session.set({ ends: changed });
        else event.currentTarget.value = `${ends[end]}`;
      }}
    />
  );
  return (
    <>
      {field(0)}
      {field(1)}
    </>
  );
}

/** The ends of a fixed range on the values of the layer, below the toolbar: a phone's has one row. */
export function FixedRange({ session, shown }: { session: Session; shown: Shown }) {
  const of_layer = useMemo(() => histogram(shown.known.a, null, 128), [shown.known.a]);
  const ends = session.state.ends ?? [of_layer.low, of_layer.high];
  return (
    <div class="ends">
      <HistogramChart
        histogram={of_layer}
        label="values of the layer"
        ends={ends}
        onEnds={(changed) => session.set({ ends: changed }, "replace")}
      />
    </div>
  );
}

function Swatch({ palette }: { palette: Uint8Array }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const image = new ImageData(256, 1);
    for (let i = 0; i < 256; i++) image.data.set([...palette.subarray(i * 3, i * 3 + 3), 255], i * 4);
    canvas.current!.getContext("2d")!.putImageData(image, 0, 0);
  }, [palette]);
  return <canvas ref={canvas} class="swatch" width={256} height={1} aria-hidden="true" />;
}
