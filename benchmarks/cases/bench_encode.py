"""The native encoder alone: a finished sheet in memory becomes the IDAT chunks of a PNG in memory, on one thread."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import cv2
import numpy as np

from benchmarks.harness import installed, png_peers
from benchmarks.harness.drawing import Drawing, drawing_of
from benchmarks.harness.measure import OURS, PEER, Contender, Table, cases
from benchmarks.harness.png_peers import chunk
from benchmarks.harness.workloads import DEAD, LAYER1, LAYER4, TINY, Workload
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
        strips, sheet = self.d.plan().strips(png.STRIP_PX), self.d.expected
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
        adler, body = 1, chunk(b"IDAT", b"\x78\x01")
        for _, strip_adler, filtered, kept in self.encode(keep=True):
            adler = _native().adler32_combine(adler, strip_adler, filtered)
            body += kept
        tail = chunk(b"IDAT", b"\x03\x00" + struct.pack(">I", adler)) + chunk(b"IEND", b"")
        assert size + 22 + len(tail) == len(body) + len(tail) + 8  # the zlib header's chunk takes 14 bytes
        self.decodes(png_peers.head(self.d.expected) + body + tail)

    def decodes(self, encoded: Any) -> None:
        """Assert that a PNG is the sheet to OpenCV."""
        plane = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert np.array_equal(plane, self.d.expected)


def peer(d: Drawing, encoder: png_peers.Encoder) -> Contender:
    """Make a contender of another encoder."""

    def run(d: Drawing) -> Any:
        return encoder.encode(d.filtered if encoder.deflater else d.expected)

    def is_right(encoded: Any) -> None:
        Encoder(d).decodes(png_peers.joined(d.expected, encoded) if encoder.deflater else encoded)

    return Contender(
        encoder.name, partial(run, d), is_right, PEER, d.bytes, size=len, slow=not encoder.short,
        packages=encoder.packages, load=partial(run, drawing_of(TINY)),
    )  # fmt: skip


def encode_table(workload: Workload) -> Table:
    """The encoder beside others that are installed, and beside copying the sheet."""
    d = drawing_of(workload)
    fastest, scalar = Encoder(d), Encoder(d, "scalar")
    return Table(
        f"encode {workload.name}",
        [
            Contender("native", fastest.run, fastest.is_right, OURS, d.bytes, size=int),
            Contender("native, scalar code", scalar.run, scalar.is_right, OURS, d.bytes, size=int, slow=True),
            d.copy(),
            *(peer(d, encoder) for encoder in installed.of(png_peers.ENCODERS)),
        ],
        prepare=d.prepare,
        full_only=workload is not LAYER4,
    )  # fmt: skip


TABLES = [encode_table(LAYER4), encode_table(LAYER1), encode_table(DEAD)]


@cases(TABLES)
def bench_encode(report: Callable[[Table, str], None], table: Table, name: str) -> None:
    report(table, name)
