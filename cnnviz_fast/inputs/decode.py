"""One file or PIL image becomes an upright 8-bit RGB image.

Grey of 16 bits is divided by 257 and rounded, so 65535 becomes 255; 16-bit colour keeps its high bytes; floats are
scaled from 0..1. Other ranges have no known scale: they are refused, never clipped, unless `input_range` gives it.
Transparency is laid over white, CMYK and YCbCr become RGB by Pillow's formulas, and the first of several frames or
pages is taken.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from ..errors import ImageError, reason_of
from ..options.reading import AS_USUAL, ImageOptions
from .decoding import png, tiff
from .decoding.bitmap import mend_bitmap
from .decoding.damage import load_so_far
from .decoding.formats import HEAD_BYTES, Format, format_of, is_readable, plugin_of
from .decoding.over_white import joined, over_white, to_rgb
from .decoding.portable import samples_of_portable
from .decoding.process_wide import libraries_silenced, pillow_limit_lifted
from .decoding.refusals import refusal, refuse_costly, refuse_size, refuse_slow, too_large
from .decoding.wide import Extremes, Range, Samples, ends_of, samples_of

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage


def decode_file(path: Path, max_pixels: int, options: ImageOptions = AS_USUAL) -> PilImage:
    """Decode a file of one of the FORMATS, recognised by its first bytes, not by its name.

    Args:
        path: the file.
        max_pixels: refuse images of more pixels, before they are decoded.
        options: what is done with damage, and with values of another range.

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
            return _decode_stream(file, str(path), label, max_pixels, options)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"no file {str(path)!r}.") from error
    except Exception as error:  # on damaged files decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageError(f"{label} cannot be read: {reason_of(error)}.") from error


def decode_bytes(content: bytes, name: str, max_pixels: int, options: ImageOptions = AS_USUAL) -> PilImage:
    """Decode a file that is in memory, as `decode_file` does.

    Args:
        content: the bytes of the file.
        name: of the image in messages.
        max_pixels: refuse images of more pixels, before they are decoded.
        options: what is done with damage, and with values of another range.

    Returns:
        A new PIL image of mode RGB.

    Raises:
        ImageError: it is none of the formats, damaged, or of more than `max_pixels`.
    """
    label = f"image {name!r}"
    try:
        return _decode_stream(io.BytesIO(content), name, label, max_pixels, options)
    except ImageError:
        raise
    except Exception as error:  # as in decode_file
        raise ImageError(f"{label} cannot be read: {reason_of(error)}.") from error


def _decode_stream(file: BinaryIO, name: str, label: str, max_pixels: int, options: ImageOptions) -> PilImage:
    """Choose the decoder by the first bytes and run it."""
    head = file.read(HEAD_BYTES)
    if not head:
        raise ImageError(f"{label} is empty (0 bytes).")
    entry = format_of(head)
    if entry is None or not is_readable(entry):
        raise refusal(label, name, head)
    read = _decoded_png if entry.stem == "Png" else _decoded_tiff if entry.stem == "Tiff" else _decoded
    with libraries_silenced.changed():
        return read(_File(entry, file, name, label, max_pixels), options)


class _File(NamedTuple):
    """A file that is decoded: its format, its content, how Pillow and messages call it, and the limit on its pixels."""

    entry: Format
    file: BinaryIO
    name: str
    label: str
    max_pixels: int

    def opened(self) -> PilImage:
        """Open it with Pillow; raise ImageError where WebP is too large, which only says so when it is opened."""
        from PIL import Image

        self.file.seek(0)
        try:
            # WebP refuses at twice Pillow's limit, before the size can be read from it.
            with pillow_limit_lifted.for_pixels(self.max_pixels // 2):
                image: PilImage = plugin_of(self.entry)(self.file, self.name)
        except Image.DecompressionBombError as error:
            raise too_large(self.label, "more", self.max_pixels) from error
        return image


def _decoded(source: _File, options: ImageOptions) -> PilImage:
    with source.opened() as image:
        refuse_size(image.size, source.label, source.max_pixels)
        if (samples := samples_of_portable(image, source.file)) is not None:
            return _scaled(samples, source.label, options)
        mend_bitmap(image)
        return decode_pil_image(image, source.label, source.max_pixels, options)


def _decoded_png(source: _File, options: ImageOptions) -> PilImage:
    plain = png.without_metadata(source.file)
    if plain.unknown:
        raise ImageError(f"{source.label} cannot be read: {plain.unknown} is no chunk of PNG. Save it as PNG again.")
    source = source._replace(file=plain.file)
    with source.opened() as image:
        refuse_size(image.size, source.label, source.max_pixels)
        if (samples := png.wide_colour(image, source.opened, options.input_range is not None)) is None:
            return decode_pil_image(image, source.label, source.max_pixels, options, plain.significant_bits)
        return _upright(image, _scaled(samples, source.label, options, plain.significant_bits))


def _decoded_tiff(source: _File, options: ImageOptions) -> PilImage:
    """Decode a TIFF by Pillow, or by tifffile where that is needed."""
    try:
        image = source.opened()
    except ImageError:
        raise
    except Exception:  # a kind that Pillow does not know, or damage: tifffile tells them apart
        image = None
    if image is not None:
        with image:
            refuse_size(image.size, source.label, source.max_pixels)
            tiff.refuse_raw(image, source.label)
            if tiff.pillow_is_right(image, options.input_range is not None):
                tiff.mend(image)
                return decode_pil_image(image, source.label, source.max_pixels, options, tiff.declared_bits(image))
    odd = tiff.read_odd_tiff(source.file, source.label, source.max_pixels)
    return turned(_scaled(odd.samples, source.label, options, odd.declared_bits), odd.orientation)


def decode_pil_image(
    image: PilImage,
    label: str,
    max_pixels: int,
    options: ImageOptions = AS_USUAL,
    declared_bits: int | None = None,
) -> PilImage:
    """Convert a PIL image of any mode to a new one that is RGB and upright.

    Args:
        image: in memory, or opened and still to be loaded. Not modified.
        label: names it in messages.
        max_pixels: refuse images of more pixels, before they are loaded.
        options: what is done with damage, and with values of another range.
        declared_bits: how many of 16 bits its file says that it uses.

    Returns:
        A new PIL image of mode RGB, without metadata.

    Raises:
        ImageError: it is damaged, of more than `max_pixels`, or its values have no known scale.
    """
    refuse_size(image.size, label, max_pixels)
    width, height = image.size
    raw_mode = _raw_mode(image)
    refuse_slow(image, label)
    refuse_costly(image, label, max_pixels)
    try:
        with libraries_silenced.changed(), pillow_limit_lifted.for_pixels(width * height):
            load_so_far(image, label) if options.truncated == "allow" else image.load()
            samples = samples_of(image, raw_mode, options.input_range is not None)
            rgb = to_rgb(image, raw_mode) if samples is None else _scaled(samples, label, options, declared_bits)
            rgb = _upright(image, rgb)
    except ImageError:
        raise
    except Exception as error:  # as in decode_file, for a PIL image that is still to be loaded
        raise ImageError(f"{label} cannot be read: {reason_of(error)}.") from error
    rgb.info = {}  # an orientation left in here would be applied a second time
    return rgb


def _scaled(samples: Samples, label: str, options: ImageOptions, declared_bits: int | None = None) -> PilImage:
    """Make an RGB image of samples that are no bytes."""
    seen = Extremes()

    def drawn(ends: Range) -> PilImage:
        return joined(samples.size, samples.tops(), lambda top: over_white(samples.band(top, ends, seen)))

    rgb = drawn(options.input_range or samples.whole)
    if options.input_range is None and (ends := ends_of(samples, seen, declared_bits, label)) != samples.whole:
        return drawn(ends)  # a range that the file declares, which is known only now
    return rgb


def _raw_mode(image: PilImage) -> str:
    """Return Pillow's name for the pixels in the file, such as "RGB;16B"; "" once they are loaded."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _upright(image: PilImage, rgb: PilImage) -> PilImage:
    """Apply the EXIF orientation of a loaded image to its RGB copy."""
    from PIL import ExifTags

    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # metadata that cannot be parsed says nothing about the pixels
        return rgb
    return turned(rgb, orientation)


def turned(image: PilImage, orientation: object) -> PilImage:
    """Turn an image upright that lies as an EXIF orientation says."""
    from PIL import Image

    way = Image.Transpose
    turns: dict[object, Image.Transpose] = {
        2: way.FLIP_LEFT_RIGHT,
        3: way.ROTATE_180,
        4: way.FLIP_TOP_BOTTOM,
        5: way.TRANSPOSE,
        6: way.ROTATE_270,
        7: way.TRANSVERSE,
        8: way.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image
