/* Drawing without WebGL: pixel by pixel in JavaScript, then onto a Canvas2D. */

import { drawEntries } from "./entries";
import { Kept } from "./kept";
import { over } from "./photo";
import type { Painter, Scene } from "./scene";

export class CanvasPainter implements Painter {
  private image = new ImageData(1, 1);
  private entries = new Uint16Array(1);
  private readonly drawn = new Kept<void>();

  paint(scene: Scene, onto: CanvasRenderingContext2D): void {
    this.draw(scene);
    onto.putImageData(this.image, 0, 0);
  }

  /** Return how long drawing takes, in ms. */
  time(scene: Scene): number {
    const start = performance.now();
    this.draw(scene);
    return performance.now() - start;
  }

  private draw(scene: Scene): void {
    const { down, across, atlases, levels, order, columns } = scene;
    const [height, width] = [down.length, across.length];
    if (this.image.height !== height || this.image.width !== width) {
      this.image = new ImageData(width, height);
      this.entries = new Uint16Array(width * height);
    }
    this.drawn.of([down, across, atlases, levels, order, columns], () => drawEntries(scene, this.entries));
    color(scene, this.entries, new Int32Array(this.image.data.buffer));
  }

  close(): void {
    this.image = new ImageData(1, 1);
  }
}

/** Draw the colours of entries, over the photo where there is one: what is not finite stands out whatever lies under it. */
function color({ colors, backdrop, down, across, weight }: Scene, entries: Uint16Array, out: Int32Array): void {
  const count = entries.length;
  for (let i = 0; i < count; i++) out[i] = colors[entries[i]!]!;
  if (!backdrop) return;
  for (let y = 0, i = 0; y < down.length; y++) {
    const row = down.place[y]! * backdrop.columns;
    for (let x = 0; x < across.length; x++, i++) {
      if (entries[i]! < 256) out[i] = over(weight, out[i]!, backdrop.pixels[row + across.place[x]!]!);
    }
  }
}
