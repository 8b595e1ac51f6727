"""Which channels are drawn: picking, order and ties, the cut, reductions; all against numpy written anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.assertions import ROUNDED, assert_close, assert_same_floats, assert_same_plane, assert_same_statistics
from support.cases import CASES, INF, LARGEST, NAN, noise
from support.looping import case, over
from support.plain import render

from cnnviz_fast.channels.selection import Selection, best_first, channel_scores, select
from cnnviz_fast.channels.statistics import ChannelStatistics, channel_statistics
from cnnviz_fast.channels.values import as_maps
from cnnviz_fast.errors import OptionError
from cnnviz_fast.kernels.backends import BACKENDS
from cnnviz_fast.options.drawing import RANKS, RenderOptions

TORCH = BACKENDS["torch"]
ON_CPU = [name for name, backend in BACKENDS.items() if backend.takes("cpu")]


def chosen(maps: torch.Tensor, backend: str = "torch", **options: Any) -> tuple[torch.Tensor, Selection]:
    drawn, selection, statistics = select(maps, BACKENDS[backend], RenderOptions(**options))
    assert_same_record(statistics, channel_statistics(BACKENDS[backend], drawn))
    return drawn, selection


def assert_same_record(actual: ChannelStatistics, expected: ChannelStatistics) -> None:
    """Assert that what select says the tiles hold is what measuring them anew finds."""
    for name, column in vars(expected).items():
        assert getattr(actual, name).dtype == column.dtype
        assert_close(getattr(actual, name), column, ROUNDED, name)


def numpy_score(channel: np.ndarray, rank: str) -> float:
    """Work out the score of one channel from its definition, in float64."""
    values = channel[np.isfinite(channel)].astype(np.float64)
    if not values.size:
        return np.nan
    return float(
        {
            "mean": values.mean(),
            "abs-mean": np.abs(values).mean(),
            "max": values.max(),
            "variance": values.var(),
            "nonzero": np.count_nonzero(values) / values.size,
            "norm": np.sqrt((values**2).sum()),
        }[rank]
    )


def numpy_order(maps: torch.Tensor, rank: str) -> list[int]:
    """Order channels by score, greatest first; ties to the lowest; those without a finite value last.

    To 12 digits: numpy's sums of the same values in another order differ behind them.
    """
    scores = [float(f"{numpy_score(channel, rank):.12g}") for channel in maps.numpy()]
    return sorted(range(len(maps)), key=lambda c: (np.isnan(scores[c]), -np.nan_to_num(scores[c]), c))


# Picking.


def test_select_all_gives_the_maps_themselves(maps: torch.Tensor) -> None:
    drawn, selection = chosen(maps)
    assert drawn is maps
    assert selection == Selection([0, 1, 2, 3, 4, 5])
    assert selection.names == ["0", "1", "2", "3", "4", "5"]


def test_select_all_of_a_view_copies_nothing() -> None:
    maps = noise(4, 6, 5).permute(1, 2, 0)
    assert chosen(maps)[0].data_ptr() == maps.data_ptr()


def test_select_keeps_order_and_repeats(maps: torch.Tensor) -> None:
    drawn, selection = chosen(maps, channels=(4, 0, 4))
    assert selection == Selection([4, 0, 4])
    assert torch.equal(drawn, torch.stack([maps[4], maps[0], maps[4]]))


def test_select_channel_that_is_not_there_is_refused(maps: torch.Tensor) -> None:
    with pytest.raises(OptionError, match=r"^channels must lie in 0\.\.5, got 6\. The layer has 6 channels\.$"):
        chosen(maps, channels=(0, 6, 3))


# Ranking.


@pytest.mark.parametrize("backend", ON_CPU)
@over("rank", RANKS)
def test_channel_scores_equal_numpy(rank: str, backend: str) -> None:
    for name in ("plain", "mixed", "one_pixel", "infinities", "dead", "single_channel", "half"):
        maps = as_maps(CASES[name].maps)
        expected = np.array([numpy_score(channel, rank) for channel in maps.numpy()])
        scores = channel_scores(maps, channel_statistics(BACKENDS[backend], maps), rank)
        unit = max(1.0, np.nanmax(np.abs(expected)))
        with case(name):
            assert_same_statistics(scores / unit, expected / unit)


@over("rank", RANKS)
def test_channel_scores_of_the_largest_values_are_finite_and_ordered(rank: str) -> None:
    maps = torch.tensor([0.25, 1.0, 0.5])[:, None, None] * torch.tensor([[LARGEST, LARGEST / 2, 0.0]])
    scores = channel_scores(maps, channel_statistics(TORCH, maps), rank)
    assert np.isfinite(scores).all()
    assert best_first(scores, range(3)).tolist() == ([0, 1, 2] if rank == "nonzero" else [1, 2, 0])


@given(rank=st.sampled_from(RANKS), data=st.data())
def test_select_sort_orders_as_numpy_does(rank: str, data: st.DataObject) -> None:
    # Few values, so that channels tie; NaN and infinities among them, so that some are left with nothing.
    count, height, width = (data.draw(st.integers(1, most)) for most in (7, 3, 4))
    value = st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, 3.0, NAN, INF, -INF])
    values = data.draw(st.lists(value, min_size=count * height * width, max_size=count * height * width))
    maps = torch.tensor(values).reshape(count, height, width)
    drawn, selection = chosen(maps, sort=True, rank=rank)
    order = numpy_order(maps, rank)
    assert selection.channels == order
    np.testing.assert_array_equal(drawn.numpy(), maps.numpy()[order])
    assert selection.scores is not None
    expected = [numpy_score(maps[c].numpy(), rank) for c in order]
    assert [score is None for score in selection.scores] == [bool(np.isnan(score)) for score in expected]
    assert_same_statistics(np.array([np.nan if s is None else s for s in selection.scores]), expected)


@given(st.sampled_from(RANKS), st.permutations(range(35)), st.sampled_from(["torch", "numba", "native"]))
def test_select_sort_order_of_summing_does_not_break_a_tie(rank: str, permutation: list[int], backend: str) -> None:
    values = noise(35).abs()
    maps = torch.stack([values[permutation], values, values.flip(0)]).reshape(3, 5, 7)
    assert chosen(maps, backend, sort=True, rank=rank)[1].channels == [0, 1, 2]


def test_select_ties_go_to_the_lowest_channel_however_they_are_listed() -> None:
    maps = noise(1, 3, 3).expand(6, 3, 3).clone()
    maps[4] += 1
    drawn, selection = chosen(maps, channels="5,3,4,3,0", sort=True)
    assert selection.channels == [4, 0, 3, 3, 5]
    assert torch.equal(drawn, maps[[4, 0, 3, 3, 5]])


def test_select_channels_without_a_finite_value_come_last() -> None:
    maps = -noise(4, 3, 3).abs()
    maps[0], maps[2] = NAN, INF
    selection = chosen(maps, sort=True, rank="mean")[1]
    assert selection.channels[2:] == [0, 2]
    assert selection.scores is not None
    assert selection.scores[2:] == [None, None]


def test_select_rank_is_the_mean_unless_said_otherwise(maps: torch.Tensor) -> None:
    assert chosen(maps, sort=True)[1] == chosen(maps, sort=True, rank="mean")[1]
    assert chosen(maps, sort=True)[1] != chosen(maps, sort=True, rank="variance")[1]


@pytest.mark.parametrize("sort", [False, True])
def test_select_topk_draws_the_first_by_rank_in_that_order(maps: torch.Tensor, sort: bool) -> None:
    for k in range(1, 7):
        drawn, selection = chosen(maps, topk=k, rank="max", sort=sort)
        order = numpy_order(maps, "max")[:k]
        assert selection.channels == order
        assert torch.equal(drawn, maps[order])


def test_select_topk_is_of_the_channels_named(maps: torch.Tensor) -> None:
    order = [c for c in numpy_order(maps, "norm") if c in (1, 2, 5)]
    assert chosen(maps, channels="1-2,5", topk=2, rank="norm")[1].channels == order[:2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topk": 7}, "topk must be at most the 6 channels to choose from, got 7."),
        ({"topk": 3, "channels": "0-1"}, "topk must be at most the 2 channels to choose from, got 3."),
    ],
)
def test_select_topk_of_more_channels_than_there_are_is_refused(
    maps: torch.Tensor, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError) as caught:
        chosen(maps, **options)
    assert str(caught.value) == message


# Reduction.


@over("name", ["plain", "bfloat16", "half", "one_pixel", "single_channel", "not_contiguous", "dead"])
def test_select_reductions_equal_numpy(name: str) -> None:
    maps = as_maps(CASES[name].maps)
    before = maps.clone()
    drawn, selection = chosen(maps, reduce="sum,mean,max,strongest")
    wide = maps.double().numpy()
    strongest = int(np.abs(wide).mean(axis=(1, 2)).argmax())
    expected = np.stack([wide.sum(axis=0), wide.mean(axis=0), wide.max(axis=0), wide[strongest]])
    assert_same_floats(drawn, expected)
    assert selection == Selection([None, None, None, strongest], ["sum", "mean", "max", "strongest"])
    assert selection.names == ["sum", "mean", "max", "strongest"]
    assert selection.labels == ["sum", "mean", "max", f"strongest {strongest}"]
    assert torch.equal(maps, before)


def test_select_sum_is_exact_where_float32_sums_are_not() -> None:
    # The ones would be lost one by one, as they are in the articles' loops over float32.
    maps = torch.ones(1001, 1, 2)
    maps[0] = 2.0**25
    assert chosen(maps, reduce="sum")[0].flatten().tolist() == [2.0**25 + 1000] * 2


def test_select_reduction_is_of_the_channels_named_before_the_cut(maps: torch.Tensor) -> None:
    drawn, selection = chosen(maps, channels="1,3,3", reduce="sum", beside=True, topk=1, rank="max")
    assert_same_floats(drawn[0], (maps[1] + 2 * maps[3]).double())
    best = max((1, 3), key=lambda c: maps[c].max())
    assert selection.channels == [None, best]


@over("value", [NAN, INF, -INF])
@over("reduction", ["sum", "mean", "max"])
def test_select_reduction_is_nan_where_any_channel_is_not_finite(reduction: str, value: float) -> None:
    maps = noise(5, 3, 4)
    maps[3, 1, 2] = value
    cells = chosen(maps, reduce=reduction)[0][0]
    assert cells.isnan().nonzero().tolist() == [[1, 2]]
    maps[3, 1, 2] = 0
    whole = chosen(maps, reduce=reduction)[0][0]
    assert torch.equal(cells[0], whole[0])


def test_select_sum_beyond_float32_is_infinite() -> None:
    maps = torch.full((2, 1, 2), LARGEST)
    maps[1, 0, 1] = 0
    assert chosen(maps, reduce="sum")[0].flatten().tolist() == [INF, LARGEST]
    assert chosen(maps, reduce="mean")[0][0, 0, 0].item() == LARGEST


def test_select_strongest_goes_by_magnitude_of_finite_values_and_ties_to_the_lowest() -> None:
    maps = torch.zeros(5, 2, 2)
    maps[0] = 1
    maps[2], maps[3] = -2, 2
    maps[4], maps[4, 0, 0] = 1.5, INF
    assert chosen(maps, reduce="strongest")[1].channels == [2]
    assert chosen(maps, channels="3,2", reduce="strongest")[1].channels == [2]
    maps[:] = NAN
    assert chosen(maps, channels="4,1", reduce="strongest")[1].channels == [1]


def test_select_beside_draws_the_channels_behind_the_reductions(maps: torch.Tensor) -> None:
    drawn, selection = chosen(maps, reduce="max,strongest", beside=True)
    assert torch.equal(drawn[2:], maps)
    assert selection.reductions == ["max", "strongest", *[None] * 6]
    assert selection.channels[2:] == [0, 1, 2, 3, 4, 5]
    assert selection.names == ["max", "strongest", "0", "1", "2", "3", "4", "5"]
    assert selection.scores is None


def test_select_beside_ranked_scores_the_channels_only(maps: torch.Tensor) -> None:
    selection = chosen(maps, reduce="sum", beside=True, topk=2)[1]
    ranked = chosen(maps, topk=2)[1]
    assert selection.scores == [None, *(ranked.scores or [])]
    assert selection.channels == [None, *ranked.channels]


@pytest.mark.parametrize("count", [20, 512])
def test_render_sum_equals_the_sum_of_the_article(count: int) -> None:
    # Article 002 adds the maps up with Python's sum, in float32, and shows the result min-max on viridis.
    maps = noise(count, 7, 9).relu()
    added = sum(ele for ele in maps.numpy())
    expected = np.floor((added - added.min()) / (added.max() - added.min()) * 255 + 0.5).astype(np.uint8)
    sheet = render(maps, scale=1, reduce="sum")
    assert_same_plane(sheet.index, expected)


def test_render_sum_leaves_the_first_channel_alone(maps: torch.Tensor) -> None:
    # The loop of article 003 adds to a view of channel 0, so the network's output changes under its hands.
    array = maps.numpy().copy()
    total = array[0]
    for c in range(1, 6):
        total += array[c]
    assert not np.array_equal(array[0], maps[0])  # its fault
    before = maps.clone()
    sheet = render(maps, scale=1, reduce="sum", beside=True, grid="1x", normalize="fixed", vmin=-9, vmax=9)
    assert torch.equal(maps, before)
    expected = np.stack([array[0], *before.numpy()])  # its sum is right all the same
    levels = np.floor(((expected + 9) / 18).clip(0, 1) * 255 + 0.5).astype(np.uint8)
    assert_same_plane(sheet.index, np.concatenate(list(levels), axis=1))


@over("rank", RANKS)
def test_select_vectors_as_maps_of_one_value(rank: str) -> None:
    values = noise(50)
    maps = values[:, None, None]
    selection = chosen(maps, topk=5, rank=rank)[1]
    assert selection.channels == numpy_order(maps, rank)[:5]
    drawn, selection = chosen(maps, reduce="sum,max,strongest")
    assert_same_floats(drawn.flatten(), [values.double().sum(), values.max(), values[values.abs().argmax()]])
    assert selection.channels == [None, None, int(values.abs().argmax())]
