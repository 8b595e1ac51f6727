"""The channels that are drawn: measured once, reported on as a whole layer, and made a bar where they are a vector."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

import cnnviz_fast as cf
from cnnviz_fast.channels import chosen as module
from cnnviz_fast.channels.chosen import choose_channels
from cnnviz_fast.kernels.backends import choose
from cnnviz_fast.options.drawing import RenderOptions

BACKEND = choose("torch", "cpu")


def test_choose_channels_report_is_of_the_whole_layer(maps: torch.Tensor) -> None:
    found = choose_channels(maps, BACKEND, RenderOptions(channels="1,3", report=True))
    assert found.report == cf.layer_report(maps)
    assert found.selection.channels == [1, 3]
    assert found.layer_channels == 6
    assert torch.equal(found.maps, maps[[1, 3]])


def test_choose_channels_with_a_report_measures_a_layer_once(
    maps: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = mock.Mock(wraps=module.channel_statistics)
    monkeypatch.setattr(module, "channel_statistics", measure)
    monkeypatch.setattr("cnnviz_fast.channels.selection.channel_statistics", measure)
    monkeypatch.setattr("cnnviz_fast.channels.report.channel_statistics", measure)
    choose_channels(maps, BACKEND, RenderOptions(report=True, topk=2))
    assert measure.call_count == 1


def test_choose_channels_vector_becomes_a_bar_with_a_list() -> None:
    vector = torch.arange(100.0)[:, None, None]
    found = choose_channels(vector, BACKEND, RenderOptions(), categories=[f"class {n}" for n in range(100)])
    assert found.is_vector
    assert (found.options.tile, found.options.grid, found.options.normalize) == (16, (0, 64), "layer")
    assert found.entries is not None
    assert found.entries[0].line == "99: 99  class 99"


def test_choose_channels_list_of_a_vector_is_made_only_where_it_is_wanted() -> None:
    vector = torch.arange(5.0)[:, None, None]
    assert choose_channels(vector, BACKEND, RenderOptions(), list_entries=False).entries is None


def test_choose_channels_leaves_options_of_maps_alone(maps: torch.Tensor) -> None:
    options = RenderOptions(tile=20)
    found = choose_channels(maps, BACKEND, options)
    assert found.options is options
    assert not found.is_vector
    assert found.entries is None
