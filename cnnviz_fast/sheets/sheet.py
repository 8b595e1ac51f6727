"""A finished sheet: index plane, palette and manifest. RGB exists only where it is asked for."""

from __future__ import annotations

import io
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, one_line
from ..formats import picture as formats
from ..formats.manifest_files import refuse_other_json
from ..geometry import cut_rows
from ..options.parsers import path as path_of
from ..options.parsers import whole
from ..palette import Palette
from ..runtime.files import json_bytes, whole_file
from .overlay import Overlay

if TYPE_CHECKING:
    from PIL.Image import Image

NOTEBOOK_PX = 2_000_000
"""A notebook shows at most this many pixels of a sheet; larger ones are scaled down for display only."""

MOST_NAME = 80
"""Characters of a layer's and an image's names that `repr` shows."""

LOGGED_PX = 4_000_000
"""A logger gets at most this many pixels unless told otherwise. TensorBoard encodes and keeps an image for each step:
measured 0.9 s and 5.8 MB at this size, 3.3 s and 16 MB at 16,000,000 px."""

BAND_PX = 1 << 16
"""Pixels of a scaled sheet that are made at once, so that the whole sheet is never in memory as RGB."""


@dataclass(frozen=True, eq=False, repr=False)
class Sheet:
    """A grid of tiles, drawn. Sheets are compared by identity.

    index: (H, W) uint8. The entry of the palette that each pixel shows.
    colors: the palette and what its entries stand for.
    manifest: which tile is which channel, with ranges, statistics and flags.
    overlay: what lies under the tiles, or None.
    """

    index: NDArray[np.uint8]
    colors: Palette
    manifest: dict[str, Any]
    overlay: Overlay | None = None

    def __repr__(self) -> str:
        """Return what it is, in one line."""
        height, width = self.index.shape
        tiles, name = len(self.manifest.get("tiles", ())), one_line(self.name, MOST_NAME)
        return f"Sheet({f'{name}, ' if name else ''}{tiles:,} tiles, {height:,} x {width:,} px)"

    @property
    def name(self) -> str:
        """The layer and the image that it shows, as far as they are known."""
        return ", ".join(str(known) for part in ("layer", "image") if (known := self.manifest.get(part)) is not None)

    @property
    def palette(self) -> NDArray[np.uint8]:
        """The colour table, (256, 3) uint8."""
        return self.colors.colors

    def rgb(self) -> NDArray[np.uint8]:
        """Return the sheet as (H, W, 3) uint8, RGB."""
        return self.palette[self.index] if self.overlay is None else self.overlay.rgb(self.index)

    def pil(self) -> Image:
        """Return the sheet as a PIL image of mode L or P, sharing memory with `index` where Pillow can.

        With an overlay the mode is RGB.
        """
        return self._pil_of_rows(0, len(self.index))

    def _pil_of_rows(self, start: int, stop: int) -> Image:
        """Return rows start..stop-1 as `pil` returns them all."""
        from PIL import Image

        rows = self.index[start:stop]
        if self.overlay is not None:
            return Image.fromarray(self.overlay.rgb(rows, start))
        image = Image.fromarray(rows)
        if not self.colors.is_gray:
            image.putpalette(self.palette.tobytes())
        return image

    def save(self, path: str | os.PathLike[str], *, quality: int = 90, manifest: bool = True) -> Path:
        """Write the sheet, and its manifest beside it under the same name with the suffix .json.

        Args:
            path: the file; its suffix decides the format: .png, .jpg, .jpeg, .webp, or .npy for the index plane.
            quality: of JPEG and WebP, 1 to 100.
            manifest: False writes the sheet alone.

        Returns:
            The path.

        Raises:
            OptionError: the suffix names no format, or `quality` is out of range.
            EncodeError: the sheet is too large for the format.
            WriteError: the file cannot be written, or the manifest would replace another JSON file. Nothing is left of
                it, and an older file of that name stays.
        """
        path = path_of("path", path)
        if manifest:
            refuse_other_json(path.with_suffix(".json"))
        self.write(path, quality=quality)
        if manifest:
            write_manifest(path, json_bytes(self.manifest))
        return path

    def write(self, path: Path, *, quality: int = 90) -> None:
        """Write the sheet without its manifest; see save."""
        if self.overlay is None or formats.format_of(path).name == "NPY":
            formats.write_picture(path, self.index, self.colors, quality=quality)
        else:
            formats.write_picture(path, self.rgb(), None, quality=quality)

    def to_tensorboard(self, writer: Any, tag: str, step: int | None = None, *, largest_px: int = LOGGED_PX) -> None:
        """Add the sheet to a TensorBoard log.

        Args:
            writer: a SummaryWriter of torch or tensorboardX, or another object with its `add_image`.
            tag: name of the sheet in the log.
            step: of the training.
            largest_px: larger sheets are scaled down to this many pixels.

        Raises:
            InputError: `writer` has no add_image, or `largest_px` is less than 1.
        """
        if not callable(getattr(writer, "add_image", None)):
            raise InputError(f"writer must have add_image, as a SummaryWriter has, got {type(writer).__name__}.")
        writer.add_image(tag, self._rgb_of_at_most(whole(1)("largest_px", largest_px)), step, dataformats="HWC")

    def to_wandb(self, run: Any, key: str, step: int | None = None, *, largest_px: int = LOGGED_PX) -> None:
        """Log the sheet to a run of Weights & Biases.

        Args:
            run: what wandb.init returns: it has log(record, step=), and its package has an Image.
            key: name of the sheet in the log.
            step: of the training; None for the run's own.
            largest_px: larger sheets are scaled down to this many pixels.

        Raises:
            InputError: `run` is not a run, or `largest_px` is less than 1.
        """
        package = sys.modules.get(type(run).__module__.partition(".")[0])
        make_image = getattr(package, "Image", None)
        if not (callable(getattr(run, "log", None)) and callable(make_image)):
            raise InputError(f"run must be what wandb.init returns, got {type(run).__name__}.")
        run.log({key: make_image(self._pil_of_at_most(whole(1)("largest_px", largest_px)))}, step=step)

    def preview(self, most_px: int) -> bytes:
        """Return the sheet as the bytes of a PNG, scaled down to at most `most_px` pixels."""
        buffer = io.BytesIO()
        self._pil_of_at_most(whole(1)("most_px", most_px)).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        """Return a PNG for a notebook."""
        return self.preview(NOTEBOOK_PX)

    def _pil_of_at_most(self, most_px: int) -> Image:
        """Return the sheet as a PIL image, in RGB where it has to be scaled down."""
        from PIL import Image

        return self.pil() if self.index.size <= most_px else Image.fromarray(self._rgb_of_at_most(most_px))

    def _rgb_of_at_most(self, most_px: int) -> NDArray[np.uint8]:
        """Return the sheet as (H, W, 3) uint8, scaled down to at most `most_px` by the mean colour of each box."""
        if self.index.size <= most_px:
            return self.rgb()
        from PIL import Image

        factor = (most_px / self.index.size) ** 0.5
        height, width = (min(max(1, int(side * factor)), most_px) for side in self.index.shape)
        scaled = np.empty((height, width, 3), dtype=np.uint8)
        for start, stop in cut_rows(height, max(1, BAND_PX // width)):
            top, bottom = (self.index.shape[0] * row / height for row in (start, stop))
            first = int(top)
            band = self._pil_of_rows(first, math.ceil(bottom)).convert("RGB")
            box = (0, top - first, band.width, min(bottom - first, band.height))
            scaled[start:stop] = np.asarray(band.resize((width, stop - start), Image.Resampling.BOX, box))
        return scaled


def write_manifest(sheet: Path, manifest: bytes) -> Path:
    """Write a manifest, as JSON, beside the file of its sheet, under the same name with the suffix .json."""
    path = sheet.with_suffix(".json")
    with whole_file(path) as file:
        file.write(manifest)
    return path
