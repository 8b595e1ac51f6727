"""TIFF: which flavours Pillow reads right, and the others, which tifffile reads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from ...errors import ImageError
from .refusals import refuse_size, too_large
from .tiff_rows import Rows
from .wide import Samples

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from PIL.Image import Image as PilImage

# Tags of TIFF 6.0.
_BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _PLANAR = 258, 259, 262, 274, 284
_COLOURS, _EXTRA, _FORMAT, _SOFTWARE, _SUBSAMPLING = 320, 338, 339, 305, 530
_MAX_SAMPLE, _SUBFILE, _SUB_IFDS, _DNG_VERSION = 281, 254, 330, 50706

WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_RAW, _SEPARATE = 1, 2
_ASSOCIATED, _UNASSOCIATED = 1, 2

_MODES = {
    (WHITE_IS_ZERO, 1): "L", (_BLACK_IS_ZERO, 1): "L", (_BLACK_IS_ZERO, 2): "LA",
    (_RGB, 3): "RGB", (_RGB, 4): "RGBA", (_CMYK, 4): "CMYK", (_PALETTE, 1): "P",
}  # fmt: skip


_MOST_SAMPLES = 4  # of each pixel, in images that just keep to the limit: further ones take memory and are not drawn
_NATIVE = {"F;32BF": "F;32NF", "I;32BS": "I;32NS", "I;16BS": "I;16NS"}
"""libtiff has put the bytes into the machine's order already, which Pillow 13 heeds for some modes only."""

_TRUTHS = {"1;I": "1", "1;IR": "1;R"}
"""tifffile marks all arrays of truth values as white-is-zero, as fax has them, and yet stores True as 1."""


class OddTiff(NamedTuple):
    """A TIFF that Pillow does not read, or not right: its samples, how to turn it, and the bits that it uses."""

    samples: Samples
    orientation: int
    declared_bits: int | None


def pillow_is_right(image: PilImage, all_bits: bool) -> bool:
    """Check whether Pillow 13 reads a TIFF right that it has opened.

    Args:
        image: still to be loaded.
        all_bits: whether colour needs all its bits, of which Pillow keeps the high ones.

    Returns:
        False where tifffile has to read it.
    """
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits, samples = max(tags.get(_BITS, (1,))), tags.get(277, 1)
    raw = tags.get(_COMPRESSION, _RAW) == _RAW
    if bits > 8:
        return not (samples > 1 and (all_bits or (raw and tags.get(_PLANAR) == _SEPARATE)))
    further = samples > len(image.getbands())  # of which Pillow 11 reads no planes
    if tags.get(_PLANAR) == _SEPARATE and (further or image.mode in ("LA", "La", "PA")):
        return False
    if bits == 8 and set(tags.get(_FORMAT, (1,))) == {2}:  # signed, which Pillow takes for unsigned
        return False
    return not (raw and tags.get(_PHOTOMETRIC) == _YCBCR and tags.get(_SUBSAMPLING, (2, 2)) != (1, 1))


def refuse_raw(image: PilImage, label: str) -> None:
    """Raise ImageError for an opened raw image of a camera, whose first page is a small preview of it."""
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    if _DNG_VERSION in tags or (tags.get(_SUBFILE, 0) & 1 and _SUB_IFDS in tags):
        raise ImageError(f"{label} is a raw image of a camera. Develop it to PNG, TIFF or JPEG first.")


def mend(image: PilImage) -> None:
    """Correct how an opened TIFF is read, where Pillow 13 takes it too literally or not literally enough.

    Args:
        image: still to be loaded.
    """
    from PIL import ImagePalette

    opened: Any = image
    colours = opened.tag_v2.get(_COLOURS, ()) if image.mode in ("P", "PA") else ()
    if colours and max(colours) < 256:  # TIFF asks for 16 bits, and these have 8
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))
    if not opened.tile:
        return
    meant = _NATIVE if opened.tile[0].codec_name == "libtiff" else {}
    if str(opened.tag_v2.get(_SOFTWARE, "")).startswith("tifffile"):
        meant = meant | _TRUTHS
    opened.tile = [tile._replace(args=(meant.get(tile.args[0], tile.args[0]), *tile.args[1:])) for tile in opened.tile]


def declared_bits(image: PilImage) -> int | None:
    """Return how many bits of its samples an opened TIFF says that it uses; see `_bits_of_peak`."""
    return _bits_of_peak(getattr(image, "tag_v2", {}).get(_MAX_SAMPLE))


def _bits_of_peak(largest: Any) -> int | None:
    """Return the bits of a largest value that is all ones; any other is that of the image, and declares nothing."""
    peak = max(largest) if isinstance(largest, tuple) and largest else largest
    return next((bits for bits in range(9, 16) if peak == 2**bits - 1), None)


def read_odd_tiff(file: BinaryIO, label: str, max_pixels: int) -> OddTiff:
    """Read the first page of a TIFF by tifffile.

    Args:
        file: any position. It has to stay open until the samples are read.
        label: names it in messages.
        max_pixels: refuse more, before they are decoded.

    Returns:
        Its samples, its orientation, and how many bits of its samples it says that it uses.

    Raises:
        ImageError: it has too many pixels, or is of a kind that is not read.
    """
    import tifffile

    file.seek(0)
    page: Any = tifffile.TiffFile(file).pages[0]  # which closes no file that it has not opened
    width, height = int(page.imagewidth), int(page.imagelength)
    refuse_size((width, height), label, max_pixels)
    if width * height * page.samplesperpixel > max_pixels * _MOST_SAMPLES:
        raise too_large(label, f"{width} x {height} of {page.samplesperpixel} samples", max_pixels)
    samples = _samples_of(page, label, (width, height))
    return OddTiff(samples, page.tags.valueof(_ORIENTATION, 1), _bits_of_peak(page.tags.valueof(_MAX_SAMPLE)))


def _samples_of(page: Any, label: str, size: tuple[int, int]) -> Samples:
    """Return what the samples of a page are; they are decoded when they are read."""
    photometric, extra = int(page.photometric), tuple(map(int, page.extrasamples))
    colours = int(page.samplesperpixel) - len(extra)
    alpha = bool(extra) and extra[0] in (_ASSOCIATED, _UNASSOCIATED) and photometric in (_BLACK_IS_ZERO, _RGB)
    mode = _MODES.get((photometric, colours + alpha))
    dtype = page.dtype
    if (
        page.imagedepth != 1
        or mode is None
        or dtype is None
        or dtype.kind == "c"
        or (page.bitspersample < 8 and colours + len(extra) > 1)
    ):
        kind = f"{getattr(page.photometric, 'name', photometric)} with {page.samplesperpixel} samples of {dtype}"
        raise ImageError(f"{label} cannot be read: this kind of TIFF is not known, {kind}. Save it as RGB or grey.")
    _refuse_missing(page, label)
    if alpha and extra[0] == _ASSOCIATED:
        mode = mode.replace("A", "a")
    truths = dtype.kind == "b"
    rows, drawn = Rows(page), colours + alpha
    palette = _colours_of(page) if mode == "P" else None

    def read(first: int, last: int) -> NDArray[Any]:
        values: NDArray[Any] = _named(page, label, lambda: rows(first, last))
        if values.ndim == 3:
            values = values[..., :drawn] if drawn > 1 else values[..., 0]
        if palette is not None:
            values = palette[values]
        return values * np.uint8(255) if truths else values

    return Samples(
        size,
        "RGB" if palette is not None else mode,
        read,
        1.0 if dtype.kind == "f" else 255.0 if palette is not None or dtype.itemsize == 1 else 65535.0,
        keeps_high_bytes=drawn > 1 and dtype == np.uint16,
        white_is_zero=photometric == WHITE_IS_ZERO and not truths,
    )


def _refuse_missing(page: Any, label: str) -> None:
    there = sum(size > 0 for size in page.databytecounts)
    if there < math.prod(page.chunked):  # tifffile takes what is missing for zeros
        raise ImageError(f"{label} cannot be read: {math.prod(page.chunked) - there} of its parts are missing.")


def _named(page: Any, label: str, decoded: Callable[[], NDArray[Any]]) -> NDArray[Any]:
    """Return what is decoded; raise ImageError where that needs a library that is no part of tifffile."""
    try:
        return decoded()
    except (ValueError, ImportError) as error:
        if isinstance(error, ValueError) and "imagecodecs" not in str(error):
            raise
        compression = getattr(page.compression, "name", page.compression)
        raise ImageError(
            f"{label} cannot be read: {compression} compression of such samples needs imagecodecs. Install it: pip "
            f"install imagecodecs, or save the image uncompressed."
        ) from error


def _colours_of(page: Any) -> NDArray[np.uint8]:
    """Return the colours of a palette, (entries, 3); those of 8 bits are taken as they are."""
    colours = np.asarray(page.colormap)
    if colours.max() > 255:
        colours = colours >> 8
    return np.ascontiguousarray(colours.astype(np.uint8).T)
