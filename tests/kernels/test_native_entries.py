"""The native lists of entries: sizes that do not fit are refused. What they keep is in tests/patches/test_top.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.cases import INF, NAN, noise
from support.native_module import load_native

native = load_native()


def lists(channels: int = 3, width: int = 2) -> list[Any]:
    shape = (channels, width)
    return [np.full(shape, NAN, np.float32), np.full(shape, 2**63 - 1), np.full(shape, -1, np.int32)]


def batch(images: int = 2, channels: int = 3) -> list[Any]:
    return [np.ones((images, channels), np.float32), np.arange(images), np.zeros(channels, np.bool_)]


def test_enter_entries_writes_images_by_their_number() -> None:
    scores, digests, positions = lists()
    new, images, touched = batch()
    new[:, 1] = NAN
    native.enter_entries(scores, digests, positions, False, new, images, touched)
    assert positions.tolist() == [[-2, -3], [-1, -1], [-2, -3]]
    assert touched.tolist() == [True, False, True]


@pytest.mark.parametrize(("held", "given", "message"), [
    (lists(3, 0), batch(), "lists must have room for at least 1 entry"),
    ([*lists()[:2], *lists(3, 3)[2:]], batch(), "a row of positions must have length 2, got 3"),
    ([lists()[0], lists(4)[1], lists()[2]], batch(), "digests must have length 3, got 4"),
    (lists(), batch(2, 4), "a row of new_scores must have length 3, got 4"),
    (lists(), [batch()[0], np.arange(3), batch()[2]], "new_digests must have length 2, got 3"),
    (lists(), [*batch()[:2], np.zeros(2, np.bool_)], "touched must have length 3, got 2"),
])  # fmt: skip
def test_enter_entries_refuses_sizes_that_do_not_fit(held: list[Any], given: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        native.enter_entries(*held, False, *given)


def test_merge_entries_refuses_other_channels() -> None:
    with pytest.raises(ValueError, match="other_scores must have length 3, got 4"):
        native.merge_entries(*lists(), False, *lists(4))
    with pytest.raises(TypeError):
        native.merge_entries(*lists()[:2], np.zeros((3, 2)), False, *lists())


def test_first_places_refuses_channels_that_are_not_there() -> None:
    maps, values, places = noise(3, 4, 5).numpy(), np.zeros(1, np.float32), np.zeros(1, np.int64)
    for channel in (-1, 3):
        with pytest.raises(ValueError, match=f"channel must lie within the maps' 3, got {channel}"):
            native.first_places(maps, np.array([channel]), values, places)
    with pytest.raises(ValueError, match="places must have length 1, got 2"):
        native.first_places(maps, np.array([0]), values, np.zeros(2, np.int64))


@pytest.mark.parametrize("level", native.vector_levels())
@pytest.mark.parametrize("channels", [1, 15, 16, 40])
def test_channel_range_counts_what_is_not_finite(level: str, channels: int) -> None:
    before = native.vector_level()
    native.set_vector_level(level)
    maps = noise(channels, 9, 7)
    maps[0, 0, 0], maps[-1, 8, 6], maps[channels // 2, 3] = NAN, INF, -INF
    across = maps.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for arranged in (maps, across):
        low, high, nonfinite = (*np.empty((2, channels), np.float32), np.empty(channels, np.int64))
        native.channel_range(arranged.numpy(), low, high, nonfinite)
        finite = maps.isfinite()
        assert torch.equal(torch.from_numpy(nonfinite), (~finite).sum(dim=(1, 2)))
        assert torch.equal(torch.from_numpy(low), maps.where(finite, INF).amin(dim=(1, 2)))
        assert torch.equal(torch.from_numpy(high), maps.where(finite, -INF).amax(dim=(1, 2)))
    native.set_vector_level(before)
