"""The Python side of the PNG encoder, with the compiled one and without."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from support.assertions import assert_equal_planes
from support.looping import over

from cnnviz_fast.formats import png
from cnnviz_fast.formats.png import adler32_combine, write_png
from cnnviz_fast.geometry import Strip
from cnnviz_fast.palette import Palette, make_palette

Pixels = NDArray[np.uint8]

GRAY = make_palette("gray", shows_background=False, shows_bad=False)
COLOURS = make_palette("viridis", shows_background=True, shows_bad=True)


@pytest.mark.skipif(sys.platform == "win32", reason="resource limits are POSIX")
def test_write_png_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    # A limit on the size of files fails in the middle of the writing, as a full disk does.
    (tmp_path / "sheet.png").write_bytes(b"old")
    code = """
        import resource, sys
        from pathlib import Path
        import numpy as np
        from cnnviz_fast.formats.png import write_png
        from cnnviz_fast.errors import WriteError
        from cnnviz_fast.geometry import Strip

        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        pixels = np.random.default_rng(0).integers(0, 256, (100, 400, 3), dtype=np.uint8)
        strips = [Strip(y, y + 10) for y in range(0, 100, 10)]
        try:
            write_png(Path(sys.argv[1]), 100, 400, None, strips, lambda s, _: pixels[s.start : s.stop], 2)
        except WriteError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "sheet.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"cannot write {tmp_path / 'sheet.png'}: File too large.\n"
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


@pytest.fixture(params=["zlib", "native"])
def encoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Encode by Python's zlib, and by the compiled encoder where it was built."""
    if request.param == "zlib":
        monkeypatch.setattr(png, "native", lambda: (None, "switched off by a test"))
    elif png.native()[0] is None:
        if os.environ.get("CNNVIZ_REQUIRE_NATIVE", "0") not in ("", "0"):
            pytest.fail(f"the native module is required: {png.native()[1]}")
        pytest.skip(f"the native module is not built: {png.native()[1]}")
    return request.param


def mixed_pixels(height: int, width: int, channels: int = 1) -> Pixels:
    """Return pixels with smooth, noisy and constant parts."""
    rng = np.random.default_rng(height * 1000 + width)
    y, x, c = np.mgrid[0:height, 0:width, 0:channels]
    pixels = (3 * y + 5 * x + 7 * c).astype(np.uint8)
    third = max(1, width // 3)
    pixels[:, :third] = 9
    pixels[:, -third:] = rng.integers(0, 256, pixels[:, -third:].shape, dtype=np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def cut(height: int, rows: int) -> list[Strip]:
    return [Strip(y, min(y + rows, height)) for y in range(0, height, rows)]


def write(path: Path, pixels: Pixels, palette: Palette | None, strips: list[Strip], threads: int = 2) -> bytes:
    """Write a sheet with a `draw` that fills the buffer, as the kernels do."""

    def draw(strip: Strip, scratch: Pixels) -> Pixels:
        assert scratch.shape == pixels[strip.start : strip.stop].shape
        scratch[:] = pixels[strip.start : strip.stop]
        return scratch

    write_png(path, *pixels.shape[:2], palette, strips, draw, threads)
    return path.read_bytes()


def chunks(png_bytes: bytes) -> list[tuple[bytes, bytes]]:
    """Split a PNG into its chunks, checking the signature and every CRC."""
    assert png_bytes[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = [], 8
    while at < len(png_bytes):
        size = int.from_bytes(png_bytes[at : at + 4], "big")
        kind, body = png_bytes[at + 4 : at + 8], png_bytes[at + 8 : at + 8 + size]
        assert zlib.crc32(kind + body) == int.from_bytes(png_bytes[at + 8 + size : at + 12 + size], "big")
        found.append((kind, body))
        at += 12 + size
    return found


SIZES = [(1, 1), (1, 2), (2, 1), (7, 5), (1, 3000), (3000, 1), (33, 257), (100, 640), (64, 64)]


@over("size", SIZES)
@pytest.mark.parametrize("rows", [1, 7, 10_000])
def test_write_png_gray_decodes_to_the_same_pixels(
    encoder: str, size: tuple[int, int], rows: int, tmp_path: Path
) -> None:
    pixels = mixed_pixels(*size)
    path = tmp_path / "a.png"
    data = write(path, pixels, GRAY, cut(size[0], rows))
    with Image.open(io.BytesIO(data)) as image:
        assert (image.mode, image.size) == ("L", size[::-1])
        assert_equal_planes(np.asarray(image), pixels)
    assert_equal_planes(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), pixels)


@over("size", SIZES)
def test_write_png_indexed_decodes_to_the_same_entries_and_colours(
    encoder: str, size: tuple[int, int], tmp_path: Path
) -> None:
    pixels = mixed_pixels(*size)
    path = tmp_path / "a.png"
    data = write(path, pixels, COLOURS, cut(size[0], 13))
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "P"
        assert_equal_planes(np.asarray(image), pixels)
        assert image.getpalette() == COLOURS.colors.ravel().tolist()
    assert_equal_planes(cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1], COLOURS.colors[pixels])


@over("size", SIZES)
def test_write_png_rgb_decodes_to_the_same_pixels(encoder: str, size: tuple[int, int], tmp_path: Path) -> None:
    pixels = mixed_pixels(*size, channels=3)
    path = tmp_path / "a.png"
    data = write(path, pixels, None, cut(size[0], 13))
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "RGB"
        assert_equal_planes(np.asarray(image), pixels)
    assert_equal_planes(cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1], pixels)


@pytest.mark.parametrize(("palette", "color_type"), [(GRAY, 0), (None, 2), (COLOURS, 3)])
def test_write_png_chunks_are_one_zlib_stream(
    encoder: str, palette: Palette | None, color_type: int, tmp_path: Path
) -> None:
    pixels = mixed_pixels(50, 40, 1 if palette else 3)
    found = chunks(write(tmp_path / "a.png", pixels, palette, cut(50, 8)))
    assert [kind for kind, _ in found if kind != b"IDAT"] == [
        b"IHDR",
        *([b"PLTE"] if color_type == 3 else []),
        b"IEND",
    ]
    assert found[0][1] == (40).to_bytes(4, "big") + (50).to_bytes(4, "big") + bytes([8, color_type, 0, 0, 0])
    # zlib checks the Adler-32 at the end, which was put together from those of the strips.
    stream = zlib.decompressobj()
    raw = stream.decompress(b"".join(body for kind, body in found if kind == b"IDAT"))
    assert stream.eof
    assert not stream.unused_data
    assert len(raw) == 50 * (40 * (1 if palette else 3) + 1)


@given(rows=st.lists(st.integers(1, 12), min_size=1, max_size=8), width=st.integers(1, 70))
def test_write_png_any_partition_shows_the_same_pixels(
    rows: list[int], width: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stops = np.cumsum(rows).tolist()
    strips = [Strip(stop - count, stop) for stop, count in zip(stops, rows, strict=True)]
    pixels = mixed_pixels(stops[-1], width)
    path = tmp_path_factory.getbasetemp() / "partition.png"
    for native in (png.native, lambda: (None, "")):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(png, "native", native)
            data = write(path, pixels, GRAY, strips)
        with Image.open(io.BytesIO(data)) as image:
            assert_equal_planes(np.asarray(image), pixels)


def test_write_png_bytes_do_not_depend_on_the_number_of_workers(encoder: str, tmp_path: Path) -> None:
    pixels, strips = mixed_pixels(200, 150), cut(200, 9)
    files = {write(tmp_path / "a.png", pixels, COLOURS, strips, threads) for threads in (1, 2, 3, 4)}
    assert len(files) == 1


def test_write_png_pixels_of_the_callers_own_array_are_taken(encoder: str, tmp_path: Path) -> None:
    pixels = mixed_pixels(40, 30)
    before = pixels.copy()
    write_png(tmp_path / "a.png", 40, 30, GRAY, cut(40, 7), lambda s, _: pixels[s.start : s.stop], 2)
    with Image.open(tmp_path / "a.png") as image:
        assert_equal_planes(np.asarray(image), before)
    assert_equal_planes(pixels, before)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("error", [ValueError("planted"), KeyboardInterrupt()])
def test_write_png_failure_in_a_worker_leaves_nothing(
    encoder: str, error: BaseException, threads: int, tmp_path: Path
) -> None:
    def draw(strip: Strip, scratch: Pixels) -> Pixels:
        if strip.start >= 20:
            raise error
        scratch[:] = 0
        return scratch

    with pytest.raises(type(error)):
        write_png(tmp_path / "a.png", 40, 30, GRAY, cut(40, 5), draw, threads)
    assert list(tmp_path.iterdir()) == []


def test_write_png_flat_sheet_is_small(encoder: str, tmp_path: Path) -> None:
    data = write(tmp_path / "a.png", np.full((1000, 1000), 7, np.uint8), GRAY, cut(1000, 500))
    assert len(data) < 1000 * 1000 / 100


def test_native_missing_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    import cnnviz_fast

    monkeypatch.setitem(sys.modules, "cnnviz_fast._native", None)
    monkeypatch.delattr(cnnviz_fast, "_native", raising=False)
    module, reason = png.native.__wrapped__()
    assert module is None
    assert "_native" in reason
    assert reason.endswith("It is compiled at install where there is a C++ compiler.")


@given(first=st.binary(max_size=300), second=st.binary(max_size=300))
def test_adler32_combine_equals_zlib(first: bytes, second: bytes) -> None:
    combined = adler32_combine(zlib.adler32(first), zlib.adler32(second), len(second))
    assert combined == zlib.adler32(first + second)


@over("size", [65_520, 65_521, 65_522, 1_000_000])
def test_adler32_combine_long_strings_equal_zlib(size: int) -> None:
    first, second = b"\xff" * 70_000, b"\xfe" * size
    combined = adler32_combine(zlib.adler32(first), zlib.adler32(second), size)
    assert combined == zlib.adler32(first + second)
