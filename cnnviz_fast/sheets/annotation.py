"""The text around the tiles of a sheet: labels, a title, a colour bar and lines below the grid.

    word_sheet        options, provenance, ranges -> what to write, as strings
    letter            the strings -> masks, and how much room they take on the sheet
    Lettering.place   masks, grid and palette -> an Annotation
    Annotation.paint  the part of it that lies in a strip -> into the strip, after the kernel

+- margin ------------------------------+
| title                           head  |
| 0          1          2               |   label_h above each tile
| [tile   ]  [tile   ]  [tile   ]       |
| 3                                     |
| [tile   ]                             |
| min [colour bar] max            foot  |
| text      [bar of its share ]         |
+---------------------------------------+
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..geometry import NO_ROOM, Grid, Room, Strip
from ..options.drawing import TITLE_FIELDS
from .lettering import Mask, capitals, draw_labels, draw_line, line_px, shortened, text_px

if TYPE_CHECKING:
    import torch

    from ..options.drawing import RenderOptions
    from ..palette import Palette
    from ..provenance import Provenance

Plane = NDArray[np.uint8]

BAR_EMS = (6, 24)
"""Least and greatest length of a bar, in multiples of the size of the text. A shorter one shows too few colours, and a
longer one moves its two ends too far apart."""


SEPARATOR = "  ·  "
"""Between the parts of a title that is not given: model, layer, shape, image."""

MOST_CHARACTERS = 60
"""Of each of them. With four of that length a title is still no wider than a screen."""

_FOLDERS = re.compile(r"^.*[/\\](?=[^/\\]+\.py:)")
"""The folders of a file that makes a model: too long for a title, and they say nothing of the model."""


@dataclass(frozen=True)
class Wording:
    """What is written on a sheet; by default nothing.

    labels: one per tile, in their order; empty for none.
    title: above the grid; "" for none.
    ends: the text at the two ends of the colour bar; None for no bar.
    lines: below the grid. Beside each a bar is drawn: this share, 0 to 1, of the full length.
    """

    labels: tuple[str, ...] = ()
    title: str = ""
    ends: tuple[str, str] | None = None
    lines: tuple[tuple[str, float], ...] = ()


def word_sheet(
    options: RenderOptions,
    provenance: Provenance,
    tiles: Sequence[int | str],
    vmin: torch.Tensor,
    vmax: torch.Tensor,
    *,
    shape: str = "",
    unit: str = "channel",
) -> Wording:
    """Return what the options ask to be written.

    Args:
        options: `label`, `title` and `colorbar`, and those that decide the range.
        provenance: for the title; unknown parts are left out of it.
        tiles: what each tile shows: a channel's number, or a name such as "sum".
        vmin: (C,) float32. Lower end of the range that each tile is drawn on; NaN where there is none.
        vmax: (C,) float32. Its upper end.
        shape: of the layer, for the title.
        unit: what a tile is, for the ends of the colour bar.

    Returns:
        The wording.
    """
    parts = {field: str(getattr(provenance, field) or "") for field in TITLE_FIELDS} | {"shape": shape}
    if options.title is None:
        model, image = _FOLDERS.sub("", parts["model"]), os.path.basename(parts["image"])
        shown = (shortened(part, MOST_CHARACTERS) for part in (model, parts["layer"], shape, image) if part)
        title = SEPARATOR.join(shown)
    else:
        title = options.title.format(**parts).strip()
    return Wording(
        labels=tuple(map(str, tiles)) if options.label else (),
        title=title,
        ends=_ends(options, unit, vmin, vmax) if options.colorbar else None,
    )


def _ends(options: RenderOptions, unit: str, vmin: torch.Tensor, vmax: torch.Tensor) -> tuple[str, str]:
    """Return the text at the ends of the colour bar: numbers where all tiles share a range, or else what they mean."""
    low, high = (sorted(set(side[~side.isnan()].tolist())) for side in (vmin, vmax))
    if len(low) == len(high) == 1:
        return f"{low[0] + 0.0:.4g}", f"{high[0] + 0.0:.4g}"  # + 0.0 takes the sign from -0
    over = " over the data set" if options.normalize == "dataset" else ""
    if options.percentile:
        first, last = options.percentile
        return f"{first:g} %", f"{last:g} % of each {unit}{over}"
    if options.normalize == "symmetric":
        return "-max |x|", f"max |x| of each {unit}"
    return "min", f"max of each {unit}{over}"


def letter(
    wording: Wording, tile_h: int, tile_w: int, margin: int, image: NDArray[np.uint8] | None = None
) -> Lettering:
    """Draw the wording as masks.

    Args:
        wording: what to write.
        tile_h: height of a tile in px, which the size of text goes with.
        tile_w: width of a tile in px.
        margin: px around the grid. Where it is too narrow to keep text off the edge, head and foot add the rest.
        image: (H, W) uint8, or None. The image above the grid, in colours of its own.

    Returns:
        The masks.
    """
    size = text_px(tile_h, tile_w)
    return Lettering(
        size=size,
        inset=max(0, size // 2 - margin),
        labels=draw_labels(wording.labels, size) if wording.labels else None,
        title=draw_line(wording.title, size * 5 // 4) if wording.title else None,
        ends=tuple(draw_line(end, size) for end in wording.ends or ()),
        lines=tuple((draw_line(text, size), share) for text, share in wording.lines),
        image=image,
    )


@dataclass(frozen=True, eq=False)
class Lettering:
    """What is written on a sheet, as masks without positions.

    size: of the text in px; all distances are proportional to it.
    inset: px between head or foot and the margin.
    labels: (C, H, W) bool, or None.
    title: (H, W) bool, or None.
    ends: two (H, W) bool, of the colour bar; empty without one.
    lines: (H, W) bool each, with a share of 0 to 1.
    image: (H, W) uint8, or None. The image above the grid, in colours of its own.
    """

    size: int
    inset: int
    labels: Mask | None
    title: Mask | None
    ends: tuple[Mask, ...]
    lines: tuple[tuple[Mask, float], ...]
    image: Plane | None = None

    @cached_property
    def room(self) -> Room:
        """The room that it takes on the sheet."""
        pad = self.size // 2
        label_h = label_w = head = foot = 0
        if self.labels is not None:
            # More px above a label than below it, so that it is seen to belong to the tile under it.
            label_h, label_w = pad + self.labels.shape[1] + self._below, self.labels.shape[2] + pad
        if self.title is not None:
            head = self.inset + self.title.shape[0] + pad
        if self.image is not None:
            head += self.image.shape[0] + pad
        if self.ends or self.lines:
            foot = sum(pad + n * line_px(self.size) for n in (len(self.ends) // 2, len(self.lines)) if n) + self.inset
        return Room(label_h, label_w, head, foot, self._width(BAR_EMS[0]) if head or foot else 0)

    @property
    def _below(self) -> int:
        """Px between a label and its tile."""
        return self.size // 5

    @cached_property
    def _texts_w(self) -> int:
        """Width of the longest line's text in px."""
        widths: list[int] = [text.shape[1] for text, _ in self.lines]
        return max(widths)

    def _width(self, bar_ems: int) -> int:
        """Return the width of head and foot in px, with bars of `bar_ems` times the size of the text."""
        pad = self.size // 2
        widths = [0 if block is None else block.shape[1] for block in (self.title, self.image)]
        if self.ends:
            widths.append(sum(end.shape[1] + pad for end in self.ends) + bar_ems * self.size)
        if self.lines:
            widths.append(self._texts_w + pad + bar_ems * self.size)
        return 2 * self.inset + max(widths)

    def place(self, grid: Grid, palette: Palette, marks: Sequence[Block] = ()) -> Annotation | None:
        """Return the lettering in its places on a sheet.

        Args:
            grid: of the sheet, planned with this `room`.
            palette: its colours.
            marks: what else is painted over tiles and gaps.

        Returns:
            The annotation, ready to be painted; None where nothing is written.
        """
        if self.room == NO_ROOM and not marks:
            return None
        margin, width = grid.margin, 0
        if grid.head or grid.foot:
            width = min(grid.width - 2 * margin, self._width(BAR_EMS[1]))
        blocks = list(marks)
        if grid.head:
            head = np.full((grid.head, width), palette.background, dtype=np.uint8)
            if self.title is not None:
                _stamp(head, self.inset, self.inset, self.title, palette)
            if self.image is not None:
                y0, x0, y1, x1 = (edge - margin for edge in self.image_box(grid) or ())
                head[y0:y1, x0:x1] = self.image + palette.own
            blocks.append(Block(margin, margin, head))
        if grid.foot:
            foot = np.full((grid.foot, width), palette.background, dtype=np.uint8)
            y = self.size // 2
            if self.ends:
                self._draw_colorbar(foot[y:], palette)
                y += line_px(self.size) + self.size // 2
            self._draw_lines(foot[y:], palette)
            blocks.append(Block(grid.height - margin - grid.foot, margin, foot))
        return Annotation(grid, palette, self.labels, self._below, tuple(blocks))

    def image_box(self, grid: Grid) -> list[int] | None:
        """Return where the image stands on a sheet, [y0, x0, y1, x1] in px, the ends exclusive; None without one."""
        if self.image is None:
            return None
        height, width = self.image.shape
        bottom = grid.margin + grid.head - self.size // 2
        return [bottom - height, grid.margin, bottom, grid.margin + width]

    def _draw_colorbar(self, foot: Plane, palette: Palette) -> None:
        """Draw the lower end, a frame with the entries of all levels from left to right, and the upper end."""
        pad, x = self.size // 2, self.inset
        low, high = self.ends
        bar_w = min(foot.shape[1] - 2 * x - low.shape[1] - high.shape[1] - 2 * pad, BAR_EMS[1] * self.size)
        _stamp(foot, 0, x, low, palette)
        x += low.shape[1] + pad
        bar = foot[capitals(self.size), x : x + bar_w]
        bar[:] = palette.ink
        inside = bar[1:-1, 1:-1]
        inside[:] = np.arange(inside.shape[1]) * (palette.levels - 1) // (inside.shape[1] - 1)
        _stamp(foot, 0, x + bar_w + pad, high, palette)

    def _draw_lines(self, foot: Plane, palette: Palette) -> None:
        """Draw each text with its bar; all bars begin at the same column."""
        rows = capitals(self.size)
        for position, (text, share) in enumerate(self.lines):
            line = foot[position * line_px(self.size) :]
            x = self.inset + self._texts_w + self.size // 2
            _stamp(line, 0, self.inset, text, palette)
            bar_w = round(share * min(line.shape[1] - self.inset - x, BAR_EMS[1] * self.size))
            line[rows, x : x + bar_w] = palette.ink


def _stamp(plane: Plane, y: int, x: int, mask: Mask, palette: Palette) -> None:
    """Write `mask`, (H, W) bool, into `plane`, (height, width) uint8, with its top left pixel at (y, x)."""
    plane[y : y + mask.shape[0], x : x + mask.shape[1]][mask] = palette.ink


class Block(NamedTuple):
    """A block of text in its place.

    y: row of the sheet at which its top left pixel lies.
    x: column of the sheet at which that lies.
    entries: (H, W) uint8, C-contiguous. Its palette entries.
    """

    y: int
    x: int
    entries: Plane


@dataclass(frozen=True, eq=False)
class Annotation:
    """What is written on a sheet, in its places. Of it only marks lie on tiles.

    grid: of the sheet.
    palette: its colours.
    labels: (C, H, W) bool, or None. One per tile.
    below: px between a label and its tile.
    blocks: of other text, and of marks.
    """

    grid: Grid
    palette: Palette
    labels: Mask | None
    below: int
    blocks: tuple[Block, ...]

    def paint(self, strip: Strip, out: Plane) -> None:
        """Paint the part that lies in a strip.

        Args:
            strip: the rows of the sheet.
            out: (stop - start, width) uint8, or (stop - start, width, 3) for RGB. The strip as the kernels drew it.
        """
        for y, x, block in (*self.blocks, *self._label_bands(strip)):
            if y < strip.stop and y + len(block) > strip.start:
                self._copy(block, y, x, strip, out)

    def all_blocks(self) -> list[Block]:
        """Return everything that is written on the sheet, as blocks."""
        return [*self.blocks, *self._label_bands(Strip(0, self.grid.height))]

    def _label_bands(self, strip: Strip) -> Iterator[Block]:
        """Yield the labels that a strip may touch, as a block for each row of the grid."""
        if self.labels is None:
            return
        grid, labels = self.grid, self.labels
        label_h, label_w = labels.shape[1:]
        top = grid.top - self.below - label_h
        first, last = ((y - top) // grid.step_y for y in (strip.start, strip.stop - 1))
        for row in range(max(first, 0), min(last, (len(labels) - 1) // grid.cols) + 1):
            chosen = labels[row * grid.cols : (row + 1) * grid.cols]
            band = np.full((label_h, len(chosen), grid.step_x), self.palette.background, dtype=np.uint8)
            band[:, :, :label_w][chosen.swapaxes(0, 1)] = self.palette.ink
            # The last cell has no gap behind it.
            across = np.ascontiguousarray(band.reshape(label_h, -1)[:, : grid.width - grid.left])
            yield Block(top + row * grid.step_y, grid.left, across)

    def _copy(self, block: Plane, y: int, x: int, strip: Strip, out: Plane) -> None:
        """Copy the rows of `block`, (H, W) uint8, that lie in a strip; its top left pixel is at (y, x) of the sheet."""
        first, last = max(strip.start, y), min(strip.stop, y + block.shape[0])
        rows = block[first - y : last - y]
        place = out[first - strip.start : last - strip.start, x : x + block.shape[1]]
        place[:] = rows if out.ndim == 2 else self.palette.colors[rows]
