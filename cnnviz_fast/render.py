"""THE MAIN PATH. Maps go in; what comes out is a sheet in memory, or a picture file that was never whole in memory.

    plan_sheet    maps -> statistics, ranges, grid, sampling positions, palette, backend: everything but pixels
    Plan.draw     one strip of the sheet, by the backend's kernel, and what is written around its tiles
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
import torch
from numpy.typing import NDArray

from . import backends, channels, vectors
from .annotate import Annotation, letter, word_sheet
from .encode import formats, png
from .encode.files import json_bytes
from .kernels import Paint
from .layout import NO_ROOM, GridLayout, Positions, Strip, cut_strips, plan_grid, sampling_positions, tile_size
from .manifest import Source, describe_sheet
from .options import RenderOptions, takes
from .palette import Palette, make_palette
from .report import LayerReport, layer_report
from .selection import Selection, pick, select
from .sheet import Sheet, write_manifest
from .strips import default_threads, in_order


@dataclass(frozen=True)
class Plan:
    """Everything about a sheet but its pixels. See `kernels` for what the arrays are.

    selection: which channel, or what reduction of several, each tile shows.
    report: on the whole layer, where it is wanted.
    annotation: what is written around the tiles, or None.
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
    selection: Selection
    report: LayerReport | None
    annotation: Annotation | None
    describe: Callable[[], dict[str, Any]]

    @property
    def names(self) -> list[str]:
        """Name each tile, in order: "7" for channel 7, or "sum" for a reduction."""
        return self.selection.names

    def draw(self, strip: Strip, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Draw one strip into `out`, (rows of the strip, width) uint8, and return it."""
        self.backend.kernels.render_strip(
            self.maps, self.vmin, self.vmax, self.rows, self.cols, self.layout, self.paint, strip, out
        )
        if self.annotation is not None:
            self.annotation.paint(strip, out)
        return out

    def strips(self, most_px: int | None = None) -> list[Strip]:
        """Cut the sheet into strips that suit the backend, and of at most `most_px` pixels."""
        strip_px = min(self.backend.strip_px, most_px or self.backend.strip_px)
        return cut_strips(self.layout.height, self.layout.width, strip_px)


def plan_sheet(maps: Any, options: RenderOptions, source: Source, shared_with: Any = None) -> Plan:
    """Decide everything about a sheet before the first pixel is drawn.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not. Not modified.
        options: how to draw them.
        source: where they came from, for the manifest.
        shared_with: (C, H, W) float32 on the same device, or None. Other maps, beside which the sheet will stand:
            ranges are those of both together, and the palette has a background for the gap between.

    Returns:
        The plan; drawing it can no longer fail for a wrong argument.

    Raises:
        InputError: `maps` or an option cannot be used, see `channels.as_maps` and `options`.
        BackendUnavailableError: the named backend does not work for these maps.
    """
    layer = channels.as_maps(maps)
    entries = vectors.strongest(layer, source.categories) if vectors.is_vector(layer) else None
    backend = backends.choose(options.backend, layer.device.type)
    report = layer_report(layer, channels.channel_statistics(backend, layer)) if options.report else None
    chosen, selection = select(layer, backend, options)
    if entries is not None:
        options = vectors.as_bar(options, len(chosen))

    statistics = channels.channel_statistics(backend, chosen)
    scaled_by, measured = chosen, statistics
    if shared_with is not None:
        scaled_by = torch.cat([chosen, pick(shared_with, options.channels)[0]], dim=1)
        measured = channels.channel_statistics(backend, scaled_by)
    if options.normalize == "sigmoid":
        chosen = channels.squash(chosen)
    vmin, vmax = channels.drawing_range(scaled_by, measured, options)

    tile_h, tile_w = tile_size(layer.shape[1], layer.shape[2], options.tile, options.scale)
    lettering = letter(word_sheet(options, source, selection.names, vmin, vmax), tile_h, tile_w, options.margin)
    layout = plan_grid(
        len(chosen), tile_h, tile_w, grid=options.grid, gap=options.gap, margin=options.margin, room=lettering.room
    )
    palette = make_palette(
        options.colormap,
        background=options.background,
        bad=options.bad,
        shows_background=layout.shows_background or shared_with is not None,
        shows_bad=not measured.all_finite,
        shows_ink=lettering.room != NO_ROOM,
    )
    if options.upsampling == "bilinear":
        chosen = channels.shrink(chosen, vmin, vmax, tile_h, tile_w)
    described = {
        "shape": list(layer.shape),
        "dtype": str(maps.dtype).removeprefix("torch."),
        "device": str(layer.device),
    }
    describe = partial(
        describe_sheet, source, options, backend.name, described,
        layout, palette, selection, statistics, vmin, vmax, report, entries,
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
        selection=selection,
        report=report,
        describe=describe,
        annotation=lettering.place(layout, palette),
    )


def draw_sheet(plan: Plan) -> Sheet:
    """Draw a planned sheet into memory."""
    index = np.empty((plan.layout.height, plan.layout.width), dtype=np.uint8)
    for _ in in_order(lambda strip: plan.draw(strip, index[strip.start : strip.stop]), plan.strips(), plan.threads):
        pass
    return Sheet(index, plan.palette, plan.describe())


def write_sheet(plan: Plan, path: Path) -> Path:
    """Draw a planned sheet into a file; only formats other than PNG need it whole in memory on the way."""
    layout = plan.layout
    if formats.check_size(path, layout.height, layout.width).name != "PNG":
        return draw_sheet(plan).save(path)
    strips = plan.strips(png.STRIP_PX)
    png.write_png(path, layout.height, layout.width, plan.palette, strips, plan.draw, plan.threads)
    write_manifest(path, json_bytes(plan.describe()))
    return path


@takes(RenderOptions)
def render(maps: Any, *, source: Source | None = None, **options: Any) -> Sheet:
    """Draw every channel of a layer into one sheet.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not. Not modified.
        source: where the maps came from, for the manifest.
        **options: see below.

    Returns:
        The sheet: index plane, palette and manifest.

    Raises:
        InputError: `maps` or an option cannot be used.
        BackendUnavailableError: the named backend does not work for these maps.
        MemoryError: the sheet does not fit into memory.

    Source:
        Pixel rules: `kernels.reference`.
    """
    return draw_sheet(plan_sheet(maps, RenderOptions(**options), source or Source()))


@takes(RenderOptions)
def save_sheet(maps: Any, path: str | os.PathLike[str], *, source: Source | None = None, **options: Any) -> Path:
    """Draw every channel of a layer into one picture file, with its manifest beside it.

    A PNG goes strip by strip from the kernels through the encoder to the file, so the sheet is never whole in memory.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not. Not modified.
        path: the file; its suffix decides the format: .png, .jpg, .jpeg, .webp, or .npy for the index plane.
        source: where the maps came from, for the manifest.
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
    return write_sheet(plan_sheet(maps, RenderOptions(**options), source or Source()), path)
