/* The layer as a whole, where no channel is chosen. */

import { useMemo } from "preact/hooks";

import { Row } from "./elsewhere";
import { HistogramChart } from "./histogram";
import { histogram, kinds, type Kind } from "./measures";
import { orderOf } from "./selection";
import type { Session } from "./session";
import type { Shown } from "./shown";
import { START } from "./state";

const STRONGEST = 12;
const KINDS: Kind[] = ["dead", "flat", "saturated", "nonfinite"];

export function LayerSummary({ session, shown }: { session: Session; shown: Shown }) {
  const {
    known: { a },
    layer,
  } = shown;
  const values = useMemo(() => histogram(a, null, 64), [a]);
  const strongest = useMemo(
    () => [...orderOf({ ...START, sort: "-mean" }, shown.known).subarray(0, STRONGEST)],
    [shown.known],
  );
  const of_kind = kinds(a);
  const [height, width] = layer.field?.size ?? [];
  return (
    <>
      <h2 dir="auto">{layer.name}</h2>
      <p class="soft">
        {a.channels} channels of {a.height} × {a.width}
        {layer.axes && `, ${layer.axes}`}
        {layer.field && (
          <>
            <br />
            each cell sees {height} × {width} px
          </>
        )}
      </p>
      <HistogramChart histogram={values} label="values of the layer" />
      <div class="row kinds">
        {KINDS.map((kind) => {
          const count = of_kind.filter((each) => each.has(kind)).length;
          const on = session.state.kind === kind;
          return (
            <button
              disabled={!count && !on}
              aria-pressed={on}
              onClick={() => session.set({ kind: on ? "all" : kind, view: null })}
            >
              {count} {kind === "nonfinite" ? "not finite" : kind}
            </button>
          );
        })}
      </div>
      <p class="soft">Choose a channel: click a tile, or walk with the arrow keys.</p>
      <Row {...{ session, shown }} title="Strongest" channels={strongest} />
    </>
  );
}
