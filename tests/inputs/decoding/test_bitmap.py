"""BMP of odd headers, against OpenCV's reading."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from support.assertions import EXACT, assert_close

from cnnviz_fast.inputs.decode import decode_bytes, decode_file
from cnnviz_fast.options.reading import MAX_PIXELS

RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def bmp(width: int, height: int, bits: int, rows: bytes, **header: int) -> bytes:
    """Write a BMP by hand: `rows` as they lie in the file; `header` may hold size, compression, colours and alpha."""
    size, compression = header.get("size", 40), header.get("compression", 0)
    colours = header.get("colours", 0)
    info = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, len(rows), 2835, 2835, colours, 0)
    masks = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
    between = masks if size == 40 and compression == 3 else b""
    if size > 40:
        info = (info + masks + struct.pack("<I", header.get("alpha", 0))).ljust(size, b"\0")
    if bits <= 8:
        between = b"".join(bytes([each, each, each, 0]) for each in ((0, 255) if colours == 2 else range(colours)))
    offset = 14 + len(info) + len(between)
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + info + between + rows


def with_fourth_byte(value: int) -> bytes:
    return np.dstack([RGB[::-1, :, ::-1], np.full(RGB.shape[:2], value, np.uint8)]).tobytes()


@pytest.mark.parametrize("size", [40, 56, 108, 124])
@pytest.mark.parametrize("compression", [0, 3])
@pytest.mark.parametrize("fourth", [0, 255])
@pytest.mark.parametrize("alpha", [0, 0xFF000000])
def test_decode_file_bmp_of_unused_alpha_is_its_colours(
    tmp_path: Path, size: int, compression: int, fourth: int, alpha: int
) -> None:
    path = tmp_path / "a.bmp"
    path.write_bytes(bmp(8, 6, 32, with_fourth_byte(fourth), size=size, compression=compression, alpha=alpha))
    assert_close(np.asarray(decode_file(path, MAX_PIXELS)), RGB, EXACT)
    assert_close(cv2.imread(str(path))[..., ::-1], RGB, EXACT)


def test_decode_bytes_bmp_of_used_alpha_lies_over_white() -> None:
    rows = np.frombuffer(with_fourth_byte(0), np.uint8).reshape(6, 8, 4).copy()
    rows[0, 0, 3] = 255  # bottom left
    found = np.asarray(decode_bytes(bmp(8, 6, 32, rows.tobytes(), size=124, compression=3, alpha=0xFF000000), "a", 99))
    assert_close(found[5, 0], RGB[5, 0], EXACT)
    assert (found[:5] == 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_decode_file_alpha_that_hides_all_is_left_out(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.dstack([RGB, np.zeros(RGB.shape[:2], np.uint8)])).convert(mode)
    image.save(tmp_path / "a.png")
    expected = np.asarray(image.getchannel("L").convert("RGB")) if mode == "LA" else RGB
    assert_close(np.asarray(decode_file(tmp_path / "a.png", MAX_PIXELS)), expected, EXACT)


def test_decode_file_that_is_empty_and_transparent_stays_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4)).save(tmp_path / "a.png")
    assert np.asarray(decode_file(tmp_path / "a.png", MAX_PIXELS)).min() == 255


@pytest.mark.parametrize(("bits", "colours"), [(8, 2), (4, 2), (4, 16), (8, 256), (1, 2)])
def test_decode_file_bmp_of_a_grey_palette_has_the_depth_of_its_file(tmp_path: Path, bits: int, colours: int) -> None:
    indices = np.random.default_rng(1).integers(0, colours, (4, 8)).astype(np.uint8)
    packed = np.packbits(np.unpackbits(indices[..., None], axis=2)[..., 8 - bits :].reshape(4, -1), axis=1)
    rows = np.zeros((4, -(-packed.shape[1] // 4) * 4), np.uint8)
    rows[:, : packed.shape[1]] = packed[::-1]
    path = tmp_path / "a.bmp"
    path.write_bytes(bmp(8, 4, bits, rows.tobytes(), colours=colours))
    grey = indices * 255 if colours == 2 else indices
    assert_close(np.asarray(decode_file(path, MAX_PIXELS)), np.dstack([grey] * 3), EXACT)
    assert_close(cv2.imread(str(path)), np.dstack([grey] * 3), EXACT)
