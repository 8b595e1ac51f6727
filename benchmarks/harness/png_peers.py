"""How a finished grey plane becomes a PNG in memory with other encoders, each at its fastest setting, on one thread."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.uint8]

_UP = 2  # of the filters of PNG: each byte less the one above it


def chunk(kind: bytes, body: bytes) -> bytes:
    """Make a PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def head(plane: Plane) -> bytes:
    """Return what comes before the IDAT chunks of a grey PNG."""
    height, width = plane.shape
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def filtered(plane: Plane) -> Plane:
    """Filter a plane by Up, as a deflater takes it: (height, 1 + width) uint8."""
    lines = np.empty((plane.shape[0], plane.shape[1] + 1), np.uint8)
    lines[:, 0] = _UP
    lines[0, 1:] = plane[0]
    np.subtract(plane[1:], plane[:-1], out=lines[1:, 1:])
    return lines


def joined(plane: Plane, stream: bytes) -> bytes:
    """Return the PNG of a plane from the zlib stream of its filtered lines."""
    return head(plane) + chunk(b"IDAT", bytes(stream)) + chunk(b"IEND", b"")


def opencv(plane: Plane) -> Any:
    """Encode with OpenCV's default settings: level 1, runs only."""
    return cv2.imencode(".png", plane)[1]


def pillow(plane: Plane, level: int | None = None) -> bytes:
    """Encode with Pillow, by default at zlib's level 6."""
    out = io.BytesIO()
    Image.fromarray(plane).save(out, "PNG", **({} if level is None else {"compress_level": level}))
    return out.getvalue()


def libspng(plane: Plane) -> bytes:
    """Encode with libspng."""
    from imagecodecs import spng_encode

    return spng_encode(plane, level=1)


def fpng(plane: Plane) -> bytes:
    """Encode with fpng, which takes RGB only."""
    import fpng

    return fpng.from_ndarray(cv2.cvtColor(plane, cv2.COLOR_GRAY2RGB))


def oxipng(plane: Plane) -> bytes:
    """Encode with oxipng's fastest preset."""
    os.environ["RAYON_NUM_THREADS"] = "1"  # read when its threads are first needed
    import oxipng

    height, width = plane.shape
    image = oxipng.RawImage(plane.tobytes(), width, height, color_type=oxipng.ColorType.grayscale(), bit_depth=8)
    return image.create_optimized_png(level=0)


def libvips(plane: Plane) -> bytes:
    """Encode with libvips."""
    import pyvips

    pyvips.cache_set_max(0)
    pyvips.vips_lib.vips_concurrency_set(1)
    return pyvips.Image.new_from_array(plane).pngsave_buffer(compression=1, filter="up")


def zlib_ng(lines: Plane) -> bytes:
    """Deflate with zlib-ng."""
    from zlib_ng import zlib_ng

    return zlib_ng.compress(lines, 1)


def isal(lines: Plane) -> bytes:
    """Deflate with ISA-L."""
    from isal import isal_zlib

    return isal_zlib.compress(lines, 0)


def libdeflate(lines: Plane) -> Any:
    """Deflate with libdeflate."""
    import deflate

    return deflate.zlib_compress(lines, 1)


@dataclass(frozen=True)
class Encoder:
    """A peer that encodes.

    encode: returns a PNG of a plane; of a `deflater`, the zlib stream of its filtered lines.
    packages: distributions that it needs beyond those of the extra `test`, which rows name with their versions.
    short: whether it is fast enough for the short form.
    """

    name: str
    encode: Callable[[Plane], Any]
    packages: tuple[str, ...] = ()
    deflater: bool = False
    short: bool = False


ENCODERS = (
    Encoder("OpenCV, default", opencv, short=True),
    Encoder("Pillow, level 1", lambda plane: pillow(plane, 1)),
    Encoder("Pillow, default", pillow),
    Encoder("libspng, level 1", libspng, ("imagecodecs",)),
    Encoder("fpng, as RGB", fpng, ("fpng",)),
    Encoder("oxipng -o0", oxipng, ("pyoxipng",)),
    Encoder("libvips, level 1", libvips, ("pyvips", "pyvips-binary")),
    Encoder("zlib-ng, level 1 (filtered beforehand)", zlib_ng, ("zlib-ng",), deflater=True),
    Encoder("ISA-L, level 0 (filtered beforehand)", isal, ("isal",), deflater=True),
    Encoder("libdeflate, level 1 (filtered beforehand)", libdeflate, ("deflate",), deflater=True),
)
