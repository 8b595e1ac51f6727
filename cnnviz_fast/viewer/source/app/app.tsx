/* The page: layers and images on the left, the wall in the middle, one channel on the right. */

import { useEffect, useMemo, useReducer, useRef, useState } from "preact/hooks";

import { Bar } from "./bar";
import { ChannelPanel } from "./channel";
import { Help } from "./help";
import { Images } from "./images";
import { useKeys } from "./keys";
import { LivePanel } from "./live";
import type { Session } from "./session";
import { useShown } from "./shown";
import { FixedRange, Toolbar } from "./toolbar";
import { Tree } from "./tree";
import { WallView, type WallHandle } from "./wall-view";

export function App({ session }: { session: Session }) {
  const [, redraw] = useReducer((count: number) => count + 1, 0);
  session.onChange = redraw as () => void;
  const [notice, say] = useState("");
  const [help, setHelp] = useState(false);
  const [menu, setMenu] = useState(false);
  const wall = useRef<WallHandle>(null);
  const { shown, error } = useShown(session);
  const { catalogue, run, layer } = session;
  // Of a live model all layers, and with them the planes of those that are clips or volumes.
  const names = useMemo(
    () => [...new Set([...(catalogue.live?.layers ?? []), ...(run?.layers.map(({ name }) => name) ?? [])])],
    [run],
  );
  useKeys(session, shown, wall, () => setHelp(true));
  useEffect(() => setMenu(false), [session.state.layer]);
  const [stands, setStands] = useState(false); // the wall, which what is beside it must not hold up
  return (
    <div class={menu ? "page menu" : "page"}>
      <Bar {...{ session, shown, wall, say, menu }} onMenu={() => setMenu(!menu)} onHelp={() => setHelp(true)} />
      <aside class="left" aria-label="Layers and images">
        {catalogue.live && <LivePanel {...{ session, say }} />}
        <Tree {...{ session, names, say }} />
        <Images session={session} busy={!shown || shown.late} />
      </aside>
      <main>
        {catalogue.notes.length > 0 && (
          <details class="notes">
            <summary>
              {catalogue.notes.length} {catalogue.notes.length > 1 ? "notes" : "note"}
            </summary>
            <ul>
              {catalogue.notes.map((note) => (
                <li>{note}</li>
              ))}
            </ul>
          </details>
        )}
        {shown && <Toolbar {...{ session, shown }} />}
        {shown && session.state.range === "fixed" && <FixedRange {...{ session, shown }} />}
        {shown ? (
          <WallView {...{ session, shown }} handle={wall} onDrawn={() => setStands(true)} />
        ) : (
          <p class="empty" role={error ? "alert" : "status"}>
            {error ??
              (layer
                ? "Loading…"
                : catalogue.live
                  ? "Drop or paste an image anywhere: its channels appear here."
                  : "There are no maps.")}
          </p>
        )}
      </main>
      {shown && stands && <ChannelPanel {...{ session, shown }} />}
      <p class={notice ? "notice on" : "notice"} role="status" onAnimationEnd={() => say("")}>
        {notice}
      </p>
      {help && <Help onClose={() => setHelp(false)} />}
    </div>
  );
}
