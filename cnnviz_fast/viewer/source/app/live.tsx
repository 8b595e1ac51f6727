/* A model behind the server: an image that is dropped, pasted, chosen or taken goes through it, and its maps are shown. */

import { useEffect, useRef, useState } from "preact/hooks";

import type { Live, Run } from "../catalogue";
import { ask } from "../data/payloads";
import { layerNamed, type Session } from "./session";
import { addressOf } from "./state";

interface Request {
  image: Blob | null;
  layers: string[];
  size: number;
  crop: Live["crop"];
}

const CROPS: Record<Live["crop"], string> = { center: "the middle", squash: "squashed", pad: "with borders" };

/** What was asked for last in each session, and what of it is shown: where the model fails, that is asked for again. */
const requests = new WeakMap<Session, { asked: Request; shown: Request }>();
let under_way = 0;

function requestsOf(session: Session): { asked: Request; shown: Request } {
  const { chosen: layers, size, crop } = session.catalogue.live!;
  const first = { image: null, layers, size, crop };
  const known = requests.get(session) ?? { asked: first, shown: first };
  requests.set(session, known);
  return known;
}

/** Ask again with a change: another image, a layer more, another size. The last answer asked for is shown. */
export async function capture(
  session: Session,
  say: (text: string) => void,
  change: Partial<Omit<Request, "layers">> & { and?: string },
): Promise<void> {
  const known = requestsOf(session);
  const { and, ...rest } = change;
  const asked = { ...known.asked, ...rest };
  if (and && !asked.layers.includes(and)) asked.layers = [...asked.layers, and];
  const live = session.catalogue.live!;
  if (asked.image && asked.image.size > live.limit_bytes)
    return say(`The image must have at most ${live.limit_bytes.toLocaleString("en")} bytes.`);
  known.asked = asked;
  if (!asked.image) {
    known.shown = asked;
    return say("Drop an image first.");
  }
  const number = ++under_way;
  const query = new URLSearchParams({ crop: asked.crop });
  if (asked.size) query.set("size", `${asked.size}`); // clips and volumes have none
  if (asked.image instanceof File) query.set("name", asked.image.name);
  asked.layers.forEach((layer) => query.append("layer", layer));
  try {
    const headers = { "X-Cnnviz-Token": live.token };
    const answer = await ask(`live?${query}`, { method: "POST", body: asked.image, headers });
    const run = (await answer.json()) as Run;
    if (number !== under_way) return;
    known.shown = asked;
    session.replaceRun(run);
    const added = and === undefined ? undefined : layerNamed(run, and);
    const layer = added && { layer: addressOf(added), view: null };
    session.set({ run: run.id, image: 0, ...layer }, and ? "push" : "replace");
  } catch (error) {
    if (number === under_way) known.asked = known.shown;
    say((error as Error).message);
  }
}

export function LivePanel({ session, say }: { session: Session; say: (text: string) => void }) {
  const request = requestsOf(session).asked;
  const { most_px } = session.catalogue.live!;
  const [over, setOver] = useState(false);
  const [camera, setCamera] = useState<MediaStream | null>(null);
  const file = useRef<HTMLInputElement>(null);
  const take = (files: FileList | undefined | null) => {
    const image = [...(files ?? [])].find(({ type }) => type.startsWith("image/")) ?? files?.[0];
    if (image) void capture(session, say, { image });
  };
  const takeDropped = (dropped: DataTransfer | null) => {
    const is_folder = [...(dropped?.items ?? [])].some((item) => item.webkitGetAsEntry()?.isDirectory);
    if (is_folder) say("That is a folder. Drop one image.");
    else if (!dropped?.files.length) say("That is no file. Save the image, and drop its file.");
    else take(dropped.files);
  };
  useEffect(() => {
    const drag = (event: DragEvent) => (event.preventDefault(), setOver(event.type === "dragover"));
    const drop = (event: DragEvent) => (drag(event), takeDropped(event.dataTransfer));
    const paste = (event: ClipboardEvent) => take(event.clipboardData?.files);
    addEventListener("dragover", drag);
    addEventListener("dragleave", drag);
    addEventListener("drop", drop);
    addEventListener("paste", paste);
    return () => {
      removeEventListener("dragover", drag);
      removeEventListener("dragleave", drag);
      removeEventListener("drop", drop);
      removeEventListener("paste", paste);
    };
  }, []);
  const openCamera = () =>
    navigator.mediaDevices // which browsers give to pages of this machine alone, or of https
      ? navigator.mediaDevices
          .getUserMedia({ video: true })
          .then(setCamera, (error: Error) => say(`No camera: ${error.message}`))
      : say("No camera: the browser has none for a page of another machine.");
  return (
    <section class={over ? "live over" : "live"} aria-label="Image for the model">
      <h2>Image</h2>
      <button class="drop" onClick={() => file.current!.click()}>
        Drop or paste an image, or choose a file
      </button>
      <input
        ref={file}
        id="file"
        type="file"
        accept="image/*"
        class="hidden"
        aria-label="Image file"
        tabIndex={-1}
        onChange={(event) => take(event.currentTarget.files)}
      />
      {camera ? (
        <Camera
          stream={camera}
          onImage={(image) => void capture(session, say, { image })}
          onClose={() => setCamera(null)}
        />
      ) : (
        <button onClick={() => void openCamera()}>Camera</button>
      )}
      <div class="row" hidden={!request.size}>
        <label>
          Size{" "}
          <input
            id="size"
            type="number"
            min={1}
            max={most_px}
            step={1}
            value={request.size}
            onChange={(event) => {
              const size = event.currentTarget.valueAsNumber;
              if (size >= 1 && size <= most_px) void capture(session, say, { size });
              else say(`The size must be 1 to ${most_px} px.`);
            }}
          />
        </label>
        <label>
          Crop{" "}
          <select
            id="crop"
            value={request.crop}
            onChange={(event) => void capture(session, say, { crop: event.currentTarget.value as Live["crop"] })}
          >
            {Object.entries(CROPS).map(([crop, meaning]) => (
              <option value={crop}>{meaning}</option>
            ))}
          </select>
        </label>
      </div>
    </section>
  );
}

function Camera({
  stream,
  onImage,
  onClose,
}: {
  stream: MediaStream;
  onImage: (image: Blob) => void;
  onClose: () => void;
}) {
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    video.current!.srcObject = stream;
    return () => stream.getTracks().forEach((track) => track.stop());
  }, [stream]);
  const take = () => {
    const { videoWidth, videoHeight } = video.current!;
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [videoWidth, videoHeight];
    canvas.getContext("2d")!.drawImage(video.current!, 0, 0);
    canvas.toBlob((image) => image && onImage(image), "image/png");
  };
  return (
    <div class="camera">
      <video ref={video} autoplay muted playsInline aria-label="Camera" />
      <div class="row">
        <button onClick={take}>Take</button>
        <button onClick={onClose}>Close</button>
      </div>
    </div>
  );
}
