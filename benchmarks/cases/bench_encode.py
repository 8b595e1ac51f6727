"""The native encoder alone: a finished sheet in memory becomes the IDAT chunks of a PNG in memory, on one thread."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np
from PIL import Image

from benchmarks.harness.drawing import Drawing, drawing_of
from benchmarks.harness.measure import OURS, PEER, Contender, Table, cases
from benchmarks.harness.workloads import CONV1, DEAD, LAYER4, Workload
from cnnviz_fast.formats import png


def _native() -> Any:
    module, missing = png.native()
    assert module is not None, missing
    return module


@contextmanager
def vectors(level: str | None) -> Iterator[None]:
    """Hold the encoder to a level of vector instructions; None leaves it at the fastest."""
    before = _native().vector_level()
    _native().set_vector_level(level or before)
    try:
        yield
    finally:
        _native().set_vector_level(before)


class Encoder:
    """The encoder on one sheet, strip by strip as `save_sheet` cuts it, into one buffer used again and again."""

    def __init__(self, d: Drawing, level: str | None = None) -> None:
        self.d = d
        self.level = level

    def encode(self, keep: bool = False) -> Iterator[tuple[int, int, int, bytes]]:
        """Encode each strip; yield its size, Adler-32, filtered bytes, and, to look at it, the chunk."""
        strips, sheet = self.d.plan().strips(), self.d.expected
        out = np.empty(_native().strip_bound(strips[0].stop - strips[0].start, sheet.shape[1]), np.uint8)
        with vectors(self.level):
            for strip in strips:
                size, adler, filtered = _native().encode_strip(sheet[strip.start : strip.stop], 1, out)
                yield size, adler, filtered, out[:size].tobytes() if keep else b""

    def run(self) -> int:
        """Encode the sheet; return the bytes of its chunks."""
        return sum(size for size, *_ in self.encode())

    def is_right(self, size: int) -> None:
        """Assert that the chunks, joined to a file, are the sheet to OpenCV."""
        height, width = self.d.expected.shape
        adler, body = 1, chunk(b"IDAT", b"\x78\x01")
        for _, strip_adler, filtered, kept in self.encode(keep=True):
            adler = _native().adler32_combine(adler, strip_adler, filtered)
            body += kept
        head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        tail = chunk(b"IDAT", b"\x03\x00" + struct.pack(">I", adler)) + chunk(b"IEND", b"")
        assert size + 22 + len(tail) == len(body) + len(tail) + 8  # the zlib header's chunk takes 14 bytes
        plane = cv2.imdecode(np.frombuffer(head + body + tail, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert np.array_equal(plane, self.d.expected)


def chunk(kind: bytes, body: bytes) -> bytes:
    """Make a PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def pillow(d: Drawing, level: int | None) -> bytes:
    """Encode a sheet by Pillow into memory."""
    out = io.BytesIO()
    Image.fromarray(d.expected).save(out, "PNG", **({} if level is None else {"compress_level": level}))
    return out.getvalue()


def encode_table(workload: Workload, full_only: bool) -> Table:
    """The encoder beside those of OpenCV and Pillow, and beside copying the sheet."""
    d = drawing_of(workload)

    def decodes(encoded: Any) -> None:
        assert np.array_equal(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE), d.expected)

    fastest, scalar = Encoder(d), Encoder(d, "scalar")
    return Table(
        f"encode {workload.name}",
        [
            Contender("native", fastest.run, fastest.is_right, OURS, d.bytes, size=int),
            Contender("native, scalar code", scalar.run, scalar.is_right, OURS, d.bytes, size=int, slow=True),
            d.copy(),
            Contender(
                "OpenCV, default", lambda: cv2.imencode(".png", d.expected)[1], decodes, PEER, d.bytes, size=len
            ),
            Contender("Pillow, level 1", lambda: pillow(d, 1), decodes, PEER, d.bytes, size=len, slow=True),
            Contender("Pillow, default", lambda: pillow(d, None), decodes, PEER, d.bytes, size=len, slow=True),
        ],
        prepare=d.prepare,
        full_only=full_only,
    )  # fmt: skip


TABLES = [encode_table(LAYER4, False), encode_table(CONV1, True), encode_table(DEAD, False)]


@cases(TABLES)
def bench_encode(report: Callable[[Table, str], None], table: Table, name: str) -> None:
    report(table, name)
