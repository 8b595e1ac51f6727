/* Safetensors in a zlib stream, as formats/safetensors.py packs them: named arrays and a record. Nothing is trusted. */

import { DamagedError } from "./errors";
import { headerEnd, inflateTensors, readHeader } from "./inflate";

export interface Tensor {
  dtype: "U8" | "I32" | "F32";
  shape: number[];
  values: Uint8Array | Int32Array | Float32Array;
}

const KINDS = { U8: Uint8Array, I32: Int32Array, F32: Float32Array };

export interface TensorFile {
  tensors: Record<string, Tensor>;
  /** What the file says of them, under "cnnviz_fast"; empty where it says nothing. */
  record: Record<string, unknown>;
}

/** Read named arrays; those of other dtypes, as heat maps in float16 are, are left out. They are views of one buffer. */
export async function readTensors(packed: Uint8Array, label: string): Promise<TensorFile> {
  const plain = await inflateTensors(packed, label);
  const { __metadata__: metadata, ...entries } = readHeader(plain, label);
  const tensors: Record<string, Tensor> = Object.create(null);
  for (const [name, entry] of Object.entries(entries)) {
    const dtype = (entry as { dtype?: unknown } | null)?.dtype;
    if (typeof dtype === "string" && !Object.hasOwn(KINDS, dtype)) continue;
    const found = tensorAt(plain.subarray(headerEnd(plain)), entry);
    if (!found) throw new DamagedError(`${label} is damaged: its header does not say what ${name.slice(0, 40)} is.`);
    tensors[name] = found;
  }
  return { tensors, record: recordOf(metadata, label) };
}

function tensorAt(body: Uint8Array, entry: unknown): Tensor | null {
  const { dtype, shape, data_offsets } = (entry ?? {}) as Record<string, unknown>;
  if (!(dtype === "U8" || dtype === "I32" || dtype === "F32") || !isSizes(shape) || !isSizes(data_offsets)) return null;
  const [start, stop] = data_offsets as [number, number];
  const Kind: new (buffer: ArrayBufferLike, at?: number, count?: number) => Tensor["values"] = KINDS[dtype];
  const { BYTES_PER_ELEMENT: item } = KINDS[dtype];
  const count = shape.reduce((product, size) => product * size, 1);
  if (data_offsets.length !== 2 || stop > body.length || stop - start !== count * item) return null;
  const at = body.byteOffset + start;
  const values = at % item === 0 ? new Kind(body.buffer, at, count) : new Kind(body.slice(start, stop).buffer);
  return { dtype, shape, values };
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

function recordOf(metadata: unknown, label: string): Record<string, unknown> {
  const text = (metadata as Record<string, unknown> | undefined)?.["cnnviz_fast"];
  if (text === undefined) return {};
  try {
    const record: unknown = JSON.parse(String(text));
    if (typeof record === "object" && record !== null) return record as Record<string, unknown>;
  } catch {
    // said below
  }
  throw new DamagedError(`${label} is damaged: its record is not JSON.`);
}
