"""Counts in buckets: where they begin and end, that they are the same on every way, and how near quantiles come."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from support.assertions import assert_same_quantiles
from support.cases import INF, LARGEST, NAN, SMALLEST, noise
from support.looping import over
from support.native_module import cpu_modules

from cnnviz_fast.channels.quantile_sketch import ACCURACY, QuantileSketch
from cnnviz_fast.errors import InputError
from cnnviz_fast.kernels import backends, numba_sketch, torch_sketch

ON_CPU = cpu_modules("sketch")

ODD = torch.tensor(
    [
        [0.0, -0.0, 1.0, -1.0, NAN, INF, -INF, LARGEST, -LARGEST, SMALLEST, -SMALLEST, 1e-40],
        [0.5, 0.5, 0.5, 3e38, -3e38, 2.0**-126, 1.9999999, -2.0, NAN, NAN, 1e-30, 0.0],
    ]
)


def sketch_of(values: torch.Tensor) -> QuantileSketch:
    sketch = QuantileSketch(len(values))
    sketch.update(values)
    return sketch


def assert_same_sketch(actual: QuantileSketch, expected: QuantileSketch) -> None:
    for (name, ours), theirs in zip(actual.to_arrays().items(), expected.to_arrays().values(), strict=True):
        assert ours.dtype == theirs.dtype, name
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


def counted(values: NDArray[np.float32]) -> dict[int, int]:
    """Count one channel's values by their top 15 bits, by numpy alone."""
    kept = values[np.isfinite(values) & (values != 0)]
    buckets, counts = np.unique(kept.view(np.uint32) >> 17, return_counts=True)
    return dict(zip(buckets.tolist(), counts.tolist(), strict=True))


@pytest.mark.parametrize("values", [ODD, noise(3, 1000), noise(2, 500) * 1e-41], ids=["odd", "noise", "subnormal"])
def test_update_counts_the_top_bits_of_what_is_finite_and_not_0(values: torch.Tensor) -> None:
    arrays = sketch_of(values).to_arrays()
    parts = np.split(arrays["bucket"], np.cumsum(arrays["buckets"])[:-1])
    counts = np.split(arrays["bucket_count"], np.cumsum(arrays["buckets"])[:-1])
    for channel, part, count in zip(values.numpy(), parts, counts, strict=True):
        assert dict(zip(part.tolist(), count.tolist(), strict=True)) == counted(channel)


def test_to_arrays_are_in_ascending_order_of_values() -> None:
    bucket = sketch_of(torch.tensor([[3.0, -1e-9, -7.0, 1e-20, -8.0]])).to_arrays()["bucket"]
    lower_ends = (bucket.astype(np.uint32) << 17).view(np.float32)
    assert lower_ends.tolist() == sorted(lower_ends.tolist())
    assert len(lower_ends) == 5


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 40)), elements=st.floats(width=32)),
    st.integers(0, 39),
)
def test_torch_counts_what_the_cpu_kernels_count(values: NDArray[np.float32], cut: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backends, "cannot_load", lambda module: "switched off")
        torch_way = sketch_of(torch.from_numpy(values[:, :cut].copy()))
        torch_way.update(torch.from_numpy(values[:, cut:].copy()))
    assert_same_sketch(torch_way, sketch_of(torch.from_numpy(values)))


def test_kernels_count_only_where_there_is_a_page_and_name_what_has_none() -> None:
    for function in ("count", "nonzero"):
        names = [list(inspect.signature(getattr(home, function)).parameters) for home in ON_CPU]
        assert names == [names[0]] * len(ON_CPU)
    assert list(inspect.signature(torch_sketch.count).parameters) == list(
        inspect.signature(numba_sketch.count).parameters
    )
    pages = np.full(512, -1, np.int64)
    pages[127], pages[0] = 64, 0  # 1 to 2, and zeros
    values = torch.tensor([[1.0, 1.0, 1.999, 2.0, 0.0, NAN], [0.0, 1.5, -1.0, 1.5, 1.5, 0.0]])
    results = []
    ways = [(home.count, np.asarray) for home in ON_CPU]
    for count, given_as in (*ways, (torch_sketch.count, torch.as_tensor)):
        counts = np.zeros((2, 128), np.int64)
        missing = count(given_as(values), given_as(pages), given_as(counts))
        results.append((counts, np.flatnonzero(np.asarray(missing)).tolist()))
    for counts, missing in results:
        np.testing.assert_array_equal(counts, results[0][0])
        assert missing == [128, 255, 256 + 127]
    expected = np.zeros((2, 128), np.int64)
    expected[0, 64], expected[0, 127], expected[1, 96] = 2, 1, 3
    np.testing.assert_array_equal(results[0][0], expected)


def test_merge_leaves_the_other_as_it_is_and_may_be_with_itself() -> None:
    one, other = sketch_of(noise(2, 90)), sketch_of(noise(2, 80) * 1e-9)
    before = other.to_arrays()
    one.merge(other)
    for name, array in other.to_arrays().items():
        np.testing.assert_array_equal(array, before[name])
    assert one.totals().tolist() == [170, 170]
    one.merge(one)
    assert one.totals().tolist() == [340, 340]


@given(st.lists(st.tuples(st.integers(-60, 60), st.booleans()), min_size=1, max_size=6))
def test_merge_of_a_blank_sketch_is_that_of_a_new_one(scales: list[tuple[int, bool]]) -> None:
    together = sketch_of(noise(3, 20))
    expected = sketch_of(noise(3, 20))
    for scale, blank in scales:  # of which some have octaves that are new
        values = noise(3, 30) * 2.0**scale
        part = together.blank() if blank else QuantileSketch(3)
        part.update(values)
        together.merge(part)
        expected.update(values)
    assert_same_sketch(together, expected)
    assert together.blank().totals().tolist() == [0, 0, 0]


def test_to_arrays_without_numba_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    sketch = sketch_of(torch.cat([noise(4, 50), torch.zeros(4, 3), noise(4, 9) * 1e-30], dim=1))
    sketch.update(torch.zeros(4, 5))
    expected = sketch.to_arrays()
    monkeypatch.setattr(backends, "cannot_load", lambda module: "switched off")
    for name, array in sketch.to_arrays().items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
        assert array.dtype == expected[name].dtype


@given(
    values=hnp.arrays(np.float32, (2, 30), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    data=st.data(),
)
def test_at_rank_is_within_its_accuracy_of_every_value(values: NDArray[np.float32], data: Any) -> None:
    rank = data.draw(st.integers(0, 29))
    sketch = sketch_of(torch.from_numpy(values))
    found = sketch.at_rank(np.full(2, rank), (values == 0).sum(axis=1))
    assert_same_quantiles(found, np.sort(values, axis=1)[:, rank])


def test_at_rank_reaches_its_accuracy_and_no_more() -> None:
    # 1 is the lower end of its bucket, where the middle is farthest away.
    assert sketch_of(torch.ones(1, 3)).at_rank(np.array([1]), np.array([0])).tolist() == [1 + ACCURACY]


def test_state_grows_by_octaves_not_by_the_distance_between_values() -> None:
    sketch = sketch_of(torch.tensor([[2e-38, 1.0, 1e38, 0.0]] * 2048))
    assert sketch._counts.nbytes == 2048 * 4 * 64 * 8
    sketch.update(torch.full((2048, 5), 1.2))
    assert sketch._counts.nbytes == 2048 * 4 * 64 * 8


@over(
    ("name", "value"),
    [
        ("buckets", np.array([2, 2])),
        ("buckets", np.array([-1, 4])),
        ("bucket", np.array([65535, 1, 2], np.uint16)),
        ("bucket", np.array([255 * 64, 1, 2], np.uint16)),
        ("bucket_count", np.array([1, 2])),
        ("bucket_count", np.array([1, 0, 2])),
    ],
)
def test_from_arrays_refuses_what_no_sketch_returned(name: str, value: NDArray[Any]) -> None:
    arrays = sketch_of(torch.tensor([[1.0, 2.0, 2.0], [3.0, 3.0, 3.0]])).to_arrays()
    assert_same_sketch(QuantileSketch.from_arrays(**arrays), sketch_of(torch.tensor([[2.0, 1.0, 2.0], [3.0] * 3])))
    with pytest.raises(InputError, match=r"^buckets must be those that to_arrays returned, got others\.$"):
        QuantileSketch.from_arrays(**{**arrays, name: value})


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 60)), elements=st.floats(width=32)),
    st.permutations(range(128)),
)
def test_kernels_for_the_cpu_count_and_gather_alike(values: NDArray[np.float32], order: list[int]) -> None:
    pages = np.full(512, -1, np.int64)
    pages[127], pages[256 + 127] = 64, 0
    results = []
    for home in ON_CPU:
        counts = np.zeros((len(values), 128), np.int64)
        missing = home.count(values, pages, counts)
        results.append([missing, counts, *home.nonzero(counts, np.array(order))])
    for result in results[1:]:
        for ours, theirs in zip(result, results[0], strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
