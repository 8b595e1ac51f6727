/* Atlases: all channels of a layer as uint8 levels between the extremes of each. The head of formats/atlas.py defines
the file. */

import { DamagedError } from "./errors";
import { readTensors, type Tensor } from "./tensors";

/** Levels of an index: 0 .. LAST_LEVEL. The entries behind them stand for what is not finite. */
export const LAST_LEVEL = 252;
export const NAN = 253;
export const MINUS_INF = 254;
export const PLUS_INF = 255;

const VERSION = 1;

export interface Atlas {
  channels: number;
  height: number;
  width: number;
  /** (channels, height, width). */
  index: Uint8Array;
  /** Of the finite values of each channel; NaN where there are none. */
  vmin: Float32Array;
  vmax: Float32Array;
  mean: Float32Array;
  std: Float32Array;
  zeros: Int32Array;
  /** Where the maps came from: the fields of the package's Provenance. */
  provenance: Record<string, unknown>;
}

/** Read an atlas. `label` names it in errors, such as "atlas 'cat.atlas'". */
export async function decodeAtlas(packed: Uint8Array, label = "the atlas"): Promise<Atlas> {
  const { tensors, record } = await readTensors(packed, label);
  const { format, version, source } = record;
  if (format !== "atlas" || typeof version !== "number" || typeof source !== "object" || source === null) {
    throw new DamagedError(`${label} is not an atlas: it holds other tensors.`);
  }
  if (version > VERSION) {
    throw new DamagedError(`${label} must be of version ${VERSION} at most, got ${version}. Install a newer cnnviz_fast.`);
  }
  const { index } = tensors;
  if (index?.dtype !== "U8" || index.shape.length !== 3 || !index.values.length) {
    throw new DamagedError(`${label} is damaged: index must be (C, H, W) uint8.`);
  }
  const [channels, height, width] = index.shape as [number, number, number];
  const column = (name: string, dtype: Tensor["dtype"]): Tensor["values"] => {
    const found = tensors[name];
    if (found?.dtype !== dtype || found.shape.length !== 1 || found.shape[0] !== channels) {
      throw new DamagedError(`${label} is damaged: ${name} must have one entry for each of ${channels} channels.`);
    }
    return found.values;
  };
  const floats = (name: string): Float32Array => column(name, "F32") as Float32Array;
  return {
    channels,
    height,
    width,
    index: index.values as Uint8Array,
    vmin: floats("vmin"),
    vmax: floats("vmax"),
    mean: floats("mean"),
    std: floats("std"),
    zeros: column("zeros", "I32") as Int32Array,
    provenance: source as Record<string, unknown>,
  };
}

/** Return what an entry of a channel's index stands for, in float32 as the package restores it. */
export function valueOf(atlas: Atlas, channel: number, entry: number): number {
  if (entry > LAST_LEVEL) return entry === NAN ? NaN : entry === PLUS_INF ? Infinity : -Infinity;
  const fraction = entry / LAST_LEVEL;
  // At each end one of the products is 0, so the other is exact.
  return Math.fround(atlas.vmin[channel]! * (1 - fraction) + atlas.vmax[channel]! * fraction);
}

/** Return one value of a map. */
export function value(atlas: Atlas, channel: number, y: number, x: number): number {
  return valueOf(atlas, channel, atlas.index[(channel * atlas.height + y) * atlas.width + x]!);
}

/** An atlas of one channel of another: nothing is computed for the rest. */
export function channelOf(atlas: Atlas, channel: number): Atlas {
  const area = atlas.height * atlas.width;
  const part = <T extends Float32Array | Int32Array>(column: T): T => column.subarray(channel, channel + 1) as T;
  const { vmin, vmax, mean, std, zeros } = atlas;
  const index = atlas.index.subarray(channel * area, (channel + 1) * area);
  return {
    ...atlas,
    channels: 1,
    index,
    vmin: part(vmin),
    vmax: part(vmax),
    mean: part(mean),
    std: part(std),
    zeros: part(zeros),
  };
}
