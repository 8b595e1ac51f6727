"""The main path: each parameter changes what it should, every backend draws every case, the manifest is true."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.assertions import assert_equal_planes, assert_same_floats, assert_same_plane, assert_same_statistics
from support.cases import CASES, INF, NAN, noise
from support.looping import case, over
from support.plain import render, save_sheet

import cnnviz_fast as cf
from cnnviz_fast.channels.dataset import LayerStatistics
from cnnviz_fast.errors import BackendUnavailableError, DTypeError, EncodeError, OptionError, ShapeError
from cnnviz_fast.formats import picture as formats
from cnnviz_fast.kernels import numba_cpu
from cnnviz_fast.kernels.backends import BACKENDS, choose
from cnnviz_fast.options.drawing import BY_SIZE_ALONE, NORMALIZATIONS, RenderOptions
from cnnviz_fast.provenance import Provenance
from cnnviz_fast.sheets.sheet import Sheet

Plane = NDArray[np.uint8]
ON_CPU = [name for name, backend in BACKENDS.items() if backend.takes("cpu")]
MAIN_PATH = importlib.import_module("cnnviz_fast.sheets.render")  # the package's own `render` is the function

# Which test shows that a parameter changes what it says: parameter -> test. A test below asks for one of each.
SHOWN: dict[str, Callable[..., None]] = {}


def shows(parameter: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def register(test: Callable[..., None]) -> Callable[..., None]:
        SHOWN[parameter] = test
        return test

    return register


def tile_of(sheet: Sheet, position: int = 0) -> Plane:
    """Cut out the tile at a position, by its box in the manifest."""
    y0, x0, y1, x1 = sheet.manifest["tiles"][position]["box"]
    return sheet.index[y0:y1, x0:x1]


def drawn_1_to_1(maps: torch.Tensor, low: Any, high: Any, levels: int = 256) -> Plane:
    """Compute what tiles of the maps' own size show on a range, (C, H, W) uint8."""
    values = maps.numpy()
    low, high = (np.asarray(side, np.float32).reshape(-1, 1, 1) for side in (low, high))
    values = ((values - low) / (high - low)).clip(0, 1)
    return np.floor(values * np.float32(levels - 1) + np.float32(0.5)).astype(np.uint8)


def statistics_of(*images: torch.Tensor) -> LayerStatistics:
    statistics = LayerStatistics(len(images[0]))
    statistics.update(torch.stack(images))
    return statistics


def tiles_of(sheet: Sheet) -> Plane:
    return np.stack([tile_of(sheet, position) for position in range(len(sheet.manifest["tiles"]))])


def test_render_every_parameter_has_a_test_that_shows_what_it_does() -> None:
    parameters = set(inspect.signature(render).parameters) - {"maps"}
    own = {"axes", "planes", "provenance", "field", "overlay", "alpha", "show_input", "statistics"}
    assert parameters == {field.name for field in dataclasses.fields(RenderOptions)} | own
    assert set(SHOWN) == parameters


@shows("tile")
def test_render_tile_sets_the_longer_side_or_both(maps: torch.Tensor) -> None:
    assert tile_of(render(maps[:1])).shape == (160, 224)
    assert tile_of(render(maps[:1], tile=70)).shape == (50, 70)
    assert tile_of(render(maps[:1], tile=(33, 44))).shape == (33, 44)
    assert render(maps, tile=(33, 44), grid="2x3").index.shape == (66, 132)


@shows("scale")
def test_render_scale_multiplies_the_size_of_the_maps(maps: torch.Tensor) -> None:
    sheet = render(maps, scale=3, grid="1x")
    assert tile_of(sheet).shape == (15, 21)
    assert_equal_planes(sheet.index, render(maps, tile=(15, 21), grid="1x").index)


@shows("grid")
def test_render_grid_sets_rows_and_columns(maps: torch.Tensor) -> None:
    shapes = {grid: render(maps, tile=(5, 7), grid=grid).index.shape for grid in ("2x3", "1x", "x1", "4x4")}
    assert shapes == {"2x3": (10, 21), "1x": (5, 42), "x1": (30, 7), "4x4": (20, 28)}


@shows("plain")
def test_render_plain_draws_tiles_alone(maps: torch.Tensor) -> None:
    sheet = cf.render(maps, tile=(5, 7), plain=True)
    assert sheet.index.shape == (2 * 5, 3 * 7)
    assert_equal_planes(sheet.index, tiles_of(sheet).reshape(2, 3, 5, 7).swapaxes(1, 2).reshape(10, 21))
    assert cf.render(maps, tile=(5, 7)).index.size > sheet.index.size


@shows("marks")
def test_render_marks_cross_out_what_is_dead(maps: torch.Tensor) -> None:
    maps[2] = 0
    without, marked = (render(maps, tile=(30, 42), marks=marks) for marks in (False, True))
    assert len(np.unique(tile_of(without, 2))) == 1
    assert len(np.unique(tile_of(marked, 2))) == 2
    assert not set(np.unique(tile_of(marked, 2))) & set(range(marked.colors.levels))


@shows("show_input")
def test_render_show_input_stands_above_the_grid(maps: torch.Tensor) -> None:
    image = np.full((56, 112, 3), (10, 120, 250), np.uint8)
    sheet = render(maps, tile=(5, 7), show_input=image)
    assert (sheet.rgb()[:56, :112] == image).all()
    assert min(tile["box"][0] for tile in sheet.manifest["tiles"]) > 56


@shows("overlay")
def test_render_overlay_lies_under_every_tile(maps: torch.Tensor) -> None:
    photo = np.full((5, 7, 3), (10, 120, 250), np.uint8)
    plain, over = (render(maps, tile=(5, 7), overlay=overlay).rgb() for overlay in (None, photo))
    assert_equal_planes(over, ((plain.astype(int) + photo[0, 0] + 1) // 2).astype(np.uint8))


@shows("alpha")
def test_render_alpha_is_the_weight_of_the_maps(maps: torch.Tensor) -> None:
    photo = np.full((5, 7, 3), 200, np.uint8)
    colors = render(maps, tile=(5, 7)).rgb()
    assert_equal_planes(render(maps, tile=(5, 7), overlay=photo, alpha=1).rgb(), colors)
    assert (render(maps, tile=(5, 7), overlay=photo, alpha=0).rgb() == 200).all()
    quarter = render(maps, tile=(5, 7), overlay=photo, alpha=0.25).rgb()
    assert_equal_planes(quarter, np.floor(0.25 * colors + 0.75 * 200 + 0.5).astype(np.uint8))


@shows("gap")
def test_render_gap_separates_tiles_by_background(maps: torch.Tensor) -> None:
    plain, apart = (render(maps, tile=(5, 7), grid="2x3", gap=gap, colormap="gray") for gap in (0, 2))
    assert apart.index.shape == (5 + 2 + 5, 7 + 2 + 7 + 2 + 7)
    assert_equal_planes(tiles_of(apart), tiles_of(plain))
    assert not apart.index[5:7].any()
    assert not apart.index[:, [7, 8, 16, 17]].any()


@shows("margin")
def test_render_margin_surrounds_the_grid_by_background(maps: torch.Tensor) -> None:
    plain, framed = (render(maps, tile=(5, 7), grid="2x3", margin=m, colormap="gray") for m in (0, 3))
    assert framed.index.shape == (10 + 6, 21 + 6)
    assert_equal_planes(framed.index[3:-3, 3:-3], plain.index)
    frame = framed.index.copy()
    frame[3:-3, 3:-3] = 0
    assert not frame.any()


@shows("normalize")
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_render_normalize_sets_the_range_of_every_channel(maps: torch.Tensor, normalize: str) -> None:
    low, high = maps.amin((1, 2)), maps.amax((1, 2))
    options, shown = {}, maps
    if normalize == "layer":
        low, high = low.min().expand(6), high.max().expand(6)
    elif normalize == "percentile":
        low, high = (torch.from_numpy(np.percentile(maps.flatten(1), p, axis=1)).float() for p in (1, 99))
    elif normalize == "symmetric":
        high = torch.maximum(-low, high)
        low = -high
    elif normalize == "sigmoid":
        low, high, shown = torch.zeros(6), torch.ones(6), maps.sigmoid()
    elif normalize == "fixed":
        low, high, options = torch.full((6,), -1.5), torch.full((6,), 2.5), {"vmin": -1.5, "vmax": 2.5}
    elif normalize == "dataset":
        low, high, options = 3 * low, 3 * high, {"statistics": statistics_of(maps, 3 * maps)}
    sheet = render(maps, scale=1, grid="2x3", normalize=normalize, **options)
    assert_same_plane(tiles_of(sheet), drawn_1_to_1(shown, low, high))
    assert_same_floats(np.float32([tile["vmin"] for tile in sheet.manifest["tiles"]]), low)
    assert_same_floats(np.float32([tile["vmax"] for tile in sheet.manifest["tiles"]]), high)


@shows("statistics")
def test_render_statistics_give_every_sheet_of_a_set_one_scale(maps: torch.Tensor) -> None:
    statistics = statistics_of(maps, 3 * maps)
    for image in (maps, 3 * maps):
        sheet = render(image, scale=1, grid="2x3", normalize="dataset", statistics=statistics)
        assert_same_plane(tiles_of(sheet), drawn_1_to_1(image, 3 * maps.amin((1, 2)), 3 * maps.amax((1, 2))))


@shows("vmin")
def test_render_vmin_is_the_value_of_the_first_level(maps: torch.Tensor) -> None:
    for vmin in (-2.0, 0.5):
        sheet = render(maps, scale=1, grid="2x3", normalize="fixed", vmin=vmin, vmax=3)
        assert_same_plane(tiles_of(sheet), drawn_1_to_1(maps, vmin, 3))
        assert ((tiles_of(sheet) == 0) >= (maps.numpy() <= vmin)).all()


@shows("vmax")
def test_render_vmax_is_the_value_of_the_last_level(maps: torch.Tensor) -> None:
    for vmax in (0.5, 2.0):
        sheet = render(maps, scale=1, grid="2x3", normalize="fixed", vmin=-3, vmax=vmax)
        assert_same_plane(tiles_of(sheet), drawn_1_to_1(maps, -3, vmax))
        assert ((tiles_of(sheet) == 255) >= (maps.numpy() >= vmax)).all()


@shows("percentile")
def test_render_percentile_cuts_off_both_tails(maps: torch.Tensor) -> None:
    for ends in ((10, 90), (40, 100)):
        low, high = np.percentile(maps.flatten(1), ends, axis=1)
        sheet = render(maps, scale=1, grid="2x3", normalize="percentile", percentile=ends)
        assert_same_plane(tiles_of(sheet), drawn_1_to_1(maps, low, high))


@shows("align")
def test_render_align_moves_the_samples() -> None:
    rows = {
        align: render(np.array([[[0.0, 1.0]]]), tile=(1, 4), align=align).index[0].tolist() for align in BY_SIZE_ALONE
    }
    assert rows == {"left": [0, 128, 255, 255], "center": [0, 64, 191, 255], "corners": [0, 85, 170, 255]}


@shows("field")
def test_render_field_places_the_samples_in_the_input() -> None:
    field = cf.ReceptiveField(size=(3, 3), stride=(2.0, 2.0), offset=(0.0, 0.0), input_size=(2, 4))
    sheet = render(np.array([[[0.0, 1.0]]]), tile=(1, 4), align="field", field=field)
    assert sheet.index[0].tolist() == render(np.array([[[0.0, 1.0]]]), tile=(1, 4), align="left").index[0].tolist()
    assert sheet.manifest["field"]["stride"] == [2.0, 2.0]


@shows("upsampling")
def test_render_upsampling_nearest_shows_the_cells_of_the_map(maps: torch.Tensor) -> None:
    cells = tiles_of(render(maps, scale=1))
    sheet = render(maps, scale=4, upsampling="nearest")
    assert_equal_planes(tiles_of(sheet), cells.repeat(4, axis=1).repeat(4, axis=2))
    assert len(np.unique(tiles_of(render(maps, scale=4)))) > len(np.unique(cells))


def test_render_upsampling_nearest_picks_samples_where_a_tile_is_smaller() -> None:
    maps = noise(1, 8, 8)
    sheet = render(maps, tile=4, align="left", upsampling="nearest")
    assert_equal_planes(sheet.index, render(maps, scale=1).index[::2, ::2])


@shows("colormap")
def test_render_colormap_changes_the_palette_and_no_pixel(maps: torch.Tensor) -> None:
    viridis, magma = render(maps, scale=2), render(maps, scale=2, colormap="magma")
    assert_equal_planes(viridis.index, magma.index)
    assert viridis.palette[[0, 255]].tolist() == [[68, 1, 84], [253, 231, 37]]
    assert magma.palette[[0, 255]].tolist() == [[0, 0, 4], [252, 253, 191]]


@shows("background")
def test_render_background_is_the_colour_between_tiles(maps: torch.Tensor) -> None:
    for name, rgb in {"black": [0, 0, 0], "#0a141e": [10, 20, 30]}.items():
        sheet = render(maps, scale=1, grid="2x4", gap=1, margin=1, background=name)
        pixels = sheet.rgb()
        assert pixels[0, 0].tolist() == pixels[6, 8].tolist() == pixels[8, -2].tolist() == rgb
        assert sheet.manifest["palette"]["levels"] == 255


@shows("bad")
def test_render_bad_is_the_colour_of_what_is_not_finite(maps: torch.Tensor) -> None:
    maps[0, 2, 3], maps[1, 0, 0] = NAN, INF
    for name, rgb in {"magenta": [255, 0, 255], "#00ff00": [0, 255, 0]}.items():
        sheet = render(maps, scale=1, grid="1x", bad=name)
        tiles = sheet.palette[tiles_of(sheet)]
        assert (tiles == rgb).all(axis=-1).nonzero()[0].tolist() == [0, 1]
        assert tiles[0, 2, 3].tolist() == tiles[1, 0, 0].tolist() == rgb


@shows("channels")
def test_render_channels_draws_those_in_that_order(maps: torch.Tensor) -> None:
    every = tiles_of(render(maps, scale=2))
    sheet = render(maps, scale=2, channels="4,0-1,4")
    assert [tile["channel"] for tile in sheet.manifest["tiles"]] == [4, 0, 1, 4]
    assert_equal_planes(tiles_of(sheet), every[[4, 0, 1, 4]])
    assert sheet.manifest["maps"]["shape"] == [6, 5, 7]


@shows("topk")
def test_render_topk_draws_only_the_first_by_rank(maps: torch.Tensor) -> None:
    every = tiles_of(render(maps, scale=2))
    order = sorted(range(6), key=lambda c: -maps[c].double().mean())
    for k in (1, 4):
        sheet = render(maps, scale=2, topk=k)
        assert [tile["channel"] for tile in sheet.manifest["tiles"]] == order[:k]
        assert_equal_planes(tiles_of(sheet), every[order[:k]])


@shows("sort")
def test_render_sort_draws_all_in_the_order_of_rank(maps: torch.Tensor) -> None:
    every = tiles_of(render(maps, scale=2))
    order = sorted(range(6), key=lambda c: -maps[c].double().mean())
    assert order != list(range(6))
    sheet = render(maps, scale=2, sort=True)
    assert [tile["channel"] for tile in sheet.manifest["tiles"]] == order
    assert_equal_planes(tiles_of(sheet), every[order])


@shows("rank")
def test_render_rank_decides_the_order_and_is_in_the_manifest(maps: torch.Tensor) -> None:
    for rank, score in {"max": maps.amax((1, 2)), "variance": maps.double().var((1, 2), correction=0)}.items():
        order = score.argsort(descending=True).tolist()
        sheet = render(maps, scale=1, topk=3, rank=rank)
        tiles = sheet.manifest["tiles"]
        assert [tile["channel"] for tile in tiles] == order[:3]
        assert_same_statistics(np.array([tile["rank"] for tile in tiles]), score[order[:3]])
        assert sheet.manifest["options"]["rank"] == rank


@shows("reduce")
def test_render_reduce_draws_that_instead_of_the_channels(maps: torch.Tensor) -> None:
    wide = maps.double().numpy()
    strongest = int(np.abs(wide).mean((1, 2)).argmax())
    expected = {"sum": wide.sum(0), "mean": wide.mean(0), "max": wide.max(0), "strongest": wide[strongest]}
    sheet = render(maps, scale=1, reduce=list(expected))
    for position, (name, cells) in enumerate(expected.items()):
        tile = sheet.manifest["tiles"][position]
        assert (tile["reduce"], tile["channel"]) == (name, strongest if name == "strongest" else None)
        assert_same_statistics(np.array(tile["mean"]), np.float64(np.float32(cells)).mean())
        cells = torch.from_numpy(cells[None]).float()
        assert_same_plane(tile_of(sheet, position), drawn_1_to_1(cells, cells.min(), cells.max())[0])
    assert len(sheet.manifest["tiles"]) == 4


@shows("beside")
def test_render_beside_draws_the_channels_behind_the_reductions(maps: torch.Tensor) -> None:
    every, alone = (tiles_of(render(maps, scale=2, grid="1x", **given)) for given in ({}, {"reduce": "sum"}))
    sheet = render(maps, scale=2, grid="1x", reduce="sum", beside=True)
    assert_equal_planes(tiles_of(sheet)[0], alone[0])
    assert_equal_planes(tiles_of(sheet)[1:], every)
    assert [(t["reduce"], t["channel"]) for t in sheet.manifest["tiles"]] == [
        ("sum", None), (None, 0), (None, 1), (None, 2), (None, 3), (None, 4), (None, 5),
    ]  # fmt: skip


@shows("report")
def test_render_report_is_in_the_manifest_and_of_the_whole_layer() -> None:
    maps = odd_maps()
    sheet = render(maps, tile=9, report=True, topk=1)
    assert sheet.manifest["report"] == dataclasses.asdict(cf.layer_report(maps))
    assert sheet.manifest["report"]["dead"] == [1]
    assert "report" not in render(maps, tile=9).manifest


def test_render_plan_names_its_tiles(maps: torch.Tensor) -> None:
    options = RenderOptions(reduce="sum,strongest", beside=True, channels="1,4", sort=True, rank="variance")
    plan = MAIN_PATH.plan_sheet(maps, options, Provenance())
    assert plan.selection.names == ["sum", "strongest", "4", "1"]
    assert plan.grid.count == 4


def test_render_reduced_nan_is_drawn_as_bad(maps: torch.Tensor) -> None:
    maps[3, 2, 4] = NAN
    sheet = render(maps, scale=1, reduce="max")
    assert np.argwhere(sheet.index == sheet.manifest["palette"]["bad"]).tolist() == [[2, 4]]
    assert sheet.manifest["tiles"][0]["flags"] == ["nonfinite"]


@over("backend", ON_CPU)
def test_render_selection_draws_the_same_by_every_backend(backend: str) -> None:
    options = {"tile": 9, "sort": True, "rank": "norm", "reduce": "max,strongest", "beside": True}
    sheet = render(odd_maps(), backend=backend, **options)
    expected = render(odd_maps(), backend="reference", **options)
    assert [t["channel"] for t in sheet.manifest["tiles"]] == [t["channel"] for t in expected.manifest["tiles"]]
    assert [t["rank"] for t in sheet.manifest["tiles"]][2:] == [t["rank"] for t in expected.manifest["tiles"]][2:]
    assert_same_plane(sheet.index, expected.index, levels=expected.colors.levels)


@pytest.mark.parametrize("options", [{"sort": True}, {"reduce": "sum,strongest"}, {"report": True}])
def test_render_maps_of_one_value_are_selected_too(options: dict[str, Any]) -> None:
    maps = noise(12, 1, 1)
    sheet = render(maps, tile=3, normalize="layer", colormap="gray", **options)
    levels = drawn_1_to_1(maps, maps.min(), maps.max()) if "reduce" not in options else None
    if levels is not None:
        shown = [tile["channel"] for tile in sheet.manifest["tiles"]]
        assert_same_plane(tiles_of(sheet), levels[shown].repeat(3, axis=1).repeat(3, axis=2))
    else:
        assert np.unique(tiles_of(sheet)).tolist() == [0, 255]


def test_render_channels_of_a_layer_range_are_those_drawn(maps: torch.Tensor) -> None:
    sheet = render(maps, scale=1, normalize="layer", channels=[0, 1])
    assert sheet.manifest["tiles"][0]["vmax"] == maps[:2].max().item()


@shows("label")
def test_render_label_writes_the_channel_above_each_tile(maps: torch.Tensor) -> None:
    plain, sheet = (render(maps, tile=20, colormap="gray", label=label) for label in (False, True))
    assert_equal_planes(tiles_of(sheet), tiles_of(plain))
    bands = {}
    for described in sheet.manifest["tiles"]:
        y, x = described["box"][:2]
        bands[described["channel"]] = sheet.index[y - sheet.manifest["sheet"]["label_h"] : y, x : x + 8]
    ink = {channel: int((band == 255).sum()) for channel, band in bands.items()}
    assert min(ink.values()) > 9
    assert min(ink, key=ink.__getitem__) == 1, "the digit of the least ink"


@shows("title")
def test_render_title_is_written_above_the_grid(maps: torch.Tensor) -> None:
    options = {"tile": 20, "colormap": "gray", "provenance": Provenance(layer="conv1")}
    plain = render(maps, **options)
    sheets = [render(maps, title=title, **options) for title in ("{layer}", "conv1", "conv2")]
    for sheet in sheets:
        head = sheet.index.shape[0] - plain.index.shape[0]
        assert_equal_planes(sheet.index[head:, : plain.index.shape[1]], plain.index)
        assert head == sheet.manifest["sheet"]["head"]
        assert set(np.unique(sheet.index[:head])) == {0, 255}
    assert_equal_planes(sheets[0].index, sheets[1].index)
    assert (sheets[0].index != sheets[2].index).any()


@shows("colorbar")
def test_render_colorbar_is_drawn_below_the_grid(maps: torch.Tensor) -> None:
    plain, sheet = (render(maps, tile=120, colormap="gray", colorbar=bar) for bar in (False, True))
    height, width = plain.index.shape
    assert_equal_planes(sheet.index[:height, :width], plain.index)
    row = sheet.index[height + 6 + 8]
    assert np.isin(np.arange(256), row).sum() > 100, "many of the 256 greys, in one row"
    assert sheet.manifest["sheet"]["foot"] == sheet.index.shape[0] - height


@shows("backend")
@pytest.mark.parametrize("name", ON_CPU)
def test_render_backend_draws_by_its_own_kernels(
    name: str, maps: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = set()
    for backend in (BACKENDS[on_cpu] for on_cpu in ON_CPU):
        kernel = "render_strip_by" if backend.shares_work else "render_strip"
        original = getattr(backend.kernels, kernel)

        def spy(*arguments: Any, called: str = backend.name, original: Any = original) -> None:
            used.add(called)
            original(*arguments)

        monkeypatch.setattr(backend.kernels, kernel, spy)
    sheet = render(maps, tile=20, backend=name)
    assert used == {sheet.manifest["backend"]} == {name}
    assert_same_plane(sheet.index, render(maps, tile=20).index)


@shows("threads")
@pytest.mark.parametrize("threads", [1, 3])
def test_render_threads_work_at_once(threads: int, maps: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every worker waits until all of them are at work; with fewer this would time out.
    together, original, seen = threading.Barrier(threads), numba_cpu.render_strip, set()

    def spy(*arguments: Any) -> None:
        if threading.current_thread() not in seen:
            seen.add(threading.current_thread())
            together.wait(10)
        original(*arguments)

    monkeypatch.setattr(numba_cpu, "render_strip", spy)
    sheet = render(maps, tile=400, backend="numba", threads=threads)
    assert len(seen) == threads
    assert (threading.main_thread() in seen) == (threads == 1)
    assert_same_plane(sheet.index, render(maps, tile=400, backend="torch").index)


@shows("provenance")
def test_render_provenance_is_in_the_manifest(maps: torch.Tensor) -> None:
    provenance = Provenance(model="resnet50", weights="none", layer="layer4", image="cat.jpg")
    manifest = render(maps, tile=9, provenance=provenance).manifest
    facts = {
        name: value for name, value in dataclasses.asdict(provenance).items() if name not in ("categories", "field")
    }
    assert {name: manifest[name] for name in facts} == facts
    assert render(maps, tile=9).manifest["layer"] is None


# Every case, by every backend, through the whole path.


@over("name", [name for name in CASES if name != "huge"])
def test_render_every_case_equals_the_reference(name: str) -> None:
    drawn = CASES[name]
    grid = {"tile": drawn.tile, "grid": drawn.grid, "gap": drawn.gap, "margin": drawn.margin}
    expected = render(drawn.maps, backend="reference", **grid)
    for backend in ("torch", "numba", "native"):
        with case(backend):
            assert_same_sheet(render(drawn.maps, backend=backend, threads=2, **grid), expected)


def assert_same_sheet(sheet: cf.Sheet, expected: cf.Sheet) -> None:
    """Compare a sheet by another backend with that by the reference, its manifest too."""
    assert_same_plane(sheet.index, expected.index, levels=expected.colors.levels)
    assert_equal_planes(sheet.palette, expected.palette)
    # Backends sum in different orders, so means and deviations may differ in their last bits; all else is exact.
    for tile, other in zip(sheet.manifest["tiles"], expected.manifest["tiles"], strict=True):
        unit = max(1.0, abs(other["min"] or 0), abs(other["max"] or 0))
        for name in ("mean", "std"):
            ours, theirs = (np.float64(np.nan if t[name] is None else t[name]) for t in (tile, other))
            assert_same_statistics(ours / unit, theirs / unit)
        assert {**tile, "mean": 0, "std": 0} == {**other, "mean": 0, "std": 0}


@over("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("name", ["mixed", "overflow_with_infinities", "range_overflows_float32", "flat", "bfloat16"])
def test_render_every_normalization_equals_the_reference(name: str, normalize: str) -> None:
    options: dict[str, Any] = {"tile": (9, 11), "normalize": normalize, "gap": 1}
    if normalize == "fixed":
        options |= {"vmin": -1, "vmax": 2}
    if normalize == "dataset":
        options["statistics"] = statistics_of(CASES[name].maps.roll(1, dims=0))  # ranges that are not the maps' own
    expected = render(CASES[name].maps, backend="reference", **options)
    for backend in ("torch", "numba", "native"):
        with case(backend):
            sheet = render(CASES[name].maps, backend=backend, **options)
            assert_same_plane(sheet.index, expected.index, levels=expected.colors.levels)


@pytest.mark.parametrize("side", [56, pytest.param(224, marks=pytest.mark.long)])
def test_render_layer4_every_tile_equals_torch_interpolate(side: int) -> None:
    # The shape of ResNet-50's layer4, after a ReLU, with some dead channels; tile by tile, without the package's help.
    maps = torch.randn(2048, 7, 7, generator=torch.Generator().manual_seed(4)).relu()
    maps[::100] = 0
    sheet = render(maps, tile=side)
    assert sheet.index.shape == (45 * side, 46 * side)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    values = ((maps - low) / (high - low)).nan_to_num(0)
    levels = sheet.manifest["palette"]["levels"]
    assert levels == 255
    for first in range(0, 2048, 46):
        row = slice(first, first + 46)
        bilinear = torch.nn.functional.interpolate(values[None, row], size=(side, side), mode="bilinear")[0]
        expected = (bilinear * (levels - 1) + 0.5).floor().to(torch.uint8).numpy()
        y = first // 46 * side
        for position, tile in enumerate(expected):
            x = position * side
            assert_same_plane(sheet.index[y : y + side, x : x + side], tile)
            assert sheet.manifest["tiles"][first + position]["box"] == [y, x, y + side, x + side]
    assert (sheet.index[44 * side :, 24 * side :] == sheet.manifest["palette"]["background"]).all()


def test_render_smaller_tile_equals_antialiased_interpolation() -> None:
    maps = noise(2, 40, 60)
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    small = torch.nn.functional.interpolate(maps[None], size=(8, 12), mode="bilinear", antialias=True)[0]
    expected = (((small - low) / (high - low)) * 255 + 0.5).floor().to(torch.uint8).numpy()
    for align in BY_SIZE_ALONE:
        assert_same_plane(tiles_of(render(maps, tile=12, align=align)), expected)


# What the manifest says.


def odd_maps() -> torch.Tensor:
    """Return a usual channel, a dead, a flat, a broken and an empty one, (5, 4, 6) float32."""
    maps = noise(5, 4, 6)
    maps[0, 0, :3] = 0
    maps[1] = 0
    maps[2] = -2.5
    maps[3, 0, 0], maps[3, 1, 1], maps[3, 2, 2] = NAN, INF, -INF
    maps[4] = NAN
    return maps


def test_manifest_tiles_hold_statistics_and_flags() -> None:
    maps = odd_maps()
    tiles = render(maps, tile=30).manifest["tiles"]
    assert [tile["channel"] for tile in tiles] == [0, 1, 2, 3, 4]
    assert [tile["flags"] for tile in tiles] == [[], ["flat", "dead"], ["flat"], ["nonfinite"], ["nonfinite"]]
    assert [tile["zeros"] for tile in tiles] == [3 / 24, 1, 0, 0, 0]
    assert [tile["nan"] for tile in tiles] == [0, 0, 0, 1, 24]
    assert [tile["inf"] for tile in tiles] == [0, 0, 0, 2, 0]
    for tile, channel in zip(tiles[:4], maps.double().numpy(), strict=False):
        finite = channel[np.isfinite(channel)]
        assert (tile["vmin"], tile["vmax"]) == (tile["min"], tile["max"]) == (finite.min(), finite.max())
        assert_same_statistics(tile["mean"], finite.mean())
        assert_same_statistics(tile["std"], finite.std())
    assert [tiles[4][name] for name in ("vmin", "vmax", "min", "max", "mean", "std")] == [None] * 6


def test_manifest_live_channel_with_zeros_is_not_dead() -> None:
    maps = noise(2, 4, 6).relu()
    maps[1, 1:] = 0
    assert maps.amin((1, 2)).tolist() == [0, 0]
    assert [tile["flags"] for tile in render(maps, tile=30).manifest["tiles"]] == [[], []]


def test_manifest_own_range_stays_beside_the_range_drawn_on(maps: torch.Tensor) -> None:
    tile = render(maps, tile=30, normalize="fixed", vmin=-1, vmax=1).manifest["tiles"][2]
    assert (tile["vmin"], tile["vmax"]) == (-1, 1)
    assert (tile["min"], tile["max"]) == (maps[2].min().item(), maps[2].max().item())


@pytest.mark.parametrize("normalize", ["channel", "symmetric"])
def test_render_flat_channel_is_one_colour(normalize: str) -> None:
    sheet = render(odd_maps()[:3], tile=30, grid="1x", normalize=normalize)
    assert np.unique(tiles_of(sheet)[1:]).tolist() == [128 if normalize == "symmetric" else 0]


@pytest.mark.parametrize(
    "grid",
    [{}, {"gap": 3}, {"margin": 5, "grid": "x2"}, {"grid": "4x3", "gap": 1}, {"label": True},
     {"label": True, "title": "a title", "colorbar": True, "gap": 2, "margin": 3}],
)  # fmt: skip
def test_manifest_box_holds_that_channel(maps: torch.Tensor, grid: dict[str, Any]) -> None:
    sheet = render(maps, tile=20, colormap="gray", **grid)
    for position, tile in enumerate(sheet.manifest["tiles"]):
        alone = render(maps, tile=20, colormap="gray", channels=[tile["channel"]])
        assert_equal_planes(tile_of(sheet, position), alone.index)


def test_manifest_describes_maps_options_and_sheet(maps: torch.Tensor) -> None:
    options = {"tile": 20, "gap": 1, "normalize": "percentile", "backend": "torch", "channels": "0-3"}
    manifest = render(maps.half(), **options).manifest
    assert manifest["cnnviz_fast"] == cf.__version__
    assert manifest["maps"] == {"shape": [6, 5, 7], "dtype": "float16", "device": "cpu"}
    assert manifest["backend"] == "torch"
    assert manifest["options"] == dataclasses.asdict(RenderOptions(plain=True, **options))
    assert manifest["sheet"] == {
        "height": 29, "width": 41, "count": 4, "rows": 2, "cols": 2, "tile_h": 14, "tile_w": 20, "gap": 1, "margin": 0,
        "label_h": 0, "label_w": 0, "head": 0, "foot": 0, "least_w": 0,
    }  # fmt: skip
    assert manifest["palette"] == {"levels": 255, "background": 255, "bad": 255, "ink": 255}


def test_manifest_is_strict_json() -> None:
    selected = {"sort": True, "reduce": "sum", "beside": True, "report": True}
    manifest = render(odd_maps(), tile=9, gap=1, normalize="percentile", **selected).manifest
    again = json.loads(json.dumps(manifest, allow_nan=False))
    assert again["tiles"] == manifest["tiles"]


def test_manifest_auto_backend_is_named(maps: torch.Tensor) -> None:
    manifest = render(maps, tile=9).manifest
    assert manifest["backend"] == "native"
    assert manifest["options"]["backend"] == "auto"


# The input is not modified; what cannot be drawn is refused.


@over("backend", ON_CPU)
@pytest.mark.parametrize("normalize", ["channel", "sigmoid", "percentile"])
@pytest.mark.parametrize("tile", [3, 20])
def test_render_input_is_not_modified(backend: str, normalize: str, tile: int) -> None:
    maps = odd_maps()
    array, before = maps.numpy(), maps.clone()
    for given in (maps, array):
        render(given, tile=tile, backend=backend, normalize=normalize)
    assert torch.equal(maps.nan_to_num(7), before.nan_to_num(7))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.uint8, torch.bool])
def test_render_other_dtypes_equal_their_float32(dtype: torch.dtype, maps: torch.Tensor) -> None:
    given = (maps * 10).clamp(0, 200).to(dtype)
    assert_equal_planes(render(given, tile=20).index, render(given.float(), tile=20).index)


@shows("axes")
def test_render_axes_name_where_the_channels_are(maps: torch.Tensor) -> None:
    expected = render(maps, tile=20).index
    last = maps.permute(1, 2, 0)
    for given, axes in (
        (last, "hwc"),
        (last[None], "nhwc"),
        (last.numpy(), "hwc"),
        (maps, "chw"),
        (maps[None], "nchw"),
    ):
        assert_equal_planes(render(given, axes=axes, tile=20).index, expected)
    image = torch.rand(20, 30, 3)
    assert_equal_planes(render(image, axes="hwc").index, render(image.permute(2, 0, 1)).index)
    assert_equal_planes(render(image, axes="chw", tile=9).index, render(list(image), tile=9).index)
    assert_equal_planes(render(maps[0], axes="hw", tile=20).index, render(maps[:1], tile=20).index)
    for given, axes, said in (
        (maps, "hw", "must have 2 axes"),
        (maps[0], "hwc", "must have 3 axes"),
        (maps, "wch", "one of"),
    ):
        with pytest.raises(cf.CnnvizError, match=said):
            render(given, axes=axes)


@shows("planes")
def test_render_planes_name_the_plane_of_a_volume(maps: torch.Tensor) -> None:
    volume = torch.stack([maps, maps.flip(0), maps.flip(1)], dim=1)
    sheet = render(volume, planes=2, tile=20)
    assert_equal_planes(sheet.index, render(maps.flip(1), tile=20).index)
    assert sheet.manifest["plane"] == 2
    for given, axes in ((volume[None], "auto"), (volume.permute(1, 2, 3, 0), "dhwc"), (volume.numpy(), "cdhw")):
        assert_equal_planes(render(given, axes=axes, planes="2", tile=20).index, sheet.index)
    for given, how, said in (
        (volume, {"planes": 3}, "^planes must be 0 to 2 for shape .*, got 3"),
        (volume, {"planes": "0,1"}, "^planes must name one plane of a volume, got 2"),
        (volume, {"axes": "cdhw"}, "^axes 'cdhw' must go with the plane to draw"),
        (volume, {}, "Of a volume .* name the plane: planes=0"),
        (maps, {"planes": 0}, "^maps must have 4 axes for axes 'cdhw'"),
        (maps, {"planes": 0, "axes": "hwc"}, "^planes go with volumes"),
    ):
        with pytest.raises(cf.CnnvizError, match=said):
            render(given, **how)


def test_render_takes_a_batch_of_one_lists_and_signals(maps: torch.Tensor) -> None:
    expected = render(maps, tile=20).index
    for given in (maps[None], list(maps), list(maps.numpy()), [maps[:2], maps[2:]], maps[None].numpy()):
        assert_equal_planes(render(given, tile=20).index, expected)
    signal = torch.randn(7, 900)
    rows = render(signal)
    assert (rows.manifest["sheet"]["rows"], rows.manifest["sheet"]["cols"]) == (7, 1)
    assert rows.index.shape == (7 * 8, 900)
    assert_equal_planes(rows.index, render(signal[:, None], tile=(8, 900), grid="x1").index)
    assert_equal_planes(render(signal.T, axes="lc").index, rows.index)


def test_render_numpy_equals_tensor(maps: torch.Tensor) -> None:
    assert_equal_planes(render(maps.numpy(), tile=20).index, render(maps, tile=20).index)


@pytest.mark.parametrize("draw", ["render", "save_sheet"])
@over(
    ("maps", "error", "message"),
    [
        (
            torch.zeros(2, 4, 5, 5),
            ShapeError,
            r"^maps must have shape \(C, H, W\), got \(2, 4, 5, 5\)\. Pass one",
        ),
        (
            torch.zeros(20, 30, 3),
            ShapeError,
            r"got \(20, 30, 3\), which looks like an image \(H, W, 3\)\. Say axes='hwc'",
        ),
        (np.zeros((6, 6, 3)), ShapeError, "which looks like an image"),
        ([], ShapeError, "maps must have at least one channel, got an empty list"),
        ([torch.zeros(2, 3), torch.zeros(3, 2)], ShapeError, r"must hold maps of one size, got \(2, 3\), \(3, 2\)"),
        (["a", "b"], DTypeError, "a list of maps must hold tensors, arrays or numbers, got str"),
        (torch.zeros(4, 0, 5), ShapeError, r"^maps must have at least one channel and one pixel"),
        (
            torch.zeros(1, 2, 2, dtype=torch.complex64),
            DTypeError,
            r"^maps must be of a real dtype, got torch\.c",
        ),
        (np.zeros((1, 2, 2), complex), DTypeError, r"^maps must be of a real dtype, got complex128"),
        (torch.zeros(1, 2, 2).to_sparse(), DTypeError, r"^maps must hold their values densely, got torch\.sparse_coo"),
        (torch.zeros(1, 2, 2, device="meta"), DTypeError, r"^maps must hold their values densely, got the meta device"),
        ("cat.jpg", DTypeError, r"got str\. Make maps of an image with load_images and capture\.$"),
        ({"a": torch.zeros(1, 2, 2, 2)}, DTypeError, r"got dict\. Pass one sample of one layer: maps\['a'\]\[0\]\.$"),
    ],
)
def test_render_what_is_not_maps_is_refused(
    draw: str, maps: Any, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        render(maps) if draw == "render" else save_sheet(maps, tmp_path / "sheet.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": [6]}, r"^channels must lie in 0\.\.5, got 6\."),
        ({"topk": 7}, r"^topk must be at most the 6 channels to choose from, got 7\."),
        ({"grid": "2x2"}, r"^grid must hold all 6 channels, got 2x2 = 4 cells\."),
        ({"colormap": "virdis"}, r"^no colormap 'virdis'\. Closest: 'viridis'"),
        ({"background": "blak"}, r"^background must be the name of a colour"),
        ({"scale": 0.01}, r"^scale must leave at least 1 px"),
        ({"tile": 0}, r"^tile must be a whole number of at least 1, got 0\."),
        ({"tile": 2**31}, r"^a sheet holds at most 2,147,483,647 px a side"),
    ],
)
def test_render_option_that_does_not_fit_is_refused(maps: torch.Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        render(maps, **options)


def test_render_backend_that_cannot_take_the_device_is_refused() -> None:
    with pytest.raises(BackendUnavailableError, match=r"^backend 'numba' needs maps on the CPU, got cuda\."):
        choose("numba", "cuda")


# Straight to a file.


@pytest.mark.parametrize("options", [{}, {"colormap": "gray"}, {"gap": 2, "margin": 1}, {"threads": 1}])
def test_save_sheet_png_shows_what_render_gives(maps: torch.Tensor, tmp_path: Path, options: dict[str, Any]) -> None:
    maps[0, 0, 0] = NAN
    sheet = render(maps, tile=90, **options)
    path = save_sheet(maps, str(tmp_path / "sheet.png"), tile=90, **options)
    assert path == tmp_path / "sheet.png"
    with Image.open(path) as image:
        assert_equal_planes(np.asarray(image.convert("RGB")), sheet.rgb())
    manifest = json.loads((tmp_path / "sheet.json").read_text())
    assert manifest["tiles"] == json.loads(json.dumps(sheet.manifest["tiles"]))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["sheet.json", "sheet.png"]


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".npy"])
def test_save_sheet_other_formats_equal_those_of_a_sheet(maps: torch.Tensor, tmp_path: Path, suffix: str) -> None:
    path = save_sheet(maps, tmp_path / f"a{suffix}", tile=30)
    assert path.read_bytes() == render(maps, tile=30).save(tmp_path / f"b{suffix}").read_bytes()


def test_save_sheet_png_is_never_whole_in_memory(tmp_path: Path) -> None:
    maps = noise(512, 7, 7)
    options = {"tile": 224, "threads": 2, "backend": "numba"}
    save_sheet(maps[:4], tmp_path / "warm.png", **options)
    tracemalloc.start()
    save_sheet(maps, tmp_path / "sheet.png", **options)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 512 * 224 * 224 / 2


def test_save_sheet_unknown_suffix_is_refused_before_anything_is_drawn(
    maps: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MAIN_PATH, "plan_sheet", None)
    with pytest.raises(OptionError, match=r"^the file's suffix must be one of \.png, .*, got 'sheet\.pgn'\. Closest: "):
        save_sheet(maps, tmp_path / "sheet.pgn")


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_save_sheet_too_large_is_refused_before_anything_is_drawn(
    maps: torch.Tensor, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MAIN_PATH, "draw_sheet", None)
    limit = formats.FORMATS[suffix].limit_px
    with pytest.raises(EncodeError, match=rf"^a .* holds at most {limit:,} px a side, .* Make tile or scale smaller, "):
        save_sheet(maps[:1], tmp_path / f"sheet{suffix}", tile=(1, limit + 1))
    assert list(tmp_path.iterdir()) == []


def test_save_sheet_failing_kernel_leaves_the_old_file(
    maps: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_sheet(maps, tmp_path / "sheet.png", tile=20)
    before = path.read_bytes()

    def broken(*arguments: Any) -> None:
        raise ArithmeticError("planted")

    monkeypatch.setattr(numba_cpu, "render_strip", broken)
    with pytest.raises(ArithmeticError, match="planted"):
        save_sheet(maps, path, tile=30, backend="numba")
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["sheet.json", "sheet.png"]


def test_save_sheet_same_bytes_for_any_number_of_workers(tmp_path: Path) -> None:
    maps = torch.rand(60, 7, 7, generator=torch.Generator().manual_seed(0))
    for tile in (9, 60, 224):
        files = set()
        for threads in (1, 2, 5, 16):
            files.add(save_sheet(maps, tmp_path / "sheet.png", tile=tile, threads=threads).read_bytes())
        files.add(render(maps, tile=tile).save(tmp_path / "sheet.png").read_bytes())
        assert len(files) == 1
