"""THE MAIN PATH. Maps go in; what comes out is a sheet in memory, or a picture file that was never whole in memory.

    plan_sheet    maps -> ranges, grid, sampling positions, palette, backend: everything but pixels; see plan.py
    Plan.draw     one strip of the sheet, by the backend's kernel, and what is written around its tiles
    draw_sheet    every strip into one index plane
    write_sheet   every strip drawn, encoded and written while it is in cache; over a photo it is coloured on the way

`render` and `save_sheet`, which users call, are the first and one of the last two.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dataset_statistics import LayerStatistics, ranges_of
from .encode import formats, png
from .encode.files import json_bytes
from .layout import Strip
from .manifest import Source
from .options import RenderOptions, takes
from .overlay import Overlay, read_overlay
from .plan import Plan, plan_sheet
from .sheet import Sheet, write_manifest
from .strips import in_order


def draw_sheet(plan: Plan) -> Sheet:
    """Draw a planned sheet into memory."""
    index = np.empty((plan.layout.height, plan.layout.width), dtype=np.uint8)
    for _ in in_order(lambda strip: plan.draw(strip, index[strip.start : strip.stop]), plan.strips(), plan.threads):
        pass
    return Sheet(index, plan.palette, plan.describe(), plan.overlay)


def write_sheet(plan: Plan, path: Path) -> Path:
    """Draw a planned sheet into a file; only formats other than PNG need it whole in memory on the way."""
    layout = plan.layout
    if formats.check_size(path, layout.height, layout.width).name != "PNG":
        return draw_sheet(plan).save(path)
    if plan.overlay is None:
        strips = plan.strips(png.STRIP_PX)
        png.write_png(path, layout.height, layout.width, plan.palette, strips, plan.draw, plan.threads)
    else:
        strips = plan.strips(png.RGB_STRIP_PX)
        png.write_png(path, layout.height, layout.width, None, strips, _blended(plan, plan.overlay), plan.threads)
    write_manifest(path, json_bytes(plan.describe()))
    return path


def _blended(plan: Plan, overlay: Overlay) -> Callable[[Strip, NDArray[np.uint8]], NDArray[np.uint8]]:
    """Return what draws a strip in RGB: (rows, width, 3) uint8, filled and returned."""
    scratch = png.Scratch()

    def draw(strip: Strip, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        index = plan.draw(strip, scratch.pixels(out.shape[:2]))
        return overlay.blend(index, strip, out)

    return draw


@takes(RenderOptions)
def render(
    maps: Any,
    *,
    source: Source | None = None,
    overlay: Any = None,
    alpha: float | None = None,
    statistics: LayerStatistics | None = None,
    **options: Any,
) -> Sheet:
    """Draw every channel of a layer into one sheet.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not. Not modified.
        source: where the maps came from, for the manifest.
        overlay: picture to lay the maps over: a path, PIL image, or (H, W[, 3]) uint8 array, resized to the tiles.
        alpha: weight of the maps' colours over it, 0 to 1 (default 0.5).
        statistics: of the layer over a data set, with normalize dataset.
        **options: see below.

    Returns:
        The sheet: index plane, palette and manifest, and what lies under it.

    Raises:
        InputError: `maps` or an option cannot be used.
        BackendUnavailableError: the named backend does not work for these maps.
        MemoryError: the sheet does not fit into memory.

    Source:
        Pixel rules: `kernels.reference`.
    """
    checked = RenderOptions(**options)
    ranges = ranges_of(statistics, checked)
    plan = plan_sheet(maps, checked, source or Source(), read_overlay(overlay, alpha), ranges=ranges)
    return draw_sheet(plan)


@takes(RenderOptions)
def save_sheet(
    maps: Any,
    path: str | os.PathLike[str],
    *,
    source: Source | None = None,
    overlay: Any = None,
    alpha: float | None = None,
    statistics: LayerStatistics | None = None,
    **options: Any,
) -> Path:
    """Draw every channel of a layer into one picture file, with its manifest beside it.

    A PNG goes strip by strip from the kernels through the encoder to the file, so the sheet is never whole in memory.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not. Not modified.
        path: the file; its suffix decides the format: .png, .jpg, .jpeg, .webp, or .npy for the index plane.
        source: where the maps came from, for the manifest.
        overlay: picture to lay the maps over, as in render; a PNG is then RGB, and .npy the index plane still.
        alpha: weight of the maps' colours over it, 0 to 1 (default 0.5).
        statistics: of the layer over a data set, with normalize dataset.
        **options: see below.

    Returns:
        The path.

    Raises:
        InputError: `maps` or an option cannot be used.
        EncodeError: the sheet is too large for the format.
        WriteError: the file cannot be written; nothing is left of it, and an older file of that name stays.
        BackendUnavailableError: the named backend does not work for these maps.
    """
    path = Path(path)
    formats.format_of(path)
    checked = RenderOptions(**options)
    ranges = ranges_of(statistics, checked)
    plan = plan_sheet(maps, checked, source or Source(), read_overlay(overlay, alpha), ranges=ranges)
    return write_sheet(plan, path)
