"""csrc's zlib streams: read by zlib itself, whatever the contents, the same at every vector level, and small."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.looping import over
from support.pngs import KINDS, LEVELS, draw, native

FASTEST = native.vector_level()
PIECE_BYTES = 16 * 258  # the least of csrc/encoder/zlib_stream.cpp
STORED_BLOCK_BYTES = 65535


@pytest.fixture(autouse=True)
def fastest_level() -> Iterator[None]:
    yield
    native.set_vector_level(FASTEST)


def compressed(*parts: bytes) -> bytes:
    """Deflate at every level; assert that all give the same bytes, that zlib reads them, and that nothing follows."""
    contents = b"".join(parts)
    streams = set()
    for level in LEVELS:
        native.set_vector_level(level)
        streams.add(native.zlib_compress(parts))
    (stream,) = streams
    inflater = zlib.decompressobj()
    assert inflater.decompress(stream) == contents
    assert inflater.eof
    assert inflater.unused_data == b""
    return stream


@given(
    parts=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3 * PIECE_BYTES), st.integers(0, 2**32 - 1))),
    cut=st.integers(0, 100),
)
def test_zlib_compress_contents_of_many_kinds_come_back(parts: list[tuple[str, int, int]], cut: int) -> None:
    drawn = [draw(kind, 1, size, seed).tobytes()[cut:] for kind, size, seed in parts if size]
    compressed(b"".join(drawn))
    compressed(*drawn)


@over("size", [*range(70), 257, 258, 259, 260, 4127, 4128, 4129, 65535, 65536, 131071, 300_001])
def test_zlib_compress_every_size_comes_back(size: int) -> None:
    random = np.random.default_rng(size)
    for contents in (bytes(size), random.bytes(size), random.geometric(0.5, size).clip(0, 255).astype(np.uint8)):
        compressed(bytes(contents))


@over("start", range(PIECE_BYTES - 40, PIECE_BYTES + 4))
def test_zlib_compress_runs_across_pieces_come_back(start: int) -> None:
    noise = np.random.default_rng(start).bytes(start)
    compressed(noise + bytes(600) + noise)


def test_zlib_compress_one_of_every_kind_of_block_after_another_comes_back() -> None:
    random = np.random.default_rng(0)
    noise = [random.bytes(size) for size in (3 * PIECE_BYTES, STORED_BLOCK_BYTES + 9, 1)]
    quiet = [random.geometric(0.3, size).astype(np.uint8).tobytes() for size in (PIECE_BYTES, 5 * PIECE_BYTES, 77)]
    compressed(b"".join(part + bytes(2 * PIECE_BYTES) + other for part, other in zip(noise, quiet, strict=True)))


def test_zlib_compress_noise_costs_under_one_permille() -> None:
    noise = np.random.default_rng(0).bytes(1 << 20)
    assert len(compressed(noise)) < len(noise) * 1.001


def test_zlib_compress_zeros_take_two_bits_for_258() -> None:
    assert len(compressed(bytes(258 << 12))) < 1024 + 100


def test_zlib_compress_two_kinds_of_contents_have_blocks_of_their_own() -> None:
    random = np.random.default_rng(0)
    low = random.integers(0, 4, 8 * PIECE_BYTES, dtype=np.uint8).tobytes()
    high = random.integers(128, 132, 8 * PIECE_BYTES, dtype=np.uint8).tobytes()
    # Two bits and a quarter a byte, as the end of the block has a code too, where one code for both would take three.
    assert len(compressed(low + high)) < 1.02 * len(low + high) * 2.25 / 8


def test_zlib_compress_parts_do_not_share_codes() -> None:
    random = np.random.default_rng(0)
    low, high = (random.integers(at, at + 4, PIECE_BYTES // 3, dtype=np.uint8).tobytes() for at in (0, 128))
    assert len(compressed(low, high)) < len(compressed(low + high))


def test_zlib_compress_takes_arrays_and_bytes() -> None:
    array = np.arange(99, dtype=np.uint8)
    stream = native.zlib_compress([array, b"", memoryview(array), bytes(3)])
    assert zlib.decompress(stream) == array.tobytes() * 2 + bytes(3)


@pytest.mark.parametrize(
    "part",
    ["text", None, np.zeros(3, np.float32), np.zeros((2, 2), np.uint8), np.zeros(9, np.uint8)[::2]],
    ids=["text", "nothing", "floats", "an image", "every second one"],
)
def test_zlib_compress_other_than_bytes_is_refused(part: object) -> None:
    with pytest.raises(TypeError):
        native.zlib_compress([part])
