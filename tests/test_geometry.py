"""The grid, the size of tiles and the sampling positions, against numbers worked out by hand and against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.assertions import assert_same_floats

from cnnviz_fast.errors import OptionError
from cnnviz_fast.geometry import (
    SMALLEST_STRIP_PX,
    STRIPS_AT_LEAST,
    Grid,
    Room,
    Strip,
    cut_strips,
    plan_grid,
    sampling_positions,
    tile_size,
)
from cnnviz_fast.options.drawing import BY_SIZE_ALONE, PLAIN_TILE_PX


@pytest.mark.parametrize(
    ("map_size", "tile", "scale", "expected"),
    [
        ((7, 7), None, None, (224, 224)),
        ((7, 14), None, None, (112, 224)),
        ((7, 7), 100, None, (100, 100)),
        ((14, 7), 100, None, (100, 50)),
        ((3, 7), 100, None, (43, 100)),
        ((1, 500), 100, None, (1, 100)),
        ((112, 112), 56, None, (56, 56)),
        ((7, 7), (30, 20), None, (30, 20)),
        ((7, 9), None, 2.0, (14, 18)),
        ((7, 9), None, 0.5, (4, 4)),
        ((5, 3), None, 1.5, (8, 4)),
    ],
)
def test_tile_size_by_hand(
    map_size: tuple[int, int], tile: int | tuple[int, int] | None, scale: float | None, expected: tuple[int, int]
) -> None:
    assert PLAIN_TILE_PX == 224
    assert tile_size(*map_size, tile, scale) == expected


def test_tile_size_scale_below_one_pixel_is_refused() -> None:
    assert tile_size(8, 8, None, 0.1) == (1, 1)
    with pytest.raises(OptionError, match=r"^scale must leave at least 1 px, got 0\.05 for maps of 100 x 9 px\.$"):
        tile_size(100, 9, None, 0.05)


@pytest.mark.parametrize("scale", [1e9, 1e308])
def test_tile_size_scale_beyond_any_sheet_is_refused(scale: float) -> None:
    with pytest.raises(OptionError, match=r"^scale must leave at most 2,147,483,647 px, got 1e.* for maps of 7 x 9 px"):
        tile_size(7, 9, None, scale)


@pytest.mark.parametrize("too_large", [{"tile_h": 2**31}, {"tile_w": 2**30}, {"gap": 2**31}, {"margin": 2**30}])
def test_plan_grid_beyond_any_format_is_refused_with_advice(too_large: dict[str, int]) -> None:
    with pytest.raises(OptionError, match=r"^a sheet holds at most 2,147,483,647 px a side, got .* Make tile, scale, "):
        plan_grid(4, **{"tile_h": 10, "tile_w": 10, "grid": (2, 2), **too_large})


def test_plan_grid_refuses_sheets_that_no_disk_holds() -> None:
    with pytest.raises(OptionError, match=r"^a sheet holds at most 68,719,476,736 px, got 300,000,007 x 3"):
        plan_grid(16, 7, 7, gap=99_999_993)
    assert plan_grid(64, 2**15, 2**15).height == 2**18


@pytest.mark.parametrize(
    ("count", "tile", "grid", "expected"),
    [
        (2048, (224, 224), (0, 0), (45, 46)),
        (64, (10, 10), (0, 0), (8, 8)),
        (65, (10, 10), (0, 0), (8, 9)),
        (1, (10, 10), (0, 0), (1, 1)),
        (2, (10, 10), (0, 0), (1, 2)),
        (3, (10, 10), (0, 0), (2, 2)),
        (8, (10, 40), (0, 0), (4, 2)),
        (8, (40, 10), (0, 0), (2, 4)),
        (2, (1000, 1), (0, 0), (1, 2)),
        (3, (1, 1000), (0, 0), (3, 1)),
        (7, (10, 10), (2, 0), (2, 4)),
        (7, (10, 10), (0, 2), (4, 2)),
        (7, (10, 10), (3, 3), (3, 3)),
        (2, (10, 10), (5, 0), (5, 1)),
        (2, (10, 10), (0, 5), (1, 5)),
    ],
)
def test_plan_grid_by_hand(count: int, tile: tuple[int, int], grid: tuple[int, int], expected: tuple[int, int]) -> None:
    planned = plan_grid(count, *tile, grid=grid)
    assert (planned.rows, planned.cols) == expected
    assert (planned.count, planned.tile_h, planned.tile_w) == (count, *tile)


@pytest.mark.parametrize(
    ("count", "tile", "room", "expected"),
    [
        # Cells of 20 x 10 px: twice as many columns as rows.
        (8, (10, 10), Room(label_h=10), (2, 4)),
        (8, (10, 10), Room(label_w=20), (4, 2)),
        (8, (10, 10), Room(label_w=9), (3, 3)),
        # What stands above and below all tiles changes nothing.
        (9, (10, 10), Room(head=99, foot=99, least_w=999), (3, 3)),
        (2048, (7, 7), Room(label_h=17, label_w=34), (53, 39)),
    ],
)
def test_plan_grid_makes_cells_with_their_labels_a_square(
    count: int, tile: tuple[int, int], room: Room, expected: tuple[int, int]
) -> None:
    grid = plan_grid(count, *tile, room=room)
    assert (grid.rows, grid.cols) == expected
    assert tuple(getattr(grid, name) for name in Room._fields) == room


@pytest.mark.parametrize(
    ("count", "tile", "ratio", "expected"),
    [
        (1, (10, 10), 1.6, (1, 1)),
        (3, (10, 10), 1.6, (1, 3)),
        (64, (10, 10), 1.6, (6, 11)),
        (64, (10, 10), 4.0, (4, 16)),
        (64, (10, 10), 0.25, (16, 4)),
        (12, (10, 10), 1.6, (3, 4)),  # five columns fit a screen better, of which three rows need four
        (8, (10, 40), 2.0, (4, 2)),
    ],
)
def test_plan_grid_comes_near_a_ratio_of_width_to_height(
    count: int, tile: tuple[int, int], ratio: float, expected: tuple[int, int]
) -> None:
    grid = plan_grid(count, *tile, ratio=ratio)
    assert (grid.rows, grid.cols) == expected


def test_plan_grid_too_small_is_refused_with_advice() -> None:
    message = (
        r"^grid must hold all 7 channels, got 2x3 = 6 cells\. Take grid 'auto' or 'x3', or choose fewer channels\.$"
    )
    with pytest.raises(OptionError, match=message):
        plan_grid(7, 10, 10, grid=(2, 3))


@given(
    count=st.integers(1, 5000),
    tile_h=st.integers(1, 500),
    tile_w=st.integers(1, 500),
    grid=st.sampled_from([(0, 0), (0, 3), (2, 0)]),
    gap=st.integers(0, 9),
    margin=st.integers(0, 9),
)
def test_plan_grid_every_tile_lies_inside_and_apart(
    count: int, tile_h: int, tile_w: int, grid: tuple[int, int], gap: int, margin: int
) -> None:
    planned = plan_grid(count, tile_h, tile_w, grid=grid, gap=gap, margin=margin)
    assert planned.rows * planned.cols >= count
    if grid == (0, 0):
        assert (planned.rows - 1) * planned.cols < count, "an empty row"
    assert planned.origin(0) == (margin, margin)
    origins = [planned.origin(position) for position in range(count)]
    assert len(set(origins)) == count
    assert max(y for y, _ in origins) + tile_h <= planned.height - margin
    assert max(x for _, x in origins) + tile_w <= planned.width - margin
    assert all((y - margin) % (tile_h + gap) == 0 and (x - margin) % (tile_w + gap) == 0 for y, x in origins)


def test_grid_sides_and_origins_by_hand() -> None:
    grid = Grid(count=5, rows=2, cols=3, tile_h=10, tile_w=20, gap=2, margin=4)
    assert (grid.height, grid.width) == (4 + 10 + 2 + 10 + 4, 4 + 20 + 2 + 20 + 2 + 20 + 4)
    assert [grid.origin(i) for i in range(5)] == [(4, 4), (4, 26), (4, 48), (16, 4), (16, 26)]


@pytest.mark.parametrize(
    ("room", "size", "origins"),
    [
        (Room(label_h=7), (4 + 2 * 17 + 2 + 4, 72), [(11, 4), (11, 26), (11, 48), (30, 4), (30, 26)]),
        (Room(label_w=25), (30, 4 + 3 * 25 + 4 + 4), [(4, 4), (4, 31), (4, 58), (16, 4), (16, 31)]),
        (Room(label_w=20), (30, 72), [(4, 4), (4, 26), (4, 48), (16, 4), (16, 26)]),
        (Room(head=9, foot=5), (30 + 14, 72), [(13, 4), (13, 26), (13, 48), (25, 4), (25, 26)]),
        (Room(least_w=64), (30, 72), [(4, 4), (4, 26), (4, 48), (16, 4), (16, 26)]),
        (Room(least_w=65), (30, 73), [(4, 4), (4, 26), (4, 48), (16, 4), (16, 26)]),
    ],
)
def test_grid_with_room_for_text_by_hand(room: Room, size: tuple[int, int], origins: list[tuple[int, int]]) -> None:
    grid = Grid(5, 2, 3, 10, 20, 2, 4, *room)
    assert (grid.height, grid.width) == size
    assert [grid.origin(position) for position in range(5)] == origins
    assert grid.boxes() == [[y, x, y + 10, x + 20] for y, x in origins]
    assert grid.shows_background


@pytest.mark.parametrize(
    ("count", "gap", "margin", "expected"),
    [(6, 0, 0, False), (5, 0, 0, True), (6, 1, 0, True), (6, 0, 1, True)],
)
def test_shows_background_where_a_pixel_belongs_to_no_tile(count: int, gap: int, margin: int, expected: bool) -> None:
    assert Grid(count, 2, 3, 4, 4, gap, margin).shows_background is expected


def test_shows_background_single_tile_with_gap_has_none() -> None:
    assert not Grid(1, 1, 1, 4, 4, gap=5).shows_background


@pytest.mark.parametrize(
    ("rows", "expected"), [(4, [(0, 4), (4, 8), (8, 10)]), (10, [(0, 10)]), (99, [(0, 10)]), (5, [(0, 5), (5, 10)])]
)
def test_strips_cover_every_row_once(rows: int, expected: list[tuple[int, int]]) -> None:
    assert Grid(1, 1, 1, 10, 3).strips(rows) == [Strip(*ends) for ends in expected]


@pytest.mark.parametrize(
    ("align", "n", "size", "expected"),
    [
        ("left", 2, 4, [0, 0.5, 1, 1]),
        ("center", 2, 4, [0, 0.25, 0.75, 1]),
        ("corners", 2, 4, [0, 1 / 3, 2 / 3, 1]),
        ("left", 3, 6, [0, 0.5, 1, 1.5, 2, 2]),
        ("center", 3, 6, [0, 0.25, 0.75, 1.25, 1.75, 2]),
        ("corners", 3, 5, [0, 0.5, 1, 1.5, 2]),
        ("left", 4, 4, [0, 1, 2, 3]),
        ("center", 4, 4, [0, 1, 2, 3]),
        ("corners", 4, 4, [0, 1, 2, 3]),
        ("left", 4, 2, [0, 2]),
        ("center", 4, 2, [0.5, 2.5]),
        ("corners", 4, 2, [0, 3]),
        ("left", 1, 3, [0, 0, 0]),
        ("center", 1, 3, [0, 0, 0]),
        ("corners", 1, 3, [0, 0, 0]),
        ("left", 5, 1, [0]),
        ("center", 5, 1, [2]),
        ("corners", 5, 1, [0]),
    ],
)
def test_sampling_positions_by_hand(align: str, n: int, size: int, expected: list[float]) -> None:
    positions = sampling_positions(n, size, align)
    np.testing.assert_array_equal(positions.index, np.floor(expected))
    np.testing.assert_array_equal(positions.fraction, np.float32(np.array(expected) % 1))


@pytest.mark.parametrize(
    ("align", "n", "size", "expected"),
    [
        ("left", 2, 4, [0, 0, 1, 1]),
        ("center", 2, 4, [0, 0, 1, 1]),
        ("corners", 2, 4, [0, 0, 1, 1]),
        ("left", 3, 7, [0, 0, 0, 1, 1, 2, 2]),
        # (d + 0.5) * 3/7: 0.21, 0.64, 1.07, 1.5, 1.93, 2.36, 2.79
        ("center", 3, 7, [0, 0, 1, 1, 1, 2, 2]),
        # d * 2/6 + 0.5: 0.5, 0.83, 1.17, 1.5, 1.83, 2.17, 2.5
        ("corners", 3, 7, [0, 0, 1, 1, 1, 2, 2]),
        ("left", 4, 2, [0, 2]),
        ("center", 4, 2, [1, 3]),
    ],
)
def test_sampling_positions_nearest_by_hand(align: str, n: int, size: int, expected: list[int]) -> None:
    positions = sampling_positions(n, size, align, "nearest")
    assert positions.index.tolist() == expected
    assert not positions.fraction.any()


@pytest.mark.parametrize(("align", "align_corners"), [("center", False), ("corners", True)])
@pytest.mark.parametrize(("n", "size"), [(7, 224), (56, 224), (14, 33), (5, 7), (9, 4), (2, 2)])
def test_sampling_positions_equal_those_of_torch(n: int, size: int, align: str, align_corners: bool) -> None:
    # Interpolating the row numbers themselves gives the positions back.
    ramp = torch.arange(n, dtype=torch.float64)[None, None, None]
    expected = torch.nn.functional.interpolate(ramp, size=(1, size), mode="bilinear", align_corners=align_corners)
    positions = sampling_positions(n, size, align)
    assert_same_floats((positions.index + positions.fraction).astype(np.float32), expected[0, 0, 0])


@given(
    n=st.integers(1, 3000),
    size=st.integers(1, 3000),
    align=st.sampled_from(BY_SIZE_ALONE),
    upsampling=st.sampled_from(["bilinear", "nearest"]),
)
def test_sampling_positions_stay_inside_and_go_upwards(n: int, size: int, align: str, upsampling: str) -> None:
    positions = sampling_positions(n, size, align, upsampling)
    assert (positions.index.dtype, positions.fraction.dtype) == (np.int32, np.float32)
    assert positions.index.shape == positions.fraction.shape == (size,)
    assert positions.index.min() >= 0
    assert positions.index.max() <= n - 1
    assert positions.fraction.min() >= 0
    assert positions.fraction.max() < 1
    assert not positions.fraction[positions.index == n - 1].any(), "beyond the last sample"
    assert (np.diff(positions.index + positions.fraction.astype(np.float64)) >= 0).all()
    if n == size:
        assert positions.index.tolist() == list(range(n))


@given(n=st.integers(1, 200), factor=st.integers(1, 20), align=st.sampled_from(["left", "center"]))
def test_sampling_positions_nearest_at_whole_factors_repeats_every_row_equally(n: int, factor: int, align: str) -> None:
    positions = sampling_positions(n, n * factor, align, "nearest")
    assert positions.index.tolist() == [row for row in range(n) for _ in range(factor)]


@pytest.mark.parametrize("size", [(1, 1), (7, 100_000), (100, 100), (3000, 500), (10_080, 10_304), (30_000, 30_000)])
@pytest.mark.parametrize("strip_px", [1 << 16, 1 << 20])
def test_cut_strips_cover_the_sheet_in_pieces_of_bounded_size(size: tuple[int, int], strip_px: int) -> None:
    height, width = size
    strips = cut_strips(height, width, strip_px)
    assert [s.start for s in strips] == [0, *(s.stop for s in strips[:-1])]
    assert strips[-1].stop == height
    rows = strips[0].stop
    assert rows == 1 or rows * width <= strip_px
    if height * width >= STRIPS_AT_LEAST * SMALLEST_STRIP_PX and height >= STRIPS_AT_LEAST:
        assert len(strips) >= STRIPS_AT_LEAST
    elif rows < height:
        assert (rows + 1) * width > min(strip_px, SMALLEST_STRIP_PX)


def test_sampling_positions_are_computed_once() -> None:
    assert sampling_positions(7, 56, "center") is sampling_positions(7, 56, "center")
    assert sampling_positions(7, 56, "center") is not sampling_positions(7, 56, "center", "nearest")
