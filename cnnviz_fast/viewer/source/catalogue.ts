/* What a page or a server shows, as Python writes it: JSON in `<script type="application/json" id="catalogue">`.

Payloads, by key. None is decoded before it is looked at.

    a-RUN-LAYER-IMAGE    an atlas file, byte for byte (see formats/atlas.py)
    p-RUN-IMAGE          JPEG or PNG of the view that the model saw; of a frame with "-" and its number behind it
    Layer.statistics     columns over the data set: float32 (C,) each, by name, as safetensors in a zlib stream
    Layer.kernels        "kernel": uint8 (C, 3, kh, kw), as safetensors in a zlib stream
    Layer.similarity     "order": int32 (C,), row by row of a grid of "columns": int32 (1,), likewise
    Layer.patches        with "-" and a channel behind it: one JPEG, the strongest patch first, side by side, square
    Attribution.key      an atlas over the whole view, of which one channel is shown

Where they lie: `inline`: `<script type="text/plain" id="KEY">`, base64; `scripts`: `data/KEY.js`, which calls
`cnnviz.put("KEY", "base64")`, and may put several; `server`: `GET data/KEY`.

A server also answers `GET sheet/ATLAS-KEY?colormap=magma&normalize=layer&channels=5,3,8&...` with the PNG that the
package draws, options named as those of `cf.render`, and `GET images/RUN?first=N`, see Run.

The page has `<div id="app">`, the style sheet and this program in one `<style>` and one `<script>` behind it. */

export interface Catalogue {
  version: 1;
  /** Version of the package that wrote this. */
  package: string;
  title: string;
  store: "inline" | "scripts" | "server";
  /** Colormaps by name, each base64 of 256 x 3 bytes; the first is drawn unless another is chosen. */
  palettes: Record<string, string>;
  /** Atlases that could not be used and the like, one sentence each, shown once. */
  notes: string[];
  runs: Run[];
  /** Of a server: how many images it tells of at once. */
  images_at_once?: number;
  /** Of a server that others may ask, too: they need its token, which no address of the page holds. */
  has_token?: boolean;
  live?: Live;
}

export interface Run {
  id: number;
  name: string;
  model: string;
  layers: Layer[];
  /** With a server the first `images_at_once`; as many further ones by `GET images/RUN?first=N`: `{"images": Image[]}`.
  An address names an image by its place here. */
  images: Image[];
  image_count: number;
  /** Templates with {image}, {layer} and {options}, for which the page puts in quoted text: `'cat.jpg'` and
  ` --normalize 'layer'` in a shell, `"cat.jpg"` and `, normalize="layer"` in Python. Null where there is no such line. */
  command: { python: string | null; shell: string } | null;
}

export interface Layer {
  id: number;
  name: string;
  channels: number;
  height: number;
  width: number;
  axes: string;
  /** How cells lie over the view unless the user chooses. */
  align: Align;
  field: Field | null;
  statistics: string | null;
  patches: string | null;
  kernels: string | null;
  similarity: string | null;
}

export type Align = "left" | "center" | "corners" | "field";

/** Receptive fields, (y, x) in px of the view: that of cell (i, j) has its middle at offset + (i, j) * stride. */
export interface Field {
  size: [number, number];
  stride: [number, number];
  offset: [number, number];
}

export interface Image {
  id: number;
  name: string;
  /** Of the view that the model saw, in px. */
  width: number;
  height: number;
  photo: string | null;
  /** Of a volume or a clip, by the id of each layer that is a plane of it: the view that lies under that one. */
  frames?: Record<number, string>;
  /** Layers that have no maps of it, by id. */
  absent: number[];
  attribution: Attribution[];
}

export interface Attribution {
  /** Shown with this layer only, by id; null: with all. */
  layer: number | null;
  name: string;
  key: string;
  /** Of the atlas. */
  channel: number;
}

/** A model behind the server. `POST live?layer=A&layer=B&size=224&crop=center&name=cat.jpg` with an image as the body, and the
header `X-Cnnviz-Token`, answers with a Run: its layers, and one image, whose payloads are there until the next few.
An error is text of one sentence. */
export interface Live {
  token: string;
  /** Every layer that can be chosen, in the order of the model. */
  layers: string[];
  /** Those of the first pass. */
  chosen: string[];
  /** Side of the view, in px, and the largest that it may have; 0 for clips, volumes and signals. */
  size: number;
  most_px: number;
  crop: "center" | "squash" | "pad";
  limit_bytes: number;
}

export function atlasKey(run: Run, layer: Layer, image: Image): string {
  return `a-${run.id}-${layer.id}-${image.id}`;
}
