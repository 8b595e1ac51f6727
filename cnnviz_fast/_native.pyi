"""The native PNG encoder (csrc). Arrays must have exactly the dtype and memory order stated; none is copied."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

def encode_strip(pixels: NDArray[np.uint8], bytes_per_pixel: int, out: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Deflate a strip of rows into one complete IDAT chunk, independently of all other strips.

    The chunk holds whole deflate blocks that end on a byte, none of them the last. A file is: signature, IHDR, PLTE if
    indexed, an IDAT of the zlib header 78 01, the strips in order, an IDAT of an empty last block (03 00) and the
    Adler-32 of all filtered bytes (`adler32_combine`), IEND. The bytes depend on the pixels of the strip alone.

    Args:
        pixels: (rows, row_bytes) uint8, C-contiguous. Grey values, palette indices or interleaved RGB. Not modified.
        bytes_per_pixel: 1 for grey and indexed, 3 for RGB; at most 8, divides row_bytes.
        out: (n,) uint8, C-contiguous, n >= strip_bound(rows, row_bytes). Written; reuse it, fresh memory costs time.

    Returns:
        Bytes of `out` that the chunk takes; Adler-32 of the filtered bytes; their number, rows * (row_bytes + 1).

    Raises:
        TypeError: an array has another dtype, memory order or number of dimensions, or `out` is read-only.
        ValueError: a size does not fit.
    """

def strip_bound(rows: int, row_bytes: int) -> int:
    """Return the bytes that `out` of encode_strip must have.

    Raises:
        ValueError: a side is 0, or the strip does not fit one PNG chunk (2^31 bytes).
    """

def write_png_files(pixels: NDArray[np.uint8], palette: bytes | None, paths: Sequence[bytes]) -> tuple[int, int]:
    """Encode each image and write it to its path, in order, up to the first failure.

    A file is written under a temporary name in its own folder and moved into place. A file that fails leaves nothing
    behind, and an older file at its path stays. The GIL is released throughout.

    Args:
        pixels: (n, height, width) uint8, C-contiguous. Grey values or palette indices. Not modified.
        palette: red, green, blue of each entry (3 to 768 bytes) for indexed files, None for grey ones.
        paths: n paths, os.fsencode'd.

    Returns:
        Number of files complete; errno of the one after them, 0 when all are complete.

    Raises:
        TypeError: an array has another dtype, memory order or number of dimensions.
        ValueError: a size does not fit, or a path holds a zero byte.
    """

def adler32(data: NDArray[np.uint8], adler: int = 1) -> int:
    """Return the Adler-32 checksum of (n,) uint8 `data`, continuing from `adler`."""

def adler32_combine(adler1: int, adler2: int, len2: int) -> int:
    """Return the Adler-32 checksum of two byte strings joined, the second of `len2` bytes."""

def crc32(data: NDArray[np.uint8], crc: int = 0) -> int:
    """Return the CRC-32 checksum of (n,) uint8 `data`, continuing from `crc`."""

def filter_row(
    filter: int, row: NDArray[np.uint8], above: NDArray[np.uint8], bytes_per_pixel: int, residuals: NDArray[np.uint8]
) -> None:
    """Write the residuals of one row, for tests.

    Args:
        filter: 0 None, 1 Sub, 2 Up, 4 Paeth.
        row: (n,) uint8. The row itself.
        above: (n,) uint8. The row above it.
        bytes_per_pixel: the distance to the pixel on the left.
        residuals: (n,) uint8. Written.
    """

def vector_level() -> str:
    """Return the level of vector instructions in use: "scalar", "avx2" or "avx512".

    The fastest this processor has, unless the environment variable CNNVIZ_NO_SIMD is set when the module is imported.
    """

def vector_levels() -> list[str]:
    """Return the levels this processor has, slowest first."""

def set_vector_level(name: str) -> None:
    """Choose the level for all later calls of this process, for tests. The results are the same at every level.

    Raises:
        ValueError: this processor does not have it.
    """
