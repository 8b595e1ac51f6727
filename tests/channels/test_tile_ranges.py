"""Where the ranges of tiles come from: a sheet beside them, the caller, or statistics over a data set."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cnnviz_fast.channels.chosen import ChosenChannels, choose_channels
from cnnviz_fast.channels.tile_ranges import GivenRanges, SharedRanges, decide_ranges
from cnnviz_fast.errors import OptionError, ShapeError
from cnnviz_fast.kernels.backends import choose
from cnnviz_fast.options.drawing import RenderOptions

BACKEND = choose("torch", "cpu")


def chosen(maps: torch.Tensor, **options: object) -> ChosenChannels:
    return choose_channels(maps, BACKEND, RenderOptions(**options))


def test_decide_ranges_from_the_maps_are_their_extremes(maps: torch.Tensor) -> None:
    found = decide_ranges(chosen(maps), BACKEND)
    assert torch.equal(found.vmin, maps.amin((1, 2)))
    assert torch.equal(found.vmax, maps.amax((1, 2)))
    assert found.all_finite
    assert not found.shared


def test_decide_ranges_shared_with_other_maps_are_those_of_both(maps: torch.Tensor) -> None:
    others = maps * 2
    others[5, 0, 0] = torch.nan
    found = decide_ranges(chosen(maps, channels="5,1"), BACKEND, SharedRanges(others))
    both = torch.cat([maps, others.nan_to_num(0)], dim=1)[[5, 1]]
    assert torch.equal(found.vmin, both.amin((1, 2)))
    assert torch.equal(found.vmax, both.amax((1, 2)))
    assert not found.all_finite
    assert found.shared


def test_decide_ranges_of_vectors_side_by_side_are_one_range_of_both() -> None:
    vector = torch.tensor([1.0, -2.0, torch.nan])[:, None, None]
    found = decide_ranges(chosen(vector), BACKEND, SharedRanges(vector * 3))
    assert found.vmin[:2].tolist() == [-6, -6]
    assert found.vmax[:2].tolist() == [3, 3]
    assert found.vmin[2].isnan()


def test_decide_ranges_given_ones_are_taken_whatever_normalize_says(maps: torch.Tensor) -> None:
    given = GivenRanges(torch.full((6,), -1.0), torch.full((6,), 4.0))
    found = decide_ranges(chosen(maps, normalize="symmetric"), BACKEND, given)
    assert found.vmin is given.vmin
    assert found.vmax is given.vmax


def test_decide_ranges_over_a_data_set_follow_the_channels_and_leave_empty_ones_their_own(maps: torch.Tensor) -> None:
    low, high = np.arange(6, dtype=np.float32) - 10, np.arange(6, dtype=np.float32) + 10
    low[4] = high[4] = np.nan
    found = decide_ranges(chosen(maps, normalize="dataset", channels="4,2"), BACKEND, (low, high))
    assert found.vmin.tolist() == [maps[4].min().item(), -8]
    assert found.vmax.tolist() == [maps[4].max().item(), 12]


def test_decide_ranges_and_normalize_dataset_go_together(maps: torch.Tensor) -> None:
    ranges = np.zeros(6, np.float32), np.ones(6, np.float32)
    with pytest.raises(OptionError, match="needs statistics of the data set"):
        decide_ranges(chosen(maps, normalize="dataset"), BACKEND)
    with pytest.raises(OptionError, match="statistics go with normalize 'dataset'"):
        decide_ranges(chosen(maps), BACKEND, ranges)
    with pytest.raises(ShapeError, match="of the layer's 6 channels, got those of 1"):
        decide_ranges(chosen(maps, normalize="dataset"), BACKEND, (ranges[0][:1], ranges[1][:1]))
