"""How a sheet looks where its options leave that open, and that what is given stays as it is given."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.cases import noise
from support.looping import over

import cnnviz_fast as cf
from cnnviz_fast.geometry import plan_grid, tile_size
from cnnviz_fast.options.drawing import RenderOptions
from cnnviz_fast.sheets.annotation import Wording, letter
from cnnviz_fast.sheets.look import CELL_PX, LABELLED_PX, SCREEN_PX, SCREEN_RATIO, TILES_PX, settled

DEFAULTS = RenderOptions()


def look_of(
    count: int, map_h: int, map_w: int, options: RenderOptions = DEFAULTS, *, over_image: bool = False
) -> tuple[Any, bool | None, str]:
    """Return the tile, whether it has a label, and the upsampling."""
    found = settled(options, count, map_h, map_w, over_image=over_image)
    return found.tile, found.label, found.upsampling


def test_settled_numbers_are_those_that_the_tests_here_lean_on() -> None:
    assert (TILES_PX, SCREEN_PX, SCREEN_RATIO, LABELLED_PX, CELL_PX) == ((224, 112, 64, 32), 2560, 1.6, 64, 8)


@over(
    ("count", "map_h", "map_w", "expected"),
    [
        (64, 112, 112, (224, True, "bilinear")),
        (256, 56, 56, (64, True, "bilinear")),
        (512, 7, 7, (64, True, "nearest")),
        (2048, 7, 7, (32, False, "bilinear")),
        (3, 5, 5, (224, True, "nearest")),
        (128, 28, 28, (112, True, "bilinear")),
        (1, 5, 5, (224, True, "nearest")),
    ],
)
def test_settled_layer_of_a_network(count: int, map_h: int, map_w: int, expected: tuple[int, bool, str]) -> None:
    assert look_of(count, map_h, map_w) == expected


@over("shape", [(7, 7), (5, 7), (9, 4), (3, 9)])
def test_settled_tile_is_the_largest_with_which_the_sheet_fits_the_screen(shape: tuple[int, int]) -> None:
    def longer_side(count: int, tile: int) -> int:
        tile_h, tile_w = tile_size(*shape, tile, None)
        labels = tuple(map(str, range(count))) if min(tile_h, tile_w) >= LABELLED_PX else ()
        room = letter(Wording(labels), tile_h, tile_w, 8).room
        grid = plan_grid(count, tile_h, tile_w, gap=4, margin=8, room=room, ratio=SCREEN_RATIO)
        return max(grid.height, grid.width)

    chosen = {count: look_of(count, *shape)[0] for count in (*range(1, 60, 7), *range(60, 4000, 61))}
    assert list(chosen.values()) == sorted(chosen.values(), reverse=True), "more tiles, no larger ones"
    assert set(chosen.values()) == set(TILES_PX)
    for count, tile in chosen.items():
        assert tile == TILES_PX[-1] or longer_side(count, tile) <= SCREEN_PX
        larger = [px for px in TILES_PX if px > tile]
        assert not larger or longer_side(count, larger[-1]) > SCREEN_PX - 2 * LABELLED_PX, "labels' heights are rounded"


@pytest.mark.parametrize("count", [100_000, 10**7, 10**12])
def test_settled_huge_counts_have_the_smallest_tile(count: int) -> None:
    assert look_of(count, 3, 3) == (32, False, "nearest")


def test_settled_grid_gap_and_margin_leave_less_room() -> None:
    assert look_of(40, 7, 7)[0] == 224
    assert look_of(40, 7, 7, RenderOptions(grid="1x"))[0] == 32, "one row"
    assert look_of(40, 7, 7, RenderOptions(gap=200))[0] == 112
    assert look_of(40, 7, 7, RenderOptions(margin=900))[0] == 64


@over(
    ("options", "expected"),
    [
        ({"tile": 9}, (9, False, "bilinear")),
        ({"tile": (300, 64)}, ((300, 64), True, "nearest")),
        ({"tile": (300, 63)}, ((300, 63), False, "nearest")),
        ({"scale": 9}, (None, False, "nearest")),
        ({"scale": 13}, (None, True, "nearest")),
        ({"scale": 1}, (None, False, "bilinear")),
        ({"tile": 9, "label": True}, (9, True, "bilinear")),
        ({"label": False}, (224, False, "nearest")),
        ({"upsampling": "bilinear"}, (224, True, "bilinear")),
        ({"tile": 9, "upsampling": "nearest"}, (9, False, "nearest")),
        ({"plain": True}, (None, False, "bilinear")),
        ({"plain": True, "label": True, "upsampling": "auto"}, (None, True, "nearest")),
    ],
)
def test_settled_options_that_are_given_win(options: dict[str, Any], expected: tuple[Any, bool, str]) -> None:
    assert look_of(3, 5, 5, RenderOptions(**options)) == expected


def test_settled_leaves_every_other_option_alone() -> None:
    given = RenderOptions(gap=3, margin=1, normalize="symmetric", topk=2, colormap="gray", backend="torch", threads=3)
    found = settled(given, 3, 5, 5, over_image=False)
    changed = {name for name, value in dataclasses.asdict(given).items() if getattr(found, name) != value}
    assert changed == {"tile", "label", "upsampling"}


@over(
    ("map_h", "map_w", "tile", "expected"),
    [
        (28, 28, 224, "bilinear"),  # cells of 8 px
        (27, 27, 224, "nearest"),  # of 8.3 px
        (4, 32, (64, 224), "bilinear"),  # of 16 x 7 px
        (1, 20, 224, "nearest"),  # a single row has no cells above each other
        (1, 40, 224, "bilinear"),
        (40, 1, 224, "bilinear"),
        (1, 1, 224, "bilinear"),  # one colour either way
    ],
)
def test_settled_upsampling_goes_by_the_shorter_side_of_a_cell(
    map_h: int, map_w: int, tile: Any, expected: str
) -> None:
    options = RenderOptions(tile=tile)
    assert look_of(1, map_h, map_w, options)[2] == expected
    assert look_of(1, map_h, map_w, options, over_image=True)[2] == "bilinear"


# As drawn.


def test_render_large_cells_are_squares_of_one_colour() -> None:
    sheet = cf.render(noise(2, 4, 4), tile=64)
    for described in sheet.manifest["tiles"]:
        y0, x0, y1, x1 = described["box"]
        cells = sheet.index[y0:y1, x0:x1].reshape(4, 16, 4, 16)
        assert (cells == cells[:, :1, :, :1]).all()
    assert sheet.manifest["options"]["upsampling"] == "nearest"


def test_render_over_an_image_stays_smooth_and_above_the_grid_does_not() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    drawn = {name: cf.render(noise(2, 4, 4), tile=64, **{name: image}) for name in ("overlay", "show_input")}
    assert {name: sheet.manifest["options"]["upsampling"] for name, sheet in drawn.items()} == {
        "overlay": "bilinear", "show_input": "nearest",
    }  # fmt: skip


def test_render_default_sheet_is_apart_on_dark_grey_and_numbered() -> None:
    sheet = cf.render(noise(12, 5, 5))
    told, palette = sheet.manifest["sheet"], sheet.manifest["palette"]
    assert (told["gap"], told["margin"], told["tile_h"]) == (4, 8, 224)
    assert (told["rows"], told["cols"]) == (3, 4)
    assert told["label_h"] > 0
    assert sheet.palette[palette["background"]].tolist() == [0x20] * 3
    assert (sheet.index[:8] == palette["background"]).all()


@over(("count", "shape"), [(64, (7, 7)), (100, (7, 7)), (60, (4, 12)), (60, (12, 4))])
def test_render_grid_comes_near_the_shape_of_a_screen(count: int, shape: tuple[int, int]) -> None:
    height, width = cf.render(noise(count, *shape), tile=24, title="").index.shape
    assert SCREEN_RATIO / 1.3 < width / height < SCREEN_RATIO * 1.3
    square = cf.render(noise(count, *shape), tile=24, plain=True).index.shape
    assert 1 / 1.3 < square[1] / square[0] < 1.3


@over(("ratio", "cols"), [(1.0, 6), (1.6, 8), (4.0, 12), (0.25, 3), (1000.0, 36), (0.001, 1)])
def test_plan_grid_ratio_is_that_of_width_to_height(ratio: float, cols: int) -> None:
    assert plan_grid(36, 10, 10, ratio=ratio).cols == cols
    assert plan_grid(36, 10, 10, grid=(0, 5), ratio=ratio).cols == 5, "a grid that is given stays"


def test_render_signal_has_rows_and_a_vector_no_crosses() -> None:
    signal = cf.render(noise(5, 20))
    assert signal.manifest["sheet"]["cols"] == 1
    assert signal.manifest["options"]["upsampling"] == "nearest", "512 px for 20 values"
    assert cf.render(noise(5, 100)).manifest["options"]["upsampling"] == "bilinear"
    dead = cf.render(torch.zeros(30))
    assert [tile["flags"] for tile in dead.manifest["tiles"]] == [["flat", "dead"]] * 30
    for y0, x0, y1, x1 in (tile["box"] for tile in dead.manifest["tiles"]):
        assert (dead.index[y0:y1, x0:x1] == 0).all()


def test_save_tiles_are_of_224_px_and_show_large_cells_as_such(tmp_path: Path) -> None:
    written = cf.save_tiles(noise(300, 7, 7), tmp_path, channels="0-1")
    with Image.open(written[0]) as image:
        tile = np.asarray(image)
    assert tile.shape == (224, 224)
    cells = tile.reshape(7, 32, 7, 32)
    assert (cells == cells[:, :1, :, :1]).all()
    assert len(np.unique(tile)) > 40
