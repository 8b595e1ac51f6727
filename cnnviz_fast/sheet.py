"""Stage 7 of 7: the finished sheet: index plane, palette and manifest. RGB exists only where it is asked for."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .encode import formats
from .encode.files import json_bytes, whole_file
from .overlay import Overlay
from .palette import Palette

if TYPE_CHECKING:
    from PIL.Image import Image

NOTEBOOK_PX = 2_000_000
"""A notebook shows at most this many pixels of a sheet; larger ones are scaled down for display only."""


@dataclass(frozen=True)
class Sheet:
    """A grid of tiles, drawn.

    index: (H, W) uint8. Which entry of the palette each pixel shows.
    colors: the palette and what its entries stand for.
    manifest: which tile is which channel, with ranges, statistics and flags.
    overlay: what lies under the tiles, if anything does.
    """

    index: NDArray[np.uint8]
    colors: Palette
    manifest: dict[str, Any]
    overlay: Overlay | None = None

    @property
    def palette(self) -> NDArray[np.uint8]:
        """Return the colour table, (256, 3) uint8."""
        return self.colors.colors

    def rgb(self) -> NDArray[np.uint8]:
        """Return the sheet as (H, W, 3) uint8, RGB."""
        return self.palette[self.index] if self.overlay is None else self.overlay.rgb(self.index)

    def pil(self) -> Image:
        """Return the sheet as a PIL image of mode L or P, sharing memory with `index` where Pillow can.

        With an overlay the mode is RGB.
        """
        from PIL import Image

        if self.overlay is not None:
            return Image.fromarray(self.rgb())
        image = Image.fromarray(self.index)
        if not self.colors.is_gray:
            image.putpalette(self.palette.tobytes())
        return image

    def save(self, path: str | os.PathLike[str], *, quality: int = 90) -> Path:
        """Write the sheet, and its manifest beside it under the same name with the suffix .json.

        Args:
            path: the file; its suffix decides the format: .png, .jpg, .jpeg, .webp, or .npy for the index plane.
            quality: of JPEG and WebP, 1 to 100.

        Returns:
            The path.

        Raises:
            OptionError: the suffix names no format, or `quality` is out of range.
            EncodeError: the sheet is too large for the format.
            WriteError: the file cannot be written; nothing is left of it, and an older file of that name stays.
        """
        path = Path(path)
        if self.overlay is None or formats.format_of(path).name == "NPY":
            formats.write_picture(path, self.index, self.colors, quality=quality)
        else:
            formats.write_picture(path, self.rgb(), None, quality=quality)
        write_manifest(path, json_bytes(self.manifest))
        return path

    def _repr_png_(self) -> bytes:
        """Return a PNG for a notebook, scaled down to at most NOTEBOOK_PX."""
        image = self.pil()
        factor = (NOTEBOOK_PX / self.index.size) ** 0.5
        if factor < 1:
            height, width = (min(max(1, int(side * factor)), NOTEBOOK_PX) for side in self.index.shape)
            image = image.convert("L" if image.mode == "L" else "RGB").resize((width, height))
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def write_manifest(picture: Path, manifest: bytes) -> Path:
    """Write a manifest, as JSON, beside its picture, under the same name with the suffix .json."""
    path = picture.with_suffix(".json")
    with whole_file(path) as file:
        file.write(manifest)
    return path
