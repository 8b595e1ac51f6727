/* The difference of two atlases, as an atlas: it is drawn, sorted and pointed at like any other. */

import { LAST_LEVEL, MINUS_INF, NAN, PLUS_INF, valueOf, type Atlas } from "./atlas";

/** Return b - a, in float32. Each value is kept within half a level of its channel. */
export function difference(a: Atlas, b: Atlas): Atlas {
  const { channels, height, width } = a;
  const cells = height * width;
  const index = new Uint8Array(channels * cells);
  const [vmin, vmax, mean, std] = Array.from({ length: 4 }, () => new Float32Array(channels)) as Float32Array[];
  const zeros = new Int32Array(channels);
  const changes = new Float32Array(cells);
  const [before, after] = [new Float32Array(256), new Float32Array(256)];
  for (let c = 0; c < channels; c++) {
    for (let entry = 0; entry < 256; entry++) {
      before[entry] = valueOf(a, c, entry);
      after[entry] = valueOf(b, c, entry);
    }
    let [low, high, sum, count] = [Infinity, -Infinity, 0, 0];
    for (let i = 0; i < cells; i++) {
      const change = Math.fround(after[b.index[c * cells + i]!]! - before[a.index[c * cells + i]!]!);
      changes[i] = change;
      if (!Number.isFinite(change)) continue;
      low = Math.min(low, change);
      high = Math.max(high, change);
      sum += change;
      count += 1;
      if (change === 0) zeros[c]! += 1;
    }
    vmin![c] = count ? low : NaN;
    vmax![c] = count ? high : NaN;
    mean![c] = sum / count;
    const levels = high > low ? LAST_LEVEL / (high - low) : 0;
    let squares = 0;
    for (let i = 0; i < cells; i++) {
      const change = changes[i]!;
      const finite = Number.isFinite(change);
      if (finite) squares += (change - sum / count) ** 2;
      const entry = finite ? Math.floor((change - low) * levels + 0.5) : NAN;
      index[c * cells + i] = change === Infinity ? PLUS_INF : change === -Infinity ? MINUS_INF : entry;
    }
    std![c] = Math.sqrt(squares / count);
  }
  return { ...a, index, vmin: vmin!, vmax: vmax!, mean: mean!, std: std!, zeros };
}
