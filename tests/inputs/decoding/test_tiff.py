"""TIFF in its many flavours, against the values that went in, or tifffile's own reading of them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import tifffile
from PIL import Image
from support.assertions import A_LEVEL, EXACT, TWO_LEVELS, assert_close

from cnnviz_fast.errors import ImageError
from cnnviz_fast.inputs.decode import decode_file
from cnnviz_fast.options.reading import MAX_PIXELS, ImageOptions

RNG = np.random.default_rng(0)
SHAPE = (37, 53)  # tiles of 16 overhang on both sides
PEAKS = {"u1": 255, "u2": 65535, "u4": 65535, "i1": 127, "i2": 32767, "i4": 65535}


def values(dtype: str, channels: int) -> np.ndarray:
    """Return an image of values that the dtype's scale holds, with some of the smallest and largest."""
    shape = SHAPE if channels == 1 else (*SHAPE, channels)
    if dtype == "?":
        return RNG.integers(0, 2, shape).astype(bool)
    if dtype[0] == "f":
        return RNG.random(shape).astype(dtype)
    return RNG.integers(0, PEAKS[dtype] + 1, shape).astype(dtype)


def over_white(image: np.ndarray) -> np.ndarray:
    """Return what values are in RGB, by the plain formulas: (H, W[, C]) -> (H, W, 3) float64."""
    peak = 1 if image.dtype.kind in "fb" else 255 if image.dtype.itemsize == 1 else 65535
    levels = image.astype(np.float64) * 255 / peak
    levels = levels[..., None] if levels.ndim == 2 else levels
    alpha = levels[..., -1:] / 255 if levels.shape[2] in (2, 4) else np.ones((*SHAPE, 1))
    colours = levels[..., : 3 if levels.shape[2] > 2 else 1]
    return np.broadcast_to(colours * alpha + 255 * (1 - alpha), (*SHAPE, 3))


def write(path: Path, image: np.ndarray, **options: Any) -> Path:
    channels = 1 if image.ndim == 2 else image.shape[2]
    options.setdefault("photometric", "rgb" if channels > 2 else "minisblack")
    if channels in (2, 4):
        options.setdefault("extrasamples", (2,))
    if options.get("planarconfig") == "separate":
        image = np.moveaxis(image, -1, 0)
    tifffile.imwrite(path, image, **options)
    return path


def pixels(path: Path, **options: Any) -> np.ndarray:
    return np.asarray(decode_file(path, MAX_PIXELS, ImageOptions(**options)))


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)])
def test_decode_file_tiff_of_any_layout_is_its_values(tmp_path: Path, dtype: str, channels: int, every: bool) -> None:
    """By default, 8 layouts in which any two properties occur in every combination."""
    image = values(dtype, channels)
    planes = ["contig", "separate"] if channels > 1 else ["contig"]
    layouts = list(itertools.product("<>", (False, True), (None, "zlib"), (None, (16, 16)), planes))
    even = [0b1111] if len(layouts) == 16 else [0b00111, 0b11100]
    for at in (at for at in range(len(layouts)) if every or not any((at & bits).bit_count() % 2 for bits in even)):
        order, big, compression, tile, planar = layouts[at]
        options: dict[str, Any] = {"planarconfig": planar} if channels > 1 else {}
        path = write(
            tmp_path / f"{at}.tif", image, byteorder=order, bigtiff=big, compression=compression, tile=tile, **options
        )
        # With alpha, each of two values loses up to a level, and so does what is laid over white.
        tolerance = TWO_LEVELS if channels in (2, 4) else A_LEVEL
        assert_close(pixels(path), np.round(over_white(image)), tolerance, f"{order} {options}")


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", [1, 3])
def test_decode_file_tiff_of_differences_is_its_values(tmp_path: Path, dtype: str, order: Any, channels: int) -> None:
    image = values(dtype, channels)
    path = write(tmp_path / "a.tif", image, byteorder=order, compression="zlib", predictor=True)
    assert_close(pixels(path), np.floor(over_white(image)), A_LEVEL)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_decode_file_tiff_white_is_zero_is_inverted(
    tmp_path: Path, order: Any, dtype: str, compression: str | None
) -> None:
    image = values(dtype, 1)
    peak = 1 if dtype == "f4" else PEAKS[dtype]
    path = write(tmp_path / "a.tif", image, byteorder=order, photometric="miniswhite", compression=compression)
    assert_close(pixels(path), np.round(over_white((peak - image).astype(dtype))), A_LEVEL)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_decode_file_tiff_truth_values_of_tifffile_are_white(
    tmp_path: Path, compression: str | None, order: Any
) -> None:
    image = values("?", 1)
    tifffile.imwrite(tmp_path / "a.tif", image, compression=compression, byteorder=order)
    assert_close(pixels(tmp_path / "a.tif"), over_white(image), EXACT)


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("compression", ["raw", "group3", "group4", "tiff_lzw", "packbits", "tiff_adobe_deflate"])
def test_decode_file_tiff_of_one_bit_is_what_opencv_reads(tmp_path: Path, compression: str, photometric: int) -> None:
    Image.fromarray(values("?", 1)).save(tmp_path / "a.tif", compression=compression, tiffinfo={262: photometric})
    expected = cv2.imread(str(tmp_path / "a.tif"), cv2.IMREAD_COLOR)
    assert set(np.unique(expected)) == {0, 255}
    assert_close(pixels(tmp_path / "a.tif"), expected, EXACT)


@pytest.mark.parametrize("scale", [257, 1])
def test_decode_file_tiff_palette_of_8_or_16_bits_gives_its_colours(tmp_path: Path, scale: int) -> None:
    image = values("u1", 1)
    ramp = np.arange(256, dtype=np.uint16)
    colours = np.stack([ramp, ramp[::-1], ramp])
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="palette", colormap=colours * np.uint16(scale))
    assert_close(pixels(tmp_path / "a.tif"), np.dstack([image, 255 - image, image]), EXACT)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_decode_file_tiff_associated_alpha_is_divided_out(tmp_path: Path, dtype: str) -> None:
    image = values(dtype, 4)
    image[..., 3] = 1 if dtype == "f4" else PEAKS[dtype]
    path = write(tmp_path / "a.tif", image, extrasamples=(1,))
    assert_close(pixels(path), np.floor(over_white(image)), A_LEVEL)


def test_decode_file_tiff_further_samples_are_left_out(tmp_path: Path) -> None:
    for dtype, planar in itertools.product(("u1", "u2", "f4"), ("contig", "separate")):
        image = values(dtype, 5)
        path = write(tmp_path / "a.tif", image, extrasamples=(0, 0), planarconfig=planar)
        assert_close(pixels(path), np.floor(over_white(image[..., :3])), A_LEVEL)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_file_tiff_that_pillow_does_not_read_is_turned(tmp_path: Path, orientation: int) -> None:
    image = values("f4", 3)
    tags = [(274, 3, 1, orientation, True)]
    odd = pixels(write(tmp_path / "odd.tif", image, extratags=tags))
    plain = pixels(write(tmp_path / "a.tif", np.floor(image * 255 + 0.5).astype(np.uint8), extratags=tags))
    assert_close(odd, plain, EXACT)


def test_decode_file_tiff_of_several_pages_gives_the_first(tmp_path: Path) -> None:
    image = values("f4", 3)
    tifffile.imwrite(tmp_path / "a.tif", np.stack([image, image * 0]), photometric="rgb")
    assert_close(pixels(tmp_path / "a.tif"), np.round(over_white(image)), A_LEVEL)


def test_decode_file_real_planar_float64_tiff_gives_its_first_page() -> None:
    path = Path(skimage.data.__file__).parent / "multipage_rgb.tif"
    first = np.moveaxis(tifffile.imread(path, key=0), 0, -1)
    assert_close(pixels(path), np.floor(first * 255 + 0.5), EXACT)


@pytest.mark.parametrize(("dtype", "channels", "said"), [
    ("c8", 1, "this kind of TIFF is not known, MINISBLACK with 1 samples of complex64"),
    ("?", 3, "this kind of TIFF is not known"),
])  # fmt: skip
def test_decode_file_tiff_of_unknown_kind_is_refused_by_name(
    tmp_path: Path, dtype: str, channels: int, said: str
) -> None:
    image = np.ones(SHAPE if channels == 1 else (*SHAPE, channels), dtype)
    path = write(tmp_path / "a.tif", image)
    with pytest.raises(ImageError, match=rf"a\.tif' cannot be read: {said}.* Save it as RGB or grey\.$"):
        decode_file(path, MAX_PIXELS)


def test_decode_file_tiff_over_the_limit_is_refused_by_either_reader(tmp_path: Path) -> None:
    for dtype in ("u1", "f8"):
        path = write(tmp_path / "a.tif", values(dtype, 3))
        with pytest.raises(ImageError, match=r"at most 1,960 pixels, got 53 x 37 = 1,961"):
            decode_file(path, 1960)
        assert decode_file(path, 1961).size == (53, 37)


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "f4", "f8"])
def test_decode_file_tiff_of_negative_values_needs_a_range(tmp_path: Path, dtype: str) -> None:
    image = values(dtype, 1)
    image[0, :3] = -100, 0, 100
    image[1:] = 0
    image[0, 3:] = 0
    path = write(tmp_path / "a.tif", image)
    with pytest.raises(ImageError, match=r"must hold values from 0 to .*, got -100 to 100.*input_range"):
        pixels(path)
    found = pixels(path, input_range=(-100, 100))
    np.testing.assert_array_equal(found[0, :3, 0], [0, 128, 255])


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("channels", [1, 3])
def test_decode_file_tiff_heeds_the_bits_that_it_declares(tmp_path: Path, bits: int, channels: int) -> None:
    peak = 2**bits - 1
    image = RNG.integers(0, peak + 1, (*SHAPE, channels)).astype(np.uint16).squeeze()
    tags = [(281, 3, channels, peak if channels == 1 else (peak,) * channels, True)]
    path = write(tmp_path / "a.tif", image, extratags=tags, compression="zlib")
    expected = over_white((image * (65535 / peak)).round().astype(np.uint16))
    if channels == 1:
        assert_close(pixels(path), expected.round(), A_LEVEL)
    assert_close(pixels(path, input_range=(0, peak)), expected.round(), A_LEVEL)


def test_decode_file_tiff_says_nothing_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = Image.fromarray(values("u1", 3))
    image.save(tmp_path / "a.tif", compression="tiff_lzw")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[40:60] = bytes(20)
    content[2000:] = bytes(len(content) - 2000)
    for cut in (content, content[:1000], content[:-3]):
        (tmp_path / "a.tif").write_bytes(cut)
        with pytest.raises(ImageError):
            decode_file(tmp_path / "a.tif", MAX_PIXELS)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "rowsperstrip": 8}, {"tile": (16, 16)}])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_decode_file_tiff_of_missing_parts_is_refused_and_not_black(
    tmp_path: Path, options: dict[str, Any], planar: str
) -> None:
    path = write(tmp_path / "a.tif", values("f4", 3), planarconfig=planar, **options)
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        at = tiff.pages[0].tags[257].valueoffset
    for content in (whole[: len(whole) // 2], whole[:-5], whole[:at] + (200).to_bytes(2, "little") + whole[at + 2 :]):
        path.write_bytes(content)
        with pytest.raises(ImageError, match=r"a\.tif' cannot be read: .*\.$"):
            decode_file(path, MAX_PIXELS)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_decode_file_tiff_of_unsigned_32_bits_is_scaled_from_its_whole_range(
    tmp_path: Path, compression: str | None, order: Any
) -> None:
    levels = np.array([[0, 100, 127, 128, 200, 255]], np.uint32)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, levels * np.uint32(2**24 + 2**16 + 2**8 + 1), compression=compression, byteorder=order)
    with pytest.raises(ImageError, match=r"must hold values from 0 to 65535, got 0 to 4\.29497e\+09.*input_range"):
        pixels(path)
    assert_close(pixels(path, input_range=(0, 2**32 - 1))[..., 0], levels.astype(np.uint8), EXACT)
