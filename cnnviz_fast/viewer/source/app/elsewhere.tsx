/* The channel elsewhere: in other images, beside pinned ones, and what the score depends on in this image. */

import { useMemo, useState } from "preact/hooks";

import { decodeAtlas, type Atlas } from "../data/atlas";
import { rangeFor } from "./ranges";
import type { Session } from "./session";
import type { Shown } from "./shown";
import { START } from "./state";
import { Tile } from "./tile";

const ACROSS = 8; // images, of each of which the whole atlas is read

interface Props {
  session: Session;
  shown: Shown;
}

export function Across({ session, shown, channel }: Props & { channel: number }) {
  const { run, state } = session;
  const [open, setOpen] = useState(false);
  if (!run || run.image_count < 2) return null;
  const first = Math.max(0, Math.min(state.image - 3, run.image_count - ACROSS));
  const around = Array.from({ length: Math.min(ACROSS, run.image_count) }, (_, i) => first + i);
  return (
    <details class="across" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>In other images</summary>
      <ul class="tiles">
        {open &&
          around.map((i) => {
            const image = session.imageAt(run, i);
            const atlas = image && session.atlas(run, shown.layer, image).value;
            if (!image || !atlas)
              return (
                <li key={i} class="soft">
                  {i + 1}
                </li>
              );
            return (
              <li key={i}>
                <button
                  aria-current={i === state.image}
                  title={image.name}
                  aria-label={`Channel ${channel} in ${session.nameAt(run, i)}`}
                  onClick={() => session.set({ image: i })}
                >
                  <OwnRange {...{ session, shown, atlas, channel }} />
                </button>
              </li>
            );
          })}
      </ul>
    </details>
  );
}

/** A channel of another image, on the range that it has there. */
function OwnRange({ session, shown, atlas, channel }: Props & { atlas: Atlas; channel: number }) {
  const { range, ends } = session.state;
  const look = useMemo(
    () => ({ ...shown.look, ...rangeFor(session.state, [atlas], shown.known.columns) }),
    [atlas, shown.look, shown.known.columns, range, ends],
  );
  return <Tile {...{ atlas, channel, look }} label="" />;
}

export function Pins({ session, shown }: Props) {
  const pins = session.state.pins.filter((pin) => pin < shown.known.a.channels);
  return <Row {...{ session, shown }} title="Pinned" channels={pins} />;
}

/** Channels as small tiles to choose from. */
export function Row({ session, shown, title, channels }: Props & { title: string; channels: number[] }) {
  if (!channels.length) return null;
  return (
    <section>
      <h3>{title}</h3>
      <ul class="tiles">
        {channels.map((channel) => (
          <li key={channel}>
            <button
              aria-current={channel === session.state.channel}
              aria-label={`${title} channel ${channel}`}
              onClick={() => session.set({ channel })}
            >
              <Tile atlas={shown.known.a} {...{ channel }} look={shown.look} label="" />
              <span>{channel}</span>
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}

export function Attributions({ session, shown }: Props) {
  const here = shown.image.attribution.filter(({ layer }) => layer === null || layer === shown.layer.id);
  const [at, setAt] = useState(0);
  const chosen = here[Math.min(at, here.length - 1)];
  const atlas = chosen && session.find(chosen.key, (bytes) => decodeAtlas(bytes, chosen.name)).value;
  const look = useMemo(
    () => atlas && { ...shown.look, ...rangeFor({ ...START, range: "symmetric" }, [atlas], {}) },
    [atlas, shown.look],
  );
  if (!chosen) return null;
  return (
    <section class="attribution">
      <h3>Attribution</h3>
      {here.length > 1 ? (
        <select aria-label="Attribution" value={at} onChange={(event) => setAt(Number(event.currentTarget.value))}>
          {here.map(({ name }, i) => (
            <option value={i}>{name}</option>
          ))}
        </select>
      ) : (
        <p class="soft" dir="auto">
          {chosen.name}
        </p>
      )}
      {atlas && chosen.channel < atlas.channels && (
        <Tile
          {...{ atlas, look: look! }}
          channel={chosen.channel}
          photo={shown.photo.value?.bitmap}
          opacity={session.state.opacity}
          label={`attribution ${chosen.name}`}
        />
      )}
    </section>
  );
}
