/* Base64 to bytes. `Uint8Array.from(atob(text), ...)` takes ten times as long as the loop, and no regular expression is
run over the text: Safari gives up near a million characters. */

import { DamagedError } from "./errors";

export function fromBase64(text: string): Uint8Array {
  let characters;
  try {
    characters = atob(text); // which skips white space
  } catch {
    throw new DamagedError("this page is damaged: a part of it is no base64.");
  }
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}
