"""Where things lie on a sheet of patches, and in which colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..formats import png
from ..geometry import Grid, Room, Strip, plan_grid
from ..palette import make_palette
from ..runtime.workers import default_threads
from ..sheets.lettering import Mask, draw_line, line_px, text_px

if TYPE_CHECKING:
    from .cut import Place

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Colours:
    """Colours of a sheet, (3,) uint8 each, RGB."""

    background: Pixels
    ink: Pixels

    @classmethod
    def named(cls, background: str) -> Colours:
        """Make the colours of a sheet from its background, by name or #rrggbb, on which ink is white or black."""
        palette = make_palette("gray", background=background, shows_background=True, shows_bad=False, shows_ink=True)
        return cls(palette.colors[palette.background], palette.colors[palette.ink])


@dataclass(frozen=True)
class Row:
    """A channel.

    channel: its number.
    lines: further lines beside its patches.
    labels: over each of its patches, in one or two lines; "" for none.
    places: of its patches; None where there is none.
    weights: (n,) float64. Of each patch in the mean.
    """

    channel: int
    lines: tuple[str, ...]
    labels: tuple[str, ...]
    places: tuple[Place | None, ...]
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """Where things lie on a sheet, and in which colours.

    grid: of the patches, which stand further right than the grid says, by what is written beside them.
    left: column of the first patch, px.
    width: of the sheet, px.
    size: of the text, px.
    heads: the lines beside each row, as masks.
    title: (H, W) bool, or None.
    inset: px between the title and the margin.
    mean: whether mean patches come first.
    marks: whether units are marked.
    """

    grid: Grid
    left: int
    width: int
    size: int
    heads: Sequence[Sequence[Mask]] = field(repr=False)
    title: Mask | None
    inset: int
    mean: bool
    marks: bool
    colours: Colours
    threads: int

    @property
    def height(self) -> int:
        """Height of the sheet, px."""
        return self.grid.height

    def strips(self, rows: int, at_once: int | None = None) -> list[Strip]:
        """Cut the sheet between rows of patches, so that none is drawn twice.

        Args:
            rows: of patches.
            at_once: rows of a strip; None for as many as a strip of RGB has pixels.
        """
        step = self.grid.step_y
        at_once = at_once or max(1, png.RGB_STRIP_PX // (self.width * step))
        first = self.grid.top - self.grid.label_h
        edges = [0, *(first + row * step for row in range(at_once, rows, at_once)), self.height]
        return [Strip(start, stop) for start, stop in pairwise(edges)]


def look_of(
    rows: Sequence[Row],
    tile: tuple[int, int],
    *,
    gap: int,
    margin: int,
    title: str,
    label: bool,
    cols: int,
    mean: bool,
    marks: bool,
    colours: Colours,
    threads: int | None,
) -> Look:
    """Lay out a sheet.

    Args:
        rows: the channels.
        tile: (height, width) of a patch, px.
        gap: px between patches.
        margin: px around the grid.
        title: above the grid; "" for none.
        label: whether something is written over patches.
        cols: of the grid.
        mean: whether mean patches come first.
        marks: whether units are marked.
        colours: of the sheet.
        threads: workers; None for one on each core.

    Returns:
        The layout.

    Raises:
        OptionError: the sheet is larger than any format can hold.
    """
    size = text_px(*tile)
    heads = [
        [draw_line(str(row.channel), size * 5 // 4), *(draw_line(line, size) for line in row.lines)] for row in rows
    ]
    beside = max(mask.shape[1] for masks in heads for mask in masks) + size // 2
    written = draw_line(title, size * 5 // 4) if title else None
    inset = max(0, size // 2 - margin)
    head = 0 if written is None else inset + len(written) + size // 2
    lines = max((text.count("\n") for row in rows for text in row.labels), default=0) + 1
    room = Room(label_h=lines * line_px(size) + size // 5 if label else 0, head=head)
    grid = plan_grid(len(rows) * cols, *tile, grid=(len(rows), cols), gap=gap, margin=margin, room=room)
    width = max(grid.width + beside, 0 if written is None else 2 * (margin + inset) + written.shape[1])
    return Look(
        grid, margin + beside, width, size, heads, written, inset, mean, marks, colours, threads or default_threads()
    )  # fmt: skip
