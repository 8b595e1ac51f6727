"""What images of the largest size cost: time and memory of a process of its own."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.pngs import SIGNATURE, chunk

SIDE = 13_340  # 177,955,600 px, just within the limit
PILLOWS_BYTES = SIDE * SIDE * 4  # of an image in colour, which Pillow keeps in four bytes a pixel
ABOVE_BYTES = 10**9
SECONDS = 10.0  # twice what it takes: the same work takes longer on a busy machine

MEASURED = """
import json, resource, sys, time
from pathlib import Path
from cnnviz_fast.inputs.decode import decode_file
import PIL.Image, PIL.PngImagePlugin, numpy
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


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_decode_file_of_the_largest_size_takes_seconds_and_little_memory(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.png").write_bytes(b"".join(png(*KINDS[kind])))  # type: ignore[arg-type]
    command = [sys.executable, "-c", MEASURED, str(tmp_path / "a.png")]
    seconds, above, size = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert size == [SIDE, SIDE]
    assert above < PILLOWS_BYTES + ABOVE_BYTES
    assert seconds < SECONDS
