"""Moments and histograms of tensors, against numpy: every dtype, every odd value, both kernels, any workers."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.assertions import ROUNDED, SUMMED, assert_close, assert_same_statistics
from support.looping import over
from support.native_module import cpu_modules

from cnnviz_fast.kernels import backends, torch_values
from cnnviz_fast.weights import histograms
from cnnviz_fast.weights.histograms import BINS, PIECE, Measured, bin_edges, measure

ON_CPU = cpu_modules("values")

NAN, INF = float("nan"), float("inf")


def one(tensor: torch.Tensor) -> Measured:
    return measure([tensor])[0]


def expected_of(values: NDArray[Any]) -> tuple[list[float], NDArray[np.int64], tuple[float, float]]:
    """Measure the finite values with numpy alone: (low, high, mean, std), counts, edges."""
    finite = values.astype(np.float64).ravel()
    finite = finite[np.isfinite(finite)]
    counts, edges = np.histogram(finite, BINS)
    std = finite.std(ddof=1) if finite.size > 1 else 0.0
    return [finite.min(), finite.max(), finite.mean(), std], counts, (edges[0], edges[-1])


def assert_measured(found: Measured, values: NDArray[Any]) -> None:
    figures, counts, edges = expected_of(values)
    scale = max(1e-300, np.abs(figures).max())
    assert_same_statistics(np.array([found.low, found.high, found.mean, found.std]) / scale, np.array(figures) / scale)
    np.testing.assert_array_equal(found.counts, counts)
    assert found.edges == edges
    assert (found.zeros, found.nan) == ((values == 0).sum(), np.isnan(values).sum())
    assert found.inf == np.isinf(values).sum()


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def with_odd_values() -> torch.Tensor:
    values = noise(3, 5, 40)
    values[0, 0, 0], values[1, 2, 3], values[2, 4, 39], values[2, 0, 5] = NAN, INF, -INF, NAN
    return values


CASES = {
    "noise": noise(64, 3, 7, 7),
    "one piece": noise(PIECE),
    "one value more than a piece": noise(PIECE + 1),
    "several pieces": noise(3, PIECE // 2 + 7),
    "less than a row of lanes": noise(5),
    "scalar": torch.tensor(2.5),
    "zeros of both signs": torch.tensor([0.0, -0.0, 1.0]),
    "odd values": with_odd_values(),
    "odd values in one piece of several": torch.cat([noise(2 * PIECE), with_odd_values().ravel()]),
    "one finite value": torch.tensor([NAN, 3.0, INF]),
    "constant": torch.full((7, 9), 0.1),
    "constant, large": torch.full((40,), 123456789.0),
    "subnormal range": noise(400) * 1e-40,
    "largest float32": torch.tensor([-3.4e38, 0.0, 1e38, 3.4e38]),
    "narrowest float32": torch.tensor([1.0, 1.0 + 2**-23, 1.0]),
    "channels_last": noise(8, 4, 3, 3).contiguous(memory_format=torch.channels_last),
    "transposed": noise(9, 11).T,
    "every other": noise(40, 11)[::2, ::3],
    "expanded": noise(1, 12).expand(5, 12),
    "needs gradient": noise(30).requires_grad_(),
    "half": (noise(500) * 100).half(),
    "float64": noise(500).double() * 1e100,
    "float64, few steps wide": 1 + torch.arange(200).double() * 2**-45,
    "int8": (noise(500) * 40).to(torch.int8),
    "int64": (noise(500) * 1e6).long(),
    "bool": noise(90) > 0,
}


@over("case", CASES)
@pytest.mark.parametrize("threads", [1, 3])
def test_measure_equals_numpy(case: str, threads: int) -> None:
    values = CASES[case]
    assert_measured(measure([values], threads)[0], values.detach().numpy())


@over("case", CASES)
def test_measure_without_numba_is_the_same(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "cannot_load", lambda module: "not here")
    assert_measured(one(CASES[case]), CASES[case].detach().numpy())


def test_measure_loads_its_kernels_before_workers_ask_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[threading.Thread] = []
    monkeypatch.setattr(backends, "cannot_load", lambda module: asked.append(threading.current_thread()) or "")
    measure([noise(2, PIECE)], threads=2)
    assert asked[0] is threading.main_thread()
    assert len(set(asked)) > 1


def test_measure_many_keeps_their_order_and_bits() -> None:
    tensors = [value * (i + 1) for i, value in enumerate([*CASES.values()] * 3) if value.is_floating_point()]
    serial, parallel = measure(tensors, 1), measure(tensors, 4)
    for tensor, a, b in zip(tensors, serial, parallel, strict=True):
        assert (a.mean, a.std, a.low) == (b.mean, b.std, b.low)
        np.testing.assert_array_equal(a.counts, b.counts)
        assert a.counts.sum() == tensor.isfinite().sum()


def test_measure_bfloat16_equals_its_float32() -> None:
    values = noise(700).bfloat16()
    assert_measured(one(values), values.float().numpy())


def test_measure_nothing_gives_nothing() -> None:
    assert measure([]) == []


@pytest.mark.parametrize("values", [torch.empty(0, 3), torch.full((4,), NAN), torch.tensor([INF, -INF])])
def test_measure_without_a_finite_value_has_no_figures(values: torch.Tensor) -> None:
    found = one(values)
    assert np.isnan([found.low, found.high, found.mean, found.std]).all()
    assert found.counts.sum() == 0
    assert found.edges == (0.0, 1.0)
    assert (found.nan, found.inf) == (values.isnan().sum(), values.isinf().sum())


def test_measure_ranges_that_numpy_refuses_are_counted() -> None:
    # Too wide for float64, and too narrow for 50 edges that differ: every value still has its bin.
    wide = one(torch.tensor([-1.7e308, 0.0, 1.7e308], dtype=torch.float64))
    assert [wide.counts[0], wide.counts[25], wide.counts[-1]] == [1, 1, 1]
    narrow = one(torch.tensor([1.0, 1.0, 1 + 2**-52], dtype=torch.float64))
    assert narrow.counts.sum() == 3
    assert narrow.counts[-1] == 1


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=60).filter(lambda v: min(v) < max(v)),
    st.booleans(),
)
def test_measure_values_on_edges_fall_as_numpys(values: list[float], narrow: bool) -> None:
    low, high = min(values), max(values)
    on_edges = np.clip(bin_edges(low, high), low, high)
    beside = [np.nextafter(on_edges, towards).clip(low, high) for towards in (-np.inf, np.inf)]
    everything = np.concatenate([values, on_edges, *beside]).astype(np.float32 if narrow else np.float64)
    counts, edges = np.histogram(everything.astype(np.float64), BINS)
    found = one(torch.from_numpy(everything))
    if (np.diff(edges) > 0).all():
        np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_array_equal(bin_edges(*found.edges), edges)


@pytest.mark.parametrize("function", ["survey", "spread"])
def test_kernels_have_the_same_arguments(function: str) -> None:
    homes = [*ON_CPU, torch_values]
    names = [list(inspect.signature(getattr(home, function)).parameters) for home in homes]
    assert names == [names[0]] * len(homes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernels_agree_on_odd_values(dtype: torch.dtype) -> None:
    values = with_odd_values().ravel().to(dtype)
    theirs = torch_values.survey(values).numpy()
    for home in ON_CPU:
        ours = home.survey(values.numpy())
        assert_close(ours, theirs, ROUNDED)
        assert ours[3:].tolist() == [0, 2, 2]


@over("dtype", [np.float32, np.float64])
@over("count", [1, 15, 16, 17, 1000])
def test_kernels_for_the_cpu_agree(count: int, dtype: type) -> None:
    values = noise(count).numpy().astype(dtype)
    values[0] = 0
    edges = np.histogram_bin_edges(values.astype(np.float64), BINS)
    for home in ON_CPU:
        survey, (squares, counts) = home.survey(values), home.spread(values, 0.25, edges)
        assert survey[[0, 1, 3, 4, 5]].tolist() == [values.min(), values.max(), (values == 0).sum(), 0, 0]
        assert_close(survey[2], values.sum(dtype=np.float64), SUMMED)
        assert_close(squares, np.square(values.astype(np.float64) - 0.25).sum(), SUMMED)
        np.testing.assert_array_equal(counts, np.histogram(values.astype(np.float64), edges)[0])


def test_kernels_for_the_cpu_are_used_where_edges_are_even(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the slow kernel was called")

    monkeypatch.setattr(torch_values, "spread", refuse)
    one(noise(90))
    with pytest.raises(AssertionError, match="slow kernel"):
        one(torch.tensor([1.0, 1.0, 1 + 2**-52], dtype=torch.float64))


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_measure_on_cuda_equals_numpy(case: str) -> None:
    assert_measured(one(CASES[case].cuda()), CASES[case].detach().numpy())


def test_least_span_keeps_edges_near_their_places() -> None:
    # The derivation beside LEAST_SPAN: rounding moves an edge by 2**-53 of the larger end.
    assert BINS * 2.0**-53 / histograms.LEAST_SPAN < 0.01
