/* How often each level stands in the maps of an atlas, counted once. */

import type { Atlas } from "./atlas";

/** Every result, for as long as its atlas is kept. */
export function perAtlas<T>(compute: (atlas: Atlas) => T): (atlas: Atlas) => T {
  const known = new WeakMap<Atlas, T>();
  return (atlas) => {
    if (!known.has(atlas)) known.set(atlas, compute(atlas));
    return known.get(atlas)!;
  };
}

/** (C * 256): how often each entry of the index stands in a channel. */
export const countsOf = perAtlas((atlas) => {
  const area = atlas.height * atlas.width;
  const found = new Uint32Array(atlas.channels * 256);
  for (let c = 0, i = 0; c < atlas.channels; c++)
    for (let end = i + area; i < end; i++) found[c * 256 + atlas.index[i]!]!++;
  return found;
});
