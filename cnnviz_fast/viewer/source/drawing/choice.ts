/* Which way of drawing a page takes: the one whose first frames took less time. That there is WebGL2 says little: drawn
on the CPU it is slower than JavaScript. */

import { CanvasPainter } from "./canvas2d";
import type { Painter, Scene } from "./scene";
import { WebglPainter } from "./webgl2";

export type Method = "webgl2" | "canvas2d";

interface Verdict {
  method: Method;
  why: string;
}

/** Share of a frame that WebGL2 draws first: drawn on the CPU, all of it would keep the page waiting. */
const TRIED = 1 / 8;
/** How long after its first frame a page tries, in ms: not while it opens. */
const TRIAL_AFTER_MS = 500;

/** Of the page: its other walls need no trial. */
let verdict: Verdict | null = null;

/** A painter that becomes another one when a faster way is found, and when WebGL2 is lost. */
export class ChosenPainter {
  method: Method = "canvas2d";
  private painter: Painter = new CanvasPainter();
  private trial = 0;
  private isSettled = false;

  constructor(
    asked: Method | undefined,
    /** Called when the way of drawing is settled, and when it changes. */
    private readonly onMethod: (method: Method, why: string) => void,
    /** Called when all has to be drawn again. */
    private readonly onStale: () => void,
  ) {
    const known = asked ? { method: asked, why: "asked for" } : verdict;
    if (known?.method === "webgl2") this.settle(known, WebglPainter.open(false, this.lose));
    else if (known) this.settle(known, this.painter);
  }

  paint(scene: Scene, onto: CanvasRenderingContext2D): void {
    try {
      this.painter.paint(scene, onto);
    } catch (error) {
      if (this.method === "canvas2d") throw error;
      this.fallBack((error as Error).message);
      this.painter.paint(scene, onto);
    }
    if (!this.isSettled) this.trial ||= setTimeout(() => this.compare(scene), TRIAL_AFTER_MS);
  }

  close(): void {
    clearTimeout(this.trial);
    this.painter.close();
  }

  /** Time both ways, after a first frame that shows something. */
  private compare(scene: Scene): void {
    const rival = WebglPainter.open(true, this.lose);
    try {
      verdict = rival ? faster(rival, scene) : { method: "canvas2d", why: "this browser has no WebGL2 on a graphics card" };
    } catch (error) {
      verdict = { method: "canvas2d", why: (error as Error).message };
    }
    if (verdict.method === "canvas2d") rival?.close();
    this.settle(verdict, verdict.method === "webgl2" ? rival : this.painter);
  }

  private settle({ method, why }: Verdict, painter: Painter | null): void {
    if (!painter) return this.fallBack("this browser has no WebGL2");
    if (painter !== this.painter) this.painter.close();
    [this.painter, this.method, this.isSettled] = [painter, method, true];
    this.onMethod(method, why);
    this.onStale();
  }

  private readonly lose = (): void => this.fallBack("the WebGL2 context was lost");

  private fallBack(why: string): void {
    verdict = { method: "canvas2d", why };
    this.settle(verdict, new CanvasPainter());
  }
}

function faster(rival: WebglPainter, scene: Scene): Verdict {
  const js_ms = new CanvasPainter().time(scene);
  rival.time(scene, TRIED); // sends it the maps
  let [share, gl_ms] = [TRIED, rival.time(scene, TRIED)];
  if (gl_ms < js_ms) [share, gl_ms] = [1, rival.time(scene, 1)];
  const why = `WebGL2 took ${gl_ms.toFixed(1)} ms for ${share} of a frame, Canvas2D ${js_ms.toFixed(1)} ms for all of it`;
  return { method: gl_ms < js_ms ? "webgl2" : "canvas2d", why };
}
