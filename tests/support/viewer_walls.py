"""Walls of the viewer in a tab of a browser: atlases go in, and the pixels of the canvas come out."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .viewer_pages import page_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

EMPTY = {"version": 1, "title": "", "palettes": {"gray": ""}, "notes": [], "runs": []}

NAN_RGB, MINUS_INF_RGB, PLUS_INF_RGB = (255, 0, 255), (0, 255, 255), (255, 255, 0)

# The page's policy allows no text to be run as a program, as Playwright's own waiting does.
SET_UP = """
globalThis.until = (holds) => new Promise((resolve) => {
  const look = () => holds() ? resolve() : requestAnimationFrame(look);
  look();
});
globalThis.bytesOf = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
globalThis.make = async ({ packed, height, width, method, normalize, look, grid, view, order, photo }) => {
  document.querySelector("canvas.tried")?.remove();
  globalThis.wall?.close();
  const canvas = document.createElement("canvas");
  canvas.className = "tried";
  canvas.style = `display: block; position: fixed; inset: 0 auto auto 0; height: ${height}px; width: ${width}px`;
  document.body.append(canvas);
  globalThis.said = [];
  globalThis.wall = new cnnviz.Wall(canvas, { method, onMethod: (...what) => said.push(what) });
  globalThis.atlases = await Promise.all(packed.map((text) => cnnviz.decodeAtlas(bytesOf(text))));
  const palette = Uint8Array.from({ length: 768 }, (_, i) => i / 3);
  const bad = { nan: [255, 0, 255], minus_inf: [0, 255, 255], plus_inf: [255, 255, 0] };
  const range = cnnviz.rangeOf(atlases, normalize); // of two on one scale
  globalThis.look = { palette, ...bad, ...range, ...look };
  if (photo) globalThis.look.photo = await createImageBitmap(new Blob([bytesOf(photo)]));
  wall.setAtlas(...atlases);
  wall.setOrder(Int32Array.from(order ?? Array(atlases[0].channels).keys()));
  wall.setGrid(grid);
  wall.setLook(globalThis.look);
  if (view) wall.setView(view);
};
globalThis.pixels = () => {
  const { data, height, width } = wall.pixels();
  let text = "";
  for (let i = 0; i < data.length; i++) text += String.fromCharCode(data[i]);
  return { text: btoa(text), height, width };
};
"""


def open_tab(tab: Page, folder: Path, *, store: str = "inline") -> Page:
    """Open a page without runs, whose program is then called. `store`: where it may read payloads."""
    path = folder / "walls.html"
    path.write_text(page_of({**EMPTY, "store": store}, {}))
    tab.goto(path.as_uri())
    tab.evaluate(f"() => {{ {SET_UP} }}")
    tab.evaluate("until(() => globalThis.cnnviz?.Wall)")
    return tab


def make_wall(
    tab: Page,
    *packed: bytes,
    size: tuple[int, int],
    tile_px: float,
    columns: int = 0,
    gap_px: float = 0,
    method: str | None = "canvas2d",
    normalize: dict[str, Any] | None = None,
    order: list[int] | None = None,
    view: dict[str, float] | None = None,
    photo: bytes | None = None,
    **look: Any,
) -> None:
    """Make a wall of one atlas or two, with a palette of greys.

    Args:
        tab: from open_tab.
        packed: bytes of atlases.
        size: height and width of the canvas in CSS px.
        tile_px: longer side of a tile.
        columns: of the grid.
        gap_px: between tiles.
        method: way of drawing; None for the wall's own choice.
        normalize: as rangeOf takes it.
        order: channels; None for all.
        view: x, y and zoom.
        photo: bytes of an image under the tiles.
        **look: other fields of a look.
    """
    tab.evaluate(
        "make",
        {
            "packed": [base64.b64encode(each).decode() for each in packed],
            "height": size[0],
            "width": size[1],
            "method": method,
            "normalize": normalize or {"by": "channel"},
            "look": {"align": "center", "interpolation": "bilinear", "mode": "a", **look},
            "grid": {"tile_px": tile_px, "gap_px": gap_px, "columns": columns},
            "view": view,
            "order": order,
            "photo": photo and base64.b64encode(photo).decode(),
        },
    )


def pixels_of(tab: Page) -> NDArray[np.uint8]:
    """Return what is on the canvas, (height, width, 4) uint8, RGBA."""
    read = tab.evaluate("pixels()")
    flat = np.frombuffer(base64.b64decode(read["text"]), np.uint8)
    pixels: NDArray[np.uint8] = flat.reshape(read["height"], read["width"], 4)
    return pixels
