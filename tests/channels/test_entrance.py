"""Maps as callers have them: what is masked takes no part, what is quantised is opened, what is nested is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.assertions import assert_equal_planes, assert_same_plane
from support.cases import noise

import cnnviz_fast as cf
from cnnviz_fast.errors import DTypeError, InputError, OptionError

MASKED = np.ma.masked_array([[[0.0, 1.0], [2.0, 1e6]]], mask=[[[0, 0], [0, 1]]])
WAYS: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda maps: maps,
    "integers": lambda maps: maps.astype(np.int64),
    "batch of one": lambda maps: maps[None],
    "list of maps": lambda maps: [maps[0]],
    "turned": lambda maps: maps[:, ::-1],
    "strict": lambda maps: np.ma.masked_array(maps.data, mask=maps.mask, hard_mask=True),
}


@pytest.mark.parametrize("way", WAYS)
def test_masked_values_are_bad_and_take_no_part(way: str) -> None:
    sheet = cf.render(WAYS[way](MASKED), tile=4)
    (tile,) = sheet.manifest["tiles"]
    assert (tile["min"], tile["max"], tile["nan"]) == (0, 2, 1)
    assert (sheet.index == sheet.colors.bad).any()
    assert float(MASKED.data.max()) == 1e6  # nothing was written into it


def test_masked_values_take_no_part_in_whatever_takes_arrays(tmp_path: Path) -> None:
    report = cf.layer_report(MASKED)
    assert (report.max, report.nonfinite) == (2, [0])
    atlas = cf.read_atlas(cf.save_atlas(MASKED, tmp_path / "a.atlas"))
    assert bool(atlas.maps[0, 1, 1].isnan())
    assert cf.compare(MASKED, MASKED.filled(0), tile=4).manifest["channels"][0]["lost"] == 1


def test_array_without_a_masked_value_is_drawn_as_ever() -> None:
    maps = noise(3, 4, 5).numpy()
    drawn = [cf.render(each, tile=9) for each in (maps, np.ma.masked_array(maps), list(maps))]
    assert_equal_planes(drawn[0].index, drawn[1].index)
    assert_equal_planes(drawn[0].index, drawn[2].index)


@pytest.mark.filterwarnings("ignore:torch.quantize_per")  # which say what to use one day
def test_quantised_maps_are_drawn_as_what_they_stand_for() -> None:
    maps = noise(3, 4, 5)
    quantised = torch.quantize_per_tensor(maps, 0.05, 10, torch.quint8)
    by_channel = torch.quantize_per_channel(maps, torch.full((3,), 0.05), torch.zeros(3), 0, torch.qint8)
    for each in (quantised, by_channel):
        assert_equal_planes(cf.render(each, tile=9).index, cf.render(each.dequantize(), tile=9).index)
    assert_equal_planes(cf.render([quantised] * 2, tile=9).index, cf.render([quantised.dequantize()] * 2, tile=9).index)
    for call in (lambda: list(cf.render_batch(quantised[None])), lambda: cf.render_index(quantised)):
        with pytest.raises(DTypeError, match=r"^maps must hold plain numbers, got torch\.quint8\. Pass maps\.dequ"):
            call()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.parametrize("ndim", [2, 3])
def test_nested_tensors_are_refused(layout: torch.layout, ndim: int, tmp_path: Path) -> None:
    parts = [noise(*(size, 4, 5)[:ndim]) for size in (2, 3)]
    nested = torch.nested.as_nested_tensor(parts, layout=layout)
    for call in (
        lambda: cf.render(nested), lambda: cf.save_sheet(nested, tmp_path / "a.png"),
        lambda: cf.compare(nested, nested),
        lambda: cf.layer_report(nested), lambda: list(cf.render_batch(nested)), lambda: cf.render_index(nested),
        lambda: cf.LayerStatistics(4).update(nested), lambda: cf.save_atlas(nested, tmp_path / "a.atlas"),
        lambda: cf.save_tiles(nested, tmp_path),
    ):  # fmt: skip
        with pytest.raises(DTypeError, match=r"^maps must be one tensor of one size, got a nested tensor\."):
            call()


def test_view_whose_signs_are_turned_is_drawn_as_its_values() -> None:
    maps = noise(3, 4, 5)
    turned = torch.complex(maps, -maps).conj().imag
    assert turned.is_neg()
    assert_same_plane(cf.render(turned, tile=9).index, cf.render(maps, tile=9).index)
    (sheet,) = cf.render_batch(turned[None], tile=9)
    assert_same_plane(sheet.index, cf.render(maps, tile=9).index)


def test_parameters_and_weights_that_are_trained_are_drawn() -> None:
    maps = torch.nn.Parameter(noise(1, 3, 4, 5))
    (sheet,) = cf.render_batch(maps, tile=9)
    assert_same_plane(sheet.index, cf.render(maps, tile=9).index)


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_matrix_is_drawn_as_the_array_that_it_holds() -> None:
    values = [[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]]
    assert_equal_planes(cf.render(np.matrix(values)).index, cf.render(np.array(values)).index)


@pytest.mark.parametrize("axes", [None, 5, torch.zeros(3), "n", "chwchw"])
def test_axes_that_are_none_are_refused(axes: Any) -> None:
    with pytest.raises(OptionError, match=r"^axes must be one of auto, chw, hwc, "):
        cf.render(noise(3, 4, 5), axes=axes)


@pytest.mark.parametrize("provenance", ["resnet18", {"model": "resnet18"}, 5])
def test_provenance_that_is_none_is_refused(provenance: Any) -> None:
    with pytest.raises(InputError, match=r"^provenance must be a Provenance, got "):
        cf.render(noise(3, 4, 5), provenance=provenance)


@pytest.mark.parametrize("maps", [None, 5, [1, 2], "text", [("a", noise(1, 2, 3, 3), 3)]])
def test_render_batch_of_what_is_no_batch_is_refused(maps: Any) -> None:
    with pytest.raises(DTypeError, match=r"^maps must be a tensor, a mapping or pairs of name and maps, got "):
        list(cf.render_batch(maps))
