"""One file per channel. The plan and kernels of a sheet with a grid of one column: a strip is a batch of tiles."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .encode import formats, png
from .encode.files import json_bytes, make_folder, whole_file
from .errors import OptionError
from .layout import Strip
from .manifest import Source
from .options import RenderOptions, takes
from .overlay import read_overlay
from .render import Plan, plan_sheet
from .strips import in_order

MANIFEST_NAME = "manifest.json"


@takes(RenderOptions)
def save_tiles(
    maps: Any,
    folder: str | os.PathLike[str],
    *,
    name: str = "{channel}.png",
    source: Source | None = None,
    overlay: Any = None,
    alpha: float | None = None,
    **options: Any,
) -> list[Path]:
    """Draw every channel of a layer into a file of its own, and write one manifest beside them.

    Files are made in batches: native code encodes, writes and renames a batch without the GIL. Each appears whole or
    not at all; those that are finished stay when a later one fails.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not. Not modified.
        folder: where the files go, made where it is missing.
        name: of each file, with {channel} for its number; its suffix decides the format, as in save_sheet.
        source: where the maps came from, for the manifest.
        overlay: picture to lay the maps over, as in render; a PNG is then RGB, and .npy the index plane still.
        alpha: weight of the maps' colours over it, 0 to 1 (default 0.5).
        **options: see below.

    Returns:
        The path of each file, in the order of the channels.

    Raises:
        InputError: `maps` or an option cannot be used; `grid`, `gap` and `margin` belong to sheets.
        EncodeError: a tile is too large for the format.
        WriteError: a file cannot be written; the message names it.
        BackendUnavailableError: the named backend does not work for these maps.
    """
    wanted = RenderOptions(**options)
    if (wanted.grid, wanted.gap, wanted.margin) != ((0, 0), 0, 0):
        raise OptionError("grid, gap and margin belong to sheets; single tiles have none. Leave them out.")
    backdrop = read_overlay(overlay, alpha)
    plan = plan_sheet(maps, replace(wanted, grid=(0, 1)), source or Source(), backdrop)
    folder = Path(folder)
    paths = [folder / file for file in _file_names(name, plan.channels)]
    formats.check_size(paths[0], plan.layout.tile_h, plan.layout.tile_w)
    make_folder(folder)
    for _ in in_order(_Batch(plan, paths), _batches(plan), plan.threads):
        pass
    manifest = plan.describe()
    manifest["tiles"] = [{"file": path.name, **tile} for path, tile in zip(paths, manifest["tiles"], strict=True)]
    with whole_file(folder / MANIFEST_NAME) as file:
        file.write(json_bytes(manifest))
    return paths


class _Batch:
    """What a worker does with a strip: draw its tiles and write their files."""

    def __init__(self, plan: Plan, paths: list[Path]) -> None:
        self.plan = plan
        self.paths = paths
        self.scratch = png.Scratch()
        self.rgb_scratch = png.Scratch()
        # An index plane is what a .npy holds, over a photo too.
        self.overlay = None if paths[0].suffix.lower() == ".npy" else plan.overlay
        self.palette = None if self.overlay else plan.palette

    def __call__(self, strip: Strip) -> None:
        layout = self.plan.layout
        pixels = self.plan.draw(strip, self.scratch.pixels((strip.stop - strip.start, layout.width)))
        if self.overlay is not None:
            pixels = self.overlay.blend(pixels, strip, self.rgb_scratch.pixels((*pixels.shape, 3)))
        tiles = pixels.reshape(-1, layout.tile_h, *pixels.shape[1:])
        paths = self.paths[strip.start // layout.tile_h : strip.stop // layout.tile_h]
        if png.native()[0] is not None and paths[0].suffix.lower() == ".png" and self.palette is not None:
            png.write_png_batch(paths, tiles, self.palette)
        else:
            for path, tile in zip(paths, tiles, strict=True):
                formats.write_picture(path, np.ascontiguousarray(tile), self.palette, threads=1)


def _batches(plan: Plan) -> list[Strip]:
    """Cut the column of tiles into strips of whole tiles, about as large as the strips of a sheet."""
    layout = plan.layout
    tiles = max(1, min(png.STRIP_PX // (layout.tile_h * layout.tile_w), layout.count // plan.threads))
    return layout.strips(tiles * layout.tile_h)


def _file_names(name: str, channels: list[int]) -> list[str]:
    """Fill the channel numbers into the pattern for file names.

    Raises:
        OptionError: the pattern has no {channel}, something else in braces, or a path.
    """
    try:
        names = [name.format(channel=channel) for channel in channels]
    except (KeyError, IndexError, ValueError, AttributeError):
        raise OptionError(f"name may hold {{channel}} and nothing else in braces, got {name!r}.") from None
    if name.format(channel=0) == name.format(channel=1):
        raise OptionError(f"name must hold {{channel}}, so that every channel has a file, got {name!r}.")
    if len(set(names)) < len(names):
        raise OptionError("channels must differ where each gets a file of its own. Leave out the repeated ones.")
    if Path(names[0]).name != names[0]:
        raise OptionError(f"name must be a file name without a folder, got {name!r}. Give the folder as folder.")
    return names
