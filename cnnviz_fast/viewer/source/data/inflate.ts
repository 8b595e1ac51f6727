/* The one zlib stream of a safetensors file, inflated no further than its header announces. */

import { DamagedError } from "./errors";

const MOST_BYTES = 2 ** 30; // a small file can claim to hold more
const MOST_HEADER_BYTES = 2 ** 22;

/** Inflate a safetensors file. `label` names it in errors. */
export async function inflateTensors(packed: Uint8Array, label: string): Promise<Uint8Array> {
  if (!packed.length) throw new DamagedError(`${label} is empty (0 bytes).`);
  const stream = new Blob([packed as BlobPart]).stream().pipeThrough(new DecompressionStream("deflate"));
  const reader = stream.getReader();
  let plain = new Uint8Array(1 << 16);
  let held = 0;
  let size: number | null = null;
  for (;;) {
    const { done, value } = await reader.read().catch(() => {
      throw new DamagedError(`${label} is not an atlas, or damaged or cut off: it does not inflate.`);
    });
    if (done) break;
    plain = withRoom(plain, held + value.length, size);
    plain.set(value, held);
    held += value.length;
    size ??= announcedSize(plain.subarray(0, held), label);
    if (size !== null && held > size) {
      await reader.cancel();
      throw new DamagedError(`${label} is damaged: it holds more than its header says.`);
    }
  }
  if (held !== size) throw new DamagedError(`${label} is damaged: it holds less than its header says.`);
  return plain.subarray(0, size);
}

/** Return the bytes that a file says it holds; null as long as its header is not there. */
function announcedSize(start: Uint8Array, label: string): number | null {
  if (start.length < 8) return null;
  const end = headerEnd(start);
  if (end > MOST_HEADER_BYTES) throw new DamagedError(`${label} is not an atlas: it has no header.`);
  if (start.length < end) return null;
  const ends = Object.entries(readHeader(start, label)).map(([name, entry]) =>
    name === "__metadata__" ? 0 : Number((entry as { data_offsets?: unknown[] } | null)?.data_offsets?.[1]),
  );
  const size = end + Math.max(0, ...ends);
  if (!Number.isSafeInteger(size)) throw new DamagedError(`${label} is damaged: its header does not say where tensors lie.`);
  if (size > MOST_BYTES) throw new DamagedError(`${label} must hold at most ${MOST_BYTES} bytes, got ${size}.`);
  return size;
}

/** Return where the header of a safetensors file ends and its tensors begin. */
export function headerEnd(plain: Uint8Array): number {
  return 8 + Number(new DataView(plain.buffer, plain.byteOffset).getBigUint64(0, true));
}

/** Return the header of a safetensors file. */
export function readHeader(plain: Uint8Array, label: string): Record<string, unknown> {
  try {
    const header: unknown = JSON.parse(new TextDecoder().decode(plain.subarray(8, headerEnd(plain))));
    if (typeof header === "object" && header !== null && !Array.isArray(header)) return header as Record<string, unknown>;
  } catch {
    // said below
  }
  throw new DamagedError(`${label} is not an atlas, or damaged: its header is not JSON.`);
}

/** Return `plain`, or a copy with room for `least` bytes: for all of the file once its size is known. */
function withRoom(plain: Uint8Array<ArrayBuffer>, least: number, size: number | null): Uint8Array<ArrayBuffer> {
  if (plain.length >= least) return plain;
  const larger = new Uint8Array(Math.max(least, size ?? 2 * plain.length));
  larger.set(plain);
  return larger;
}
