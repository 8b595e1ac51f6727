/* Values in bins as a small chart, and the ends of a fixed range as two handles on it. */

import type { Histogram } from "./measures";
import { number } from "./text";

const STEPS = 1000;

interface Props {
  histogram: Histogram;
  label: string;
  /** With these the chart has handles. */
  ends?: [number, number];
  onEnds?: (ends: [number, number]) => void;
}

export function HistogramChart({ histogram: { low, high, bins }, label, ends, onEnds }: Props) {
  const most = Math.max(...bins, 1);
  // The root shows bins that hold little beside one that holds most, as behind a ReLU.
  const path = Array.from(bins, (count, i) => `M${i + 0.5} 100V${100 - 100 * Math.sqrt(count / most)}`).join("");
  const empty = !(low <= high);
  const at = (value: number) => (high > low ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 0);
  const handle = (end: 0 | 1) => (
    <input
      type="range"
      min={0}
      max={STEPS}
      value={Math.round(at(ends![end]) * STEPS)}
      aria-label={end ? "Upper end" : "Lower end"}
      aria-valuetext={number(ends![end])}
      onInput={(event) => {
        const value = low + (event.currentTarget.valueAsNumber / STEPS) * (high - low);
        const changed: [number, number] = end ? [ends![0], value] : [value, ends![1]];
        if (changed[0] < changed[1]) onEnds!(changed.map((each) => Number(each.toPrecision(5))) as [number, number]);
        else event.currentTarget.value = `${Math.round(at(ends![end]) * STEPS)}`;
      }}
    />
  );
  return (
    <figure class="histogram">
      <div class="chart">
        <svg
          viewBox={`0 0 ${bins.length} 100`}
          preserveAspectRatio="none"
          role="img"
          aria-label={empty ? `${label}: none is finite` : `${label}: from ${number(low)} to ${number(high)}`}
        >
          {ends && (
            <rect
              x={at(ends[0]) * bins.length}
              width={Math.max(0, at(ends[1]) - at(ends[0])) * bins.length}
              height="100"
              class="within"
            />
          )}
          <path d={path} />
        </svg>
        {ends && !empty && handle(0)}
        {ends && !empty && handle(1)}
      </div>
      <figcaption>
        <span>{empty || number(low)}</span>
        <span class="soft">{empty ? "no finite value" : label}</span>
        <span>{empty || number(high)}</span>
      </figcaption>
    </figure>
  );
}
