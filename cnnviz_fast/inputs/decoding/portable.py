"""PPM and PGM whose largest value is not 255: read here, since Pillow scales them value by value in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from .wide import Samples

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image as PilImage


def samples_of_portable(image: PilImage, file: BinaryIO) -> Samples | None:
    """Return the samples of an opened PPM or PGM; None where Pillow reads it at once, and for other formats.

    Args:
        image: opened, still to be loaded.
        file: that it was opened from.

    Returns:
        The samples; reading them raises OSError where the file is cut off.
    """
    tile = image.tile[0] if image.format == "PPM" else None  # type: ignore[attr-defined]
    if tile is None or tile.codec_name != "ppm":
        return None
    peak, bands = tile.args[1], len(image.getbands())
    dtype = np.dtype(">u2" if peak > 255 else "u1")
    stride = image.width * bands * dtype.itemsize

    def read(first: int, last: int) -> NDArray[Any]:
        file.seek(tile.offset + first * stride)
        content = file.read((last - first) * stride)
        if len(content) < (last - first) * stride:
            raise OSError("image file is truncated")
        rows = np.frombuffer(content, dtype)
        return rows.reshape((-1, image.width, bands) if bands > 1 else (-1, image.width))

    return Samples(image.size, "RGB" if bands > 1 else "L", read, float(peak))
