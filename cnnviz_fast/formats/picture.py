"""Picture files: write an index plane or RGB in the format that the suffix of the file names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import EncodeError, OptionError, closest
from ..geometry import cut_strips
from ..runtime.files import whole_file
from ..runtime.workers import default_threads
from . import device_jpeg, png

if TYPE_CHECKING:
    import torch

    from ..palette import Palette


@dataclass(frozen=True)
class Format:
    """A file format: its name, and the most pixels of a side that it can hold."""

    name: str
    limit_px: int


_JPEG = Format("JPEG", 65_500)  # libjpeg's JPEG_MAX_DIMENSION
FORMATS = {
    ".png": Format("PNG", 2**31 - 1),  # sizes of 31 bits
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": Format("WEBP", 16_383),  # 14-bit sizes
    ".npy": Format("NPY", 2**63 - 1),
}


def format_of(path: Path) -> Format:
    """Return the format that the suffix of a file name stands for.

    Raises:
        OptionError: the suffix stands for no format.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise OptionError(
            f"the file's suffix must be one of {', '.join(FORMATS)}, got {path.name!r}.{closest(suffix, FORMATS)}"
        )
    return FORMATS[suffix]


def check_size(path: Path, height: int, width: int) -> Format:
    """Check that a format can hold a sheet, before anything is drawn or written.

    Args:
        path: the file.
        height: height of the sheet in px.
        width: width of the sheet in px.

    Returns:
        The format that the suffix of `path` stands for.

    Raises:
        OptionError: the suffix stands for no format.
        EncodeError: a side is too long for the format.
    """
    chosen = format_of(path)
    if max(height, width) > chosen.limit_px:
        raise EncodeError(
            f"a {chosen.name} holds at most {chosen.limit_px:,} px a side, got a sheet of {height:,} x {width:,} px. "
            f"Make tile or scale smaller, choose fewer channels, or take format png."
        )
    return chosen


def write_picture(
    path: Path, pixels: NDArray[np.uint8], palette: Palette | None, *, quality: int = 90, threads: int | None = None
) -> None:
    """Write an index plane or RGB in the format that the suffix of `path` stands for.

    Args:
        path: the file.
        pixels: (H, W) uint8, or (H, W, 3) for RGB, C-contiguous.
        palette: the colours of an index plane, or None for RGB.
        quality: quality of JPEG and WebP, 1 to 100.
        threads: number of workers that encode a PNG; None for one on each core.

    Raises:
        OptionError: the suffix stands for no format, or `quality` is out of range.
        EncodeError: the sheet is too large for the format.
        WriteError: the file cannot be written.
    """
    _check_quality(quality)
    height, width = pixels.shape[:2]
    chosen = check_size(path, height, width)
    if chosen.name == "PNG":
        workers = threads or default_threads()
        strips = cut_strips(height, width, png.STRIP_PX if palette else png.RGB_STRIP_PX)
        png.write_png(path, height, width, palette, strips, lambda s, _: pixels[s.start : s.stop], workers)
        return
    with whole_file(path) as file:
        if chosen.name == "NPY":
            np.save(file, pixels)
        else:
            from PIL import Image

            image = Image.fromarray(pixels if palette is None or palette.is_gray else palette.colors[pixels])
            # WebP's method 0 is the fastest; the default 4 takes several times as long and saves a few per cent.
            image.save(file, chosen.name, quality=quality, **({"method": 0} if chosen.name == "WEBP" else {}))


def write_device_jpeg(path: Path, index: torch.Tensor, palette: Palette, *, quality: int = 90) -> None:
    """Write an index plane that lies on a CUDA device as a JPEG: encoded there, or by Pillow where that fails.

    Args:
        path: the file, with a suffix of JPEG.
        index: (H, W) uint8, on a CUDA device, contiguous.
        palette: the colours of its entries.
        quality: 1 to 100.

    Raises:
        OptionError: `quality` is out of range.
        EncodeError: the sheet is too large for the format.
        WriteError: the file cannot be written.
    """
    _check_quality(quality)
    check_size(path, *index.shape)
    encoded = device_jpeg.encode(index, palette, quality)
    if encoded is None:
        write_picture(path, index.cpu().numpy(), palette, quality=quality)
        return
    with whole_file(path) as file:
        file.write(encoded)


def _check_quality(quality: int) -> None:
    if not isinstance(quality, int) or not 1 <= quality <= 100:
        raise OptionError(f"quality must be a whole number from 1 to 100, got {quality!r}.")
