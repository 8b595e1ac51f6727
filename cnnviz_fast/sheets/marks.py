"""Marks on a sheet: a cross where a channel holds one value only, a frame around a reduction beside channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..geometry import Grid
from ..palette import Palette
from .annotation import Block

FRAME_PX = 2
"""Width of a frame at most: it lies in the gap."""

CROSS_SHARE = 8
"""A cross takes this part of a tile's shorter side."""

LEAST_CROSS_PX = 5


def place_marks(grid: Grid, palette: Palette, crossed: Sequence[int], framed: Sequence[int]) -> list[Block]:
    """Return the marks of a sheet in their places.

    Args:
        grid: of the sheet.
        palette: its colours. A tile that is crossed out has that of the background.
        crossed: positions of the tiles whose channel holds one value only.
        framed: positions of the tiles that are set apart. Without a gap there is no room for a frame.

    Returns:
        The blocks; those of one kind share their pixels.
    """
    blocks = []
    if crossed:
        cross = _cross(grid.tile_h, grid.tile_w, palette)
        blocks += [Block(*grid.origin(position), cross) for position in crossed]
    width = min(FRAME_PX, grid.gap, grid.margin)
    if framed and width:
        long = np.full((width, grid.tile_w + 2 * width), palette.ink, dtype=np.uint8)
        high = np.full((grid.tile_h, width), palette.ink, dtype=np.uint8)
        for y, x in map(grid.origin, framed):
            blocks += [Block(y - width, x - width, long), Block(y + grid.tile_h, x - width, long)]
            blocks += [Block(y, x - width, high), Block(y, x + grid.tile_w, high)]
    return blocks


def _cross(height: int, width: int, palette: Palette) -> NDArray[np.uint8]:
    """Return the pixels of a tile that is crossed out, (height, width) uint8."""
    tile = np.full((height, width), palette.background, dtype=np.uint8)
    side = min(max(min(height, width) // CROSS_SHARE, LEAST_CROSS_PX), height, width)
    row, col = np.indices((side, side))
    thick = side // 16
    strokes = (abs(row - col) <= thick) | (abs(row + col - (side - 1)) <= thick)
    y, x = (height - side) // 2, (width - side) // 2
    tile[y : y + side, x : x + side][strokes] = palette.ink
    return tile
