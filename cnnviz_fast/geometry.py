"""Where things lie on a sheet: its grid in plain integers, its strips, and the sampling positions as small arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError
from .options.drawing import PLAIN_TILE_PX

LONGEST_PX = 2**31 - 1
"""Most px a side of a sheet: the limit of PNG."""

MOST_PX = 2**36
"""Most px of a sheet: what a day's work of the encoder can write. 300,000 channels at 448 px take as many."""

STRIPS_AT_LEAST = 16
"""With this many strips the workers of a small machine are evenly busy to the end."""

SMALLEST_STRIP_PX = 1 << 16
"""A smaller strip costs more than it saves: in time to hand it out, and in bytes for its own Huffman table."""


class Strip(NamedTuple):
    """A band of rows of a sheet: the unit of work. `start` is its first row, `stop` the row after its last, in px."""

    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Positions:
    """Where each row (or column) of a tile samples its map.

    index: (N,) int32, in [0, n - 1]. The row of the map at or before the sample.
    fraction: (N,) float32, in [0, 1). How far the sample lies towards row min(index + 1, n - 1).
    """

    index: NDArray[np.int32]
    fraction: NDArray[np.float32]


class Lattice(NamedTuple):
    """Where the samples of a map lie along a side of the model's input.

    span: samples that fit between its ends, at the distance that they have: its length by the stride.
    start: samples that fit between the input's first pixel and the first sample.
    """

    span: float
    start: float

    def shrunk(self, before: int, after: int) -> Lattice:
        """Return that of a map of `before` rows that was made smaller, to `after` rows."""
        return self if before == after else Lattice(self.span * after / before, self.start * after / before)


class Room(NamedTuple):
    """The px of a sheet that text around the tiles takes up; by default none.

    label_h: height of the band above each tile.
    label_w: width of that band; a cell is as wide as the wider of it and its tile.
    head: height of the block above the grid, within the margin.
    foot: height of the block below it.
    least_w: width that head and foot need, within the margins.
    """

    label_h: int = 0
    label_w: int = 0
    head: int = 0
    foot: int = 0
    least_w: int = 0


NO_ROOM = Room()


@dataclass(frozen=True)
class Grid:
    """A grid of `count` tiles: `rows` x `cols` cells of `tile_h` x `tile_w` px, filled row by row.

    `gap` px lie between cells and `margin` px around all of it. Text takes further room, see Room. A tile stands at the
    left of its cell, below its label, and the grid at the left of the sheet where that is wider.
    """

    count: int
    rows: int
    cols: int
    tile_h: int
    tile_w: int
    gap: int = 0
    margin: int = 0
    label_h: int = 0
    label_w: int = 0
    head: int = 0
    foot: int = 0
    least_w: int = 0

    @property
    def step_y(self) -> int:
        """Distance of a tile from the one above it, top to top, in px."""
        return self.label_h + self.tile_h + self.gap

    @property
    def step_x(self) -> int:
        """Distance of a tile from the one left of it, left side to left side, in px."""
        return max(self.tile_w, self.label_w) + self.gap

    @property
    def top(self) -> int:
        """First row of the first tile, in px."""
        return self.margin + self.head + self.label_h

    @property
    def left(self) -> int:
        """First column of the first tile, in px."""
        return self.margin

    @property
    def height(self) -> int:
        """Height of the sheet in px."""
        return 2 * self.margin + self.head + self.rows * self.step_y - self.gap + self.foot

    @property
    def width(self) -> int:
        """Width of the sheet in px."""
        return 2 * self.margin + max(self.cols * self.step_x - self.gap, self.least_w)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Return what native code knows of it, but for the number of tiles."""
        return self.cols, self.tile_h, self.tile_w, self.step_y, self.step_x, self.top, self.left

    @property
    def shows_background(self) -> bool:
        """Whether any pixel of the sheet belongs to no tile."""
        return self.height * self.width > self.count * self.tile_h * self.tile_w

    def origin(self, position: int) -> tuple[int, int]:
        """Return the (y, x) of the top left pixel of the tile at `position`, counted from 0."""
        row, col = divmod(position, self.cols)
        return self.top + row * self.step_y, self.left + col * self.step_x

    def boxes(self) -> list[list[int]]:
        """Return [y0, x0, y1, x1] of every tile in px, the ends exclusive."""
        row, col = np.divmod(np.arange(self.count), self.cols)
        y, x = self.top + row * self.step_y, self.left + col * self.step_x
        boxes: list[list[int]] = np.stack([y, x, y + self.tile_h, x + self.tile_w], axis=1).tolist()
        return boxes

    def strips(self, rows: int) -> list[Strip]:
        """Cut the sheet into strips of `rows` px; the last one takes what is left."""
        return cut_rows(self.height, rows)


def cut_rows(height: int, rows: int) -> list[Strip]:
    """Cut a height in px into strips of `rows` px; the last one takes what is left."""
    return [Strip(y, min(y + rows, height)) for y in range(0, height, rows)]


def cut_strips(height: int, width: int, strip_px: int) -> list[Strip]:
    """Cut a sheet into strips for workers.

    The cut depends on the sheet alone: files hold the same bytes for any number of workers.

    Args:
        height: of the sheet in px.
        width: of the sheet in px.
        strip_px: most pixels of a strip, which always has whole rows.

    Returns:
        The strips from top to bottom: at least STRIPS_AT_LEAST, unless they would be smaller than SMALLEST_STRIP_PX.
    """
    smaller = max(SMALLEST_STRIP_PX, height * width // STRIPS_AT_LEAST)
    return cut_rows(height, max(1, min(strip_px, smaller) // width))


def tile_size(map_h: int, map_w: int, tile: int | tuple[int, int] | None, scale: float | None) -> tuple[int, int]:
    """Compute the size of a tile.

    Args:
        map_h: height of a map in px.
        map_w: width of a map in px.
        tile: px of the longer side (the map's shape is kept), or (height, width); None for PLAIN_TILE_PX.
        scale: factor of the map's own size, or None.

    Returns:
        (tile_h, tile_w) in px, at least 1 each.

    Raises:
        OptionError: `scale` makes a side shorter than 1 px, or longer than any sheet.
    """
    if scale is not None:
        if max(map_h, map_w) * scale > LONGEST_PX:
            raise OptionError(
                f"scale must leave at most {LONGEST_PX:,} px, got {scale:g} for maps of {map_h} x {map_w} px."
            )
        tile_h, tile_w = round(map_h * scale), round(map_w * scale)
        if min(tile_h, tile_w) < 1:
            raise OptionError(f"scale must leave at least 1 px, got {scale:g} for maps of {map_h} x {map_w} px.")
        return tile_h, tile_w
    if isinstance(tile, tuple):
        return tile
    longer = PLAIN_TILE_PX if tile is None else tile
    return max(1, round(longer * map_h / max(map_h, map_w))), max(1, round(longer * map_w / max(map_h, map_w)))


def plan_grid(
    count: int,
    tile_h: int,
    tile_w: int,
    *,
    grid: tuple[int, int] = (0, 0),
    gap: int = 0,
    margin: int = 0,
    room: Room = NO_ROOM,
    ratio: float = 1.0,
) -> Grid:
    """Lay `count` tiles out on a grid.

    Args:
        count: number of tiles.
        tile_h: height of a tile in px.
        tile_w: width of a tile in px.
        grid: (rows, cols); 0 means as many as needed, and (0, 0) the grid that comes near `ratio`, with no more columns
            than its rows need.
        gap: px between tiles.
        margin: px around the grid.
        room: px for the text around the tiles.
        ratio: of the sheet's width to its height.

    Returns:
        The grid. Its last row may have empty cells; no tile is ever dropped.

    Raises:
        OptionError: the grid has fewer cells than there are tiles, or the sheet is larger than any format can hold.
    """
    rows, cols = grid
    if not rows and not cols:
        cols = min(count, math.ceil(math.sqrt(ratio * count * (room.label_h + tile_h) / max(room.label_w, tile_w))))
        cols = math.ceil(count / math.ceil(count / cols))  # no more columns than these rows need
    rows = rows or math.ceil(count / cols)
    cols = cols or math.ceil(count / rows)
    if rows * cols < count:
        raise OptionError(
            f"grid must hold all {count} channels, got {rows}x{cols} = {rows * cols} cells. "
            f"Take grid 'auto' or 'x{cols}', or choose fewer channels."
        )
    planned = Grid(count, rows, cols, tile_h, tile_w, gap, margin, *room)
    if max(planned.height, planned.width) > LONGEST_PX:
        raise OptionError(
            f"a sheet holds at most {LONGEST_PX:,} px a side, got {planned.height:,} x {planned.width:,} px. "
            f"Make tile, scale, gap or margin smaller, or choose fewer channels."
        )
    if planned.height * planned.width > MOST_PX:
        raise OptionError(
            f"a sheet holds at most {MOST_PX:,} px, got {planned.height:,} x {planned.width:,} px. "
            f"Make tile, scale, gap or margin smaller, or choose fewer channels."
        )
    return planned


@lru_cache(maxsize=64)
def sampling_positions(
    n: int, size: int, align: str, upsampling: str = "bilinear", lattice: Lattice | None = None
) -> Positions:
    """Compute where the rows (or columns) of a tile sample a map.

    Args:
        n: rows of the map.
        size: rows of the tile, N.
        align: 'left', 'center', 'corners' or 'field'.
        upsampling: 'bilinear', or 'nearest' for fractions of 0.
        lattice: with 'field', where the samples lie on the input.

    Returns:
        The positions, computed in float64 and then split into index and fraction. They are kept, since most sheets have
        the same, and `triton_gpu` keeps its copies on a GPU as long as these live: nobody may write to them.

    Formula:
        left d*n/N, center (d+0.5)*n/N-0.5, corners d*(n-1)/(N-1) (0 where N = 1), clamped to [0, n-1].
        field: row d shows the input at p = d*H/N px, of height H. Sample i has its receptive field centred at
        offset + i*stride px, so the position is (p-offset)/stride. That is left where offset is 0 and n*stride is H.
        nearest: floor(position) for left and field, floor(position+0.5) for the others, so that whole-number scales
        repeat every row of the map equally often.

    Source:
        center and corners: torch.nn.functional.interpolate(mode="bilinear") with align_corners False and True;
        left: the 'asymmetric' transformation of ONNX Resize. nearest with left: its mode="nearest"; nearest with
        center: its mode="nearest-exact".
    """
    d = np.arange(size, dtype=np.float64)
    if align == "left":
        position = d * n / size
    elif align == "field":
        if lattice is None:
            raise OptionError("align 'field' needs to know where samples lie on the input. Take another one here.")
        position = d * lattice.span / size - lattice.start
    elif align == "center":
        position = (d + 0.5) * n / size - 0.5
    else:
        position = d * (n - 1) / (size - 1) if size > 1 else d * 0.0
    if upsampling == "nearest":
        position = np.floor(position if align in ("left", "field") else position + 0.5)
    position = position.clip(0, n - 1)
    index = np.floor(position)
    fraction = (position - index).astype(np.float32)
    # A fraction just under 1 rounds up to 1.0 in float32: that is the next row with a fraction of 0.
    index, fraction = index + (fraction == 1), np.where(fraction == 1, np.float32(0), fraction)
    return Positions(index.astype(np.int32), fraction)
