"""One file per tile, drawn as a sheet with a grid of one column: each of its strips is a batch of tiles."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from dataclasses import field as attribute
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..channels.dataset import LayerStatistics, Ranges, ranges_of
from ..channels.entrance import enter
from ..errors import OptionError, ShapeError, advice, repr_of
from ..formats import picture as formats
from ..formats import png
from ..formats.manifest_files import refuse_other_json
from ..geometry import Strip
from ..options.declared import takes
from ..options.drawing import PLAIN_TILE_PX, RenderOptions
from ..options.parsers import path as path_of
from ..options.parsers import refuse
from ..provenance import MANIFEST_NAME, Provenance, given_provenance
from ..runtime.files import check_path, make_folder, whole_file
from ..runtime.workers import in_order
from .overlay import Backdrop, read_overlay
from .pixels import Pixels, pixels_of
from .plan import Plan, plan_sheet

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..channels.statistics import ChannelStatistics
    from ..options.keywords import RenderKeywords
    from ..palette import Palette

_WIDE = re.compile(r"[{}]|\d{3}")
"""What no number format in a file name has: a field of its own, or a width beyond 99."""

SHEET_OPTIONS = ("grid", "gap", "margin", "label", "title", "colorbar", "marks")
"""Options of what lies around tiles, or over several of them."""


@takes(RenderOptions)
def save_tiles(
    maps: Any,
    folder: str | os.PathLike[str],
    *,
    name: str = "{channel}.png",
    suffix: str = "",
    axes: str = "auto",
    planes: Any = None,
    provenance: Provenance | None = None,
    overlay: Any = None,
    alpha: float | None = None,
    statistics: LayerStatistics | None = None,
    field: Any = None,
    **options: Unpack[RenderKeywords],
) -> list[Path]:
    """Draw every channel of a layer into a file of its own, and write one manifest beside them.

    Files are made in batches: native code encodes, writes and renames a batch without the GIL. A file appears whole or
    not at all; finished files stay when a later one fails.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not; or what else render takes.
            Not modified.
        folder: where the files go; made where it is missing.
        name: pattern for the file names. {channel} stands for the number of the channel, or for the name of a
            reduction, such as sum; {suffix} for `suffix`. The part after the last dot decides the format, as in
            save_sheet.
        suffix: what replaces {suffix} in `name`, for example to tell the files of one run from those of another.
        axes: of `maps` where its channels are not first; see render.
        planes: of a volume, the plane to draw; see render.
        provenance: where the maps came from, for the manifest.
        overlay: image to lay the maps over, as in render. A PNG is then RGB; .npy is still the index plane.
        alpha: weight of the maps' colours over it, 0 to 1 (default 0.5).
        statistics: of the layer over a data set, with normalize dataset.
        field: receptive field of the layer; see render.
        **options: see below.

    Returns:
        The path of each file, in the order of the tiles of a sheet: reductions first, channels by number or rank.

    Raises:
        InputError: `maps` or an option cannot be used (gap or title belong to sheets). Or `name` lacks {channel}
            for several files, `name` or `suffix` holds a path, or two files would have the same name.
        EncodeError: a tile is too large for the format.
        WriteError: a file cannot be written; the message names it.
        BackendUnavailableError: the named backend does not work for these maps.
        KernelError: the device of the maps was lost, or refuses the work.
    """
    folder = path_of("folder", folder)
    checked = RenderOptions.of(options)
    ranges = ranges_of(statistics, checked)
    handed = enter(maps, axes, planes)
    shown = handed.placed(given_provenance(provenance, field))
    plan = plan_tiles(handed.maps, handed.completed(checked), shown, read_overlay(overlay, alpha), ranges=ranges)
    refuse_other_json(folder / MANIFEST_NAME)
    return write_tiles(plan, [folder / file for file in tile_names(plan, name, suffix)])


def plan_tiles(
    maps: Any,
    options: RenderOptions,
    provenance: Provenance,
    backdrop: Backdrop | None = None,
    *,
    measured: ChannelStatistics | None = None,
    ranges: Ranges | None = None,
) -> Plan:
    """Plan single tiles as a sheet with a grid of one column.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not. Not modified.
        options: how to draw them.
        provenance: where they came from, for the manifest.
        backdrop: the image to lay them over.
        measured: statistics of the channels that `options` picks, on the CPU, where they are known already.
        ranges: with normalize dataset, those of all channels of the layer.

    Returns:
        The plan.

    Raises:
        OptionError: one of SHEET_OPTIONS is given.
        ShapeError: the maps are single cells.
    """
    defaults = RenderOptions(plain=options.plain, grid=(0, 1) if options.grid == (0, 1) else "auto")  # that of signals
    for option in SHEET_OPTIONS:
        if getattr(options, option) != getattr(defaults, option):
            raise OptionError(f"{option} belongs to sheets; single tiles have none. Leave it out.")
    tile = PLAIN_TILE_PX if options.tile is None and options.scale is None else options.tile
    if backdrop is not None and backdrop.shown:
        option = advice("show_input", "input")
        raise OptionError(f"{option} belongs to sheets; single tiles have none. Leave it out.")
    alone = replace(options, tile=tile, grid=(0, 1), gap=0, margin=0, label=False, title="", marks=False)
    plan = plan_sheet(maps, alone, provenance, backdrop, measured=measured, ranges=ranges)
    if plan.entries is not None:
        raise ShapeError("maps of single cells, a vector, make no tiles worth a file each. Draw a sheet of them.")
    return plan


def write_tiles(plan: Plan, paths: list[Path]) -> list[Path]:
    """Draw planned tiles into files, and write their manifest beside them.

    Args:
        plan: of `plan_tiles`.
        paths: of each tile, in one folder, which is made where it is missing.

    Returns:
        The paths.
    """
    folder = paths[0].parent
    formats.check_size(paths[0], plan.grid.tile_h, plan.grid.tile_w)
    check_path(paths[0])
    make_folder(folder)
    # A .npy holds the index plane, with or without an overlay.
    overlay = None if paths[0].suffix.lower() == ".npy" else plan.overlay
    batches = _batches(plan)
    with pixels_of(plan, batches, overlay) as pixels:
        for _ in in_order(_Batch(plan, paths, pixels, None if overlay else plan.palette), batches, plan.threads):
            pass
    with whole_file(folder / MANIFEST_NAME) as file:
        file.write(plan.manifest_json([path.name for path in paths]))
    return paths


@dataclass(frozen=True)
class _Batch:
    """The work on one strip: get the pixels of its tiles and write their files."""

    plan: Plan
    paths: list[Path]
    pixels: Pixels
    palette: Palette | None
    scratch: png.Scratch = attribute(default_factory=png.Scratch)

    def __call__(self, strip: Strip) -> None:
        grid = self.plan.grid
        shape = (strip.stop - strip.start, grid.width, *(() if self.palette else (3,)))
        try:
            pixels = self.pixels.draw(strip, self.scratch.pixels(shape))
            tiles = pixels.reshape(-1, grid.tile_h, *pixels.shape[1:])
            self._write(self.paths[strip.start // grid.tile_h : strip.stop // grid.tile_h], tiles)
        finally:
            self.pixels.give_back(strip)

    def _write(self, paths: list[Path], tiles: NDArray[np.uint8]) -> None:
        if png.native()[0] is not None and paths[0].suffix.lower() == ".png" and self.palette is not None:
            png.write_png_batch(paths, tiles, self.palette)
        else:
            for path, tile in zip(paths, tiles, strict=True):
                formats.write_picture(path, np.ascontiguousarray(tile), self.palette, threads=1)


def _batches(plan: Plan) -> list[Strip]:
    """Cut the column of tiles into strips of whole tiles, about as large as the strips of a sheet."""
    grid = plan.grid
    tiles = max(1, min(png.STRIP_PX // (grid.tile_h * grid.tile_w), grid.count // plan.threads))
    return grid.strips(tiles * grid.tile_h)


class _Reduction(str):
    """The name of a reduction, in place of a channel's number. Any number format is ignored: {channel:04d} is "sum"."""

    def __format__(self, form: str) -> str:
        return str(self)


def tile_names(plan: Plan, name: str, suffix: str) -> list[str]:
    """Fill channel numbers, or names of reductions, and the suffix into the pattern for file names.

    Args:
        plan: of `plan_tiles`.
        name: the pattern; see save_tiles.
        suffix: what replaces {suffix} in it.

    Returns:
        A name for each tile, all different.

    Raises:
        OptionError: the pattern has something else in braces, no {channel} for several files, or a path; only one of
            `suffix` and {suffix} is given; or two files would have the same name.
    """
    return fill_names(plan.selection.names, name, suffix)


def fill_names(tiles: Sequence[str], name: str, suffix: str) -> list[str]:
    """Fill the names of tiles, and the suffix, into the pattern for file names; see `tile_names`."""
    if not isinstance(suffix, str):
        raise refuse("suffix", "text", suffix)
    channels = [int(tile) if tile.isdecimal() else _Reduction(tile) for tile in tiles]
    try:
        parts = [(field, form) for _, field, form, _ in Formatter().parse(name) if field is not None]
        fields = {field for field, _ in parts}
        if not fields <= {"channel", "suffix"} or any(_WIDE.search(form or "") for _, form in parts):
            raise KeyError(name)
        names = [name.format(channel=channel, suffix=suffix) for channel in channels]
    except (KeyError, ValueError, TypeError):
        raise OptionError(
            f"name may hold {{channel}} and {{suffix}} and nothing else in braces, got {repr_of(name)}."
        ) from None
    if "channel" not in fields and len(names) > 1:
        raise OptionError(f"name must hold {{channel}}, so that each of {len(names)} tiles has a file, got {name!r}.")
    if ("suffix" in fields) != (suffix != ""):
        raise OptionError(f"name holds {{suffix}} where suffix is given, got name {name!r} and suffix {suffix!r}.")
    if any(character in file for file in names for character in "/\\\0"):
        raise OptionError(
            f"name and suffix must make a file name without a folder, got {names[0]!r}. Give the folder as folder."
        )
    # A file system that ignores case would overwrite A with a.
    most_common, count = Counter(map(str.casefold, names)).most_common(1)[0]
    if count > 1:
        raise OptionError(
            f"every file must have a name of its own, got {most_common!r} {count} times. Leave out repeated channels."
        )
    return names
