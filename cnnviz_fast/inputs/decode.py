"""One file or PIL image becomes an upright 8-bit RGB image.

Grey of 16 bits is divided by 257 and rounded, so 65535 becomes 255; 16-bit colour keeps its high bytes; float grey is
scaled from 0..1. Other ranges have no known scale: they are refused, never clipped. Transparency is laid over white,
CMYK and YCbCr become RGB by Pillow's formulas, and the first of several frames or pages is taken.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from ..errors import ImageError, reason_of
from .sets import kind_of_set, unpacked_name

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image as PilImage


class Format(NamedTuple):
    """One of the formats that are read; everything else is refused."""

    stem: str  # of Pillow's PIL.<stem>ImagePlugin.<stem>ImageFile
    signature: bytes  # regular expression for a file's first bytes
    extensions: tuple[str, ...]


FORMATS = (
    Format("Png", rb"\x89PNG\r\n\x1a\n", (".png",)),
    Format("Jpeg", rb"\xff\xd8\xff", (".jpg", ".jpeg", ".jpe", ".jfif")),
    Format("WebP", rb"RIFF.{4}WEBP", (".webp",)),
    Format("Bmp", rb"BM", (".bmp",)),
    Format("Gif", rb"GIF8[79]a", (".gif",)),
    Format("Tiff", rb"II[*+]\0|MM\0[*+]", (".tif", ".tiff")),
    Format("Ppm", rb"P[1-6f]\s", (".ppm", ".pgm", ".pbm", ".pnm", ".pfm")),
)
EXTENSIONS = tuple(extension for entry in FORMATS for extension in entry.extensions)

# PNG keeps the transparent grey of 2- and 4-bit images in their own units, while Pillow 13 spreads the pixels to
# 0..255: times 255 / 3 and 255 / 15.
_KEY_SCALES = {"L;2": 85, "L;4": 17}

_WHITE_IS_ZERO = 0  # TIFF 6.0, tag 262 PhotometricInterpretation


class _PillowLimit:
    """Lifts Pillow's own limit on pixels while an image is read that it would warn about or refuse.

    Pillow 13 has no argument for the limit, only the global `Image.MAX_IMAGE_PIXELS`, which TIFF checks while it loads
    and WebP while it opens. It is changed only for such huge images, and restored when the last of them is read.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._limit: int | None = None

    @contextlib.contextmanager
    def lifted_for(self, pixels: int) -> Iterator[None]:
        """Lift the limit if `pixels` are over it; any number of threads may be inside."""
        from PIL import Image

        with self._lock:
            limit = self._limit if self._readers else Image.MAX_IMAGE_PIXELS
            lift = limit is not None and pixels > limit
            if lift:
                self._limit, Image.MAX_IMAGE_PIXELS = limit, None
                self._readers += 1
        try:
            yield
        finally:
            if lift:
                with self._lock:
                    self._readers -= 1
                    if not self._readers:
                        Image.MAX_IMAGE_PIXELS = self._limit


_pillow_limit = _PillowLimit()


def decode_file(path: Path, max_pixels: int) -> PilImage:
    """Decode a file of one of the FORMATS, recognised by its first bytes, not by its name.

    Args:
        path: the file.
        max_pixels: refuse images of more pixels, before they are decoded.

    Returns:
        A new PIL image of mode RGB.

    Raises:
        ImageError: the file is missing, none of the formats, damaged, or of more than `max_pixels`.
    """
    label = f"image {str(path)!r}"
    if os.path.isdir(path):  # False where Path.is_dir raises OSError: for names too long, in folders without access
        raise ImageError(f"{label} is a folder. Name a file in it.")
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe that nobody writes to would never return
        raise ImageError(f"{label} must be a regular file, not a pipe or a device. Save it as one.")
    try:
        with open(path, "rb") as file:
            return _decode_stream(file, str(path), label, max_pixels)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"no file {str(path)!r}.") from error
    except Exception as error:  # on damaged files decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageError(f"{label} cannot be read: {reason_of(error)}.") from error


def decode_bytes(content: bytes, name: str, max_pixels: int) -> PilImage:
    """Decode a file that is in memory, as `decode_file` does.

    Args:
        content: the bytes of the file.
        name: of the image in messages.
        max_pixels: refuse images of more pixels, before they are decoded.

    Returns:
        A new PIL image of mode RGB.

    Raises:
        ImageError: it is none of the formats, damaged, or of more than `max_pixels`.
    """
    label = f"image {name!r}"
    try:
        return _decode_stream(io.BytesIO(content), name, label, max_pixels)
    except ImageError:
        raise
    except Exception as error:  # as in decode_file
        raise ImageError(f"{label} cannot be read: {reason_of(error)}.") from error


def _decode_stream(file: BinaryIO, name: str, label: str, max_pixels: int) -> PilImage:
    """Choose the decoder by the first bytes and run it.

    The decoder's class is called directly and not through `Image.open`, which would apply Pillow's own pixel limit.
    """
    from PIL import Image

    head = file.read(16)
    if not head:
        raise ImageError(f"{label} is empty (0 bytes).")
    stem = next((entry.stem for entry in FORMATS if re.match(entry.signature, head, re.DOTALL)), None)
    if stem is None:
        names = ", ".join(entry.stem.upper() for entry in FORMATS)
        found = "its content is none of them."
        if kind := kind_of_set(name):
            advice = "Draw" if unpacked_name(name) == name else "Unpack it once. Then draw"
            found = f"its ending is that of {kind}. {advice} data sets with cf.run or cnnviz run."
        raise ImageError(f"{label} must be one of {names}, but {found}")
    plugin = getattr(importlib.import_module(f"PIL.{stem}ImagePlugin"), f"{stem}ImageFile")
    file.seek(0)
    try:
        # WebP refuses at twice Pillow's limit, before the size can be read from it.
        with _pillow_limit.lifted_for(max_pixels // 2):
            image = plugin(file, name)
    except Image.DecompressionBombError as error:
        raise _too_large(label, "more", max_pixels) from error
    with image:
        return decode_pil_image(image, label, max_pixels)


def _too_large(label: str, size: str, max_pixels: int) -> ImageError:
    return ImageError(f"{label} must have at most {max_pixels:,} pixels, got {size}. Raise max_pixels if you trust it.")


def decode_pil_image(image: PilImage, label: str, max_pixels: int) -> PilImage:
    """Convert a PIL image of any mode to a new one that is RGB and upright.

    Args:
        image: in memory, or opened and still to be loaded. Not modified.
        label: names it in messages.
        max_pixels: refuse images of more pixels, before they are loaded.

    Returns:
        A new PIL image of mode RGB, without metadata.

    Raises:
        ImageError: it is damaged, of more than `max_pixels`, or its values have no known scale.
    """
    width, height = image.size
    if width * height > max_pixels:
        raise _too_large(label, f"{width} x {height} = {width * height:,}", max_pixels)
    if width * height == 0:
        raise ImageError(f"{label} must have pixels, got {width} x {height}.")
    raw_mode = _raw_mode(image)
    try:
        with _pillow_limit.lifted_for(width * height):
            image.load()
        rgb = _upright(image, _rgb(image, raw_mode, label))
    except ImageError:
        raise
    except Exception as error:  # as in decode_file, for a PIL image that is still to be loaded
        raise ImageError(f"{label} cannot be read: {reason_of(error)}.") from error
    rgb.info = {}  # an orientation left in here would be applied a second time
    return rgb


def _raw_mode(image: PilImage) -> str:
    """Return Pillow's name for the pixels in the file, such as "RGB;16B"; "" once they are loaded."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _rgb(image: PilImage, raw_mode: str, label: str) -> PilImage:
    """Convert any mode to RGB: wide values scaled, transparency over white."""
    from PIL import Image

    mode = image.mode
    key = image.info.get("transparency")
    if mode.startswith("I") or mode == "F":
        values = np.asarray(image)
        grey = _eight_bits(values, 12 if raw_mode == "I;12" else 16, label)  # Pillow 13 does not scale 12-bit TIFF
        if getattr(image, "tag_v2", {}).get(262) == _WHITE_IS_ZERO:  # which Pillow 13 heeds up to 8 bits only
            grey = 255 - grey
        if isinstance(key, int):
            grey = np.where(values == key, np.uint8(255), grey)
        return Image.fromarray(grey).convert("RGB")
    if key is not None and mode in ("1", "L", "RGB"):
        return _keyed(image, key, raw_mode)
    if mode in ("La", "RGBa"):
        image = image.convert(mode.upper())  # divides by alpha
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.copy() if mode == "RGB" else image.convert("RGB")


def _eight_bits(values: npt.NDArray[Any], bits: int, label: str) -> npt.NDArray[np.uint8]:
    """Scale (H, W) integers of `bits` bits, or floats from 0 to 1, to 0..255."""
    low, high = values.min(), values.max()
    peak = 1 if values.dtype.kind == "f" else 2**bits - 1
    if not (low >= 0 and high <= peak):  # true for NaN as well
        raise ImageError(
            f"{label} must hold values from 0 to {peak}, got {low:g} to {high:g}. Save it with 8 bits a channel."
        )
    if values.dtype.kind == "f":
        return np.floor(values * 255 + np.float32(0.5)).astype(np.uint8)
    table = ((np.arange(peak + 1) * 255 + peak // 2) // peak).astype(np.uint8)
    return np.take(table, values)


def _keyed(image: PilImage, key: int | tuple[int, ...], raw_mode: str) -> PilImage:
    """Make the one transparent colour of a grey or RGB image white."""
    from PIL import Image

    colour = np.atleast_1d(np.asarray(key)) * _KEY_SCALES.get(raw_mode, 1)
    if ";16" in raw_mode:
        colour = colour >> 8  # Pillow 13 keeps only the high bytes of 16-bit colour
    pixels = np.array(image.convert("RGB"))
    pixels[(pixels == colour).all(axis=2)] = 255
    return Image.fromarray(pixels)


def _upright(image: PilImage, rgb: PilImage) -> PilImage:
    """Apply the EXIF orientation of a loaded image to its RGB copy."""
    from PIL import ExifTags, Image

    way = Image.Transpose
    turns = {
        2: way.FLIP_LEFT_RIGHT,
        3: way.ROTATE_180,
        4: way.FLIP_TOP_BOTTOM,
        5: way.TRANSPOSE,
        6: way.ROTATE_270,
        7: way.TRANSVERSE,
        8: way.ROTATE_90,
    }
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # metadata that cannot be parsed says nothing about the pixels
        return rgb
    return rgb.transpose(turns[orientation]) if orientation in turns else rgb
