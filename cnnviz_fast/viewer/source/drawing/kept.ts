/* What was made last, kept until something that it was made of changes. */

export class Kept<T> {
  private sources: unknown[] | null = null;
  private made: T | undefined;

  /** Return what was made of the same sources (the same objects, equal numbers), or make it, from what was made before. */
  of(sources: unknown[], make: (before: T | undefined) => T): T {
    const same = this.sources?.length === sources.length && sources.every((source, i) => Object.is(source, this.sources![i]));
    if (!same) [this.made, this.sources] = [make(this.made), sources];
    return this.made as T;
  }
}
