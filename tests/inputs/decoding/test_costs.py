"""What images of the largest size cost: time and memory of a process of its own."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, features
from support.pngs import SIGNATURE, chunk

SIDE = 13_340  # 177,955,600 px, just within the limit
PILLOWS_BYTES = SIDE * SIDE * 4  # of an image in colour, which Pillow keeps in four bytes a pixel
ABOVE_BYTES = 10**9
SECONDS = 10.0  # twice what it takes: the same work takes longer on a busy machine

MEASURED = """
import json, resource, sys, time
from pathlib import Path
from cnnviz_fast.inputs.decode import decode_file
import PIL.Image, PIL.PngImagePlugin, PIL.TiffImagePlugin, numpy, tifffile, torch
PIL.Image.init()
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
image = decode_file(Path(sys.argv[1]), 178_000_000)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([time.process_time() - began, (after - before) * 1024, image.size]))
"""


def png(depth: int, colour: int, bits: int, *chunks: bytes) -> Iterator[bytes]:
    """Return the parts of a black PNG of SIDE x SIDE."""
    packer = zlib.compressobj(1)
    row = b"\0" + bytes((SIDE * bits + 7) // 8)
    yield SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour, 0, 0, 0)) + b"".join(chunks)
    yield chunk(b"IDAT", b"".join([*(packer.compress(row) for _ in range(SIDE)), packer.flush()]))
    yield chunk(b"IEND", b"")


GREYS = chunk(b"PLTE", bytes(range(256)) * 3)
KINDS = {
    "grey with a key": (8, 0, 8, chunk(b"tRNS", b"\0\1")),
    "colour with a key": (8, 2, 24, chunk(b"tRNS", b"\0\1\0\1\0\1")),
    "16-bit colour with a key": (16, 2, 48, chunk(b"tRNS", b"\0\1\0\1\0\1")),
    "16-bit grey with a key": (16, 0, 16, chunk(b"tRNS", b"\0\1")),
    "palette with alpha": (8, 3, 8, GREYS, chunk(b"tRNS", bytes(range(256)))),
    "grey with alpha": (8, 4, 16),
    "colour with alpha": (8, 6, 32),
    "16-bit colour with alpha": (16, 6, 64),
    "one bit with a key": (1, 0, 1, chunk(b"tRNS", b"\0\1")),
}


def measured(path: Path) -> tuple[float, int, list[int]]:
    """Decode a file in a process of its own; return its CPU time, s, its memory above the rest, bytes, and its size."""
    command = [sys.executable, "-c", MEASURED, str(path)]
    seconds, above, size = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    path.unlink()  # these are large
    return seconds, above, size


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_decode_file_of_the_largest_size_takes_seconds_and_little_memory(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.png").write_bytes(b"".join(png(*KINDS[kind])))  # type: ignore[arg-type]
    seconds, above, size = measured(tmp_path / "a.png")
    assert size == [SIDE, SIDE]
    assert above < PILLOWS_BYTES + ABOVE_BYTES
    assert seconds < SECONDS


def pattern(dtype: str, channels: int) -> np.ndarray:
    """Return waves with noise, (SIDE, SIDE, channels) or (SIDE, SIDE), which no coder packs to nothing."""
    y, x, c = np.mgrid[0:460, 0:460, 0:channels]
    tile = np.sin(x / (9 + c)) / 4 + np.cos(y / (13 + c)) / 4 + 0.5 + np.random.default_rng(0).normal(0, 0.02, x.shape)
    tile = np.clip(tile, 0, 1) * (1 if dtype[0] == "f" else np.iinfo(dtype).max if dtype != "u4" else 65535)
    tile = tile.astype(dtype)
    image = np.tile(tile, (SIDE // 460 + 1, SIDE // 460 + 1, 1))[:SIDE, :SIDE]
    return image if channels > 1 else image[..., 0]


TIFFS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "float colour": ("f4", 3, {}),
    "float grey": ("f4", 1, {}),
    "double grey": ("f8", 1, {}),
    "half colour": ("f2", 3, {}),
    "packed float colour": ("f4", 3, {"compression": "zlib", "rowsperstrip": 64}),
    "32-bit colour": ("u4", 3, {}),
    "16-bit colour in planes": ("u2", 3, {"planarconfig": "separate"}),
    "16-bit colour with alpha": ("u2", 4, {"extrasamples": (2,)}),
    "16-bit grey with alpha": ("u2", 2, {"extrasamples": (2,)}),
    "packed 16-bit tiles": ("u2", 3, {"compression": "zlib", "tile": (256, 256)}),
    "CMYK": ("u1", 4, {"photometric": "separated"}),
    "associated alpha": ("u1", 4, {"extrasamples": (1,)}),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", TIFFS)
def test_decode_file_tiff_of_the_largest_size_takes_seconds_and_little_memory(tmp_path: Path, kind: str) -> None:
    dtype, channels, options = TIFFS[kind]
    image = pattern(dtype, channels)
    image = np.moveaxis(image, -1, 0) if "planarconfig" in options else image
    defaults = {"photometric": "rgb" if channels > 2 else "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", image, **defaults | options)
    seconds, above, size = measured(tmp_path / "a.tif")
    assert size == [SIDE, SIDE]
    assert above < PILLOWS_BYTES + ABOVE_BYTES
    assert seconds < SECONDS


PILLOWS: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "JPEG": ("JPEG", "RGB", SIDE, {"quality": 90}),
    "progressive JPEG": ("JPEG", "RGB", SIDE, {"quality": 90, "progressive": True}),
    "CMYK JPEG": ("JPEG", "CMYK", SIDE, {"quality": 90}),
    "GIF": ("GIF", "P", SIDE, {"interlace": 1}),
    "BMP": ("BMP", "RGB", SIDE, {}),
    "PPM": ("PPM", "RGB", SIDE, {}),
    "LZW TIFF": ("TIFF", "RGB", SIDE, {"compression": "tiff_lzw"}),
    "lossless WebP": ("WEBP", "RGB", 8944, {"lossless": True, "quality": 0, "method": 0}),
    "lossy WebP": ("WEBP", "RGBA", 8944, {"quality": 30, "method": 0}),
    "LAB TIFF": ("TIFF", "LAB", 8944, {}),
    "AVIF": ("AVIF", "RGB", 6708, {"quality": 60, "speed": 10}),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", PILLOWS)
def test_decode_file_by_pillow_of_the_largest_size_takes_seconds_and_little_memory(tmp_path: Path, kind: str) -> None:
    name, mode, side, options = PILLOWS[kind]
    if name == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    channels = len(Image.new(mode, (1, 1)).getbands())
    image = Image.fromarray(pattern("u1", channels)[:side, :side])
    if mode in ("CMYK", "LAB"):
        image = Image.merge(mode, image.split())
    image.save(tmp_path / "a", name, **options)
    seconds, above, size = measured(tmp_path / "a")
    assert size == [side, side]
    assert above < PILLOWS_BYTES + ABOVE_BYTES
    assert seconds < SECONDS
