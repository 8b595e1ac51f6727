"""Marks: which tiles are crossed out and framed, the pixels of both, the same by every backend and in every file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.assertions import assert_equal_planes, assert_strips_of_any_height_give_the_same
from support.cases import INF, NAN, noise
from support.looping import over

import cnnviz_fast as cf
from cnnviz_fast.geometry import Grid
from cnnviz_fast.options.drawing import RenderOptions
from cnnviz_fast.palette import make_palette
from cnnviz_fast.provenance import Provenance
from cnnviz_fast.sheets.marks import place_marks
from cnnviz_fast.sheets.plan import plan_sheet

Plane = NDArray[np.uint8]

SMALL_CROSS = [[1, 0, 0, 0, 1], [0, 1, 0, 1, 0], [0, 0, 1, 0, 0], [0, 1, 0, 1, 0], [1, 0, 0, 0, 1]]

DEAD, FLAT, ALIVE, WITH_NAN, WITH_INF = range(5)


def odd() -> torch.Tensor:
    """Return a channel of each kind, (5, 4, 4) float32."""
    maps = noise(5, 4, 4)
    maps[DEAD], maps[FLAT] = 0, 2.5
    maps[WITH_NAN], maps[WITH_INF] = 0, 2.5
    maps[WITH_NAN, 1, 1], maps[WITH_INF, 2, 3] = NAN, INF
    return maps


def tiles_of(sheet: cf.Sheet) -> list[Plane]:
    boxes = [tile["box"] for tile in sheet.manifest["tiles"]]
    return [sheet.index[y0:y1, x0:x1] for y0, x0, y1, x1 in boxes]


def crossed_tiles(sheet: cf.Sheet) -> list[int]:
    """Return the positions of the tiles that hold nothing but a small cross."""
    colors = sheet.colors
    found = []
    for position, tile in enumerate(tiles_of(sheet)):
        expected = np.full(tile.shape, colors.background)
        y, x = (tile.shape[0] - 5) // 2, (tile.shape[1] - 5) // 2
        expected[y : y + 5, x : x + 5] = np.where(SMALL_CROSS, colors.ink, colors.background)
        found += [position] * np.array_equal(tile, expected)
    return found


def framed_tiles(sheet: cf.Sheet, width: int) -> list[int]:
    """Return the positions of the tiles with a frame of `width` px around them."""
    found = []
    for position, (y0, x0, y1, x1) in enumerate(tile["box"] for tile in sheet.manifest["tiles"]):
        around = sheet.index[y0 - width : y1 + width, x0 - width : x1 + width] == sheet.colors.ink
        around[width:-width, width:-width] = True
        found += [position] * bool(around.all() and sheet.colors.ink != sheet.colors.background)
    return found


# Crosses.


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [DEAD, FLAT]),
        ({"normalize": "percentile"}, [DEAD, FLAT]),
        ({"normalize": "symmetric"}, [DEAD, FLAT]),
        ({"normalize": "layer"}, [DEAD]),
        ({"normalize": "sigmoid"}, [DEAD]),
        ({"normalize": "fixed", "vmin": -1, "vmax": 3}, [DEAD]),
        ({"marks": False}, []),
        ({"plain": True}, []),
        ({"plain": True, "marks": True}, [DEAD, FLAT]),
        ({"channels": f"{ALIVE},{FLAT}"}, [1]),
        ({"topk": 1, "rank": "max"}, [0]),
        ({"label": True, "gap": 0, "margin": 0}, [DEAD, FLAT]),
    ],
    ids=str,
)
def test_render_crosses_out_what_holds_one_value_and_has_no_range(options: dict[str, Any], expected: list[int]) -> None:
    assert crossed_tiles(cf.render(odd(), **{"tile": 20, "bad": "red", **options})) == expected


def test_render_crossed_channel_is_still_described_by_the_manifest() -> None:
    marked, plain = (cf.render(odd(), tile=20, marks=marks).manifest["tiles"] for marks in (True, False))
    assert marked == plain
    assert marked[DEAD]["flags"] == ["flat", "dead"]


def test_render_tiles_that_are_not_crossed_are_drawn_as_without_marks() -> None:
    sheets = [cf.render(odd(), tile=20, colormap="gray", label=True, marks=marks) for marks in (True, False)]
    marked, plain = (tiles_of(sheet)[ALIVE:] for sheet in sheets)
    for ours, theirs in zip(marked, plain, strict=True):
        assert_equal_planes(ours, theirs)


def test_render_without_anything_to_cross_out_takes_no_colours_for_it() -> None:
    options = {"tile": 20, "plain": True, "grid": "x1"}
    assert cf.render(noise(3, 4, 4), marks=True, **options).colors.levels == 256
    assert cf.render(torch.zeros(3, 4, 4), marks=True, **options).colors.levels < 256


@over("colormap", ["viridis", "gray"])
@over(("background", "ink"), [("#202020", 255), ("white", 0)])
def test_render_cross_has_the_ink_that_the_background_needs(colormap: str, background: str, ink: int) -> None:
    sheet = cf.render(odd(), tile=20, background=background, colormap=colormap)
    colors = np.unique(sheet.palette[tiles_of(sheet)[DEAD]].reshape(-1, 3), axis=0).tolist()
    assert sorted(colors) == sorted([[ink] * 3, sheet.palette[sheet.colors.background].tolist()])


@over(
    ("tile_h", "tile_w", "side", "stroke"),
    [(1, 1, 1, 1), (3, 9, 3, 1), (9, 9, 5, 1), (40, 48, 5, 1), (64, 300, 8, 1), (224, 224, 28, 3), (448, 448, 56, 7)],
)
def test_place_marks_cross_is_an_eighth_of_the_tile_in_its_middle(
    tile_h: int, tile_w: int, side: int, stroke: int
) -> None:
    palette = make_palette("gray", background="#202020", shows_background=True, shows_bad=False, shows_ink=True)
    (block,) = place_marks(Grid(1, 1, 1, tile_h, tile_w, gap=4, margin=8), palette, [0], [])
    assert (block.y, block.x, block.entries.shape) == (8, 8, (tile_h, tile_w))
    inked = block.entries == palette.ink
    assert (block.entries[~inked] == palette.background).all()
    rows, cols = (np.flatnonzero(inked.any(axis=axis)) for axis in (1, 0))
    for lines, size in ((rows, tile_h), (cols, tile_w)):
        assert (len(lines), lines[-1] - lines[0] + 1) == (side, side)
        assert lines[0] == (size - side) // 2
    cross = inked[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    assert_equal_planes(cross.astype(np.uint8), cross[::-1, ::-1].astype(np.uint8))
    assert_equal_planes(cross.astype(np.uint8), cross.T.astype(np.uint8))
    assert cross.diagonal().all()
    assert cross[side // 4].sum() == (1 if side == 1 else 2 * stroke)


def test_place_marks_many_crosses_share_their_pixels() -> None:
    palette = make_palette("gray", shows_background=True, shows_bad=False, shows_ink=True)
    grid = Grid(500, 20, 25, 32, 32, gap=4, margin=8)
    blocks = place_marks(grid, palette, range(500), [])
    assert len({id(block.entries) for block in blocks}) == 1
    assert [(block.y, block.x) for block in blocks] == [grid.origin(position) for position in range(500)]


# Frames.


@pytest.mark.parametrize(
    ("options", "expected", "width"),
    [
        ({"reduce": "sum,max", "beside": True}, [0, 1], 2),
        ({"reduce": "sum", "beside": True, "gap": 1}, [0], 1),
        ({"reduce": "sum", "beside": True, "gap": 9, "margin": 1}, [0], 1),
        ({"reduce": "sum", "beside": True, "label": True}, [0], 2),
        ({"reduce": "sum", "beside": True, "marks": False}, [], 1),
        ({"reduce": "sum,max"}, [], 1),
        ({}, [], 1),
    ],
    ids=str,
)
def test_render_frames_reductions_beside_channels(
    maps: torch.Tensor, options: dict[str, Any], expected: list[int], width: int
) -> None:
    sheet = cf.render(maps, tile=20, title="", **options)
    assert framed_tiles(sheet, width) == expected
    assert not framed_tiles(cf.render(maps, tile=20, title="", **{**options, "gap": 4, "margin": 8}), 3)


@pytest.mark.parametrize("room", [{"gap": 0}, {"margin": 0}])
def test_render_without_a_gap_or_a_margin_has_no_frame(maps: torch.Tensor, room: dict[str, Any]) -> None:
    sheet = cf.render(maps, tile=20, title="", reduce="sum", beside=True, **room)
    assert sheet.colors.ink not in (sheet.colors.background, *np.unique(sheet.index))


def test_render_frame_leaves_tiles_and_labels_as_they_are(maps: torch.Tensor) -> None:
    options = {"tile": 64, "title": "", "reduce": "sum", "beside": True, "colormap": "gray"}
    marked, bare = (cf.render(maps, marks=marks, **options) for marks in (True, False))
    differs = marked.index != bare.index
    y0, x0, y1, x1 = marked.manifest["tiles"][0]["box"]
    frame = np.zeros_like(differs)
    frame[y0 - 2 : y1 + 2, x0 - 2 : x1 + 2] = True
    frame[y0:y1, x0:x1] = False
    assert_equal_planes(differs.astype(np.uint8), frame.astype(np.uint8))


# Backends, strips and files.


def marked_options(**more: Any) -> dict[str, Any]:
    """Return options with which the odd channels make crosses, a frame, labels and a title."""
    return {"tile": (20, 28), "label": True, "reduce": "max", "beside": True, "colormap": "magma", **more}


@pytest.mark.parametrize("backend", ["native", "numba", "torch"])
def test_render_every_backend_marks_the_same(backend: str) -> None:
    expected = cf.render(odd(), backend="reference", **marked_options())
    sheet = cf.render(odd(), backend=backend, **marked_options())
    if backend == "torch":  # which may round a value in another way
        marks = expected.index >= expected.colors.levels
        assert_equal_planes(sheet.index[marks], expected.index[marks])
    else:
        assert_equal_planes(sheet.index, expected.index)


@pytest.mark.parametrize("overlay", [False, True])
@pytest.mark.parametrize("colormap", ["magma", "gray"])
@pytest.mark.parametrize("backend", ["native", "numba", "reference"])
def test_save_sheet_file_shows_the_marks(backend: str, colormap: str, overlay: bool, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 28, 3), dtype=np.uint8) if overlay else None
    options = marked_options(overlay=image, threads=2, colormap=colormap)
    expected = cf.render(odd(), backend="reference", **options).rgb()
    with Image.open(cf.save_sheet(odd(), tmp_path / "sheet.png", backend=backend, **options)) as written:
        assert_equal_planes(np.asarray(written.convert("RGB")), expected)


def test_save_sheet_strips_that_cut_a_cross_and_a_frame_show_them_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnviz_fast.geometry.SMALLEST_STRIP_PX", 1)
    monkeypatch.setattr("cnnviz_fast.formats.png.STRIP_PX", 1)
    expected = cf.render(odd(), **marked_options()).rgb()
    with Image.open(cf.save_sheet(odd(), tmp_path / "sheet.png", backend="numba", **marked_options())) as written:
        assert_equal_planes(np.asarray(written.convert("RGB")), expected)


def test_draw_strips_of_any_height_give_the_same_marks() -> None:
    assert_strips_of_any_height_give_the_same(plan_sheet(odd(), RenderOptions(**marked_options()), Provenance()))


@pytest.mark.parametrize("colormap", ["viridis", "gray"])
def test_render_cross_hides_the_image_under_it(colormap: str) -> None:
    image = np.full((20, 20, 3), (10, 120, 250), np.uint8)
    sheet = cf.render(odd(), tile=20, overlay=image, alpha=0, colormap=colormap)
    shown = sheet.rgb()
    for position, described in enumerate(sheet.manifest["tiles"]):
        y0, x0, y1, x1 = described["box"]
        colors = np.unique(shown[y0:y1, x0:x1].reshape(-1, 3), axis=0).tolist()
        if position in (DEAD, FLAT):
            assert colors == [[0x20] * 3, [0xFF] * 3]
        else:
            assert [10, 120, 250] in colors


def test_save_tiles_has_no_marks(tmp_path: Path) -> None:
    written = cf.save_tiles(odd(), tmp_path, channels=str(DEAD), tile=20)
    with Image.open(written[0]) as image:
        assert not np.asarray(image).any()


def test_compare_crosses_out_what_is_dead_in_the_one_and_draws_it_in_the_other() -> None:
    dead, alive = noise(2, 4, 4), noise(2, 4, 4)
    dead[0] = 0
    for options in ({}, {"title": ""}):
        for a, b, expected in ((dead, alive, [0]), (alive, dead, [2])):
            pair = cf.compare(a, b, tile=20, **options).pair
            assert crossed_tiles(pair) == expected
            shown = pair.rgb()[:, pair.manifest["sheet"]["width"] // 2 :]
            assert (shown[-8:] == 0x20).all(), "both halves are of one palette"


def test_compare_crosses_out_what_did_not_change() -> None:
    a = noise(3, 4, 4)
    b = a.clone()
    b[1] += noise(4, 4)
    assert crossed_tiles(cf.compare(a, b, tile=20).difference) == [0, 2]
