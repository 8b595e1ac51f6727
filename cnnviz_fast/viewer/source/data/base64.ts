/* Base64 to bytes. `Uint8Array.from(atob(text), ...)` takes ten times as long as the loop, and no regular expression is
run over the text: Safari gives up near a million characters. */

export function fromBase64(text: string): Uint8Array {
  const characters = atob(text); // which skips white space
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}
