"""What is accepted as maps, statistics against numpy, the range of every normalisation, and shrinking."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.assertions import assert_same_floats, assert_same_range, assert_same_statistics
from support.cases import CASES, INF, LARGEST, NAN, noise
from support.looping import over

from cnnviz_fast.channels.ranges import drawing_range
from cnnviz_fast.channels.statistics import ChannelStatistics, channel_statistics
from cnnviz_fast.channels.values import as_maps, as_tensor, shrink, squash
from cnnviz_fast.errors import DTypeError, ShapeError
from cnnviz_fast.kernels.backends import BACKENDS
from cnnviz_fast.kernels.torch_ops import channel_range
from cnnviz_fast.options.drawing import RenderOptions


def statistics_of(maps: torch.Tensor, backend: str = "torch") -> ChannelStatistics:
    return channel_statistics(BACKENDS[backend], maps)


def range_of(maps: torch.Tensor, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
    statistics = statistics_of(maps)
    return drawing_range(maps, statistics.vmin, statistics.vmax, RenderOptions(**options))


def floats(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


# as_maps


@over("name", CASES)
def test_as_maps_every_case_is_float32_of_the_same_values(name: str) -> None:
    maps = CASES[name].maps
    with np.errstate(over="ignore"):
        expected = (maps if isinstance(maps, np.ndarray) else maps.detach().double().numpy()).astype(np.float32)
    result = as_maps(maps)
    assert (result.dtype, result.device.type, result.requires_grad) == (torch.float32, "cpu", False)
    np.testing.assert_array_equal(result.numpy(), expected)


def test_as_maps_float32_tensor_is_not_copied(maps: torch.Tensor) -> None:
    assert as_maps(maps).data_ptr() == maps.data_ptr()


@over("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_as_tensor_leaves_tensors_in_their_dtype(dtype: torch.dtype) -> None:
    maps = noise(3, 4, 5).to(dtype)
    assert as_tensor(maps).data_ptr() == maps.data_ptr()
    assert as_tensor(maps).dtype == dtype
    assert as_tensor(maps[:, 0, 0]).shape == (3, 1, 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32])
def test_what_computes_with_values_widens_them_first(dtype: torch.dtype) -> None:
    maps = (20 * noise(3, 12, 14)).to(dtype)
    wide, statistics = maps.float(), statistics_of(maps.float())
    ends = statistics.vmin, statistics.vmax
    assert torch.equal(squash(maps), squash(wide))
    assert torch.equal(shrink(maps, *ends, 5, 20), shrink(wide, *ends, 5, 20))
    assert shrink(maps, *ends, 12, 14) is maps
    percentile = RenderOptions(normalize="percentile", percentile=(7, 81))
    assert_same_range(drawing_range(maps, *ends, percentile), drawing_range(wide, *ends, percentile))


def test_shrink_of_a_batch_is_that_of_each_sample() -> None:
    batch = noise(2, 3, 12, 14).to(memory_format=torch.channels_last)
    vmin, vmax = -0.5 * torch.rand(2, 3), torch.rand(2, 3)
    for sample, low, high, smaller in zip(batch, vmin, vmax, shrink(batch, vmin, vmax, 5, 6), strict=True):
        assert_same_floats(smaller.numpy(), shrink(sample, low, high, 5, 6).numpy())


def test_as_maps_numpy_input_shares_no_memory() -> None:
    # What comes out is read while it is drawn; an array that cannot be written would make torch warn.
    source = np.zeros((1, 2, 2), np.float32)
    assert as_maps(source).data_ptr() != source.ctypes.data


@pytest.mark.parametrize(
    ("maps", "error", "message"),
    [
        (
            torch.zeros(1, 64, 56, 56),
            ShapeError,
            "maps must have shape (C, H, W), got (1, 64, 56, 56). Pass one sample: maps[0].",
        ),
        (
            torch.zeros(1, 1000),
            ShapeError,
            "maps must have shape (C, H, W), or (C,) for a vector, got (1, 1000). Pass one sample: maps[0].",
        ),
        (
            np.zeros((3, 4)),
            ShapeError,
            "maps must have shape (C, H, W), or (C,) for a vector, got (3, 4). Pass one sample: maps[0].",
        ),
        (
            torch.zeros(0, 4, 4),
            ShapeError,
            "maps must have at least one channel and one pixel, got shape (0, 4, 4).",
        ),
        (
            torch.zeros(2, 4, 0),
            ShapeError,
            "maps must have at least one channel and one pixel, got shape (2, 4, 0).",
        ),
        (
            torch.zeros(1, 2, 2, dtype=torch.complex64),
            DTypeError,
            "maps must be of a real dtype, got torch.complex64. Pass maps.abs() or maps.real.",
        ),
        (
            np.zeros((1, 2, 2), np.complex128),
            DTypeError,
            "maps must be of a real dtype, got complex128. Pass maps.real or abs(maps), say.",
        ),
        (
            np.full((1, 2, 2), "a"),
            DTypeError,
            "maps must be of a real dtype, got <U1. Pass maps.real or abs(maps), say.",
        ),
        (
            torch.zeros(1, 2, 2).to_sparse(),
            DTypeError,
            "maps must hold their values densely, got torch.sparse_coo. Pass maps.to_dense() or a real tensor.",
        ),
        (
            torch.zeros(1, 2, 2, device="meta"),
            DTypeError,
            "maps must hold their values densely, got the meta device. Pass maps.to_dense() or a real tensor.",
        ),
        ([[[1.0]]], DTypeError, "maps must be a tensor or a numpy array, got list."),
        (None, DTypeError, "maps must be a tensor or a numpy array, got NoneType."),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, type) else value.__name__,
)
def test_as_maps_what_cannot_be_drawn_is_refused(maps: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        as_maps(maps)
    assert str(caught.value) == message


# channel_statistics


def test_channel_statistics_finite_maps_equal_numpy(maps: torch.Tensor) -> None:
    maps[1] = 0
    maps[2, 0, :3] = 0
    found, flat = statistics_of(maps), maps.double().numpy().reshape(6, -1)
    assert_same_statistics(found.mean, flat.mean(axis=1))
    assert_same_statistics(found.std, flat.std(axis=1))
    assert_same_statistics(found.zeros, [0, 1, 3 / 35, 0, 0, 0])
    assert found.nan.tolist() == found.inf.tolist() == [0] * 6
    assert found.all_finite


def test_channel_statistics_by_hand_with_nan_and_infinities() -> None:
    maps = torch.tensor(
        [
            [[1.0, 3.0, NAN, 0.0]],
            [[INF, -INF, 4.0, NAN]],
            [[NAN, NAN, NAN, NAN]],
            [[2.0, 4.0, 6.0, 8.0]],
        ]
    )
    found = statistics_of(maps)
    assert_same_range((found.vmin, found.vmax), (floats(0, 4, NAN, 2), floats(3, 4, NAN, 8)))
    assert_same_statistics(found.mean, [4 / 3, 4, NAN, 5])
    assert_same_statistics(found.std, [np.sqrt(14 / 9), 0, NAN, np.sqrt(5)])
    assert_same_statistics(found.zeros, [0.25, 0, 0, 0])
    assert found.nan.tolist() == [1, 1, 4, 0]
    assert found.inf.tolist() == [0, 2, 0, 0]
    assert not found.all_finite


def test_channel_statistics_large_values_do_not_overflow() -> None:
    maps = torch.tensor([[[LARGEST, -LARGEST], [LARGEST, -LARGEST]], [[NAN, LARGEST], [LARGEST, LARGEST]]])
    found = statistics_of(maps)
    np.testing.assert_array_equal(found.mean, [0, LARGEST])
    np.testing.assert_array_equal(found.std, [LARGEST, 0])


def test_channel_statistics_large_mean_keeps_its_deviation() -> None:
    maps = torch.tensor([[[1e7, 1e7 + 1], [1e7 + 2, 1e7 + 3]]])
    assert_same_statistics(statistics_of(maps).std, [np.sqrt(1.25)])


# drawing_range

THREE = torch.tensor([[[-1.0, 3.0]], [[2.0, 10.0]], [[-4.0, -4.0]]])


@pytest.mark.parametrize(
    ("options", "vmin", "vmax"),
    [
        ({}, floats(-1, 2, -4), floats(3, 10, -4)),
        ({"normalize": "layer"}, floats(-4, -4, -4), floats(10, 10, 10)),
        ({"normalize": "symmetric"}, floats(-3, -10, -4), floats(3, 10, -4)),
        ({"normalize": "sigmoid"}, floats(0, 0, 0), floats(1, 1, 1)),
        ({"normalize": "fixed", "vmin": -2, "vmax": 5.5}, floats(-2, -2, -2), floats(5.5, 5.5, 5.5)),
        ({"normalize": "percentile", "percentile": (25, 75)}, floats(0, 4, -4), floats(2, 8, -4)),
        ({"normalize": "percentile", "percentile": (0, 100)}, floats(-1, 2, -4), floats(3, 10, -4)),
    ],
    ids=lambda value: value.get("normalize", "channel") if isinstance(value, dict) else "",
)
def test_drawing_range_by_hand(options: dict[str, Any], vmin: np.ndarray, vmax: np.ndarray) -> None:
    assert_same_range(range_of(THREE, **options), (vmin, vmax))


def test_drawing_range_layer_leaves_out_what_is_not_finite() -> None:
    maps = torch.tensor([[[NAN, 3.0]], [[NAN, NAN]], [[INF, -4.0]]])
    assert_same_range(range_of(maps, normalize="layer"), (floats(-4, NAN, -4), floats(3, NAN, 3)))


def test_drawing_range_symmetric_without_finite_values_is_nan() -> None:
    maps = torch.tensor([[[NAN, INF]]])
    assert_same_range(range_of(maps, normalize="symmetric"), (floats(NAN), floats(NAN)))


@pytest.mark.parametrize(("low", "high"), [(-5.0, 2.0), (-5.0, -2.0), (2.0, 5.0)])
def test_drawing_range_symmetric_takes_the_larger_magnitude(low: float, high: float) -> None:
    maps = torch.tensor([[[low, high]]])
    assert_same_range(range_of(maps, normalize="symmetric"), (floats(-5), floats(5)))


def test_drawing_range_symmetric_dead_channel_has_no_width() -> None:
    assert_same_range(range_of(torch.zeros(1, 2, 2), normalize="symmetric"), (floats(0), floats(0)))


@given(
    low=st.floats(0, 99),
    width=st.floats(0.5, 100),
    size=st.integers(1, 40),
    broken=st.integers(0, 10),
    seed=st.integers(0, 99),
)
def test_drawing_range_percentile_equals_numpy(low: float, width: float, size: int, broken: int, seed: int) -> None:
    high = min(low + width, 100.0)
    maps = torch.randn(3, size, 2, generator=torch.Generator().manual_seed(seed))
    maps[1, 0, 0], maps[2].view(-1)[: min(broken, 2 * size - 1)] = INF, NAN
    values = maps.flatten(1).double().numpy()
    values[~np.isfinite(values)] = np.nan
    expected = np.nanpercentile(values, [low, high], axis=1)
    vmin, vmax = range_of(maps, normalize="percentile", percentile=(low, high))
    same = np.float32(expected[0]) == np.float32(expected[1])
    assert_same_floats(vmin[~same], expected[0][~same])
    assert_same_floats(vmax[~same], expected[1][~same])


def test_drawing_range_percentile_default_is_1_and_99() -> None:
    maps = torch.arange(101.0).reshape(1, 1, 101)
    assert_same_range(range_of(maps, normalize="percentile"), (floats(1), floats(99)))


def test_drawing_range_percentile_all_nan_is_nan() -> None:
    maps = torch.tensor([[[NAN, INF]]])
    assert_same_range(range_of(maps, normalize="percentile"), (floats(NAN), floats(NAN)))


def test_drawing_range_percentiles_that_coincide_fall_back_to_the_whole_range() -> None:
    maps = torch.zeros(1, 20, 20)
    maps[0, 3, 3], maps[0, 4, 4] = 7, -2
    assert_same_range(range_of(maps, normalize="percentile"), (floats(-2), floats(7)))


def test_drawing_range_percentile_large_values_do_not_overflow() -> None:
    # The difference of the two values is beyond float32; a position between them is not.
    maps = torch.tensor([[[-3e38, 3e38]]])
    vmin, vmax = range_of(maps, normalize="percentile", percentile=(25, 75))
    assert_same_floats(vmin / 1e38, floats(-1.5))
    assert_same_floats(vmax / 1e38, floats(1.5))


def test_drawing_range_percentile_beyond_2_to_24_values_stays_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    # 2^24 + 4 values: in float32 the position of the last, 2^24 + 3, would round to one beyond it.
    maps = torch.zeros(1, 4, 2**22 + 1, dtype=torch.float32)
    maps[0, 3, -1] = 5
    sorted_before = SimpleNamespace(values=maps.flatten(1))  # sorting as many takes seconds
    monkeypatch.setattr(torch.Tensor, "sort", lambda values, dim: sorted_before)
    options = RenderOptions(normalize="percentile", percentile=(1, 100))
    drawn = drawing_range(maps, torch.tensor([0.0]), torch.tensor([5.0]), options)
    assert_same_range(drawn, (floats(0), floats(5)))


# squash


def test_squash_is_a_sigmoid_that_leaves_infinities_alone() -> None:
    maps = torch.tensor([[[0.0, 2.0, -1000.0, 1000.0, INF, -INF, NAN]]])
    expected = floats(0.5, 1 / (1 + np.exp(-2)), 0, 1, INF, -INF, NAN)[None, None]
    assert_same_floats(squash(maps).numpy(), expected)


# shrink


def test_shrink_equals_antialiased_interpolation_of_clamped_values() -> None:
    maps = noise(3, 20, 31)
    vmin, vmax = torch.tensor([-0.5, -9.0, 0.0]), torch.tensor([0.5, 9.0, 1.0])
    clamped = torch.stack([m.clamp(low, high) for m, low, high in zip(maps, vmin, vmax, strict=True)])
    expected = torch.nn.functional.interpolate(clamped[None], size=(7, 9), mode="bilinear", antialias=True)[0]
    assert_same_floats(shrink(maps, vmin, vmax, 7, 9).numpy(), expected)


def test_shrink_averages_where_plain_sampling_would_alias() -> None:
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2
    maps = board[None].float()
    result = shrink(maps, *channel_range(maps), 8, 8)[0, 1:-1, 1:-1]
    assert_same_floats(result.numpy(), np.full((6, 6), 0.5, np.float32))


@over(("size", "expected"), [((9, 9), (6, 7)), ((6, 7), (6, 7)), ((4, 9), (4, 7)), ((9, 3), (6, 3))])
def test_shrink_never_enlarges(size: tuple[int, int], expected: tuple[int, int]) -> None:
    maps = noise(2, 6, 7)
    result = shrink(maps, *channel_range(maps), *size)
    assert result.shape == (2, *expected)
    if expected == (6, 7):
        assert result is maps


def test_shrink_spreads_nan_to_what_touches_it_and_no_further() -> None:
    maps = noise(3, 16, 16)
    maps[0, 4, 4], maps[1, 8, 8] = NAN, INF
    maps[2] = NAN
    result = shrink(maps, *channel_range(maps), 4, 4)
    assert result[0, 1, 1].isnan()
    assert result[1, 2, 2].isnan()
    assert result[:2, 3, 0].isfinite().all()
    assert result[2].isnan().all()


def test_shrink_leaves_its_input_alone() -> None:
    maps = noise(1, 8, 8) * 100
    before = maps.clone()
    shrink(maps, torch.zeros(1), torch.ones(1), 2, 2)
    assert torch.equal(maps, before)
