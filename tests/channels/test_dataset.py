"""Statistics over a data set, against numpy over all values held in memory; in any order; and sheets drawn on them."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from support.assertions import (
    PRINTED,
    ROUNDED,
    assert_close,
    assert_equal_planes,
    assert_equal_tensors,
    assert_same_quantiles,
    assert_same_statistics,
)
from support.cases import CASES, INF, LARGEST, NAN, noise
from support.looping import over
from support.plain import render, save_sheet, save_tiles, visualize

import cnnviz_fast as cf
from cnnviz_fast.channels.dataset import DEVICE_PIECE, PIECE, LayerStatistics, merge_layers
from cnnviz_fast.errors import DTypeError, InputError, OptionError, ShapeError
from cnnviz_fast.kernels import backends
from cnnviz_fast.options.drawing import RenderOptions
from cnnviz_fast.sheets.plan import plan_sheet

QUANTILES = (0, 0.01, 0.25, 0.5, 0.7, 0.99, 1)
SUMS = ("mean", "squares")


def statistics_of(*batches: torch.Tensor) -> LayerStatistics:
    statistics = LayerStatistics(batches[0].shape[1])
    for batch in batches:
        statistics.update(batch)
    return statistics


def in_memory(batches: tuple[torch.Tensor, ...]) -> NDArray[np.float64]:
    """Return all values of each channel, (C, n)."""
    with np.errstate(over="ignore"):
        parts = [
            batch.double().numpy().astype(np.float32).swapaxes(0, 1).reshape(batch.shape[1], -1) for batch in batches
        ]
    return np.concatenate(parts, axis=1).astype(np.float64)


def assert_same_sums(mean: Any, variance: Any, channels: NDArray[np.float64]) -> None:
    """Compare with numpy's two passes, on the scale that the module promises."""
    compared = []
    for ours_mean, ours_variance, values in zip(mean, variance, channels, strict=True):
        finite = values[np.isfinite(values)]
        if not finite.size:
            assert np.isnan([ours_mean, ours_variance]).all()
            continue
        magnitude, rms = np.abs(finite).mean() or 1.0, np.sqrt(np.square(finite).mean()) or 1.0
        compared.append((ours_mean / magnitude, finite.mean() / magnitude))
        compared.append((np.sqrt(ours_variance) / rms, finite.std() / rms))
    ours, theirs = np.array(compared).reshape(-1, 2).T
    assert_same_statistics(ours, theirs)


def assert_measured(statistics: LayerStatistics, *batches: torch.Tensor) -> None:
    channels = in_memory(batches)
    finite = np.isfinite(channels)
    assert statistics.images == sum(map(len, batches))
    assert statistics.values == channels.shape[1]
    np.testing.assert_array_equal(statistics.finite, finite.sum(axis=1))
    np.testing.assert_array_equal(statistics.nan, np.isnan(channels).sum(axis=1))
    np.testing.assert_array_equal(statistics.inf, np.isinf(channels).sum(axis=1))
    np.testing.assert_array_equal(statistics.zeros, (channels == 0).mean(axis=1))
    np.testing.assert_array_equal(statistics.dead, (channels == 0).all(axis=1))
    assert_same_sums(statistics.mean, statistics.variance, channels)
    kept = [values[mask] for values, mask in zip(channels, finite, strict=True)]
    ends = np.array([(each.min(), each.max()) if each.size else (NAN, NAN) for each in kept])
    np.testing.assert_array_equal(statistics.vmin, ends[:, 0])
    np.testing.assert_array_equal(statistics.vmax, ends[:, 1])
    assert statistics.vmin.dtype == statistics.vmax.dtype == np.float32
    none = np.full(len(QUANTILES), NAN)
    exact = np.array([np.quantile(each, QUANTILES, method="lower") if each.size else none for each in kept])
    for q, values in zip(QUANTILES, exact.T, strict=True):
        found = statistics.quantile(q)
        assert_same_quantiles(found, values)
        known = statistics.finite > 0
        assert ((statistics.vmin <= found) & (found <= statistics.vmax))[known].all()
    np.testing.assert_array_equal(statistics.quantile(0), statistics.vmin)
    np.testing.assert_array_equal(statistics.quantile(1), statistics.vmax)


def assert_same_record(actual: LayerStatistics, expected: LayerStatistics) -> None:
    """Compare everything counted exactly, and sums as those of two orders."""
    ours, theirs = actual.to_arrays(), expected.to_arrays()
    assert list(ours) == list(theirs)
    for name in set(ours) - set(SUMS):
        assert ours[name].dtype == theirs[name].dtype
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    finite = np.maximum(expected.finite, 1)
    scale = np.sqrt(theirs["squares"] / finite + np.square(np.nan_to_num(theirs["mean"])))
    scale[scale == 0] = 1
    assert_same_statistics(ours["mean"] / scale, theirs["mean"] / scale)
    assert_same_statistics(np.sqrt(ours["squares"] / finite) / scale, np.sqrt(theirs["squares"] / finite) / scale)


def odd_channels() -> torch.Tensor:
    """Return one channel of every kind, (3, 9, 4, 5) float32."""
    maps = noise(3, 9, 4, 5)
    maps[:, 1] = 0
    maps[:, 2] = 0.1
    maps[:, 3] = NAN
    maps[1, 4, 2, 2], maps[2, 4, 0, 0], maps[0, 4, 1, 1] = NAN, INF, -INF
    maps[:, 5] *= 1e-41
    maps[:, 6] *= LARGEST / 10
    maps[:, 7] = maps[:, 7].relu()
    maps[0, 8], maps[1:, 8] = -0.0, 1e-7
    return maps


BATCHES = {
    "several of one size": (noise(4, 6, 5, 7), noise(1, 6, 5, 7), noise(3, 6, 5, 7) * 3),
    "of several sizes": (noise(2, 3, 8, 8), noise(2, 3, 1, 1), noise(1, 3, 5, 2)),
    "one channel": (noise(3, 1, 4, 4),),
    "many channels": (noise(2, 300, 7, 7), noise(1, 300, 7, 7).relu()),
    "single cells": (noise(50, 10, 1, 1),),
    "one value": (noise(1, 2, 1, 1),),
    "odd": (odd_channels(), odd_channels().flip(0)),
    "dead in the first batch only": (torch.zeros(2, 2, 3, 3), noise(1, 2, 3, 3)),
    "nothing finite in the first batch": (torch.full((2, 2, 3, 3), INF), noise(1, 2, 3, 3)),
    "large mean": (noise(2, 3, 9, 9) + 1e6, noise(2, 3, 9, 9) + 1e6),
    "opposite largest values": (torch.full((1, 1, 2, 2), LARGEST), torch.full((1, 1, 2, 2), -LARGEST)),
    "half": (noise(2, 3, 4, 5).half() * 100, noise(2, 3, 4, 5).half()),
    "bfloat16": (noise(2, 3, 4, 5).bfloat16(),),
    "float64 beyond float32": (noise(2, 3, 4, 5).double() * 1e38 * 5,),
    "bool": (noise(2, 3, 4, 5) > 0,),
    "integers": ((noise(2, 3, 4, 5) * 1e6).long(),),
    "channels last": (noise(4, 6, 5, 7).contiguous(memory_format=torch.channels_last),),
    "not contiguous": (noise(4, 6, 5, 8)[::2, 1::2, :, ::2].transpose(2, 3),),
    "expanded": (noise(1, 1, 5, 8).expand(3, 4, 5, 8),),
    "needs gradients": (noise(1, 2, 3, 3).requires_grad_(),),
    "empty": (torch.zeros(0, 2, 3, 3), noise(1, 2, 3, 3), torch.zeros(0, 2, 0, 3)),
}


@over("name", BATCHES)
def test_update_equals_numpy_over_all_values(name: str) -> None:
    batches = tuple(batch.detach() for batch in BATCHES[name])
    before = [batch.clone() for batch in batches]
    assert_measured(statistics_of(*BATCHES[name]), *[batch for batch in batches if len(batch)])
    for batch, copy in zip(batches, before, strict=True):
        assert_equal_tensors(batch, copy)


# Not the huge one: numpy takes channels one by one, and 300 are many.
@over("name", [name for name in CASES if isinstance(CASES[name].maps, torch.Tensor) and name != "huge"])
def test_update_every_case_of_the_kernels(name: str) -> None:
    batch = CASES[name].maps.detach()[None]
    assert_measured(statistics_of(batch), batch)


def test_update_more_than_a_piece_at_once_is_cut() -> None:
    batch = noise(5, 2, 400, 401)
    assert len(batch) * batch[0].numel() > PIECE > batch[0].numel()
    assert_measured(statistics_of(batch), batch)
    large = noise(1, 1, 1100, 1000)
    assert large.numel() > PIECE
    assert_measured(statistics_of(large), large)
    assert DEVICE_PIECE > PIECE


@pytest.mark.parametrize("name", ["odd", "several of one size", "many channels"])
def test_update_on_torch_alone_counts_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = statistics_of(*BATCHES[name])
    monkeypatch.setattr(backends, "cannot_load", lambda module: "switched off")
    monkeypatch.setattr(backends, "choose", lambda name, device: backends.BACKENDS["torch"])
    assert_same_record(statistics_of(*BATCHES[name]), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["odd", "several of one size", "many channels", "half", "channels last"])
def test_update_on_a_device_counts_the_same(name: str) -> None:
    found = LayerStatistics(BATCHES[name][0].shape[1])
    for batch in BATCHES[name]:
        found.update(batch.cuda())
    assert_same_record(found, statistics_of(*BATCHES[name]))
    found.update(BATCHES[name][0])  # and goes on, on the CPU
    assert_same_record(found, statistics_of(*BATCHES[name], BATCHES[name][0]))


@over(
    ("maps", "error", "message"),
    [
        (torch.zeros(3, 2, 2), ShapeError, "maps must have shape (N, 3, H, W), got (3, 2, 2)."),
        (torch.zeros(1, 4, 2, 2), ShapeError, "maps must have shape (N, 3, H, W), got (1, 4, 2, 2)."),
        (
            torch.zeros(1, 3, 0, 2),
            ShapeError,
            "maps must have at least one channel and one pixel, got shape (1, 3, 0, 2).",
        ),
        (
            torch.zeros(1, 3, 2, 2, dtype=torch.complex64),
            DTypeError,
            "maps must be of a real dtype, got torch.complex64. Pass maps.abs() or maps.real.",
        ),
    ],
)
def test_update_what_cannot_be_measured_is_refused(maps: torch.Tensor, error: type[Exception], message: str) -> None:
    statistics = LayerStatistics(3)
    with pytest.raises(error) as caught:
        statistics.update(maps)
    assert str(caught.value) == message
    assert statistics.images == statistics.values == 0


def test_no_images_know_nothing() -> None:
    statistics = LayerStatistics(2)
    assert (statistics.channels, statistics.images, statistics.values) == (2, 0, 0)
    for found in (statistics.vmin, statistics.vmax, statistics.mean, statistics.variance, statistics.zeros):
        assert np.isnan(found).all()
    assert np.isnan(statistics.quantile(0.5)).all()
    assert not statistics.dead.any()


def test_flat_channels_have_exactly_no_variance() -> None:
    # Of these sizes some weights, such as 1/3 and 2/3, make a mean that is 0.1 only nearly.
    statistics = statistics_of(*[torch.full((1, 2, size, 3), 0.1) for size in range(1, 30)])
    assert statistics.variance.tolist() == [0, 0]
    assert statistics.mean.tolist() == [float(np.float32(0.1))] * 2
    for batches in ((noise(1, 1, 1, 1),), (torch.full((1, 1, 1, 1), -0.0), torch.zeros(1, 1, 1, 1))):
        assert statistics_of(*batches).variance.tolist() == [0]


def test_least_value_has_no_sign_where_it_is_0() -> None:
    for batches in ((-torch.zeros(1, 1, 1, 2),), (torch.zeros(1, 1, 1, 1), -torch.zeros(1, 1, 1, 1))):
        assert not np.signbit(statistics_of(*batches).vmin).any()


# merge


@given(seed=st.integers(0, 2**32), parts=st.integers(1, 9))
def test_merge_in_any_tree_and_order_is_the_same_record(seed: int, parts: int) -> None:
    choose, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(parts):
        batch = torch.randn(choose.randint(0, 3), 4, choose.randint(1, 4), 3, generator=generator)
        batch *= torch.tensor([1.0, 1e-20, 1e20, 0.0])[:, None, None] * choose.choice([1.0, 1e-3, 40.0])
        if batch.numel() and choose.random() < 0.4:
            batch.view(-1)[choose.randrange(batch.numel())] = choose.choice([NAN, INF, -INF, LARGEST, 1e-42])
        batches.append(batch)
    expected = statistics_of(*batches)
    choose.shuffle(batches)
    forest = [statistics_of(batch) for batch in batches]
    while len(forest) > 1:
        one = forest.pop(choose.randrange(len(forest)))
        choose.choice(forest).merge(one)
    assert_same_record(forest[0], expected)


def test_merge_of_two_is_the_same_to_the_last_bit_both_ways() -> None:
    first, second = (noise(3, 5, 4, 4), odd_channels()[:, 4:])
    one, other = statistics_of(first), statistics_of(second)
    one.merge(statistics_of(second))
    other.merge(statistics_of(first))
    for name, array in one.to_arrays().items():
        np.testing.assert_array_equal(array, other.to_arrays()[name], err_msg=name)


def test_merge_of_many_keeps_its_precision() -> None:
    # 1,000 records of one image, as of 1,000 workers, whose mean is large beside their deviation.
    batch = noise(1000, 2, 2, 2) + 1e3
    merged = LayerStatistics(2)
    for image in batch:
        merged.merge(statistics_of(image[None]))
    assert_measured(merged, batch)


def test_merge_of_another_number_of_channels_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"^other must have 3 channels, got 4\.$"):
        LayerStatistics(3).merge(LayerStatistics(4))


# arrays and records


def test_from_arrays_makes_the_same_record() -> None:
    statistics = statistics_of(odd_channels())
    again = LayerStatistics.from_arrays(statistics.to_arrays())
    assert_same_record(again, statistics)
    assert_measured(again, odd_channels())
    again.update(noise(1, 9, 4, 4))
    assert statistics.images == 3
    assert_same_record(pickle.loads(pickle.dumps(statistics)), statistics)


def test_merge_layers_adds_what_both_have_and_takes_over_the_rest() -> None:
    into = {"a": statistics_of(noise(2, 3, 4, 4))}
    merge_layers(into, {"a": statistics_of(noise(1, 3, 4, 4)), "b": statistics_of(noise(5, 2, 4, 4))})
    assert {layer: statistics.images for layer, statistics in into.items()} == {"a": 3, "b": 5}
    expected = statistics_of(noise(2, 3, 4, 4))
    expected.update(noise(1, 3, 4, 4))
    assert_close(into["a"].mean, expected.mean, ROUNDED)
    assert np.array_equal(into["a"].quantile(0.5), expected.quantile(0.5))


@over(
    ("changed", "message"),
    [
        ({"mean": None}, "arrays must hold 'mean' of one dimension and float64, as to_arrays returns it."),
        ({"nan": np.zeros(2)}, "arrays must hold 'nan' of one dimension and int64, as to_arrays returns it."),
        ({"vmin": np.float32(3)}, "arrays must hold 'vmin' of one dimension and float32, as to_arrays returns it."),
        (
            {"vmax": np.zeros(3, np.float32)},
            "arrays must be those that to_arrays returned, got arrays of other lengths.",
        ),
        ({"seen": np.array([1])}, "arrays must be those that to_arrays returned, got arrays of other lengths."),
        ({"zero": np.array([0, 1])}, "arrays must be those that to_arrays returned, got counts that do not add up."),
        ({"bucket_count": np.array([1])}, "buckets must be those that to_arrays returned, got others."),
    ],
)
def test_from_arrays_refuses_what_is_no_record(changed: dict[str, Any], message: str) -> None:
    arrays = {**statistics_of(noise(1, 2, 3, 3)).to_arrays(), **changed}
    with pytest.raises(InputError) as caught:
        LayerStatistics.from_arrays({name: array for name, array in arrays.items() if array is not None})
    assert str(caught.value) == message


def test_describe_is_json_with_none_for_what_is_not_known() -> None:
    record = json.loads(json.dumps(statistics_of(odd_channels()).describe(), allow_nan=False))
    assert (record["images"], record["values"]) == (3, 60)
    assert [channel["channel"] for channel in record["channels"]] == list(range(9))
    assert [channel["dead"] for channel in record["channels"]] == [False, True] + [False] * 7
    assert record["channels"][3]["mean"] is None
    assert (record["channels"][4]["nan"], record["channels"][4]["inf"]) == (1, 2)
    assert list(record["channels"][0]) == [
        "channel", "min", "max", "mean", "variance", "p1", "p50", "p99", "zeros", "nan", "inf", "dead",
    ]  # fmt: skip


@pytest.mark.parametrize("q", [-0.1, 1.01, NAN])
def test_quantile_outside_0_to_1_is_refused(q: float) -> None:
    with pytest.raises(OptionError, match=r"^q must be a "):
        LayerStatistics(1).quantile(q)


# Drawing on the range of a data set.

ONE_TO_ONE = {"tile": (5, 7), "colormap": "gray", "normalize": "dataset"}


@pytest.fixture
def statistics(maps: torch.Tensor) -> LayerStatistics:
    """Return statistics of a set of three images, of which `maps` is one."""
    return statistics_of(torch.stack([maps * 2, maps, maps - 1]))


def drawn(values: torch.Tensor, low: Any, high: Any) -> NDArray[np.uint8]:
    """Draw maps 1:1 on given ranges, by numpy; (C, H, W) uint8."""
    low, high = (np.asarray(end, np.float64)[:, None, None] for end in (low, high))
    return np.floor(((values.double().numpy() - low) / (high - low)).clip(0, 1) * 255 + 0.5).astype(np.uint8)


def tiles_of(sheet: cf.Sheet) -> NDArray[np.uint8]:
    return np.stack([sheet.index[y0:y1, x0:x1] for y0, x0, y1, x1 in (tile["box"] for tile in sheet.manifest["tiles"])])


def range_in_memory(maps: torch.Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    values = torch.stack([maps * 2, maps, maps - 1]).transpose(0, 1).flatten(1).numpy()
    return values.min(axis=1), values.max(axis=1)


def test_render_dataset_draws_every_sheet_on_the_range_of_all(maps: torch.Tensor, statistics: LayerStatistics) -> None:
    low, high = range_in_memory(maps)
    for image in (maps * 2, maps, maps - 1, maps * 9):  # the last is none of the set: clamped
        sheet = render(image, statistics=statistics, **ONE_TO_ONE)
        assert_equal_planes(tiles_of(sheet).reshape(-1, 7), drawn(image, low, high).reshape(-1, 7))
        assert [(tile["vmin"], tile["vmax"]) for tile in sheet.manifest["tiles"]] == list(
            zip(low.tolist(), high.tolist(), strict=True)
        )


@pytest.mark.parametrize(
    "options",
    [
        {"channels": "4,0-1,4"},
        {"topk": 3, "rank": "variance"},
        {"sort": True, "channels": "1-5"},
        {"reduce": "strongest", "beside": True, "topk": 2},
    ],
    ids=str,
)
def test_render_dataset_ranges_follow_the_channels(
    options: dict[str, Any], maps: torch.Tensor, statistics: LayerStatistics
) -> None:
    low, high = range_in_memory(maps)
    sheet = render(maps, statistics=statistics, **ONE_TO_ONE, **options)
    shown = [tile["channel"] for tile in sheet.manifest["tiles"]]
    assert shown != list(range(6))
    expected = drawn(maps[shown], low[shown], high[shown])
    assert_equal_planes(tiles_of(sheet).reshape(-1, 7), expected.reshape(-1, 7))


def test_render_dataset_percentiles_are_those_of_the_set(maps: torch.Tensor, statistics: LayerStatistics) -> None:
    values = torch.stack([maps * 2, maps, maps - 1]).transpose(0, 1).flatten(1).numpy()
    sheet = render(maps, statistics=statistics, percentile="5,90", **ONE_TO_ONE)
    for end, percent in (("vmin", 0.05), ("vmax", 0.9)):
        found = np.array([tile[end] for tile in sheet.manifest["tiles"]], np.float32)
        assert_same_quantiles(found, np.quantile(values, percent, axis=1, method="lower"))
    low, high = statistics.quantile(0.05), statistics.quantile(0.9)
    assert_equal_planes(tiles_of(sheet).reshape(-1, 7), drawn(maps, low, high).reshape(-1, 7))


def test_drawing_range_percentiles_that_coincide_fall_back_to_the_whole_range() -> None:
    maps = torch.zeros(1, 1, 20, 20)
    maps[0, 0, 3, 3], maps[0, 0, 4, 4] = 7, -2
    assert statistics_of(maps).drawing_range((1, 99)) == (np.float32(-2), np.float32(7))


def test_render_dataset_channel_unknown_in_the_set_is_drawn_on_its_own(maps: torch.Tensor) -> None:
    seen = maps.clone()
    seen[2] = NAN
    sheet = render(maps, statistics=statistics_of(seen[None]), **ONE_TO_ONE)
    assert_equal_planes(sheet.index, render(maps, **{**ONE_TO_ONE, "normalize": "channel"}).index)


def test_render_dataset_flat_channel_of_the_set_is_flat_everywhere(maps: torch.Tensor) -> None:
    sheet = render(maps, statistics=statistics_of(torch.zeros(1, 6, 5, 7)), **ONE_TO_ONE)
    assert not sheet.index.any()


def test_render_dataset_what_is_not_finite_is_bad(maps: torch.Tensor, statistics: LayerStatistics) -> None:
    maps[1, 2, 3] = NAN
    sheet = render(maps, statistics=statistics, **{**ONE_TO_ONE, "colormap": "viridis"})
    assert (sheet.index == sheet.colors.bad).sum() == 1


def test_render_dataset_of_a_vector_gives_each_cell_its_own_range() -> None:
    logits = noise(40, 8, 1, 1)
    sheet = render(
        logits[3], statistics=statistics_of(logits), tile=1, grid="1x8", colormap="gray", normalize="dataset"
    )
    values = logits[:, :, 0, 0].numpy()
    expected = drawn(logits[3], values.min(axis=0), values.max(axis=0))
    shown = tiles_of(sheet)
    assert_equal_planes(shown.reshape(1, -1), expected.reshape(1, -1))


def test_save_sheet_and_save_tiles_take_statistics(
    maps: torch.Tensor, statistics: LayerStatistics, tmp_path: Path
) -> None:
    expected = render(maps, statistics=statistics, **ONE_TO_ONE)
    with Image.open(save_sheet(maps, tmp_path / "sheet.png", statistics=statistics, **ONE_TO_ONE)) as image:
        assert_equal_planes(np.asarray(image), expected.index)
    for path, tile in zip(
        save_tiles(maps, tmp_path, statistics=statistics, **ONE_TO_ONE), tiles_of(expected), strict=True
    ):
        with Image.open(path) as image:
            assert_equal_planes(np.asarray(image), tile)


def test_visualize_takes_statistics_by_layer() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    images = [torch.randn(3, 8, 9, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    with torch.inference_mode():
        seen = {"0": statistics_of(model[0](torch.stack(images))), "1": statistics_of(model(torch.stack(images)))}
    sheets = visualize(model, images, ["0", "1"], normalize="dataset", tile=9, statistics=seen)
    assert len(sheets) == 6
    for sheet in sheets:
        vmin, vmax = seen[sheet.manifest["layer"]].drawing_range()
        assert_close([tile["vmin"] for tile in sheet.manifest["tiles"]], vmin, PRINTED)
        assert_close([tile["vmax"] for tile in sheet.manifest["tiles"]], vmax, PRINTED)
    del seen["1"]
    with pytest.raises(OptionError, match=r"^statistics have no layer '1'\."):
        visualize(model, images, ["0", "1"], normalize="dataset", statistics=seen)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"normalize": "dataset"},
            OptionError,
            "normalize 'dataset' needs statistics of the data set. Pass them as statistics.",
        ),
        (
            {"statistics": LayerStatistics(6)},
            OptionError,
            "statistics go with normalize 'dataset', got normalize 'channel'.",
        ),
        (
            {"normalize": "dataset", "statistics": LayerStatistics(7)},
            ShapeError,
            "statistics must be of the layer's 6 channels, got those of 7.",
        ),
        (
            {"normalize": "dataset", "statistics": {"layer": LayerStatistics(6)}},
            InputError,
            "statistics must be LayerStatistics, got dict. From a file: read_statistics(path)[layer].",
        ),
    ],
)
def test_render_statistics_that_do_not_fit_are_refused(
    given: dict[str, Any], error: type[Exception], message: str, maps: torch.Tensor
) -> None:
    with pytest.raises(error) as caught:
        render(maps, **given)
    assert str(caught.value) == message


def test_plan_sheet_ranges_are_of_all_channels_of_the_layer(maps: torch.Tensor) -> None:
    options = RenderOptions(normalize="dataset", channels="1-2")
    ranges = np.arange(6, dtype=np.float32), np.arange(6, dtype=np.float32) + 9
    plan = plan_sheet(maps, options, cf.Provenance(), ranges=ranges)
    assert (list(plan.vmin), list(plan.vmax)) == ([1, 2], [10, 11])
    with pytest.raises(ShapeError, match="got those of 2"):
        plan_sheet(maps, options, cf.Provenance(), ranges=(ranges[0][1:3], ranges[1][1:3]))


def test_repr_is_one_line_on_what_was_seen() -> None:
    statistics = LayerStatistics(3)
    assert repr(statistics) == "LayerStatistics(3 channels, 0 images, 0 values a channel)"
    maps = torch.zeros(2, 3, 4, 5)
    maps[:, 1] = torch.linspace(-1.5, 2.25, 20).view(4, 5)
    maps[:, 2] = NAN
    statistics.update(maps)
    seen = "2 images, 40 values a channel, from -1.5 to 2.25, 1 dead"
    assert repr(statistics) == f"LayerStatistics(3 channels, {seen})"


@over("channels", [-1, 10**400, "many", None, 1.5, True])
def test_statistics_of_what_is_no_number_of_channels_are_refused(channels: Any) -> None:
    with pytest.raises(OptionError, match=r"^channels must be a whole number"):
        LayerStatistics(channels)


@pytest.mark.parametrize("maps", [None, [1], np.zeros((1, 4, 2, 2))])
def test_update_with_what_is_no_tensor_is_refused(maps: Any) -> None:
    with pytest.raises(DTypeError, match=r"^maps must be a tensor, got "):
        LayerStatistics(4).update(maps)


def test_update_takes_a_view_whose_signs_are_turned() -> None:
    maps = noise(2, 4, 3, 3)
    plain, turned = LayerStatistics(4), LayerStatistics(4)
    plain.update(maps)
    turned.update(torch.complex(maps, -maps).conj().imag)  # whose memory holds the other sign
    assert np.array_equal(turned.mean, plain.mean)


def test_merge_with_something_else_is_refused() -> None:
    with pytest.raises(InputError, match=r"^other must be LayerStatistics, got dict\."):
        LayerStatistics(4).merge({})
    for arrays in (None, [], {"seen": None}):
        with pytest.raises(InputError, match=r"^arrays must hold 'seen'"):
            LayerStatistics.from_arrays(arrays)
