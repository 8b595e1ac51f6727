"""csrc through its Python surface: strips, filters and checksums, at every vector level."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.looping import case, over
from support.pngs import (
    KINDS,
    LEVELS,
    MATCH_WIDTHS,
    WIDTHS,
    WINDOW_WIDTHS,
    assert_decodes,
    draw,
    encode_png,
    encode_strip,
    native,
    smooth,
)

FASTEST = native.vector_level()


@pytest.fixture(autouse=True)
def fastest_level() -> Iterator[None]:
    yield
    native.set_vector_level(FASTEST)


@given(
    kind=st.sampled_from(KINDS),
    height=st.integers(1, 90),
    width=st.integers(1, 400) | st.sampled_from(WIDTHS + MATCH_WIDTHS),
    strip_rows=st.integers(1, 90),
    seed=st.integers(0, 2**32 - 1),
    level=st.sampled_from(LEVELS),
)
def test_encode_strip_random_grey_images_decode_equal(
    kind: str, height: int, width: int, strip_rows: int, seed: int, level: str
) -> None:
    native.set_vector_level(level)
    image = draw(kind, height, width, seed)
    assert_decodes(encode_png(image, strip_rows), image)


@given(
    kind=st.sampled_from(KINDS), height=st.integers(1, 20), width=st.integers(1, 150), seed=st.integers(0, 2**32 - 1)
)
def test_encode_strip_rgb_decodes_equal(kind: str, height: int, width: int, seed: int) -> None:
    image = draw(kind, height, width * 3, seed).reshape(height, width, 3)
    files = set()
    for level in LEVELS:
        native.set_vector_level(level)
        png = encode_png(image, 7)
        assert_decodes(png, image)
        files.add(png)
    assert len(files) == 1


@over("size", [2, 3, 16, 17, 255, 256])
def test_encode_strip_palette_decodes_equal(size: int) -> None:
    rng = np.random.default_rng(size)
    image = rng.integers(0, size, (40, 50), dtype=np.uint8)
    palette = rng.integers(0, 256, 3 * size, dtype=np.uint8)
    png = encode_png(image, 16, palette.tobytes())
    assert_decodes(png, image, palette.tobytes())
    decoded = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    np.testing.assert_array_equal(decoded, palette.reshape(-1, 3)[image])


@pytest.mark.parametrize("heights", [(1, 2, 7), pytest.param((3, 4, 5, 6), marks=pytest.mark.long)])
@over("kind", KINDS)
def test_encode_strip_every_width_decodes_equal_at_every_level(kind: str, heights: tuple[int, ...]) -> None:
    for width in WIDTHS + MATCH_WIDTHS + WINDOW_WIDTHS:
        files = set()
        for level in LEVELS:
            native.set_vector_level(level)
            for height in heights[: None if width < 1000 else 2]:
                image = draw(kind, height, width, width)
                png = encode_png(image)
                if (height, png) not in files:
                    with case(level, height, width):
                        assert_decodes(png, image)
                files.add((height, png))
        assert len(files) == len(heights if width < 1000 else heights[:2]), f"levels differ at a width of {width}"


@over("strip_rows", range(1, 68))
def test_encode_strip_every_strip_height_decodes_equal(strip_rows: int) -> None:
    image = smooth(67, 300)
    assert_decodes(encode_png(image, strip_rows), image)


@over("kind", KINDS)
def test_encode_strip_large_strips_same_bytes_at_every_level(kind: str) -> None:
    # Beyond the size up to which all symbols are counted.
    image = draw(kind, 64, 5003, 5)
    encoded = []
    for level in LEVELS:
        native.set_vector_level(level)
        encoded.append(encode_png(image))
    assert_decodes(encoded[0], image)
    assert all(other == encoded[0] for other in encoded)


def assert_same_at_every_level(image: NDArray[np.uint8]) -> None:
    """Check that an image gives the same bytes at every vector level, and that they decode to it."""
    files = set()
    for level in LEVELS:
        native.set_vector_level(level)
        files.add(encode_png(image))
    assert len(files) == 1
    assert_decodes(files.pop(), image)


@over("width", [1, 7, 55, 300, 4099])
def test_encode_strip_rows_that_repeat_decode_equal_at_every_level(width: int) -> None:
    # Rows end at any bit of a byte; a row comes up to 9 times, in sheets that are counted whole and in larger ones.
    rng = np.random.default_rng(width)
    rows = np.vstack([smooth(40, width), rng.integers(0, 40, (20, width), np.uint8), np.zeros((3, width), np.uint8)])
    image = np.repeat(rows, rng.integers(1, 10, len(rows)), axis=0)
    assert_same_at_every_level(image)


@over("reach", [15, 16, 17, 32, 63, 64, 65, 127])
def test_encode_strip_residuals_of_any_reach_are_the_same_bytes_at_every_level(reach: int) -> None:
    # A block of 32 is looked up in tables that reach as far as its residuals, or put one by one.
    rng = np.random.default_rng(reach)
    steps = rng.integers(-reach, reach + 1, (30, 3000)) * (rng.random((30, 3000)) < 0.4)
    image = np.cumsum(steps, axis=1).astype(np.uint8)
    assert_same_at_every_level(image)


def test_encode_strip_all_256_values_decode_equal() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(1, 256).repeat(5, axis=0)
    for candidate in (image, image.T.copy(), np.roll(image, 7, axis=1), (image * 37).astype(np.uint8)):
        assert_decodes(encode_png(candidate), candidate)


def test_encode_strip_run_lengths_around_matches_decode_equal() -> None:
    # A run of every length from 1 to 1100, each between two other values, at shifting positions.
    for first in range(1, 1100, 100):
        row = np.concatenate([np.r_[np.full(n, 9), 200, n % 256] for n in range(first, first + 100)]).astype(np.uint8)
        image = np.stack([row, np.roll(row, 1), row])
        files = set()
        for level in LEVELS:
            native.set_vector_level(level)
            files.add(encode_png(image))
        assert len(files) == 1
        assert_decodes(files.pop(), image)


@over("symbols", [1, 2, 20, 24])
def test_encode_strip_fibonacci_histogram_limits_code_lengths(symbols: int) -> None:
    # Fibonacci frequencies give a Huffman code as long as there are symbols: 24 exceed the limit of 14 bits.
    counts = [1, 1]
    while len(counts) < symbols:
        counts.append(counts[-1] + counts[-2])
    values = np.repeat(np.arange(symbols, dtype=np.uint8) * 10 + 3, counts[:symbols])
    np.random.default_rng(1).shuffle(values)
    image = values[: len(values) // 2 * 2].reshape(2, -1) if len(values) > 1 else values.reshape(1, 1)
    for candidate in (image, image[:1].copy()):
        assert_decodes(encode_png(candidate), candidate)


def test_encode_strip_late_noise_in_quiet_strip_is_stored_within_bound() -> None:
    # The rows that are counted are flat, all others noise: the codes made from them fit badly and the bound must hold.
    rng = np.random.default_rng(0)
    for height, width in ((64, 20000), (9, 30000), (33, 40000)):
        image = rng.integers(0, 256, (height, width), dtype=np.uint8)
        step = height * (width + 1) // (64 << 10)
        image[step // 2 :: step] = 7
        image[step // 2 - 1 :: step] = 7
        assert_decodes(encode_png(image, height), image)


def test_encode_strip_noise_costs_under_one_permille() -> None:
    image = draw("noise", 64, 10304, 0)
    encoded, _, filtered_bytes = encode_strip(image, 1)
    assert len(encoded) < filtered_bytes * 1.001


def test_encode_strip_zero_strip_is_under_0_2_percent() -> None:
    encoded, _, _ = encode_strip(np.zeros((64, 10304), np.uint8), 1)
    assert len(encoded) < 64 * 10304 * 0.002


def test_encode_strip_smooth_sheet_is_smaller_than_opencv_default() -> None:
    image = smooth(448, 10304, tile=224)
    ok, by_opencv = cv2.imencode(".png", image)
    assert ok
    assert len(encode_png(image)) < len(by_opencv)


def test_encode_strip_order_does_not_matter() -> None:
    image = smooth(200, 700)
    strips = [image[y : y + 32] for y in range(0, 200, 32)]
    forward = [encode_strip(strip, 1) for strip in strips]
    backward = [encode_strip(strip, 1) for strip in reversed(strips)][::-1]
    assert forward == backward
    # The memory around a strip does not matter either.
    assert [encode_strip(strip.copy(), 1) for strip in strips] == forward


def test_encode_strip_wrong_arguments_are_refused() -> None:
    pixels = np.zeros((4, 6), np.uint8)
    out = np.zeros(native.strip_bound(4, 6), np.uint8)
    with pytest.raises(ValueError, match="out must hold"):
        native.encode_strip(pixels, 1, out[:-1])
    with pytest.raises(ValueError, match="bytes_per_pixel"):
        native.encode_strip(pixels, 4, out)
    with pytest.raises(ValueError, match="bytes_per_pixel"):
        native.encode_strip(pixels, 0, out)
    with pytest.raises(ValueError, match="at least 1"):
        native.encode_strip(pixels[:0], 1, out)
    with pytest.raises(ValueError, match="fewer rows"):
        native.strip_bound(2**16, 2**16)
    readonly = out.copy()
    readonly.setflags(write=False)
    for bad_pixels, bad_out in (
        (pixels.astype(np.int8), out),
        (pixels[:, ::2], out),
        (pixels[0], out),
        (pixels, out[::2]),
        (pixels, out.astype(np.uint16)),
        (pixels, readonly),
    ):
        with pytest.raises(TypeError):
            native.encode_strip(bad_pixels, 1, bad_out)
    pixels.setflags(write=False)
    native.encode_strip(pixels, 1, out)


def reference_filter(filter_type: int, row: np.ndarray, above: np.ndarray, left: int) -> np.ndarray:
    a = np.r_[np.zeros(left, int), row[:-left].astype(int)][: len(row)]
    b = above.astype(int)
    c = np.r_[np.zeros(left, int), b[:-left]][: len(row)]
    to_a, to_b, to_c = abs(b - c), abs(a - c), abs(a + b - 2 * c)
    paeth = np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c))
    prediction = {0: 0 * a, 1: a, 2: b, 4: paeth}[filter_type]
    return ((row - prediction) & 255).astype(np.uint8)


@over("filter_type", [0, 1, 2, 4])
def test_filter_row_equals_specification(filter_type: int) -> None:
    rng = np.random.default_rng(0)
    for left in (1, 3):
        for width in [*range(1, 200), 258, 1000]:
            row, above = rng.integers(0, 256, (2, width * left), dtype=np.uint8)
            expected = reference_filter(filter_type, row, above, left)
            for level in LEVELS:
                native.set_vector_level(level)
                residuals = np.zeros_like(row)
                native.filter_row(filter_type, row, above, left, residuals)
                assert residuals.tobytes() == expected.tobytes(), (level, left, width)


def test_filter_paeth_all_triples() -> None:
    # "Pixels" of 65,536 bytes: the left one and the one above together run through all pairs, above left is one value.
    left = np.arange(65536, dtype=np.uint32)
    row = np.concatenate([left & 255, np.zeros(65536)]).astype(np.uint8)
    residuals = np.zeros_like(row)
    for above_left in range(256):
        above = np.concatenate([np.full(65536, above_left), left >> 8]).astype(np.uint8)
        expected = reference_filter(4, row, above, 65536)
        for level in LEVELS:
            native.set_vector_level(level)
            native.filter_row(4, row, above, 65536, residuals)
            assert residuals.tobytes() == expected.tobytes(), level


@pytest.mark.parametrize("level", LEVELS)
def test_checksums_equal_zlib(level: str) -> None:
    native.set_vector_level(level)
    rng = np.random.default_rng(0)
    for size in [*range(300), 5551, 5552, 5553, 65535, 1 << 20, (1 << 22) + 17, (1 << 23) + 1]:
        for values in (rng.integers(0, 256, size, dtype=np.uint8), np.full(size, 255, np.uint8)):
            assert native.adler32(values) == zlib.adler32(values)
            assert native.crc32(values) == zlib.crc32(values)
    start = rng.integers(0, 2**32)
    assert native.crc32(values, start) == zlib.crc32(values, start)
    assert native.adler32(values, 65520 << 16 | 65520) == zlib.adler32(values, 65520 << 16 | 65520)


@given(first=st.binary(max_size=200), second=st.binary(max_size=200), repeats=st.integers(0, 2000))
def test_adler32_combine_equals_checksum_of_the_whole(first: bytes, second: bytes, repeats: int) -> None:
    second = second * repeats
    combined = native.adler32_combine(zlib.adler32(first), zlib.adler32(second), len(second))
    assert combined == zlib.adler32(first + second)


def test_set_vector_level_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of 'scalar'"):
        native.set_vector_level("mmx")


@pytest.mark.parametrize(("value", "expected"), [("1", "scalar"), ("0", FASTEST), ("", FASTEST)])
def test_vector_level_environment_switches_off(value: str, expected: str) -> None:
    code = "import cnnviz_fast._native as n; print(n.vector_level())"
    env = {**os.environ, "CNNVIZ_NO_SIMD": value}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    if not os.environ.get("CNNVIZ_NO_SIMD"):
        assert found.strip() == expected
