"""What is written on a sheet: Pillow's own text where it belongs, tiles as they were, the same for any strips."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from support.assertions import assert_equal_planes, assert_strips_of_any_height_give_the_same
from support.cases import INF, NAN, noise
from support.fonts import pillows
from support.looping import over
from support.plain import render, save_sheet

import cnnviz_fast as cf
from cnnviz_fast.geometry import NO_ROOM, Room, Strip, plan_grid
from cnnviz_fast.kernels.backends import BACKENDS
from cnnviz_fast.options.drawing import RenderOptions
from cnnviz_fast.palette import make_palette
from cnnviz_fast.provenance import Provenance
from cnnviz_fast.sheets.annotation import Wording, letter, word_sheet
from cnnviz_fast.sheets.plan import plan_sheet
from cnnviz_fast.sheets.render import draw_sheet

Plane = NDArray[np.uint8]
MAIN_PATH = importlib.import_module("cnnviz_fast.sheets.render")  # the package's own `render` is the function

PROVENANCE = Provenance(model="resnet50", weights="none", layer="layer4.2", image="Straße.jpg")
EVERYTHING = {"label": True, "title": "{model}  {layer}", "colorbar": True}


class Paper:
    """An image that Pillow writes on, in one ink and without grey edges."""

    def __init__(self, height: int, width: int, background: int = 0, ink: int = 255) -> None:
        self.image = Image.new("L", (width, height), background)
        self.pen = ImageDraw.Draw(self.image)
        self.pen.fontmode = "1"
        self.ink = ink

    def write(self, x: int, baseline: int, text: str, size: int) -> None:
        self.pen.text((x, baseline), text, fill=self.ink, font=pillows(size), anchor="ls")

    @property
    def plane(self) -> Plane:
        return np.array(self.image)


def boxes_of(sheet: cf.Sheet) -> list[list[int]]:
    return [tile["box"] for tile in sheet.manifest["tiles"]]


def tiles_of(sheet: cf.Sheet) -> Plane:
    return np.stack([sheet.index[y0:y1, x0:x1] for y0, x0, y1, x1 in boxes_of(sheet)])


def without_tiles(sheet: cf.Sheet) -> Plane:
    """Return a sheet's plane with background in place of its tiles."""
    plane = sheet.index.copy()
    for y0, x0, y1, x1 in boxes_of(sheet):
        plane[y0:y1, x0:x1] = sheet.colors.background
    return plane


# Labels.


@over(
    ("tile", "size"),
    [((1, 1), 12), ((2, 9), 12), ((7, 7), 12), ((9, 30), 12), ((56, 56), 12), ((60, 13), 12), ((112, 120), 14),
     ((230, 224), 16)],
)  # fmt: skip
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gap": 3},
        {"margin": 5, "grid": "x2"},
        {"gap": 9, "margin": 2, "grid": "4x3"},
        {"background": "white", "channels": "4,0-1,4"},
        {"grid": "1x", "channels": [3]},
    ],
)
def test_label_sheet_is_the_tiles_and_the_numbers_of_pillow(
    maps: torch.Tensor, tile: tuple[int, int], size: int, options: dict[str, Any]
) -> None:
    plain = render(maps, tile=tile, colormap="gray", **options)
    sheet = render(maps, tile=tile, colormap="gray", label=True, **options)
    assert_equal_planes(tiles_of(sheet), tiles_of(plain))
    white = options.get("background") == "white"
    paper = Paper(*sheet.index.shape, *((255, 0) if white else (0, 255)))
    for described, (y0, x0, _, _) in zip(sheet.manifest["tiles"], boxes_of(sheet), strict=True):
        paper.write(x0, y0 - size // 5, str(described["channel"]), size)
    assert_equal_planes(without_tiles(sheet), paper.plane)


def test_label_2048_numbers_keep_apart_above_tiles_of_one_pixel() -> None:
    sheet = render(noise(2048, 2, 2), tile=1, colormap="gray", label=True, normalize="layer")
    paper = Paper(*sheet.index.shape)
    for channel, (y0, x0, _, _) in enumerate(boxes_of(sheet)):
        paper.write(x0, y0 - 2, str(channel), 12)
    assert_equal_planes(without_tiles(sheet), paper.plane)
    # The widest number takes 4 digits of 8 px; half its size is left free before the next.
    assert np.diff([x0 for _, x0, _, _ in boxes_of(sheet)][:3]).tolist() == [32 + 6] * 2
    assert 0.8 < sheet.index.shape[0] / sheet.index.shape[1] < 1.25, "cells with their labels fill a square"


def test_label_of_another_name_than_a_number_stands_on_the_same_line() -> None:
    wording = Wording(labels=("strongest", "sum", "12"))
    lettering = letter(wording, 60, 60, margin=3)
    grid = plan_grid(3, 60, 60, grid=(1, 3), gap=2, margin=3, room=lettering.room)
    palette = make_palette("gray", shows_background=True, shows_bad=False, shows_ink=True)
    annotation = lettering.place(grid, palette)
    out = np.zeros((grid.height, grid.width), np.uint8)
    assert annotation is not None
    annotation.paint(Strip(0, grid.height), out)
    baseline = 3 + grid.label_h - 2 - 3  # a g reaches 3 px below the line
    paper = Paper(*out.shape)
    for position, label in enumerate(wording.labels):
        paper.write(3 + position * grid.step_x, baseline, label, 12)
    assert_equal_planes(out, paper.plane)


# Colours.


@pytest.mark.parametrize("colormap", ["viridis", "gray", "tab10"])
@over(
    ("background", "ink"),
    [("black", 255), ("#333333", 255), ("blue", 255), ("red", 0), ("white", 0), ("yellow", 0), ("#00ff00", 0)],
)
def test_text_has_the_ink_that_the_background_needs(
    maps: torch.Tensor, colormap: str, background: str, ink: int
) -> None:
    maps[0, 0, 0] = NAN
    sheet = render(maps, tile=9, colormap=colormap, background=background, label=True, title="Title")
    colors = np.unique(sheet.palette[without_tiles(sheet)].reshape(-1, 3), axis=0).tolist()
    behind = sheet.palette[sheet.manifest["palette"]["background"]].tolist()
    assert sorted(colors) == sorted([behind, [ink] * 3])
    assert sheet.palette[sheet.manifest["palette"]["ink"]].tolist() == [ink] * 3
    assert tiles_of(sheet).max() == 255, "bad"
    levels = sheet.manifest["palette"]["levels"]
    assert np.unique(tiles_of(sheet))[-2] < levels


# The title.


def test_title_stands_above_the_grid_in_larger_text(maps: torch.Tensor) -> None:
    plain = render(maps, tile=60, margin=8, colormap="gray")
    sheet = render(maps, tile=60, margin=8, colormap="gray", title=" {model} / {layer} ", provenance=PROVENANCE)
    head = sheet.manifest["sheet"]["head"]
    ascent, descent = pillows(15).getmetrics()
    assert head == ascent + descent + 6
    paper = Paper(*sheet.index.shape)
    paper.write(8, 8 + ascent, "resnet50 / layer4.2", 15)
    assert_equal_planes(without_tiles(sheet), paper.plane)
    assert_equal_planes(tiles_of(sheet), tiles_of(plain))
    assert [[y0 + head, x0, y1 + head, x1] for y0, x0, y1, x1 in boxes_of(plain)] == boxes_of(sheet)


def test_title_without_a_margin_keeps_off_the_edge(maps: torch.Tensor) -> None:
    sheet = render(maps, tile=60, colormap="gray", title="|Title|")
    written = np.argwhere(without_tiles(sheet))
    assert written.min() >= 6
    assert boxes_of(sheet)[0][1] == 0, "tiles do not"


def test_title_longer_than_the_sheet_widens_it(maps: torch.Tensor) -> None:
    title = "a title of many words " * 10
    sheet = render(maps, tile=9, grid="2x3", colormap="gray", title=title)
    paper = Paper(*sheet.index.shape)
    paper.write(6, 6 + pillows(15).getmetrics()[0], title.strip(), 15)
    assert_equal_planes(without_tiles(sheet), paper.plane)
    assert paper.plane.any(axis=0).nonzero()[0].max() < sheet.index.shape[1] - 5, "it ends before the sheet does"
    assert sheet.manifest["sheet"]["least_w"] == sheet.index.shape[1] > 1000
    assert_equal_planes(tiles_of(sheet), tiles_of(render(maps, tile=9, colormap="gray")))


@over(
    ("title", "provenance", "expected"),
    [
        ("{model} {weights} {layer} {image}", PROVENANCE, "resnet50 none layer4.2 Straße.jpg"),
        ("{layer} of {model}", Provenance(layer="conv1"), "conv1 of"),
        ("{model}", Provenance(), ""),
        ("{{{layer}}}", PROVENANCE, "{layer4.2}"),
        ("{image}", Provenance(image="{layer}.png"), "{layer}.png"),
        ("plain", PROVENANCE, "plain"),
    ],
)
def test_word_sheet_title_is_filled_from_the_provenance(title: str, provenance: Provenance, expected: str) -> None:
    one = torch.ones(1)
    assert word_sheet(RenderOptions(title=title), provenance, [0], one, one).title == expected


@over("image", ["", "Straße.jpg", "photos/2026/Straße.jpg"])
@pytest.mark.parametrize("shape", ["", "6 x 5 x 7"])
@pytest.mark.parametrize("layer", ["", "layer4.2"])
@pytest.mark.parametrize("model", ["", "resnet50"])
def test_word_sheet_title_by_default_is_what_is_known(model: str, layer: str, shape: str, image: str) -> None:
    provenance = Provenance(model=model or None, weights="none", layer=layer or None, image=image or None)
    title = word_sheet(RenderOptions(), provenance, [0], torch.ones(1), torch.ones(1), shape=shape).title
    known = [model, layer, shape, "Straße.jpg" if image else ""]
    assert title == "  ·  ".join(part for part in known if part)
    empty = word_sheet(RenderOptions(title=""), provenance, [0], torch.ones(1), torch.ones(1), shape=shape)
    assert empty.title == ""


def test_word_sheet_title_by_default_cuts_long_names_and_one_that_is_given_does_not() -> None:
    provenance = Provenance(model="net", image="photos/" + "x" * 200 + "_7.jpg")
    by_default, given = (
        word_sheet(RenderOptions(title=title), provenance, [0], torch.ones(1), torch.ones(1)).title
        for title in (None, "{image}")
    )
    assert by_default == "net  ·  " + "x" * 29 + "…" + "x" * 23 + "_7.jpg"
    assert given == provenance.image


def test_title_shows_the_shape_of_the_layer_whatever_is_drawn_of_it(maps: torch.Tensor) -> None:
    by_default, given = (
        cf.render(maps, tile=30, channels="1", title=title, provenance=PROVENANCE).index
        for title in (None, "resnet50  ·  layer4.2  ·  {shape}  ·  Straße.jpg")
    )
    assert_equal_planes(by_default, given)
    written = word_sheet(RenderOptions(title="{shape}"), PROVENANCE, [], torch.ones(1), torch.ones(1), shape="6 x 5")
    assert written.title == "6 x 5"
    other = cf.render(maps, tile=30, channels="1", title="resnet50  ·  layer4.2  ·  6 x 5 x 7  ·  Straße.jpg")
    assert_equal_planes(by_default, other.index)


def test_title_that_comes_out_empty_takes_no_room(maps: torch.Tensor) -> None:
    sheet = render(maps, tile=9, title="{model}")
    assert_equal_planes(sheet.index, render(maps, tile=9).index)


# The colour bar.


@over(
    ("options", "low", "high", "expected"),
    [
        ({}, [0, 1], [2, 3], ("min", "max of each channel")),
        ({}, [-1.25], [2], ("-1.25", "2")),
        ({}, [NAN, -1.25], [NAN, 2], ("-1.25", "2")),
        ({}, [NAN], [NAN], ("min", "max of each channel")),
        ({"normalize": "layer"}, [-3, -3], [12345.678, 12345.678], ("-3", "1.235e+04")),
        ({"normalize": "sigmoid"}, [0, 0], [1, 1], ("0", "1")),
        ({"normalize": "fixed", "vmin": -0.0, "vmax": 1e-9}, [-0.0, -0.0], [1e-9, 1e-9], ("0", "1e-09")),
        ({"normalize": "percentile", "percentile": (0.5, 90)}, [0, 1], [2, 2], ("0.5 %", "90 % of each channel")),
        ({"normalize": "symmetric"}, [-2, -1], [2, 1], ("-max |x|", "max |x| of each channel")),
        ({"normalize": "symmetric"}, [-2, -2], [2, 2], ("-2", "2")),
        ({"normalize": "dataset"}, [0, 1], [2, 2], ("min", "max of each channel over the data set")),
        (
            {"normalize": "dataset", "percentile": (1, 99.5)},
            [0, 1],
            [2, 2],
            ("1 %", "99.5 % of each channel over the data set"),
        ),
    ],
)
def test_word_sheet_ends_are_numbers_where_all_tiles_have_one_range(
    options: dict[str, Any], low: list[float], high: list[float], expected: tuple[str, str]
) -> None:
    checked = RenderOptions(colorbar=True, **options)
    assert word_sheet(checked, Provenance(), [0] * len(low), torch.tensor(low), torch.tensor(high)).ends == expected


@pytest.mark.parametrize(("unit", "said"), [({}, "max of each channel"), ({"unit": "tile"}, "max of each tile")])
def test_word_sheet_ends_name_what_a_tile_is(unit: dict[str, str], said: str) -> None:
    ends = torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0])
    assert word_sheet(RenderOptions(colorbar=True), Provenance(), [0, 1], *ends, **unit).ends == ("min", said)


def test_plan_sheet_ends_speak_of_tiles_where_these_have_names(maps: torch.Tensor) -> None:
    drawing = RenderOptions(colorbar=True, label=False, tile=80)
    channels, named = (
        draw_sheet(plan_sheet(maps, drawing, Provenance(), names=names)).index for names in (None, ["cup"] * len(maps))
    )
    assert channels.shape == named.shape
    assert not np.array_equal(channels, named)


@pytest.mark.parametrize("colormap", ["gray", "viridis"])
@pytest.mark.parametrize(("grid", "bar_w"), [("1x6", 24 * 12), ("6x1", 6 * 12)])
def test_colorbar_shows_every_level_between_the_ends(maps: torch.Tensor, colormap: str, grid: str, bar_w: int) -> None:
    options = {"normalize": "fixed", "vmin": -1.5, "vmax": 2, "colormap": colormap, "margin": 9, "tile": 80}
    sheet = render(maps, grid=grid, colorbar=True, **options)
    height, width = sheet.index.shape
    colors, line_h = sheet.colors, sum(pillows(12).getmetrics())
    assert sheet.manifest["sheet"]["foot"] == 6 + line_h
    top = height - 9 - line_h
    paper = Paper(height, width, colors.background, colors.ink)
    paper.write(9, top + 12, "-1.5", 12)
    x = 9 + draw_width("-1.5") + 6
    paper.write(x + bar_w + 6, top + 12, "2", 12)
    expected = paper.plane
    # As high as a digit, in a frame of 1 px.
    expected[top + 3 : top + 12, x : x + bar_w] = colors.ink
    entries = [i * (colors.levels - 1) // (bar_w - 3) for i in range(bar_w - 2)]
    expected[top + 4 : top + 11, x + 1 : x + bar_w - 1] = entries
    assert_equal_planes(without_tiles(sheet), expected)
    assert (entries[0], entries[-1]) == (0, colors.levels - 1)
    if bar_w > 256:
        assert set(entries) == set(range(colors.levels))


def draw_width(text: str) -> int:
    """Return how far a text of 12 px reaches, in px."""
    font = pillows(12)
    return max(int(np.ceil(font.getlength(text, mode="1"))), int(font.getbbox(text, mode="1", anchor="ls")[2]))


@pytest.mark.parametrize("values", [NAN, INF, 0.0])
def test_colorbar_of_maps_without_a_range(values: float) -> None:
    sheet = render(torch.full((3, 4, 5), values), tile=9, colorbar=True, normalize="layer")
    assert without_tiles(sheet).max() == sheet.colors.ink


# Lines below the grid.


def test_lines_stand_below_each_other_with_their_bars() -> None:
    lines = (("207  golden retriever  12.31", 1.0), ("1  Hund", 0.25), ("0  nothing", 0.0))
    lettering = letter(Wording(lines=lines, ends=("0", "1")), 20, 20, margin=10)
    grid = plan_grid(4, 20, 20, grid=(1, 4), margin=10, room=lettering.room)
    palette = make_palette("gray", shows_background=True, shows_bad=False, shows_ink=True)
    annotation = lettering.place(grid, palette)
    out = np.zeros((grid.height, grid.width), np.uint8)
    assert annotation is not None
    annotation.paint(Strip(0, grid.height), out)
    line_h = sum(pillows(12).getmetrics())
    assert grid.foot == 6 + line_h + 6 + 3 * line_h
    paper, top = Paper(*out.shape), 10 + 20 + 6 + line_h + 6
    x = 10 + draw_width(lines[0][0]) + 6
    for position, (text, _) in enumerate(lines):
        paper.write(10, top + position * line_h + 12, text, 12)
    expected = paper.plane
    assert grid.width - 10 - x == 6 * 12, "the sheet is as wide as texts and the shortest bar need it"
    for position, length in ((0, 72), (1, 18), (2, 0)):
        expected[top + position * line_h + 3 : top + position * line_h + 12, x : x + length] = 255
    assert_equal_planes(out[top:], expected[top:])
    assert out[10 + 20 + 6 : top].any(), "the colour bar, above them"


# Strips, backends and files.


def plan_of(maps: Any, **options: Any) -> Any:
    return MAIN_PATH.plan_sheet(maps, RenderOptions(plain=True, **options), PROVENANCE)


@pytest.mark.parametrize("options", [EVERYTHING, {"label": True}, {"title": "x"}, {"colorbar": True}])
@pytest.mark.parametrize("grid", [{}, {"gap": 7, "margin": 1, "grid": "5x2"}])
def test_draw_strips_of_any_height_give_the_same_sheet(
    maps: torch.Tensor, options: dict[str, Any], grid: dict[str, Any]
) -> None:
    assert_strips_of_any_height_give_the_same(plan_of(maps, tile=11, **options, **grid))


@pytest.mark.parametrize("backend", [name for name, backend in BACKENDS.items() if backend.takes("cpu")])
def test_draw_every_backend_writes_the_same(maps: torch.Tensor, backend: str) -> None:
    options = {"tile": 11, "gap": 2, "margin": 3, **EVERYTHING}
    expected = render(maps, backend="numba", **options)
    assert_equal_planes(without_tiles(render(maps, backend=backend, **options)), without_tiles(expected))


@pytest.mark.parametrize("tile", [1, 7, 90])
@pytest.mark.parametrize("channels", [1, 6, 300])
@pytest.mark.parametrize(
    "options", [{"colormap": "gray"}, {"background": "white", "gap": 2, "margin": 3, "threads": 3}]
)
def test_save_sheet_png_shows_what_is_written(
    tmp_path: Path, tile: int, channels: int, options: dict[str, Any]
) -> None:
    maps = noise(channels, 4, 4)
    sheet = render(maps, tile=tile, provenance=PROVENANCE, **EVERYTHING, **options)
    path = save_sheet(maps, tmp_path / "sheet.png", tile=tile, provenance=PROVENANCE, **EVERYTHING, **options)
    with Image.open(path) as image:
        assert_equal_planes(np.asarray(image.convert("RGB")), sheet.rgb())


def test_plan_without_text_has_no_annotation(maps: torch.Tensor) -> None:
    plan = plan_of(maps, tile=9)
    assert plan.annotation is None
    assert (plan.grid.height, plan.grid.width) == (18, 18)
    assert plan.palette.levels == 256
    assert letter(Wording(), 9, 9, 0).room == NO_ROOM


def test_manifest_says_how_much_room_text_takes(maps: torch.Tensor) -> None:
    sheet = render(maps, tile=9, provenance=PROVENANCE, **EVERYTHING)
    told = sheet.manifest["sheet"]
    assert set(Room._fields) < set(told)
    assert all(told[name] > 0 for name in Room._fields)
    assert (told["height"], told["width"]) == sheet.index.shape
    assert sheet.manifest["options"] == dataclasses.asdict(RenderOptions(plain=True, tile=9, **EVERYTHING))
