"""Files of arrays: .npy, .npz, and TIFF of any number of bands or pages."""

from __future__ import annotations

import io
import os
import zipfile
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..errors import ImageError, reason_of
from ..runtime.untrusted import open_regular
from .decoding.formats import FORMATS, is_readable
from .decoding.png import SIGNATURE, without_metadata
from .decoding.process_wide import libraries_silenced
from .in_memory import Encoded, is_pil_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARRAY_EXTENSIONS = (".npy", ".npz")
_NPY, _ZIP = b"\x93NUMPY", b"PK\x03\x04"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_array_file(source: Any) -> bool:
    """Check by its first bytes whether a file, on the disk or in memory, is a .npy or .npz."""
    return _head(source).startswith((_NPY, _ZIP))


def read_array(source: Any, max_values: int) -> NDArray[Any]:
    """Read an array: of a file, or of an image's bands.

    Args:
        source: path or file in memory of a .npy, of a .npz with one array, or of a TIFF with any number of bands or
            pages; or a PIL image, whose bands are taken as they are.
        max_values: refuse arrays of more values, before they are read.

    Returns:
        (any shape) any dtype.

    Raises:
        ImageError: it is none of these, damaged, or larger.
    """
    if is_pil_image(source):
        return _bands(source)
    label = f"image {source.name!r}" if isinstance(source, Encoded) else f"image {os.fspath(source)!r}"
    head = _head(source)
    try:
        with _opened(source) as file, libraries_silenced.changed():
            if head.startswith((_NPY, _ZIP)):
                return _read_numpy(file, label, max_values, zipped=head.startswith(_ZIP))
            if head.startswith(_TIFF):
                return _read_tiff(file, label, max_values)
            from PIL import Image

            if head.startswith(SIGNATURE):
                file = without_metadata(file).file
            with Image.open(file, formats=[entry.stem.upper() for entry in FORMATS if is_readable(entry)]) as image:
                _check_count(image.width * image.height, label, max_values)
                return _bands(image)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"no file {os.fspath(source)!r}.") from error
    except Exception as error:  # on damaged files the readers raise anything
        raise ImageError(f"{label} cannot be read as an array: {reason_of(error)}.") from error


def _bands(image: Any) -> NDArray[Any]:
    """Return the bands of a PIL image, (H, W) or (H, W, C); of one with a palette its colours."""
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    return np.asarray(image)


def _opened(source: Any) -> BinaryIO:
    if isinstance(source, Encoded):
        return io.BytesIO(source.content)
    open_regular(source).close()  # a pipe would be waited for
    return open(source, "rb")  # with its name, which tifffile asks for


def _head(source: Any) -> bytes:
    """Return the first bytes of a file; none of what is no file, or cannot be read: who decodes it says why."""
    if isinstance(source, Encoded):
        return source.content[:8]
    if not isinstance(source, str | os.PathLike) or not os.path.isfile(source):
        return b""
    try:
        with open(source, "rb") as file:
            return file.read(8)
    except OSError:
        return b""


def _check_count(count: int, label: str, most: int) -> None:
    if count > most:
        raise ImageError(f"{label} must have at most {most:,} pixels, got {count:,}. Raise max_pixels if you trust it.")


def _read_numpy(file: BinaryIO, label: str, max_values: int, zipped: bool) -> NDArray[Any]:
    """Read a .npy, or the only array of a .npz; its header says how large it is."""
    if not zipped:
        _check_header(file, label, max_values)
        file.seek(0)
        return np.asarray(np.load(file, allow_pickle=False))
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if len(names) != 1:
            shown = ", ".join(name.removesuffix(".npy") for name in names[:8])
            raise ImageError(f"{label} must hold one array, got {len(names)}: {shown}. Save each in a file of its own.")
        with archive.open(names[0]) as inner:
            _check_header(inner, label, max_values)
        with archive.open(names[0]) as inner:
            return np.asarray(np.lib.format.read_array(inner, allow_pickle=False))


def _check_header(file: Any, label: str, max_values: int) -> None:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise ImageError(f"{label} holds Python objects, which are never loaded. Save an array of numbers.")
    _check_count(int(np.prod(shape, dtype=np.float64)), label, max_values)


def _read_tiff(file: BinaryIO, label: str, max_values: int) -> NDArray[Any]:
    """Read the first series of a TIFF: its bands, planes or pages as one array."""
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        series = tiff.series[0]
        _check_count(int(np.prod(series.shape, dtype=np.float64)), label, max_values)
        return np.asarray(series.asarray())
