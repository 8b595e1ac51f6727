"""Decoding, against pixel values worked out by hand and against files written byte by byte or by other writers."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tifffile
from PIL import Image, features
from support.assertions import A_LEVEL, EXACT, FINE_JPEG, TWO_LEVELS, assert_close

from cnnviz_fast.errors import ImageError
from cnnviz_fast.inputs.decode import decode_bytes, decode_file, decode_pil_image
from cnnviz_fast.inputs.decoding.formats import EXTENSIONS, FORMATS
from cnnviz_fast.inputs.decoding.process_wide import _lift_pillows_limit, _PillowLimit
from cnnviz_fast.options.reading import MAX_PIXELS

PHOTOS = Path(skimage.data.__file__).parent

# Two rows that no flip, turn or transposition maps onto themselves.
CORNERS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[10, 20, 30], [70, 80, 90], [200, 210, 220]]], np.uint8)

# EXIF 2.3, tag 274: how stored rows and columns lie in the upright image. What each does to a (H, W) array.
ORIENTATIONS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


def pixels(path: Path) -> np.ndarray:
    """Decode a file and look at its values."""
    image = decode_file(path, MAX_PIXELS)
    assert image.mode == "RGB"
    return np.asarray(image)


def grey(values: object) -> np.ndarray:
    """Return what a grey image of these values is in RGB."""
    return np.repeat(np.asarray(values, np.uint8)[..., None], 3, axis=2)


def write_png(path: Path, size: tuple[int, int], depth: int, colour: int, rows: bytes, **chunks: bytes) -> Path:
    """Write a PNG by hand; `rows` holds the packed bytes of all rows, without their filter bytes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    width, height = size
    stride = len(rows) // height
    filtered = b"".join(b"\0" + rows[y * stride : (y + 1) * stride] for y in range(height))
    body = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body += b"".join(chunk(kind.encode(), content) for kind, content in chunks.items())
    body += chunk(b"IDAT", zlib.compress(filtered)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def write_tiff(path: Path, size: tuple[int, int], depth: int, photometric: int, strip: bytes) -> Path:
    """Write a little-endian grey TIFF of one strip by hand."""
    width, height = size
    entries = [
        (256, 3, width), (257, 3, height), (258, 3, depth), (259, 3, 1), (262, 3, photometric), (273, 4, 8),
        (277, 3, 1), (278, 3, height), (279, 4, len(strip)),
    ]  # fmt: skip
    strip += b"\0" * (len(strip) % 2)
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + directory + b"\0" * 4)
    return path


def shorts(*values: int) -> bytes:
    """Pack 16-bit samples as PNG stores them."""
    return struct.pack(f">{len(values)}H", *values)


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tif", ".ppm", ".webp", ".gif", ".jpg"])
def test_decode_file_each_format_gives_its_pixels(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"image{extension}"
    flat = np.zeros((16, 24, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    Image.fromarray(flat).save(path, **({"lossless": True} if extension == ".webp" else {}))
    assert_close(pixels(path), flat, A_LEVEL if extension == ".jpg" else EXACT)


def test_formats_allow_list_names_eight_and_their_extensions() -> None:
    assert [entry.stem for entry in FORMATS] == ["Png", "Jpeg", "WebP", "Avif", "Bmp", "Gif", "Tiff", "Ppm"]
    assert {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"} <= {*EXTENSIONS}


@pytest.mark.parametrize("extension", ["ico", "tga", "pcx", "eps"])
def test_decode_file_format_outside_the_allow_list_is_refused(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"image.{extension}"
    Image.new("RGB", (16, 16)).save(path)
    with pytest.raises(ImageError, match=r"must be one of PNG, JPEG, WEBP, AVIF, BMP, GIF, TIFF, PPM"):
        decode_file(path, MAX_PIXELS)


def test_decode_file_wrong_extension_goes_by_the_content(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    Image.fromarray(CORNERS).save(path, format="PNG")
    assert np.array_equal(pixels(path), CORNERS)


def test_decode_file_real_photos_match_their_loader() -> None:
    assert np.array_equal(pixels(PHOTOS / "astronaut.png"), skimage.data.astronaut())
    assert np.array_equal(pixels(PHOTOS / "camera.png"), grey(skimage.data.camera()))


@pytest.mark.parametrize("orientation", list(ORIENTATIONS))
@pytest.mark.parametrize("extension", ["png", "tif", "tif-lzw", "webp", "jpg"])
def test_decode_file_exif_orientation_is_applied(tmp_path: Path, extension: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"turned.{extension[:4].rstrip('-')}"
    options = {
        "webp": {"lossless": True},
        "tif-lzw": {"compression": "tiff_lzw"},
        "jpg": {"quality": 100, "subsampling": 0},
    }.get(extension, {})
    big = CORNERS.repeat(16, axis=0).repeat(16, axis=1)
    Image.fromarray(big).save(path, exif=exif, **options)
    expected = ORIENTATIONS[orientation](big)
    found = pixels(path)
    assert_close(found, expected, FINE_JPEG if extension == "jpg" else EXACT)


def test_decode_pil_image_twice_does_not_turn_twice(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(CORNERS).save(tmp_path / "turned.png", exif=exif)
    once = decode_file(tmp_path / "turned.png", MAX_PIXELS)
    assert np.array_equal(np.asarray(decode_pil_image(once, "image", MAX_PIXELS)), np.asarray(once))


def test_decode_file_broken_exif_leaves_the_pixels(tmp_path: Path) -> None:
    path = write_png(
        tmp_path / "exif.png", (3, 2), 8, 2, CORNERS.tobytes(), eXIf=b"II*\0\xff\xff\xff\xff" + b"\x07" * 9
    )
    assert np.array_equal(pixels(path), CORNERS)


def test_decode_file_16_bit_grey_png_is_scaled_by_257(tmp_path: Path) -> None:
    values = [0, 128, 129, 257, 32767, 32768, 65406, 65407, 65535]
    path = write_png(tmp_path / "wide.png", (9, 1), 16, 0, shorts(*values))
    # Nearest of v / 257: 128 -> 0.498, 129 -> 0.502, 32767 -> 127.498, 32768 -> 127.502, 65406 -> 254.498, ...
    assert np.array_equal(pixels(path), grey([[0, 0, 1, 1, 127, 128, 254, 255, 255]]))


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_decode_file_16_bit_grey_tiff_is_scaled_by_257(tmp_path: Path, byteorder: str) -> None:
    path = tmp_path / "wide.tif"
    tifffile.imwrite(path, np.array([[0, 257, 25700, 65535]], np.uint16), byteorder=byteorder)
    assert np.array_equal(pixels(path), grey([[0, 1, 100, 255]]))


def test_decode_file_12_bit_tiff_is_scaled_by_its_own_peak(tmp_path: Path) -> None:
    # Two 12-bit samples in three bytes: 0xFFF = 4095 and 0x800 = 2048, which is 127.53 of 255.
    path = write_tiff(tmp_path / "twelve.tif", (2, 1), 12, 1, bytes([0xFF, 0xF8, 0x00]))
    assert np.array_equal(pixels(path), grey([[255, 128]]))


@pytest.mark.parametrize("depth", [8, 16])
def test_decode_file_white_is_zero_tiff_is_inverted(tmp_path: Path, depth: int) -> None:
    strip = bytes([0, 55, 255]) if depth == 8 else struct.pack("<3H", 0, 55 * 257, 65535)
    path = write_tiff(tmp_path / "inverted.tif", (3, 1), depth, 0, strip)
    assert np.array_equal(pixels(path), grey([[255, 200, 0]]))


@pytest.mark.parametrize(("peak", "sample"), [(255, 51), (65535, 13107), (1023, 205)])
def test_decode_file_pgm_is_scaled_by_its_maximum(tmp_path: Path, peak: int, sample: int) -> None:
    path = tmp_path / "plain.pgm"
    path.write_bytes(f"P2\n2 1\n{peak}\n{sample} {peak}\n".encode())
    assert np.array_equal(pixels(path), grey([[51, 255]]))  # a fifth: 51 of 255, 13107 of 65535, 204.6 of 1023


def test_decode_file_16_bit_binary_pgm_is_scaled(tmp_path: Path) -> None:
    path = tmp_path / "binary.pgm"
    path.write_bytes(b"P5\n2 1\n65535\n" + shorts(13107, 65535))
    assert np.array_equal(pixels(path), grey([[51, 255]]))


@pytest.mark.parametrize("peak", [100, 1023, 65535])
@pytest.mark.parametrize("channels", [1, 3])
def test_decode_file_binary_ppm_is_scaled_by_its_maximum(tmp_path: Path, peak: int, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, peak + 1, (5, 7, channels))
    header = b"P%d\n# made by hand\n7 5\n%d\n" % (5 if channels == 1 else 6, peak)
    path = tmp_path / "binary.ppm"
    path.write_bytes(header + values.astype(">u2" if peak > 255 else "u1").tobytes())
    expected = np.broadcast_to(np.floor(values * 255 / peak + 0.5), (5, 7, 3))
    assert_close(pixels(path), expected, EXACT)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ImageError, match="truncated"):
        decode_file(path, MAX_PIXELS)


def test_decode_file_16_bit_colour_keeps_the_high_bytes(tmp_path: Path) -> None:
    row = shorts(0x0000, 0x80FF, 0xFFFF, 0x1234, 0xABCD, 0x00FF)
    path = write_png(tmp_path / "wide.png", (2, 1), 16, 2, row)
    assert np.array_equal(pixels(path), [[[0x00, 0x80, 0xFF], [0x12, 0xAB, 0x00]]])


def test_decode_file_16_bit_rgba_and_grey_alpha_lie_over_white(tmp_path: Path) -> None:
    rgba = write_png(tmp_path / "rgba.png", (2, 1), 16, 6, shorts(65535, 0, 0, 65535, 0, 0, 0, 0))
    assert np.array_equal(pixels(rgba), [[[255, 0, 0], [255, 255, 255]]])
    la = write_png(tmp_path / "la.png", (2, 1), 16, 4, shorts(0x4000, 65535, 0x4000, 0))
    assert np.array_equal(pixels(la), grey([[0x40, 255]]))


def test_decode_file_float_tiff_from_0_to_1_is_scaled(tmp_path: Path) -> None:
    path = tmp_path / "float.tif"
    tifffile.imwrite(path, np.array([[0, 0.1, 0.5, 1]], np.float32))
    assert np.array_equal(pixels(path), grey([[0, 26, 128, 255]]))  # 25.5 and 127.5 round up


@pytest.mark.parametrize("values", [[[0.0, 1.5]], [[-0.1, 1.0]], [[np.nan, 0.5]]])
def test_decode_file_float_tiff_of_another_range_is_refused(tmp_path: Path, values: list[list[float]]) -> None:
    path = tmp_path / "float.tif"
    tifffile.imwrite(path, np.array(values, np.float32))
    with pytest.raises(ImageError, match=r"must hold values from 0 to 1, got .*Save it with 8 bits a channel"):
        decode_file(path, MAX_PIXELS)


@pytest.mark.parametrize("value", [-1, 65536])
def test_decode_pil_image_32_bit_grey_outside_16_bits_is_refused(value: int) -> None:
    image = Image.fromarray(np.array([[0, value]], np.int32))
    assert image.mode == "I"
    with pytest.raises(ImageError, match="must hold values from 0 to 65535, got"):
        decode_pil_image(image, "image", MAX_PIXELS)


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16B"])
def test_decode_pil_image_16_bit_modes_in_memory_are_scaled(mode: str) -> None:
    dtype = {"I": "i4", "I;16": "<u2", "I;16B": ">u2"}[mode]
    image = Image.frombytes(mode, (3, 1), np.array([0, 25700, 65535], dtype).tobytes())
    assert np.array_equal(np.asarray(decode_pil_image(image, "image", MAX_PIXELS)), grey([[0, 100, 255]]))


@pytest.mark.parametrize(("depth", "row", "levels"), [
    (1, 0b01_000000, [0, 255]),
    (2, 0b01_11_0000, [85, 255]),
    (4, 0b0001_1111, [17, 255]),
])  # fmt: skip
def test_decode_file_low_bit_grey_spreads_to_255(tmp_path: Path, depth: int, row: int, levels: list[int]) -> None:
    path = write_png(tmp_path / "low.png", (2, 1), depth, 0, bytes([row]))
    assert np.array_equal(pixels(path), grey([levels]))


@pytest.mark.parametrize(("depth", "rows", "key", "levels"), [
    (1, bytes([0b01_000000]), 0, [255, 255]),
    (1, bytes([0b01_000000]), 1, [0, 255]),
    (2, bytes([0b01_10_0000]), 1, [255, 170]),
    (4, bytes([0b0001_0010]), 1, [255, 34]),
    (8, bytes([7, 8]), 7, [255, 8]),
    (16, shorts(25700, 25701), 25700, [255, 100]),
])  # fmt: skip
def test_decode_file_transparent_grey_key_becomes_white(
    tmp_path: Path, depth: int, rows: bytes, key: int, levels: list[int]
) -> None:
    path = write_png(tmp_path / "key.png", (2, 1), depth, 0, rows, tRNS=shorts(key))
    assert np.array_equal(pixels(path), grey([levels]))


def test_decode_file_transparent_colour_key_becomes_white(tmp_path: Path) -> None:
    path = write_png(tmp_path / "key.png", (3, 2), 8, 2, CORNERS.tobytes(), tRNS=shorts(10, 20, 30))
    expected = CORNERS.copy()
    expected[1, 0] = 255
    assert np.array_equal(pixels(path), expected)
    wide = write_png(
        tmp_path / "wide.png", (2, 1), 16, 2, shorts(257, 514, 771, 9000, 0, 0), tRNS=shorts(257, 514, 771)
    )
    assert np.array_equal(pixels(wide), [[[255, 255, 255], [9000 >> 8, 0, 0]]])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_decode_pil_image_alpha_lies_over_white(mode: str) -> None:
    alpha = np.array([[255, 128, 64, 0]], np.uint8)
    value = 40
    # value * a / 255 + 255 * (1 - a / 255)
    expected = np.round(value * (alpha / 255) + 255 * (1 - alpha / 255))
    if mode == "PA":
        image = Image.frombytes("PA", (4, 1), np.dstack([np.ones_like(alpha), alpha]).tobytes())
        image.putpalette([0, 0, 0, value, value, value])
    else:
        image = Image.fromarray(np.dstack([np.full((1, 4, 3), value, np.uint8), alpha]))
        for step in {"La": ("LA", "La"), "RGBA": ()}.get(mode, (mode,)):
            image = image.convert(step)
    assert image.mode == mode
    found = np.asarray(decode_pil_image(image, "image", MAX_PIXELS)).astype(int)
    # Premultiplied values of low alpha are coarse: at alpha 64, one step of theirs is four of the image's.
    tolerance = TWO_LEVELS if mode in ("RGBa", "La") else A_LEVEL
    assert_close(found, np.broadcast_to(expected[..., None], found.shape), tolerance)
    assert found[0, 0, 0] == value
    assert found[0, 3, 0] == 255


@pytest.mark.parametrize(("transparency", "expected"), [
    (None, [[10, 20, 30], [200, 100, 0]]),
    (bytes([255, 0]), [[10, 20, 30], [255, 255, 255]]),
    (bytes([0]), [[255, 255, 255], [200, 100, 0]]),
    (bytes([255, 128]), [[10, 20, 30], [227, 177, 127]]),
])  # fmt: skip
def test_decode_file_palette_with_and_without_transparency(
    tmp_path: Path, transparency: bytes | None, expected: list[list[int]]
) -> None:
    chunks = {"PLTE": bytes([10, 20, 30, 200, 100, 0])} | ({} if transparency is None else {"tRNS": transparency})
    path = write_png(tmp_path / "palette.png", (2, 1), 8, 3, bytes([0, 1]), **chunks)
    assert_close(pixels(path), [expected], A_LEVEL)


def test_decode_file_1_bit_bitmap_is_black_and_white(tmp_path: Path) -> None:
    path = tmp_path / "bits.pbm"
    path.write_bytes(b"P4\n4 1\n" + bytes([0b1010_0000]))  # in PBM, 1 is black
    assert np.array_equal(pixels(path), grey([[0, 255, 0, 255]]))


def test_decode_file_cmyk_jpeg_and_tiff_become_rgb(tmp_path: Path) -> None:
    ink = Image.new("CMYK", (16, 16), (255, 0, 0, 0))  # cyan alone: no red
    for name in ("ink.jpg", "ink.tif"):
        ink.save(tmp_path / name, quality=100) if name.endswith("jpg") else ink.save(tmp_path / name)
        assert_close(pixels(tmp_path / name), np.full((16, 16, 3), (0, 255, 255)), TWO_LEVELS)


def test_decode_file_lab_tiff_becomes_rgb(tmp_path: Path) -> None:
    path = tmp_path / "lab.tif"
    Image.new("LAB", (4, 4), (255, 128, 128)).save(path)  # lightest, neutral
    assert pixels(path).min() >= 254


@pytest.mark.parametrize("extension", ["gif", "webp", "tif", "png"])
def test_decode_file_of_several_frames_gives_the_first(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"frames.{extension}"
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    frames[0].save(path, save_all=True, append_images=frames[1:], **({"lossless": True} if extension == "webp" else {}))
    assert np.array_equal(pixels(path), np.asarray(frames[0]))


def test_decode_file_transparent_gif_lies_over_white(tmp_path: Path) -> None:
    image = Image.frombytes("P", (2, 1), bytes([0, 1]))
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.save(tmp_path / "clear.gif", transparency=0)
    assert np.array_equal(pixels(tmp_path / "clear.gif"), [[[255, 255, 255], [200, 10, 10]]])


def test_decode_file_real_multipage_tiff_gives_the_first_page() -> None:
    pages = tifffile.imread(PHOTOS / "multipage.tif")
    assert pages.shape[0] == 2
    assert np.array_equal(pixels(PHOTOS / "multipage.tif"), grey(pages[0]))


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "bmp", "gif", "tif", "ppm"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.95])
def test_decode_file_truncated_is_one_line_with_path_and_reason(tmp_path: Path, extension: str, kept: float) -> None:
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(whole, format={"jpg": "jpeg", "tif": "tiff"}.get(extension, extension))
    content = whole.getvalue()
    path = tmp_path / f"cut.{extension}"
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ImageError) as caught:
        decode_file(path, MAX_PIXELS)
    message = str(caught.value)
    assert "\n" not in message
    assert repr(str(path)) in message
    assert "cannot be read: " in message
    assert not message.endswith(": .")


@pytest.mark.parametrize(("content", "said"), [
    (b"", "is empty"),
    (b"hello world, this is no image", "must be one of PNG"),
    (b"\x89PNG\r\n\x1a\n" + b"\xff" * 64, "cannot be read"),
    (b"\xff\xd8\xff" + b"\0" * 64, "cannot be read"),
    (b"RIFF\x40\0\0\0WEBP" + b"\0" * 64, "cannot be read"),
    (b"BM" + b"\0" * 64, "cannot be read"),
    (b"GIF89a" + b"\0" * 64, "cannot be read"),
    (b"II*\0" + b"\xff" * 64, "cannot be read"),
    (b"P6\nwide high\n255\n", "cannot be read"),
])  # fmt: skip
def test_decode_file_that_is_no_image_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=said) as caught:
        decode_file(path, MAX_PIXELS)
    assert "image.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_decode_file_corrupt_pixels_are_an_error(tmp_path: Path) -> None:
    content = bytearray((PHOTOS / "color.png").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    path = tmp_path / "corrupt.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match="cannot be read"):
        decode_file(path, MAX_PIXELS)


def test_decode_file_missing_or_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no file '.*absent\.png'"):
        decode_file(tmp_path / "absent.png", MAX_PIXELS)
    with pytest.raises(ImageError, match="is a folder"):
        decode_file(tmp_path, MAX_PIXELS)


def test_decode_file_bomb_is_refused_before_decoding_without_a_warning(tmp_path: Path) -> None:
    bomb = write_png(tmp_path / "bomb.png", (60_000, 60_000), 1, 0, b"")
    with pytest.raises(ImageError) as caught:
        decode_file(bomb, MAX_PIXELS)
    message = str(caught.value)
    assert "at most 178,000,000 pixels, got 60000 x 60000 = 3,600,000,000" in message
    assert "max_pixels" in message


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "bmp", "gif", "tif", "ppm"])
def test_decode_file_limit_is_inclusive_and_adjustable(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"small.{extension}"
    Image.new("RGB", (20, 10)).save(path)
    assert decode_file(path, 200).size == (20, 10)
    with pytest.raises(ImageError, match=r"at most 199 pixels, got 20 x 10 = 200\. Raise max_pixels"):
        decode_file(path, 199)


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "bmp", "gif", "tif", "tif-lzw", "ppm"])
def test_decode_file_pillows_own_limit_neither_warns_nor_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str
) -> None:
    path = tmp_path / f"small.{extension[:4].rstrip('-')}"
    Image.new("RGB", (20, 10)).save(path, **({"compression": "tiff_lzw"} if extension == "tif-lzw" else {}))
    for limit in (150, 50):  # above its limit Pillow warns, and warnings are errors here; above twice that it refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert decode_file(path, MAX_PIXELS).size == (20, 10)
        assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.skipif(not features.check("webp"), reason="this Pillow has no WebP")
def test_decode_file_webp_over_pillows_limit_names_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small.webp"
    Image.new("RGB", (20, 10)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    with pytest.raises(ImageError, match="at most 110 pixels, got "):
        decode_file(path, 110)
    assert Image.MAX_IMAGE_PIXELS == 60


def test_pillow_limit_stays_lifted_until_the_last_reader_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    limit = _PillowLimit(_lift_pillows_limit)
    inside, leave = threading.Event(), threading.Event()

    def read() -> None:
        with limit.for_pixels(1000):
            inside.set()
            leave.wait(10)

    other = threading.Thread(target=read)
    other.start()
    assert inside.wait(10)
    with limit.for_pixels(50):
        pass  # a small image in between changes nothing
    with limit.for_pixels(500):
        assert Image.MAX_IMAGE_PIXELS is None
    assert Image.MAX_IMAGE_PIXELS is None
    leave.set()
    other.join()
    assert Image.MAX_IMAGE_PIXELS == 100


def test_pillow_limit_is_put_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(KeyError), _PillowLimit(_lift_pillows_limit).for_pixels(500):
        raise KeyError
    assert Image.MAX_IMAGE_PIXELS == 100


def test_max_pixels_is_where_pillow_refuses() -> None:
    default_limit = 1024 * 1024 * 1024 // 4 // 3  # Pillow's MAX_IMAGE_PIXELS: a quarter GiB as RGB
    assert MAX_PIXELS <= 2 * default_limit < MAX_PIXELS * 1.01


def test_decode_pil_image_leaves_the_callers_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(CORNERS).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        found = decode_pil_image(image, "image", MAX_PIXELS)
        assert image.size == (3, 2)
        assert image.getexif()[274] == 6
        assert np.array_equal(np.asarray(image), CORNERS)
    assert found.size == (2, 3)
    plain = Image.fromarray(CORNERS)
    decode_pil_image(plain, "image", MAX_PIXELS).putpixel((0, 0), (1, 2, 3))
    assert np.array_equal(np.asarray(plain), CORNERS)


def test_decode_pil_image_truncated_in_memory_is_an_image_error(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    with Image.open(io.BytesIO(content[: len(content) // 2])) as image, pytest.raises(ImageError, match="truncated"):
        decode_pil_image(image, "image", MAX_PIXELS)


def test_decode_pil_image_without_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match="must have pixels, got 0 x 5"):
        decode_pil_image(Image.new("RGB", (0, 5)), "image", MAX_PIXELS)


def test_decode_bytes_is_decode_file_without_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)).save(path)
    content = path.read_bytes()
    assert np.array_equal(np.asarray(decode_bytes(content, "a.png", 35)), np.asarray(decode_file(path, 35)))
    for broken, said in ((b"", "is empty"), (b"text", "must be one of PNG"), (content[:60], "cannot be read: ")):
        with pytest.raises(ImageError, match=rf"image 's\.tar/a\.png' {said}"):
            decode_bytes(broken, "s.tar/a.png", 35)
    with pytest.raises(ImageError, match=r"image 'a\.png' must have at most 34 pixels"):
        decode_bytes(content, "a.png", 34)
