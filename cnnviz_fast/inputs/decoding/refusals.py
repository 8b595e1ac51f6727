"""Files that cannot be read as images: what each of them is, and what to do about it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ...errors import ImageError
from ...options.reading import MAX_PIXELS
from ..sets import kind_of_set, unpacked_name
from .formats import FORMATS, is_readable

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage


class Kind(NamedTuple):
    """A kind of file that is not read: what it is, its first bytes as a regular expression, and what to do."""

    name: str
    signature: bytes
    advice: str


_CONVERT = "Convert it to PNG or JPEG first."
_ARRAY = "Save its pixels as .npy, or as TIFF, first."
_FRAMES = "Extract its frames first."
_UNPACK = "Unpack it first."
_NO_AVIF = "This Pillow reads none. Install Pillow 11.3 or later, or convert it."

_KINDS = (
    Kind("an AVIF image", rb".{4}ftyp(avi[fs]|mif1.{0,64}avif)", _NO_AVIF),
    Kind("a HEIC image", rb".{4}ftyp(hei[cxmsf]|hev[cxms]|mi[fa]1|msf1)", _CONVERT),
    Kind("a Canon raw image", rb".{4}ftypcrx |II\*\0.{4}CR[\x02\x03]", "Develop it to PNG, TIFF or JPEG first."),
    Kind("a QuickTime or MP4 video", rb".{4}(ftyp|moov|mdat|wide|free|skip)", _FRAMES),
    Kind("a JPEG XL image", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", _CONVERT),
    Kind("a JPEG 2000 image", rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", _CONVERT),
    Kind("a JPEG XR image", rb"II\xbc", _CONVERT),
    Kind("a raw image of a camera", rb"IIRO|IIRS|MMOR|FUJIFILMCCD-RAW|IIU\0", "Develop it to PNG, TIFF or JPEG first."),
    Kind("a DICOM image", rb".{128}DICM", _ARRAY),
    Kind("a NIfTI image", rb"\x5c\x01\0\0.{340}n[i+]1|\0\0\x01\x5c.{340}n[i+]1", _ARRAY),
    Kind("a FITS image", rb"SIMPLE  =", _ARRAY),
    Kind("an HDF5 file", rb"\x89HDF\r\n", _ARRAY),
    Kind("a MATLAB file", rb"MATLAB 5\.0", _ARRAY),
    Kind("an OpenEXR image", rb"\x76\x2f\x31\x01", _ARRAY),
    Kind("a Radiance HDR image", rb"#\?(RADIANCE|RGBE)", _ARRAY),
    Kind("a Photoshop document", rb"8BPS", _CONVERT),
    Kind("a GIMP document", rb"gimp xcf", _CONVERT),
    Kind("an icon", rb"\0\0[\x01\x02]\0", _CONVERT),
    Kind("a DirectDraw texture", rb"DDS ", _CONVERT),
    Kind("a Khronos texture", rb"\xabKTX ", _CONVERT),
    Kind("a QOI image", rb"qoif", _CONVERT),
    Kind("a PAM image", rb"P7\s", _CONVERT),
    Kind("a PFM image in colour", rb"PF\s", _ARRAY),
    Kind("a FLIF image", rb"FLIF", _CONVERT),
    Kind("a DjVu document", rb"AT&TFORM", _CONVERT),
    Kind("a WMF or EMF drawing", rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF", _CONVERT),
    Kind("a PostScript document", rb"%!PS|\xc5\xd0\xd3\xc6", _CONVERT),
    Kind("a PDF document", rb".{0,1000}?%PDF-", "Render its pages to PNG first."),
    Kind("a WebM or Matroska video", rb"\x1a\x45\xdf\xa3", _FRAMES),
    Kind("an AVI video", rb"RIFF.{4}AVI ", _FRAMES),
    Kind("a WAV sound", rb"RIFF.{4}WAVE", ""),
    Kind("an MPEG video", rb"\0\0\x01[\xb3\xba]", _FRAMES),
    Kind("a Flash video", rb"FLV\x01", _FRAMES),
    Kind("an NPY array", rb"\x93NUMPY", "Pass it to a model that takes arrays, or save it as PNG."),
    Kind("a zip archive", rb"PK(\x03\x04|\x05\x06|\x07\x08)", _UNPACK),
    Kind("a gzip archive", rb"\x1f\x8b", _UNPACK),
    Kind("a bzip2 archive", rb"BZh", _UNPACK),
    Kind("an xz archive", rb"\xfd7zXZ\0", _UNPACK),
    Kind("a zstd archive", rb"\x28\xb5\x2f\xfd", _UNPACK),
    Kind("a 7z archive", rb"7z\xbc\xaf\x27\x1c", _UNPACK),
    Kind("a RAR archive", rb"Rar!", _UNPACK),
    Kind("a tar archive", rb".{257}ustar", "Draw data sets with cf.run or cnnviz run."),
    Kind("a Parquet table", rb"PAR1", "Draw data sets with cf.run or cnnviz run."),
    Kind("a SQLite database", rb"SQLite format 3\0", ""),
    Kind("a pickle", rb"\x80[\x02-\x05]", "Save its pixels as PNG or .npy."),
    Kind("a program", rb"\x7fELF|MZ|\xca\xfe\xba\xbe|\xcf\xfa\xed\xfe", ""),
    Kind("a pointer of Git LFS", rb"version https://git-lfs", "Fetch the image itself: git lfs pull."),
    Kind("a pointer of git-annex", rb"(\.\./)*\.?(git|/)/?annex/objects", "Fetch the image itself: git annex get."),
)

# Of text, without the marks and blanks it may begin with. The first that fits counts.
_TEXTS = (
    Kind("an SVG drawing", rb"(<\?xml.*?)?(<!--.*?-->\s*)?(<!DOCTYPE svg.*?)?<svg[\s>]", "Render it to PNG first."),
    Kind(
        "a web page (HTML)",
        rb"(<\?xml.*?>\s*)?(<!--.*?-->\s*)?<(!doctype html|html|head|body|script|title|meta|div)\b",
        "Its download has failed: fetch the image again.",
    ),
    Kind("XML", rb"<\?xml|<[A-Za-z]", "Its download may have failed: fetch the image again."),
    Kind("JSON", rb"[{\[]\s*[\"{\[\d\]}tfn-]", "Its download may have failed: fetch the image again."),
)

_CONTROLS = rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]"
"""Bytes that no text holds."""

_SLOW_SECONDS = {"bmp_rle": 4e-7, "ppm_plain": 1.2e-6}
"""What a pixel takes in the decoders of Pillow 13 that are written in Python, at worst and rounded up."""
_MOST_SECONDS = 5.0

_MOST_PIXELS = {"WEBP": 80_000_000, "LAB": 80_000_000, "AVIF": 45_000_000}
"""Of kinds whose pixels cost more, so that the largest that is read takes 5 s and 1 GB as any other. Noise in lossless
WebP takes 45 ns and 16 bytes a pixel, LAB 40 ns in Little CMS, noise in AVIF 100 ns."""


def refusal(label: str, name: str, head: bytes) -> ImageError:
    """Return the error for a file that is none of the formats that are read.

    Args:
        label: names it in the message.
        name: of the file.
        head: its first bytes.

    Returns:
        The error, to be raised.
    """
    names = ", ".join(entry.stem.upper() for entry in FORMATS if is_readable(entry))
    found = "its content is none of them."
    if kind := kind_of_set(name):
        advice = "Draw" if unpacked_name(name) == name else "Unpack it once. Then draw"
        found = f"its ending is that of {kind}. {advice} data sets with cf.run or cnnviz run."
    elif (known := kind_of(head)) is not None:
        found = f"it is {known.name}. {known.advice}".rstrip()
    return ImageError(f"{label} must be one of {names}, but {found}")


def kind_of(head: bytes) -> Kind | None:
    """Return what begins with these bytes, where that is known and is none of the FORMATS."""
    for kind in _KINDS:
        if re.match(kind.signature, head, re.DOTALL):
            return kind
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):  # the mark of UTF-16
        return Kind("text", b"", "")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for kind in _TEXTS:
        if re.match(kind.signature, text, re.DOTALL | re.IGNORECASE):
            return kind
    if not head.strip(b"\0"):
        return Kind("zeros", b"", "Its download may have failed: fetch the image again.")
    return None if re.search(_CONTROLS, head) else Kind("text", b"", "")


def too_large(label: str, size: str, max_pixels: int) -> ImageError:
    """Return the error for an image of more pixels than are allowed."""
    return ImageError(f"{label} must have at most {max_pixels:,} pixels, got {size}. Raise max_pixels if you trust it.")


def refuse_size(size: tuple[int, int], label: str, max_pixels: int) -> None:
    """Raise ImageError for an image that has no pixels, or more than are allowed."""
    width, height = size
    if width * height > max_pixels:
        raise too_large(label, f"{width} x {height} = {width * height:,}", max_pixels)
    if width * height == 0:
        raise ImageError(f"{label} must have pixels, got {width} x {height}.")


def refuse_costly(image: PilImage, label: str, max_pixels: int) -> None:
    """Raise ImageError for an image of a costly kind with more pixels than are allowed of it, before that is done.

    Args:
        image: opened or loaded; loading may be what is costly.
        label: names it in the message.
        max_pixels: of images of any kind. Whoever raises it lifts the limits of these kinds.
    """
    is_loaded = getattr(image, "_im", None) is not None
    kind = "LAB" if image.mode == "LAB" else "" if is_loaded else str(image.format)
    pixels = image.width * image.height
    if max_pixels <= MAX_PIXELS and pixels > _MOST_PIXELS.get(kind, pixels):
        raise ImageError(
            f"{label} must have at most {_MOST_PIXELS[kind]:,} pixels as {kind}, which takes longer to decode, got "
            f"{image.width} x {image.height} = {pixels:,}. Raise max_pixels above {MAX_PIXELS:,} if you trust it."
        )


def refuse_slow(image: PilImage, label: str) -> None:
    """Raise ImageError for an opened image whose decoder would take longer than any image within the limit may."""
    tiles = getattr(image, "tile", None)
    seconds = _SLOW_SECONDS.get(tiles[0][0], 0.0) * image.width * image.height if tiles else 0.0
    if seconds > _MOST_SECONDS:
        raise ImageError(
            f"{label} of {image.width} x {image.height} pixels would take too long to decode in this form of "
            f"{image.format}. Save it as PNG."
        )
