"""PNG in strips: workers encode each strip as a chunk of its own, in any order, and the file joins them.

    signature  IHDR  PLTE  IDAT(zlib header)  IDAT(strip) ... IDAT(strip)  IDAT(end of stream, Adler-32)  IEND

A strip is filtered and deflated on its own and ends on a whole byte, so the joined strips are one deflate stream. The
bytes depend on how the sheet is cut into strips, never on the number of workers.
"""

from __future__ import annotations

import math
import os
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..geometry import Strip
from ..runtime.files import cannot_write, check_path, whole_file
from ..runtime.native import native as native
from ..runtime.stage_times import stage
from ..runtime.workers import in_order

if TYPE_CHECKING:
    from ..palette import Palette

STRIP_PX = 1 << 21
"""Pixels of a strip. Small strips draw more source rows twice and cost more to hand out; large ones exceed the cache.
Measured, a sheet of 104 MB drawn and encoded by two workers: 21.0 ms in strips of 2^19 px, 18.4 in 2^20, 17.0 in 2^21,
19.3 in 2^22."""

RGB_STRIP_PX = STRIP_PX // 4
"""Pixels of a strip of RGB that is made from an index plane: both together take as many bytes."""

_GRAY, _RGB, _INDEXED = 0, 2, 3  # PNG colour types
_ZLIB_HEADER = b"\x78\x01"
_LAST_BLOCK = b"\x03\x00"  # an empty deflate block with the final bit set
_ADLER_BASE = 65_521  # largest prime below 2^16


class EncodedStrip(NamedTuple):
    """A strip as it goes into the file.

    chunk: one whole IDAT chunk.
    adler: Adler-32 of the filtered bytes in it.
    filtered_bytes: number of filtered bytes.
    """

    chunk: bytes
    adler: int
    filtered_bytes: int


def write_png(
    path: Path,
    height: int,
    width: int,
    palette: Palette | None,
    strips: Sequence[Strip],
    draw: Callable[[Strip, NDArray[np.uint8]], NDArray[np.uint8]],
    threads: int,
    give_back: Callable[[Strip], None] | None = None,
) -> None:
    """Draw, encode and write a sheet strip by strip, so that the whole of it is never in memory.

    Args:
        path: the file.
        height: height of the sheet in px.
        width: width of the sheet in px.
        palette: the colours of its entries, or None for RGB.
        strips: the rows of the sheet, cut from top to bottom.
        draw: returns the pixels of a strip, (rows, width) uint8 or (rows, width, 3) for RGB, C-contiguous. Its second
            argument is a buffer of that shape, which it may fill and return. Called in the workers.
        threads: number of workers.
        give_back: called in the workers once the pixels of a strip are no longer needed, also if `draw` failed.

    Raises:
        WriteError: the file cannot be written.
    """
    shape = (width,) if palette else (width, 3)
    scratch = Scratch()

    def work(strip: Strip) -> EncodedStrip:
        try:
            pixels = draw(strip, scratch.pixels((strip.stop - strip.start, *shape)))
            with stage("encode"):
                return encode_strip(pixels.reshape(len(pixels), -1), 1 if palette else 3, scratch)
        finally:
            if give_back is not None:
                give_back(strip)

    adler = 1
    with whole_file(path) as file:
        file.write(head(height, width, palette))
        for encoded in in_order(work, strips, threads):
            with stage("write"):
                file.write(encoded.chunk)
            adler = adler32_combine(adler, encoded.adler, encoded.filtered_bytes)
        file.write(tail(adler))


class Scratch(threading.local):
    """Buffers that each worker reuses for every strip: fresh memory would cost more than drawing into it."""

    def __init__(self) -> None:
        self._pixels = np.empty(0, dtype=np.uint8)
        self._encoded = np.empty(0, dtype=np.uint8)

    def pixels(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return a buffer of this shape for pixels, with any content."""
        size = math.prod(shape)
        if self._pixels.size < size:
            self._pixels = np.empty(size, dtype=np.uint8)
        return self._pixels[:size].reshape(shape)

    def encoded(self, size: int) -> NDArray[np.uint8]:
        """Return a buffer of at least `size` bytes for a chunk, with any content."""
        if self._encoded.size < size:
            self._encoded = np.empty(size, dtype=np.uint8)
        return self._encoded


def encode_strip(pixels: NDArray[np.uint8], bytes_per_pixel: int, scratch: Scratch) -> EncodedStrip:
    """Filter and deflate one strip, with the compiled encoder if there is one.

    Args:
        pixels: (rows, row bytes) uint8, C-contiguous.
        bytes_per_pixel: 1 for grey and indexed, 3 for RGB.
        scratch: the buffers of the worker.

    Returns:
        The strip as a chunk.
    """
    encoder, _ = native()
    if encoder is None:
        return _encode_with_zlib(pixels)
    out = scratch.encoded(encoder.strip_bound(*pixels.shape))
    size, adler, filtered_bytes = encoder.encode_strip(pixels, bytes_per_pixel, out)
    return EncodedStrip(out[:size].tobytes(), adler, filtered_bytes)


def _encode_with_zlib(pixels: NDArray[np.uint8]) -> EncodedStrip:
    """Encode a strip with Python's zlib: Up filter, fastest level, run-length matches only."""
    filtered = np.empty((pixels.shape[0], pixels.shape[1] + 1), dtype=np.uint8)
    filtered[:, 0] = 2  # the Up filter; the first row of a strip is not filtered, since the row above it is unknown
    filtered[0, 0] = 0
    filtered[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=filtered[1:, 1:])
    raw = filtered.tobytes()
    deflate = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, strategy=zlib.Z_RLE)
    body = deflate.compress(raw) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return EncodedStrip(_chunk(b"IDAT", body), zlib.adler32(raw), len(raw))


def write_png_batch(paths: Sequence[Path], pixels: NDArray[np.uint8], palette: Palette) -> None:
    """Write many tiles in one call of the compiled encoder, which must be there.

    Args:
        paths: n files, written in this order up to the first failure.
        pixels: (n, height, width) uint8, C-contiguous.
        palette: the colours of their entries.

    Raises:
        WriteError: a file cannot be written; the message names it.
    """
    encoder, reason = native()
    assert encoder is not None, reason
    for path in paths if sys.platform == "win32" else ():
        check_path(path)
    table = None if palette.is_gray else palette.colors.tobytes()
    with stage("encode"):  # most of the time; the same call writes the files
        written, error = encoder.write_png_files(pixels, table, [os.fsencode(path) for path in paths])
    if written < len(paths):
        raise cannot_write(paths[written], OSError(error, os.strerror(error)))


def adler32_combine(first: int, second: int, second_bytes: int) -> int:
    """Return the Adler-32 of two byte strings joined, from the Adler-32 of each and the length of the second.

    Formula:
        With A = a2 << 16 | a1 of each: a1 = a1' + a1'' - 1, a2 = a2' + a2'' + n'' * (a1' - 1), modulo 65521.
    """
    low, high = first & 0xFFFF, first >> 16
    low_2, high_2 = second & 0xFFFF, second >> 16
    return (high + high_2 + second_bytes * (low - 1)) % _ADLER_BASE << 16 | (low + low_2 - 1) % _ADLER_BASE


def head(height: int, width: int, palette: Palette | None) -> bytes:
    """Return the bytes before the first strip: of a sheet of (height, width) px, in RGB where there is no palette."""
    color_type = _RGB if palette is None else _GRAY if palette.is_gray else _INDEXED
    first = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0))
    if palette is not None and color_type == _INDEXED:
        first += _chunk(b"PLTE", palette.colors.tobytes())
    return first + _chunk(b"IDAT", _ZLIB_HEADER)


def tail(adler: int) -> bytes:
    """Return the bytes after the last strip, from the Adler-32 of all filtered bytes."""
    return _chunk(b"IDAT", _LAST_BLOCK + struct.pack(">I", adler)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
