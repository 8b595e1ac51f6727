"""A sheet of patches: a row for each channel, drawn strip by strip from tiles that lie in a file of their own.

A photo holds patches of many channels and is decoded once, while a sheet is written channel by channel. So patches are
cut first, each into its tile, and the tiles, 510 MB for 2048 channels with nine of 96 px each, are memory that the
system may put on the disk.
"""

from __future__ import annotations

import io
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError, WriteError, reason_of
from ..formats import picture, png
from ..formats.manifest_files import refuse_other_json
from ..geometry import Strip
from ..options.parsers import path as path_of
from ..runtime.files import json_bytes, make_folder
from ..runtime.workers import in_order
from ..sheets.lettering import Mask, line_px
from ..sheets.sheet import NOTEBOOK_PX, write_manifest
from .cut import drawn_rows
from .look import Look, Row
from .table import write_table
from .wording import glyph

if TYPE_CHECKING:
    from PIL.Image import Image

    from .cut import Missing, Place

Pixels = NDArray[np.uint8]

IN_MEMORY_BYTES = 1 << 28
"""Tiles that take more lie in a file without a name."""

MARK_PX = (3, 8)
"""Distance from the unit's centre at which the strokes of its mark begin and end: the middle stays free."""


def empty_tiles(count: int, tile_h: int, tile_w: int) -> Pixels:
    """Return memory for tiles, (count, tile_h, tile_w, 3) uint8, of any content: in a file where they are many.

    Raises:
        WriteError: there is no room for the file.
    """
    shape = (count, tile_h, tile_w, 3)
    if (size := math.prod(shape)) <= IN_MEMORY_BYTES:
        return np.empty(shape, np.uint8)
    try:
        with tempfile.TemporaryFile() as file:
            if hasattr(os, "posix_fallocate"):  # a disk that is full later ends the process
                os.posix_fallocate(file.fileno(), 0, size)
            return np.asarray(np.memmap(file, np.uint8, "w+", shape=shape))  # which holds the file, without its methods
    except OSError as error:
        raise WriteError(
            f"cannot write {size / 1e6:,.0f} MB of tiles to the folder of temporary files: {reason_of(error)}. "
            f"Set TMPDIR to another one, or draw fewer channels."
        ) from error


@dataclass(frozen=True, eq=False, repr=False)
class PatchSheet:
    """The patches of a layer's channels, cut and ready to be drawn.

    Attributes:
        layer: name of the layer.
        table: a record for each patch: channel, rank, value, image, and where it lies in the photo.
        missing: photos whose patches could not be cut, with the reason.
        manifest: what the sheet shows, with the table.
    """

    layer: str
    table: list[dict[str, Any]]
    missing: list[Missing]
    manifest: dict[str, Any]
    _rows: Sequence[Row]
    _tiles: Pixels
    _drawn: NDArray[np.bool_]
    _look: Look
    _kernels: Sequence[Pixels] | None = None
    _deconvolved: Pixels | None = None

    def __repr__(self) -> str:
        """Return what it is, in one line."""
        height, width = self._look.height, self._look.width
        counts = f"{len(self._rows):,} channels, {len(self.table):,} patches"
        return f"PatchSheet({self.layer}, {counts}, {height:,} x {width:,} px)"

    def patch(self, row: int, rank: int) -> Pixels:
        """Return one patch as (tile_h, tile_w, 3) uint8, RGB, without marks.

        Args:
            row: of the sheet, from 0.
            rank: of the patch in it, from 0.
        """
        return np.array(self._tile(row, rank))

    def deconvolved(self, row: int, rank: int) -> Pixels:
        """Return one deconvolved patch as (tile_h, tile_w, 3) uint8, RGB, of a sheet that has them.

        Args:
            row: of the sheet, from 0.
            rank: of the patch in it, from 0.
        """
        if self._deconvolved is None:
            raise OptionError("deconvolve must be given to patch_sheet for deconvolved patches, got none.")
        return np.array(self._tile(row, rank, self._deconvolved))

    def kernel(self, row: int) -> Pixels | None:
        """Return the kernel of a channel, (tile_h, tile_w, 3) uint8, RGB; None where the sheet has none.

        Args:
            row: of the sheet, from 0.
        """
        return None if self._kernels is None else self._kernels[row]

    def mean_patch(self, row: int) -> Pixels:
        """Return the mean of a channel's patches, weighted by their responses, (tile_h, tile_w, 3) uint8, RGB.

        A pixel is the mean of the patches that show the photo there. It fades into the background where those have less
        than half of the weight of all: a single one there is not what the channel looks for.

        Args:
            row: of the sheet, from 0.
        """
        shape = self._tiles.shape[1:]
        total, weight, whole = np.zeros(shape), np.zeros((*shape[:2], 1)), 0.0
        for rank in self._averaged(row):
            share, place = self._rows[row].weights[rank], self._rows[row].places[rank]
            assert place is not None
            inside = drawn_rows(place, shape[:2])
            total[inside] += share * self._tile(row, rank)[inside]
            weight[inside] += share
            whole += share
        mean = total / np.where(weight > 0, weight, 1)
        shown = np.minimum(1, 2 * weight / (whole or 1))
        return np.floor(shown * mean + (1 - shown) * self._look.colours.background + 0.5).astype(np.uint8)

    def _averaged(self, row: int) -> list[int]:
        """Return the ranks of the patches that the mean of a channel is of."""
        of_row = zip(self._rows[row].places, self._drawn[row], self._rows[row].weights, strict=True)
        return [rank for rank, (place, drawn, share) in enumerate(of_row) if place is not None and drawn and share]

    def rgb(self) -> Pixels:
        """Return the sheet as (height, width, 3) uint8, RGB."""
        out = np.empty((self._look.height, self._look.width, 3), np.uint8)
        for strip in self._look.strips(len(self._rows)):
            self._draw(strip, out[strip.start : strip.stop])
        return out

    def pil(self) -> Image:
        """Return the sheet as a PIL image of mode RGB."""
        from PIL import Image

        return Image.fromarray(self.rgb())

    def save(self, path: str | os.PathLike[str], *, quality: int = 90, manifest: bool = True) -> Path:
        """Write the sheet, and its manifest with the table beside it under the same name with the suffix .json.

        Args:
            path: the file; its suffix decides the format: .png of any size, .jpg or .webp.
            quality: of JPEG and WebP, 1 to 100.
            manifest: False writes the sheet alone.

        Returns:
            The path.

        Raises:
            OptionError: the suffix names no format, or `quality` is out of range.
            EncodeError: the sheet is too large for the format.
            WriteError: a file cannot be written.
        """
        path = path_of("path", path)
        height, width = self._look.height, self._look.width
        chosen = picture.check_size(path, height, width)
        if manifest:
            refuse_other_json(path.with_suffix(".json"))
        if chosen.name == "PNG":
            strips = self._look.strips(len(self._rows))
            png.write_png(path, height, width, None, strips, self._draw, self._look.threads)
        else:
            picture.write_picture(path, self.rgb(), None, quality=quality)
        if manifest:
            write_manifest(path, json_bytes(self.manifest))
        return path

    @property
    def drawn(self) -> int:
        """Return the number of patches that could be cut."""
        return int(self._drawn.sum())

    def save_table(self, path: str | os.PathLike[str]) -> Path:
        """Write the table as a Parquet file, which needs the extra `parquet`.

        Args:
            path: the file.

        Returns:
            The path.

        Raises:
            OptionError: pyarrow is not installed.
            WriteError: the file cannot be written.
        """
        return write_table(path_of("path", path), self.table)

    def save_each(self, folder: str | os.PathLike[str], format: str = "png") -> list[Path]:
        """Write each patch into a file of its own, CHANNEL_RANK.png, without marks.

        With it go CHANNEL_RANK_deconvolved.png, CHANNEL_mean.png and CHANNEL_kernel.png, as far as the sheet has them.

        Args:
            folder: made where it is missing.
            format: png, jpg or webp.

        Returns:
            The paths.

        Raises:
            CnnvizError: see save.
        """
        folder = path_of("folder", folder)
        make_folder(folder)
        ranks = [(row, rank) for row, _ in enumerate(self._rows) for rank in range(self._drawn.shape[1])]
        cut = [(row, rank) for row, rank in ranks if self._drawn[row, rank]]
        rows = range(len(self._rows))
        jobs: list[tuple[int, str, Callable[[], Pixels]]] = []
        jobs += [(row, str(rank), partial(self.patch, row, rank)) for row, rank in cut]
        if self._deconvolved is not None:
            jobs += [(row, f"{rank}_deconvolved", partial(self.deconvolved, row, rank)) for row, rank in cut]
        if self._look.mean:
            jobs += [(row, "mean", partial(self.mean_patch, row)) for row in rows if self._averaged(row)]
        if self._kernels is not None:
            jobs += [(row, "kernel", partial(self._kernels.__getitem__, row)) for row in rows]

        def write(job: tuple[int, str, Callable[[], Pixels]]) -> Path:
            row, name, pixels = job
            path = folder / f"{self._rows[row].channel}_{name}.{format}"
            picture.write_picture(path, pixels(), None, threads=1)
            return path

        return list(in_order(write, jobs, self._look.threads))

    def _repr_png_(self) -> bytes:
        """Return a PNG for a notebook: the first rows, as far as they go."""
        fitting = max(1, NOTEBOOK_PX // (self._look.width * self._look.grid.step_y))
        strip = self._look.strips(len(self._rows), fitting)[0]
        out = np.empty((strip.stop, self._look.width, 3), np.uint8)
        self._draw(strip, out)
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(out).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def _tile(self, row: int, rank: int, tiles: Pixels | None = None) -> Pixels:
        tile: Pixels = (self._tiles if tiles is None else tiles)[row * self._drawn.shape[1] + rank]
        return tile if self._drawn[row, rank] else np.broadcast_to(self._look.colours.background, tile.shape)

    def _draw(self, strip: Strip, out: Pixels) -> Pixels:
        """Draw whole rows of the sheet into (rows of the strip, width, 3) uint8, and return it."""
        look, grid = self._look, self._look.grid
        # A row of the colour, since filling three bytes at a time takes ten times as long.
        out.reshape(len(out), -1)[:] = np.tile(look.colours.background, look.width)
        if look.title is not None and strip.start == 0:
            _stamp(out, grid.margin + look.inset, grid.margin + look.inset, look.title, look.colours.ink)
        first, end = (max(0, -((grid.top - edge) // grid.step_y)) for edge in (strip.start, strip.stop))
        for number, row in enumerate(self._rows[first:end], first):
            top = grid.top + number * grid.step_y - strip.start
            for at, mask in enumerate(look.heads[number]):
                _stamp(out, top + at * line_px(look.size), grid.margin, mask, look.colours.ink)
            shown: list[tuple[str, Pixels, Place | None]] = []
            if self._kernels is not None:
                shown.append(("kernel", self._kernels[number], None))
            if look.mean:
                count = len(self._averaged(number))
                shown.append((f"mean of {count}" if count else "", self.mean_patch(number), None))
            for rank, (label, place) in enumerate(zip(row.labels, row.places, strict=True)):
                shown.append((label, self._tile(number, rank), place))
                if self._deconvolved is not None:
                    shown.append(("", self._tile(number, rank, self._deconvolved), None))
            for col, (label, tile, place) in enumerate(shown):
                x = look.left + col * grid.step_x
                cell = out[top : top + grid.tile_h, x : x + grid.tile_w]
                cell[:] = tile
                if look.marks and place is not None and place.unit is not None:
                    _mark(cell, *place.unit)
                for above, line in enumerate(reversed(label.split("\n")) if grid.label_h and label else ()):
                    mask = np.concatenate([glyph(character, look.size) for character in line], axis=1)[:, : grid.tile_w]
                    _stamp(out, top - len(mask) - above * line_px(look.size), x, mask, look.colours.ink)
        return out


def _stamp(out: Pixels, y: int, x: int, mask: Mask, ink: Pixels | int) -> None:
    """Write `mask`, (H, W) bool, into RGB with its top left pixel at (y, x), as far as there is room."""
    area = out[max(y, 0) : max(y + mask.shape[0], 0), max(x, 0) : max(x + mask.shape[1], 0)]
    area[mask[max(-y, 0) :, max(-x, 0) :][: area.shape[0], : area.shape[1]]] = ink


def _mark(cell: Pixels, down: float, across: float) -> None:
    """Mark a place in a tile, from 0 to 1, by four strokes around it, white within black, seen on any photo."""
    y, x = int(down * cell.shape[0]), int(across * cell.shape[1])
    for mask, colour in zip(_strokes(), (0, 255), strict=True):
        _stamp(cell, y - len(mask) // 2, x - len(mask) // 2, mask, colour)


@cache
def _strokes() -> tuple[Mask, Mask]:
    """Return which pixels around a marked place are black and which are white, each (H, H) bool."""
    reach = MARK_PX[1] + 1
    cell = np.zeros((2 * reach, 2 * reach), np.uint8)
    for colour, thick, longer in ((1, 1, 1), (2, 0, 0)):
        along = np.r_[MARK_PX[0] - longer : MARK_PX[1] + longer]
        along = reach + np.concatenate([along, -1 - along])
        beside = slice(reach - thick, reach + thick + 1)
        cell[along, beside] = cell[beside, along] = colour
    return cell == 1, cell == 2
