"""The image above the grid: it looks like itself in few colours, has entries of its own, and leaves the rest alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.assertions import DITHERED, DITHERED_FROM_AFAR, assert_close_on_average, assert_equal_planes
from support.cases import NAN, noise
from support.looping import over

import cnnviz_fast as cf
from cnnviz_fast.errors import ImageError, OptionError
from cnnviz_fast.options.drawing import RenderOptions
from cnnviz_fast.provenance import Provenance
from cnnviz_fast.sheets.input_image import COLORS, LEAST_PX, InputImage, in_few_colors
from cnnviz_fast.sheets.lettering import text_px
from cnnviz_fast.sheets.overlay import read_overlay
from cnnviz_fast.sheets.tiles import plan_tiles

Bytes = NDArray[np.uint8]


def slopes(height: int = 45, width: int = 60) -> Bytes:
    """Return an image of many colours, (height, width, 3) uint8."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, 255 - x * 200 // width], axis=-1).astype(np.uint8)


def box_of(sheet: cf.Sheet, image: InputImage) -> tuple[slice, slice]:
    """Return where an image stands on a sheet: at the left of the margin, above the first row of tiles."""
    told = sheet.manifest["sheet"]
    height, width = image.pixels.shape
    bottom = told["margin"] + told["head"] - text_px(told["tile_h"], told["tile_w"]) // 2
    assert sheet.manifest["input"]["box"] == [bottom - height, told["margin"], bottom, told["margin"] + width]
    return slice(bottom - height, bottom), slice(told["margin"], told["margin"] + width)


# The image in few colours.


@pytest.mark.parametrize("tile_px", [32, 224])
def test_in_few_colors_looks_like_the_photo(photo: Path, tile_px: int) -> None:
    with Image.open(photo) as opened:
        original = np.asarray(opened)
    found = in_few_colors(original, tile_px)
    height, width = found.pixels.shape
    shown = found.colors[found.pixels]
    expected = np.asarray(Image.fromarray(original).resize((width, height), Image.Resampling.LANCZOS))
    assert_close_on_average(shown, expected, DITHERED)

    def from_afar(image: Bytes) -> Bytes:
        parts = image[: height // 4 * 4, : width // 4 * 4].reshape(height // 4, 4, width // 4, 4, 3)
        return parts.mean((1, 3)).round().astype(np.uint8)

    assert_close_on_average(from_afar(shown), from_afar(expected), DITHERED_FROM_AFAR)


@over(
    ("shape", "tile_px", "expected"),
    [
        ((427, 640), 224, (149, 224)),
        ((640, 427), 224, (224, 149)),
        ((427, 640), 32, (75, 112)),
        ((8, 8), 64, (112, 112)),
        ((1, 500), 32, (1, 112)),
    ],
)
def test_in_few_colors_longer_side_is_a_tile_s_or_the_least(
    shape: tuple[int, int], tile_px: int, expected: tuple[int, int]
) -> None:
    assert LEAST_PX == 112
    found = in_few_colors(slopes(*shape), tile_px)
    assert found.pixels.shape == expected
    assert (found.pixels.dtype, found.colors.dtype, found.colors.shape) == (np.uint8, np.uint8, (COLORS, 3))
    assert found.pixels.max() < COLORS


def test_in_few_colors_chooses_them_from_few_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    quantize, chosen_from = Image.Image.quantize, []

    def watched(image: Image.Image, *arguments: Any, **options: Any) -> Image.Image:
        if options.get("palette") is None:
            chosen_from.append(image.size)
        return quantize(image, *arguments, **options)

    monkeypatch.setattr(Image.Image, "quantize", watched)
    in_few_colors(slopes(150, 200), 224)
    assert chosen_from == [(64, 48)]


def test_in_few_colors_keeps_few_colours_as_they_are() -> None:
    parts = np.array([[[255, 0, 0], [0, 0, 255]], [[10, 20, 30], [255, 255, 255]]], np.uint8)
    image = parts.repeat(40, axis=0).repeat(56, axis=1)
    found = in_few_colors(image, 112)
    assert_equal_planes(found.colors[found.pixels], image)


# On the sheet.


@over("bad", [False, True])
@over(
    ("options", "beside"),
    [
        ({}, 2),  # dark grey and white
        ({"colormap": "gray"}, 0),
        ({"background": "red", "title": ""}, 2),
        ({"label": True, "marks": False}, 2),
        ({"plain": True, "grid": "1x"}, 2),  # black and white
    ],
)
def test_render_image_has_entries_of_its_own(options: dict[str, Any], beside: int, bad: bool) -> None:
    maps = noise(3, 4, 4)
    if bad:
        maps[1, 2, 2] = NAN
    image = slopes()
    sheet = cf.render(maps, tile=24, show_input=image, **options)
    expected, colors = in_few_colors(image, 24), sheet.colors
    assert colors.levels == 256 - COLORS - bad - beside
    assert colors.own == colors.levels + beside
    assert_equal_planes(colors.colors[colors.own : colors.own + COLORS], expected.colors)
    assert max(colors.background, colors.ink) < colors.own
    where = box_of(sheet, expected)
    assert_equal_planes(sheet.index[where], expected.pixels + np.uint8(colors.own))
    assert_equal_planes(sheet.rgb()[where], expected.colors[expected.pixels])
    elsewhere = sheet.index.copy()
    elsewhere[where] = 0
    assert not ((elsewhere >= colors.own) & (elsewhere < colors.own + COLORS)).any()
    assert ((elsewhere == 255).any(), colors.bad) == (bad, 255)
    assert not bad or sheet.palette[255].tolist() == [255, 0, 255]


def test_render_tiles_below_an_image_show_the_maps_on_fewer_levels() -> None:
    options = {"tile": 24, "colormap": "gray", "normalize": "fixed", "vmin": 0, "vmax": 1, "title": ""}
    maps = torch.linspace(0, 1, 16).reshape(1, 4, 4)
    sheet = cf.render(maps, show_input=slopes(), upsampling="nearest", **options)
    y0, x0, y1, x1 = sheet.manifest["tiles"][0]["box"]
    levels = sheet.colors.levels
    expected = np.floor(maps[0].numpy() * np.float32(levels - 1) + np.float32(0.5)).astype(np.uint8)
    assert_equal_planes(sheet.index[y0:y1:6, x0:x1:6], expected)
    gray = sheet.palette[:levels, 0]
    assert (gray[0], gray[-1]) == (0, 255)


def test_render_image_makes_room_for_itself_and_for_the_title() -> None:
    image = slopes()
    alone, titled, without = (
        cf.render(noise(1, 4, 4), tile=9, title=title, show_input=shown).manifest["sheet"]
        for title, shown in (("", image), ("x", image), ("x", None))
    )
    height, width = in_few_colors(image, 9).pixels.shape
    assert alone["head"] == height + 6
    assert titled["head"] == alone["head"] + without["head"]
    assert alone["least_w"] == width < alone["width"]


def test_render_image_in_the_manifest_is_no_overlay() -> None:
    manifest = cf.render(noise(2, 4, 4), tile=24, show_input=slopes()).manifest
    assert (manifest["overlay"], manifest["input"]["source"]) == (None, None)
    assert manifest["palette"]["levels"] == 256 - COLORS - 2
    assert manifest["sheet"]["head"] > LEAST_PX * 45 // 60


def test_save_sheet_one_path_may_lie_under_and_above(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(slopes()).save(path)
    sheet = cf.render(noise(2, 4, 4), tile=(18, 24), overlay=path, show_input=str(path))
    sources = [sheet.manifest[key]["source"] for key in ("overlay", "input")]
    assert sources == [str(path)] * 2
    written = cf.save_sheet(noise(2, 4, 4), tmp_path / "s.png", tile=(18, 24), overlay=str(path), show_input=path)
    assert json.loads(written.with_suffix(".json").read_text())["input"] == sheet.manifest["input"]
    with pytest.raises(OptionError, match="must be one image, got two"):
        cf.render(noise(2, 4, 4), overlay=path, show_input=tmp_path / "other.png")


@pytest.mark.parametrize("backend", ["native", "numba", "reference"])
def test_save_sheet_shows_the_image(backend: str, tmp_path: Path) -> None:
    options = {"tile": 24, "show_input": slopes(), "threads": 2}
    expected = cf.render(noise(5, 4, 4), backend="reference", **options).rgb()
    with Image.open(cf.save_sheet(noise(5, 4, 4), tmp_path / "s.png", backend=backend, **options)) as written:
        assert written.mode == "P"
        assert_equal_planes(np.asarray(written.convert("RGB")), expected)


def test_render_every_kind_of_image_is_the_same(tmp_path: Path) -> None:
    image = slopes()
    Image.fromarray(image).save(tmp_path / "image.png")
    kinds = [
        image,
        Image.fromarray(image),
        torch.from_numpy(image).permute(2, 0, 1),
        tmp_path / "image.png",
        str(tmp_path / "image.png"),
    ]
    sheets = [cf.render(noise(2, 4, 4), tile=24, show_input=each) for each in kinds]
    assert {sheet.rgb().tobytes() for sheet in sheets} == {sheets[0].rgb().tobytes()}


@pytest.mark.parametrize("none", [None, False])
def test_render_without_an_image_is_the_sheet_without_it(none: Any) -> None:
    assert_equal_planes(cf.render(noise(2, 4, 4), show_input=none).rgb(), cf.render(noise(2, 4, 4)).rgb())


def test_render_with_overlay_shows_one_image_in_both_places() -> None:
    image, maps = slopes(24, 32), noise(2, 6, 8)
    maps[1, 2, 2] = NAN
    sheet = cf.render(maps, tile=32, overlay=image, show_input=image, alpha=0)
    expected = in_few_colors(image, 32)
    assert_equal_planes(sheet.rgb()[box_of(sheet, expected)], expected.colors[expected.pixels])
    (y0, x0, y1, x1), (v0, u0, v1, u1) = (tile["box"] for tile in sheet.manifest["tiles"])
    assert_equal_planes(sheet.rgb()[y0:y1, x0:x1], image)
    touched = sheet.index[v0:v1, u0:u1] == sheet.colors.bad
    assert touched.any()
    assert_equal_planes(sheet.rgb()[v0:v1, u0:u1][~touched], image[~touched])
    assert (sheet.rgb()[v0:v1, u0:u1][touched] == (255, 0, 255)).all()


def test_render_vector_below_an_image_is_drawn() -> None:
    sheet = cf.render(noise(30), show_input=slopes())
    expected = in_few_colors(slopes(), 16)
    assert_equal_planes(sheet.rgb()[box_of(sheet, expected)], expected.colors[expected.pixels])
    assert sheet.manifest["strongest"]


def test_visualize_shows_the_image_as_the_model_saw_it() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=8))
    images = [Image.fromarray(slopes(64, 64)), Image.fromarray(slopes(64, 64)[::-1].copy())]
    seen = cf.visualize(model, images, "0", overlay=True, alpha=0, tile=224, plain=True, channels="0")
    sheets = cf.visualize(model, images, "0", show_input=True, tile=24)
    for sheet, original in zip(sheets, seen, strict=True):
        expected = in_few_colors(original.rgb(), 24)
        assert_equal_planes(sheet.rgb()[box_of(sheet, expected)], expected.colors[expected.pixels])
    assert (sheets[0].rgb() != sheets[1].rgb()).any()


# What is refused.


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"show_input": True}, OptionError, "show_input True stands for the image that visualize runs a model on."),
        ({"show_input": slopes(), "alpha": 0.5}, OptionError, "alpha goes with overlay, got alpha 0.5 alone."),
        (
            {"show_input": slopes(), "overlay": slopes()},
            OptionError,
            "overlay and the input above the grid must be one",
        ),
        ({"show_input": "missing.png"}, ImageError, "show_input: no file 'missing.png'."),
    ],
    ids=str,
)
def test_render_image_that_cannot_be_shown_is_refused(given: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error) as caught:
        cf.render(noise(2, 4, 4), **given)
    assert str(caught.value).startswith(message)


def test_plan_tiles_has_no_place_for_an_image() -> None:
    with pytest.raises(OptionError, match=r"^show_input belongs to sheets; single tiles have none\. Leave it out\.$"):
        plan_tiles(noise(2, 4, 4), RenderOptions(), Provenance(), read_overlay(None, None, slopes()))


def test_backdrop_digest_tells_shown_images_apart() -> None:
    image = slopes()
    given = [
        (None, image),
        (image, image),
        (image, None),
        (None, True),
        (True, True),
        (True, None),
        (None, slopes(9, 9)),
    ]
    digests = [backdrop.digest() for over, shown in given if (backdrop := read_overlay(over, None, shown))]
    assert len(set(digests)) == len(given)


def test_backdrop_image_is_reduced_once_for_each_size_of_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(image: Bytes, tile_px: int) -> InputImage:
        made.append(tile_px)
        return in_few_colors(image, tile_px)

    monkeypatch.setattr("cnnviz_fast.sheets.overlay.in_few_colors", counted)
    backdrop = read_overlay(None, None, slopes())
    assert backdrop is not None
    assert [backdrop.above(px) is backdrop.above(px) for px in (32, 64, 32)] == [True] * 3
    assert made == [32, 64]
