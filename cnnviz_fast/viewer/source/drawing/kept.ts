/* What was made last, kept until something that it was made of changes. */

export class Kept<T> {
  private sources: unknown[] | null = null;
  private made!: T;

  /** Return what was made of the same sources (the same objects, equal numbers), or make it. */
  of(sources: unknown[], make: () => T): T {
    const same = this.sources?.length === sources.length && sources.every((source, i) => Object.is(source, this.sources![i]));
    if (!same) [this.made, this.sources] = [make(), sources];
    return this.made;
  }
}
