/* Errors of what is shown, each a sentence for the person who looks at the page. */

/** Bytes that are damaged, cut off, or of a version that this page does not know. */
export class DamagedError extends Error {
  override name = "DamagedError";
}
