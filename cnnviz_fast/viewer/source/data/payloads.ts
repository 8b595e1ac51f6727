/* Payloads by key, from where the page keeps them. None is read before it is looked at. */

import type { Catalogue } from "../catalogue";
import { fromBase64 } from "./base64";

/** What data files have put, by key and part, in base64. */
const put = new Map<string, { parts: number; texts: Map<number, string> }>();

/** Called by data files: `cnnviz.put("KEY", "base64")`. A payload of several parts is in KEY.js, KEY.1.js, ...; each file
has a few MB at most, and each part is base64 of its own. */
export function putPayload(key: string, text: string, part = 0, parts = 1): void {
  const entry = put.get(key) ?? { parts, texts: new Map() };
  entry.texts.set(part, text);
  put.set(key, entry);
}

export class Payloads {
  private readonly pending = new Map<string, Promise<Uint8Array>>();

  constructor(private readonly store: Catalogue["store"]) {}

  /** Return the bytes of a payload. Asked for again while it is under way, it is read once. */
  bytes(key: string): Promise<Uint8Array> {
    let bytes = this.pending.get(key);
    if (!bytes) {
      const read = { inline: fromBlock, scripts: fromScripts, server: fromServer }[this.store];
      bytes = read(key).finally(() => this.pending.delete(key));
      this.pending.set(key, bytes);
    }
    return bytes;
  }
}

async function fromBlock(key: string): Promise<Uint8Array> {
  const block = document.getElementById(key);
  if (!block) throw new Error(`the page holds no ${key}.`);
  return fromBase64(block.textContent!);
}

async function fromScripts(key: string): Promise<Uint8Array> {
  if (!put.has(key)) await runFile(key);
  const parts = put.get(key)?.parts ?? 0;
  const texts = [];
  for (let part = 0; part < parts; part++) {
    if (!put.get(key)!.texts.has(part)) await runFile(`${key}.${part}`);
    texts.push(put.get(key)!.texts.get(part));
  }
  put.delete(key);
  if (!parts || texts.includes(undefined)) throw new Error(`data/${key}.js does not hold ${key}.`);
  const pieces = texts.map((text) => fromBase64(text!));
  return new Uint8Array(await new Blob(pieces as BlobPart[]).arrayBuffer());
}

/** Run a data file. `fetch` is blocked in pages from disk, a classic script is not. */
function runFile(name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `data/${name}.js`;
    script.onload = () => resolve();
    script.onerror = () => reject(new Error(`data/${name}.js is missing. The folder has to be copied as a whole.`));
    document.head.append(script);
    script.remove(); // which does not stop it
  });
}

async function fromServer(key: string): Promise<Uint8Array> {
  return new Uint8Array(await (await ask(`data/${key}`)).arrayBuffer());
}

/** Return what the server answers; an error is the sentence that it says. */
export async function ask(path: string, request?: RequestInit): Promise<Response> {
  const answer = await fetch(path, request).catch(() => {
    throw new Error("The server does not answer. It may have been stopped.");
  });
  if (!answer.ok) throw new Error((await answer.text()) || `the server has no ${path}.`);
  return answer;
}
