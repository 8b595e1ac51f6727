"""One file or PIL image becomes an upright 8-bit RGB image, or one in floats.

Grey of 16 bits is divided by 257 and rounded, so 65535 becomes 255; 16-bit colour keeps its high bytes; floats are
scaled from 0..1. Other ranges have no known scale: they are refused, never clipped, unless `input_range` gives it.
Transparency is laid over white, CMYK and YCbCr become RGB by Pillow's formulas, and the first of several frames or
pages is taken.

Where a model's preprocessing takes floats, grey and colours of more than 8 bits keep all of their levels: the same
ranges become 0..1, without rounding. NaN stays in grey for a model of one channel, as it does in arrays.
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

    from ..models.float_images import AnyImage, FloatImage

_MOST_FLOAT_PX = 1 << 24
"""Larger images in colour stay at 8 bits: decoding all of theirs takes a second pass, and twelve bytes a pixel."""


def decode_file(
    path: Path, max_pixels: int, options: ImageOptions = AS_USUAL, floats: int = 0
) -> PilImage | FloatImage:
    """Decode a file of one of the FORMATS, recognised by its first bytes, not by its name.

    Args:
        path: the file.
        max_pixels: refuse images of more pixels, before they are decoded.
        options: what is done with damage, and with values of another range.
        floats: channels of a model that takes floats; 0 where it takes 8 bits.

    Returns:
        A new PIL image of mode RGB; one in floats where `floats` asks for it and 256 levels are too few.

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
            return _decode_stream(file, str(path), label, max_pixels, options, floats)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"no file {str(path)!r}.") from error
    except Exception as error:  # on damaged files decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageError(f"{label} cannot be read: {reason_of(error)}.") from error


def decode_bytes(
    content: bytes, name: str, max_pixels: int, options: ImageOptions = AS_USUAL, floats: int = 0, shrink: int = 1
) -> PilImage | FloatImage:
    """Decode a file that is in memory, as `decode_file` does.

    Args:
        content: the bytes of the file.
        name: of the image in messages.
        max_pixels: refuse images of more pixels, before they are decoded.
        options: what is done with damage, and with values of another range.
        floats: channels of a model that takes floats; 0 where it takes 8 bits.
        shrink: 2, 4 or 8 where an image of a fraction of its sides is enough: of JPEG, blocks of so many pixels a side
            are decoded to one, which takes half the time. Other formats come in their own size.

    Returns:
        A new PIL image of mode RGB; one in floats where `floats` asks for it and 256 levels are too few.

    Raises:
        ImageError: it is none of the formats, damaged, or of more than `max_pixels`.
    """
    label = f"image {name!r}"
    try:
        return _decode_stream(io.BytesIO(content), name, label, max_pixels, options, floats, shrink)
    except ImageError:
        raise
    except Exception as error:  # as in decode_file
        raise ImageError(f"{label} cannot be read: {reason_of(error)}.") from error


_SIZE_IN_HEADER = ("Jpeg", "WebP")
"""Formats whose size and orientation Pillow knows once they are opened."""

_ON_THEIR_SIDES = (5, 6, 7, 8)  # orientations whose rows are columns of the upright image


def upright_size(content: bytes, name: str, max_pixels: int, options: ImageOptions = AS_USUAL) -> tuple[int, int]:
    """Return the height and the width of the image that `decode_bytes` makes of a file; mostly from its header.

    Args:
        content: the bytes of the file.
        name: of the image in messages.
        max_pixels: refuse images of more pixels.
        options: what is done with damage.

    Returns:
        The height and the width in px, upright.

    Raises:
        ImageError: it is none of the formats, damaged, or of more than `max_pixels`.
    """
    entry = format_of(content[:HEAD_BYTES])
    if entry is not None and entry.stem == "Png" and not png.tells_orientation(io.BytesIO(content)):
        width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))  # of IHDR, which comes first
        return height, width
    if entry is None or entry.stem not in _SIZE_IN_HEADER:
        decoded = decode_bytes(content, name, max_pixels, options)
        return decoded.height, decoded.width
    try:
        with libraries_silenced.changed(), plugin_of(entry)(io.BytesIO(content), name) as image:
            refuse_size(image.size, f"image {name!r}", max_pixels)
            lies = _orientation(image) in _ON_THEIR_SIDES
            return image.size if lies else (image.height, image.width)
    except ImageError:
        raise
    except Exception as error:  # as in decode_file
        raise ImageError(f"image {name!r} cannot be read: {reason_of(error)}.") from error


def _decode_stream(
    file: BinaryIO, name: str, label: str, max_pixels: int, options: ImageOptions, floats: int, shrink: int = 1
) -> PilImage | FloatImage:
    """Choose the decoder by the first bytes and run it."""
    head = file.read(HEAD_BYTES)
    if not head:
        raise ImageError(f"{label} is empty (0 bytes).")
    entry = format_of(head)
    if entry is None or not is_readable(entry):
        raise refusal(label, name, head)
    read = _decoded_png if entry.stem == "Png" else _decoded_tiff if entry.stem == "Tiff" else _decoded
    with libraries_silenced.changed():
        return read(_File(entry, file, name, label, max_pixels, options, floats, shrink))


class _File(NamedTuple):
    """A file that is decoded: its format, its content, how Pillow and messages call it, and what is asked of it."""

    entry: Format
    file: BinaryIO
    name: str
    label: str
    max_pixels: int
    options: ImageOptions
    floats: int
    shrink: int

    def needs_all_bits(self, size: tuple[int, int]) -> bool:
        """Check whether colours of 16 bits need their low bytes too."""
        few = size[0] * size[1] <= _MOST_FLOAT_PX
        return self.options.input_range is not None or (self.floats > 0 and few)

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

    def converted(self, image: PilImage, declared_bits: int | None = None) -> PilImage | FloatImage:
        """Convert it once it is opened; see `decode_pil_image`."""
        return decode_pil_image(image, self.label, self.max_pixels, self.options, declared_bits, self.floats)

    def scaled(self, samples: Samples, declared_bits: int | None = None) -> PilImage | FloatImage:
        """Make an image of its samples."""
        return _scaled(samples, self.label, self.options, declared_bits, self.floats)


def _decoded(source: _File) -> PilImage | FloatImage:
    with source.opened() as image:
        refuse_size(image.size, source.label, source.max_pixels)
        if (samples := samples_of_portable(image, source.file)) is not None:
            return source.scaled(samples)
        if source.shrink > 1:
            image.draft(None, (image.width // source.shrink, image.height // source.shrink))  # only JPEG does anything
        mend_bitmap(image)
        return source.converted(image)


def _decoded_png(source: _File) -> PilImage | FloatImage:
    plain = png.without_metadata(source.file)
    if plain.fault:
        raise ImageError(f"{source.label} cannot be read: {plain.fault}. Save it as PNG again.")
    source = source._replace(file=plain.file)
    with source.opened() as image:
        refuse_size(image.size, source.label, source.max_pixels)
        if (samples := png.wide_colour(image, source.opened, source.needs_all_bits(image.size))) is None:
            return source.converted(image, plain.significant_bits)
        return _upright(image, source.scaled(samples, plain.significant_bits))


def _decoded_tiff(source: _File) -> PilImage | FloatImage:
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
            if tiff.pillow_is_right(image, source.needs_all_bits(image.size)):
                tiff.mend(image)
                return source.converted(image, tiff.declared_bits(image))
    odd = tiff.read_odd_tiff(source.file, source.label, source.max_pixels)
    return turned(source.scaled(odd.samples, odd.declared_bits), odd.orientation)


def decode_pil_image(
    image: PilImage,
    label: str,
    max_pixels: int,
    options: ImageOptions = AS_USUAL,
    declared_bits: int | None = None,
    floats: int = 0,
) -> PilImage | FloatImage:
    """Convert a PIL image of any mode to a new one that is RGB and upright.

    Args:
        image: in memory, or opened and still to be loaded. Not modified.
        label: names it in messages.
        max_pixels: refuse images of more pixels, before they are loaded.
        options: what is done with damage, and with values of another range.
        declared_bits: how many of 16 bits its file says that it uses.
        floats: channels of a model that takes floats; 0 where it takes 8 bits.

    Returns:
        A new PIL image of mode RGB, without metadata; one in floats where `floats` asks for it and 256 levels are too
        few.

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
            if samples is not None:
                return _upright(image, _scaled(samples, label, options, declared_bits, floats))
            rgb = to_rgb(image, raw_mode)
            rgb.info = {}  # an orientation left in here would be applied a second time
            return _upright(image, rgb)
    except ImageError:
        raise
    except Exception as error:  # as in decode_file, for a PIL image that is still to be loaded
        raise ImageError(f"{label} cannot be read: {reason_of(error)}.") from error


def _scaled(
    samples: Samples, label: str, options: ImageOptions, declared_bits: int | None, floats: int
) -> PilImage | FloatImage:
    """Make an image of samples that are no bytes, or are to be scaled."""
    in_floats = floats > 0 and samples.is_wide
    seen = Extremes(without_nan=in_floats and floats == 1)

    def drawn(ends: Range) -> PilImage | FloatImage:
        if in_floats:
            return samples.in_floats(ends, seen)
        return joined(samples.size, samples.tops(), lambda top: over_white(samples.band(top, ends, seen)))

    image = drawn(options.input_range or samples.whole)
    if options.input_range is None and (ends := ends_of(samples, seen, declared_bits, label)) != samples.whole:
        return drawn(ends)  # a range that the file declares, which is known only now
    return image


def _raw_mode(image: PilImage) -> str:
    """Return Pillow's name for the pixels in the file, such as "RGB;16B"; "" once they are loaded."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _upright(image: PilImage, decoded: AnyImage) -> AnyImage:
    """Apply the EXIF orientation of a loaded image to what was made of it."""
    return turned(decoded, _orientation(image))


def _orientation(image: PilImage) -> object:
    """Return the EXIF orientation of an image; None without one."""
    from PIL import ExifTags

    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # metadata that cannot be parsed says nothing about the pixels
        return None


def turned(image: AnyImage, orientation: object) -> AnyImage:
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
