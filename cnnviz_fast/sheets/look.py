"""How a sheet looks where its options leave that open: so that a person sees at once what is on it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from ..errors import OptionError
from ..geometry import NO_ROOM, Room, plan_grid, tile_size
from .lettering import text_px

if TYPE_CHECKING:
    from ..options.drawing import RenderOptions

TILES_PX = (224, 112, 64, 32)
"""Longer sides of tiles to choose from, the largest first: each about half of the one before."""

SCREEN_PX = 2560
"""A sheet's longer side at most, where a smaller tile of TILES_PX prevents that: the width of a large screen."""

SCREEN_RATIO = 16 / 10
"""Width to height of a sheet, where the grid is not given: that of a screen."""

LABELLED_PX = 64
"""Shorter side of a tile from which on it has a label: a label of 12 px takes a quarter of its height there."""

CELL_PX = 8
"""Side of a cell of a map up to which maps are drawn bilinearly: larger ones are seen as what they are, single values,
and would be a blur of no shape of its own."""


@lru_cache(maxsize=64)
def settled(
    options: RenderOptions, count: int, map_h: int, map_w: int, *, over_image: bool, side_by_side: bool = False
) -> RenderOptions:
    """Fill in what options leave open: the size of tiles, whether they have labels, and how they are enlarged.

    The sheets of a run have few sizes, and what was found for the last of them is kept.

    Args:
        options: as given.
        count: number of tiles.
        map_h: height of a map in px.
        map_w: width of a map in px.
        over_image: whether they lie over an image, which they then cover smoothly.
        side_by_side: whether the sheet is one half of a comparison, which fits a screen as a whole.

    Returns:
        Options that leave nothing open but what `plain` settles: its tiles.
    """
    tile = options.tile
    if tile is None and options.scale is None and not options.plain:
        tile = _fitting_tile(options, count, map_h, map_w, 2 if side_by_side else 1)
    tile_h, tile_w = tile_size(map_h, map_w, tile, options.scale)
    label = _has_labels(options, tile_h, tile_w)
    upsampling = options.upsampling
    if upsampling == "auto":
        cells = [size / n for n, size in ((map_h, tile_h), (map_w, tile_w)) if n > 1]
        upsampling = "nearest" if not over_image and cells and min(cells) > CELL_PX else "bilinear"
    return replace(options, tile=tile, label=label, upsampling=upsampling)


def _has_labels(options: RenderOptions, tile_h: int, tile_w: int) -> bool:
    """Return whether tiles of a size have labels."""
    return min(tile_h, tile_w) >= LABELLED_PX if options.label is None else options.label


def _fitting_tile(options: RenderOptions, count: int, map_h: int, map_w: int, sheets: int) -> int:
    """Return the largest of TILES_PX with which `sheets` side by side fit a screen; the smallest where none does."""
    for px in TILES_PX[:-1]:
        tile_h, tile_w = tile_size(map_h, map_w, px, None)
        # A label takes about one and a half times the size of its text.
        room = Room(label_h=text_px(tile_h, tile_w) * 3 // 2) if _has_labels(options, tile_h, tile_w) else NO_ROOM
        with contextlib.suppress(OptionError):  # a sheet that is too large
            grid = plan_grid(
                count, tile_h, tile_w, grid=options.grid, gap=options.gap, margin=options.margin,
                room=room, ratio=SCREEN_RATIO / sheets,
            )  # fmt: skip
            if max(grid.height, sheets * grid.width) <= SCREEN_PX:
                return px
    return TILES_PX[-1]
