/* What is taken along: the link, the code that draws this sheet, its pixels, its numbers. */

import { atlasKey } from "../catalogue";
import { ask } from "../data/payloads";
import { kinds, measures } from "./measures";
import { percentilesIn, rangeName } from "./ranges";
import type { Session } from "./session";
import type { Shown } from "./shown";
import { alignOf, planeOf } from "./state";

type Options = Record<string, string>;

/** Whether `cf.render` draws the sheet that is shown: not of two images, on the range of a data set, or of no channel. */
export function isDrawn({ state }: Session, { order, known, second }: Shown): boolean {
  return !second && rangeName(state, known.columns) !== "dataset" && order.length > 0;
}

/** Options of `cf.render` that make the sheet that is shown, without those that are as they are anyway. */
function optionsOf({ state }: Session, { order, layer, known, colors, look }: Shown): Options {
  const range = rangeName(state, known.columns);
  const { ends } = state;
  const natural = order.length === layer.channels && order.every((c, i) => c === i);
  const align = alignOf(state, layer);
  // The range of a layer is that of all of its channels, also where a few are drawn.
  const of_layer = range === "layer" || (range === "fixed" && !ends);
  const whole = look.low.findIndex((low, c) => low < look.high[c]!);
  return {
    ...(colors && { colormap: colors }),
    ...(range === "percentile" && { percentile: percentilesIn(state).join(",") }),
    ...(range === "fixed" && ends && { vmin: `${ends[0]}`, vmax: `${ends[1]}` }),
    ...(of_layer && natural && { normalize: "layer" }),
    ...(of_layer && !natural && whole >= 0 && { vmin: `${look.low[whole]}`, vmax: `${look.high[whole]}` }),
    ...(["symmetric", "sigmoid"].includes(range) && { normalize: range }),
    ...(align !== "center" && { align }),
    upsampling: state.upsampling,
    ...(!natural && { channels: listed(order) }),
  };
}

/** Channels as a list in which those that follow one another are ranges: 0-63,128. */
function listed(order: ArrayLike<number>): string {
  const parts: string[] = [];
  for (let i = 0; i < order.length; i++) {
    const first = order[i]!;
    while (i + 1 < order.length && order[i + 1] === order[i]! + 1) i++;
    parts.push(order[i] === first ? `${first}` : `${first}-${order[i]}`);
  }
  return parts.join(",");
}

/** The command, or the line of Python, that draws a sheet that `isDrawn`, from the template for it. */
export function codeOf(session: Session, shown: Shown, language: "shell" | "python", template: string): string {
  const { layer, image, photo } = shown;
  const { overlay, opacity } = session.state;
  const quoted = (text: string) => (language === "shell" ? `'${text.replaceAll("'", `'\\''`)}'` : JSON.stringify(text));
  // What a clip or a volume gives is a layer for each step or plane.
  const part = planeOf(layer.name);
  const options: Options = {
    ...(part && { planes: part.plane }),
    ...optionsOf(session, shown),
    ...(overlay && photo.value && { overlay: "", alpha: `${opacity}` }),
  };
  const written = Object.entries(options).map(([name, value]) => {
    if (value === "") return language === "shell" ? ` --${name}` : `, ${name}=True`;
    if (language === "shell") return ` --${name}${value.startsWith("-") ? "=" : " "}${quoted(value)}`;
    return `, ${name}=${Number.isFinite(Number(value)) ? value : quoted(value)}`;
  });
  const parts: Record<string, string> = {
    image: quoted(image.name.replace(/^(?=-)/, "./")), // which is no option then
    layer: quoted(part?.layer ?? layer.name),
    options: written.join(""),
  };
  return template.replace(/\{(image|layer|options)\}/g, (_, name: string) => parts[name]!);
}

/** One row a channel, in the order shown: measures, statistics over the set, kinds. */
export function tableOf({ known, order }: Shown): string {
  const of_set = Object.entries(known.columns).map(([name, column]) => [`set ${name}`, column]);
  const columns: Record<string, ArrayLike<number>> = { ...measures(known.a), ...Object.fromEntries(of_set) };
  const head = ["channel", ...Object.keys(columns).map(cell), "kinds"];
  const rows = Array.from(order, (c) =>
    [c, ...Object.values(columns).map((column) => column[c]), [...kinds(known.a)[c]!].join(" ")].join(","),
  );
  return [head.join(","), ...rows, ""].join("\r\n");
}

export async function copy(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea"); // where the page may not use the clipboard
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

export function save(name: string, content: Blob | string): void {
  const link = document.createElement("a");
  const blob = typeof content === "string" ? new Blob([content], { type: "text/csv" }) : content;
  link.href = URL.createObjectURL(blob);
  link.download = name.replace(/[^\w.-]+/g, "_").slice(-120);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000); // the browser is done with it by then
}

/** The sheet as the package draws it, from the server; without one, or where it draws none, what the canvas shows. */
export async function sheetOf(session: Session, shown: Shown, pixels: () => ImageData): Promise<Blob> {
  if (!shown.order.length) throw new Error("No channel is shown.");
  if (session.catalogue.store === "server" && isDrawn(session, shown) && !(session.state.overlay && shown.photo.value)) {
    const key = atlasKey(shown.run, shown.layer, shown.image);
    return (await ask(`sheet/${key}?${new URLSearchParams(optionsOf(session, shown))}`)).blob();
  }
  const image = pixels();
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext("2d")!.putImageData(image, 0, 0);
  return canvas.convertToBlob();
}

/** Text as a cell of a table: quoted, and no formula to a spreadsheet. */
function cell(text: string): string {
  return `"${text.replace(/^(?=[=+\-@])/, "'").replaceAll('"', '""')}"`;
}
