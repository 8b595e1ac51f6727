/* The images of a run: the one that is shown, those around it, and a number to jump to any. */

import { stepImage } from "./keys";
import type { Session } from "./session";

const AROUND = 9; // thumbnails, of which each is a photo that is loaded

/** `busy`: maps are waited for, which photos must not hold up. */
export function Images({ session, busy }: { session: Session; busy: boolean }) {
  const { run, state, other } = session;
  if (!run?.image_count) return null;
  const count = run.image_count;
  const at = Math.min(state.image, count - 1);
  const first = Math.max(0, Math.min(at - (AROUND >> 1), count - AROUND));
  const around = Array.from({ length: Math.min(AROUND, count) }, (_, i) => first + i);
  return (
    <section class="images" aria-label="Images">
      <h2>Images</h2>
      {count > 1 && (
        <div class="row">
          <button class="icon" aria-label="Image before" disabled={at === 0} onClick={() => stepImage(session, -1)}>
            ‹
          </button>
          <label class="jump">
            <span class="hidden">Image number</span>
            <input
              type="number"
              id="image-number"
              min={1}
              max={count}
              value={at + 1}
              onChange={(event) => {
                const to = Math.trunc(event.currentTarget.valueAsNumber) - 1;
                if (to >= 0 && to < count) session.set({ image: to });
                else event.currentTarget.value = `${at + 1}`;
              }}
            />
          </label>
          <span class="soft">of {count.toLocaleString("en")}</span>
          <button
            class="icon"
            aria-label="Image after"
            disabled={at === count - 1}
            onClick={() => stepImage(session, 1)}
          >
            ›
          </button>
        </div>
      )}
      <p class="name" dir="auto" title={session.image?.name}>
        {session.nameAt(run, at) ?? "…"}
      </p>
      {(count > 1 || session.image?.photo) && (
        <ul class={count > 1 ? "thumbnails" : "thumbnails single"}>
          {around.map((i) => (
            <Thumbnail
              key={i}
              {...{ session, i, busy }}
              current={i === at}
              compared={other?.run === run && state.other![1] === i}
            />
          ))}
        </ul>
      )}
    </section>
  );
}

function Thumbnail({
  session,
  i,
  busy,
  current,
  compared,
}: {
  session: Session;
  i: number;
  busy: boolean;
  current: boolean;
  compared: boolean;
}) {
  const { run, state } = session;
  const image = session.imageAt(run!, i);
  const photo = image?.photo ? session.photo(image, null, busy).value : undefined;
  const name = session.nameAt(run!, i) ?? `image ${i + 1}`;
  const compare = () =>
    session.set(
      compared ? { other: null, mode: "a" } : { other: [run!.id, i], mode: state.mode === "a" ? "pair" : state.mode },
    );
  return (
    <li>
      <button aria-current={current} title={name} aria-label={`Show ${name}`} onClick={() => session.set({ image: i })}>
        {photo ? <img src={photo.url} alt="" /> : <span class="soft">{i + 1}</span>}
      </button>
      {!current && (
        <button
          class="versus"
          aria-pressed={compared}
          title={`Compare with ${name}`}
          aria-label={`Compare with ${name}`}
          onClick={compare}
        >
          ⇄
        </button>
      )}
    </li>
  );
}
