/* What the page knows: the catalogue, the state with its history, and payloads, kept while they are looked at. */

import { atlasKey, type Catalogue, type Image, type Layer, type Run } from "../catalogue";
import { decodeAtlas, type Atlas } from "../data/atlas";
import { ask, Payloads } from "../data/payloads";
import { readTensors, type Tensor } from "../data/tensors";
import { addressOf, planeOf, readHash, writeHash, type State } from "./state";
import { namesApart } from "./text";

const MOST_KEPT = 48;
/** Fields of the state that say what is read. What could not be read is read again when one of them is chosen. */
const SOURCES: (keyof State)[] = ["run", "image", "layer", "other"];

/** Something that is fetched and decoded: neither yet, or one of the two. */
export interface Found<T> {
  value?: T;
  error?: string;
}

export interface Photo {
  bitmap: ImageBitmap;
  url: string;
}

/** The layer that an address names, or a model: of a clip or a volume its first step or plane. */
export function layerNamed(run: Run | undefined, name: string): Layer | undefined {
  const where = (is: (layer: Layer) => boolean) => run?.layers.find(is);
  return (
    where((layer) => layer.name === name) ??
    where((layer) => addressOf(layer) === name) ??
    where((layer) => planeOf(layer.name)?.layer === name)
  );
}

export class Session {
  state: State;
  /** Why images are not listed that were asked for, if so. */
  unlisted: string | undefined;
  /** Called after every change. */
  onChange: () => void = () => {};
  private readonly payloads: Payloads;
  private readonly kept = new Map<string, Found<unknown>>();
  private readonly asked = new Set<string>();
  private readonly names = new WeakMap<Run, string[]>();

  constructor(readonly catalogue: Catalogue) {
    this.payloads = new Payloads(catalogue.store);
    this.state = readHash(location.hash);
    addEventListener("popstate", () => {
      this.state = readHash(location.hash);
      this.forgetErrors();
      this.onChange();
    });
  }

  /** Change the state; with `push` the address before it stays in the history, to go back to. */
  set(change: Partial<State>, how: "push" | "replace" = "push"): void {
    this.state = { ...this.state, ...change };
    if (SOURCES.some((name) => name in change)) this.forgetErrors();
    try {
      const hash = writeHash(this.state);
      if (hash !== location.hash) history[how === "push" ? "pushState" : "replaceState"](null, "", hash);
    } catch {
      // A page inside another one, as in a notebook, has no address of its own.
    }
    this.onChange();
  }

  get run(): Run | undefined {
    return this.catalogue.runs.find((run) => run.id === this.state.run) ?? this.catalogue.runs[0];
  }

  get layer(): Layer | undefined {
    return this.layerOf(this.run);
  }

  get image(): Image | undefined {
    return this.run && this.imageAt(this.run, Math.min(this.state.image, this.run.image_count - 1));
  }

  /** The run and image that are compared with; the layer of the same name in it. */
  get other(): { run: Run; layer: Layer; image: Image } | undefined {
    const [id, at] = this.state.other ?? [];
    const run = this.catalogue.runs.find((each) => each.id === id);
    const layer = run?.layers.find((each) => each.name === this.layer?.name);
    const image = run && layer && this.imageAt(run, at!);
    return image ? { run, layer: layer!, image } : undefined;
  }

  layerOf(run: Run | undefined): Layer | undefined {
    return layerNamed(run, this.state.layer) ?? run?.layers[0];
  }

  /** An image by its number, which is its id; undefined until the server has answered. */
  imageAt(run: Run, at: number): Image | undefined {
    const { images_at_once } = this.catalogue;
    const page = images_at_once ? at - (at % images_at_once) : 0;
    const key = `images/${run.id}?first=${page}`;
    if (images_at_once && !run.images[at] && at >= 0 && at < run.image_count && !this.asked.has(key)) {
      this.asked.add(key);
      ask(key)
        .then((answer) => answer.json() as Promise<{ images: Image[] }>)
        .then(
          ({ images }) => {
            images.forEach((image, i) => (run.images[page + i] = image));
            this.names.delete(run);
          },
          (error: Error) => (this.unlisted = error.message),
        )
        .finally(() => this.onChange());
    }
    return run.images[at];
  }

  /** What an image is called, by its number: its file's name, with the folders that tell it from others of that name. */
  nameAt(run: Run, at: number): string | undefined {
    if (!this.names.has(run)) this.names.set(run, namesApart(run.images.map(({ name }) => name)));
    return this.names.get(run)![at];
  }

  atlas(run: Run, layer: Layer, image: Image): Found<Atlas> {
    if (image.absent.includes(layer.id)) return { error: `${image.name} has no maps of ${layer.name}` };
    return this.find(atlasKey(run, layer, image), (bytes) => decodeAtlas(bytes, `${layer.name} of ${image.name}`));
  }

  /** What the model saw of an image, or what lies under a layer of it. `later`: take it only where it is there, since
  something else is waited for. */
  photo(image: Image, layer: Layer | null, later = false): Found<Photo> {
    const key = (layer && image.frames?.[layer.id]) ?? image.photo;
    if (!key) return { error: "no photo" };
    if (later && !this.kept.has(key)) return {};
    return this.find(key, async (bytes) => {
      const blob = new Blob([bytes as BlobPart]);
      return { bitmap: await createImageBitmap(blob), url: URL.createObjectURL(blob) };
    });
  }

  /** The address of a picture in a payload. */
  picture(key: string): Found<string> {
    return this.find(key, async (bytes) => URL.createObjectURL(new Blob([bytes as BlobPart])));
  }

  tensors(key: string | null): Record<string, Tensor> | undefined {
    return key ? this.find(key, async (bytes) => (await readTensors(bytes, key)).tensors).value : undefined;
  }

  find<T>(key: string, decode: (bytes: Uint8Array) => Promise<T>): Found<T> {
    const known = this.kept.get(key) as Found<T> | undefined;
    if (known) {
      this.kept.delete(key); // and to the end, since the first one goes first
      this.kept.set(key, known);
      return known;
    }
    const found: Found<T> = {};
    this.kept.set(key, found);
    while (this.kept.size > MOST_KEPT) this.drop(this.kept.keys().next().value!);
    this.payloads
      .bytes(key)
      .then(decode)
      .then(
        (value) => (found.value = value),
        (error: Error) => (found.error = error.message),
      )
      .finally(() => this.onChange());
    return found;
  }

  /** Put a run in the place of the one with its id, which a new image in live mode makes. */
  replaceRun(run: Run): void {
    const { runs } = this.catalogue;
    const at = runs.findIndex((each) => each.id === run.id);
    runs[at < 0 ? runs.length : at] = run;
    for (const { similarity } of run.layers) if (similarity) this.drop(similarity); // it is that of the latest image
  }

  private forgetErrors(): void {
    for (const [key, { error }] of this.kept) if (error !== undefined) this.kept.delete(key);
    if (this.unlisted !== undefined) this.asked.clear();
    this.unlisted = undefined;
  }

  private drop(key: string): void {
    const value = this.kept.get(key)?.value as { url?: string } | string | undefined;
    const url = typeof value === "string" ? value : value?.url;
    if (url) URL.revokeObjectURL(url);
    this.kept.delete(key);
  }
}
