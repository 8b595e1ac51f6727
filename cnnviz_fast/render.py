"""THE MAIN PATH. Maps go in; what comes out is a sheet in memory, or a picture file that was never whole in memory.

    plan_sheet    maps -> statistics, ranges, grid, sampling positions, palette, backend: everything but pixels
    Plan.draw     one strip of the sheet, by the backend's kernel; over a photo, `overlay` colours it afterwards
    draw_sheet    every strip into one index plane
    write_sheet   every strip drawn, encoded and written while it is in cache

`render` and `save_sheet`, which users call, are the first and one of the last two.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import backends, channels
from .encode import formats, png
from .encode.files import json_bytes
from .kernels import Paint
from .layout import GridLayout, Positions, Strip, cut_strips, plan_grid, sampling_positions, tile_size
from .manifest import Source, describe_sheet
from .options import RenderOptions, takes
from .overlay import Backdrop, Overlay, read_overlay
from .palette import Palette, make_palette
from .sheet import Sheet, write_manifest
from .strips import default_threads, in_order


@dataclass(frozen=True)
class Plan:
    """Everything about a sheet but its pixels. See `kernels` for what the arrays are.

    channels: channel number of each tile.
    describe: makes the manifest, which takes as long as drawing a small sheet.
    """

    backend: backends.Backend
    maps: Any
    vmin: Any
    vmax: Any
    rows: Positions
    cols: Positions
    layout: GridLayout
    palette: Palette
    paint: Paint
    threads: int
    channels: list[int]
    overlay: Overlay | None
    describe: Callable[[], dict[str, Any]]

    def draw(self, strip: Strip, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Draw one strip into `out`, (rows of the strip, width) uint8, and return it."""
        self.backend.kernels.render_strip(
            self.maps, self.vmin, self.vmax, self.rows, self.cols, self.layout, self.paint, strip, out
        )
        return out

    def strips(self, most_px: int | None = None) -> list[Strip]:
        """Cut the sheet into strips that suit the backend, and of at most `most_px` pixels."""
        strip_px = min(self.backend.strip_px, most_px or self.backend.strip_px)
        return cut_strips(self.layout.height, self.layout.width, strip_px)


def plan_sheet(maps: Any, options: RenderOptions, source: Source, backdrop: Backdrop | None = None) -> Plan:
    """Decide everything about a sheet before the first pixel is drawn.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not. Not modified.
        options: how to draw them.
        source: where they came from, for the manifest.
        backdrop: the picture to lay them over.

    Returns:
        The plan; drawing it can no longer fail for a wrong argument.

    Raises:
        InputError: `maps` or an option cannot be used, see `channels.as_maps` and `options`.
        BackendUnavailableError: the named backend does not work for these maps.
    """
    layer = channels.as_maps(maps)
    chosen, numbers = channels.select(layer, options.channels)
    backend = backends.choose(options.backend, chosen.device.type)

    statistics = channels.channel_statistics(backend, chosen)
    if options.normalize == "sigmoid":
        chosen = channels.squash(chosen)
    vmin, vmax = channels.drawing_range(chosen, statistics, options)

    tile_h, tile_w = tile_size(layer.shape[1], layer.shape[2], options.tile, options.scale)
    layout = plan_grid(len(chosen), tile_h, tile_w, grid=options.grid, gap=options.gap, margin=options.margin)
    palette = make_palette(
        options.colormap,
        background=options.background,
        bad=options.bad,
        shows_background=layout.shows_background,
        shows_bad=not statistics.all_finite,
    )
    if options.upsampling == "bilinear":
        chosen = channels.shrink(chosen, vmin, vmax, tile_h, tile_w)
    overlay = backdrop.under(layout, palette, backend.name) if backdrop else None
    described = {
        "shape": list(layer.shape),
        "dtype": str(maps.dtype).removeprefix("torch."),
        "device": str(layer.device),
    }
    describe = partial(
        describe_sheet, source, options, backend.name, described, layout, palette, numbers, statistics, vmin, vmax,
        overlay,
    )  # fmt: skip
    return Plan(
        backend=backend,
        maps=backend.to_array(chosen),
        vmin=backend.to_array(vmin),
        vmax=backend.to_array(vmax),
        rows=sampling_positions(chosen.shape[1], tile_h, options.align, options.upsampling),
        cols=sampling_positions(chosen.shape[2], tile_w, options.align, options.upsampling),
        layout=layout,
        palette=palette,
        paint=Paint(palette.levels, 0.5 if options.normalize == "symmetric" else 0.0, palette.background, palette.bad),
        threads=options.threads or default_threads(),
        channels=numbers,
        overlay=overlay,
        describe=describe,
    )


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
    maps: Any, *, source: Source | None = None, overlay: Any = None, alpha: float | None = None, **options: Any
) -> Sheet:
    """Draw every channel of a layer into one sheet.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not. Not modified.
        source: where the maps came from, for the manifest.
        overlay: picture to lay the maps over: a path, PIL image, or (H, W[, 3]) uint8 array, resized to the tiles.
        alpha: weight of the maps' colours over it, 0 to 1 (default 0.5).
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
    plan = plan_sheet(maps, RenderOptions(**options), source or Source(), read_overlay(overlay, alpha))
    return draw_sheet(plan)


@takes(RenderOptions)
def save_sheet(
    maps: Any,
    path: str | os.PathLike[str],
    *,
    source: Source | None = None,
    overlay: Any = None,
    alpha: float | None = None,
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
    plan = plan_sheet(maps, RenderOptions(**options), source or Source(), read_overlay(overlay, alpha))
    return write_sheet(plan, path)
