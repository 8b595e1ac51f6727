"""Devices without kernels of their own, such as MPS: the torch backend draws and measures there, without float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.assertions import (
    A_LEVEL_AS_COLOUR,
    NO_FLOAT64,
    NO_FLOAT64_MEAN,
    assert_close,
    assert_same_plane,
    assert_same_range,
    close_to,
)
from support.cases import CASES, Case, mixed, noise
from support.plain import compare, render, save_sheet, save_tiles
from support.pretend_device import MPS, Pretending, There, sent
from support.quick import in_turns

import cnnviz_fast as cf
from cnnviz_fast.attribution.priors import psnr
from cnnviz_fast.channels.statistics import channel_statistics
from cnnviz_fast.channels.values import as_maps
from cnnviz_fast.kernels import backends, reference, torch_ops
from cnnviz_fast.weights import histograms

FITTING = {
    name: case
    for name, case in CASES.items()
    if isinstance(case.maps, torch.Tensor) and case.maps.dtype != torch.float64 and name != "huge"
}
"""The cases whose maps can lie on MPS; of the huge one the reference would draw minutes."""


@pytest.fixture
def _pretending() -> Iterator[None]:
    with Pretending():
        yield


pretending = pytest.mark.usefixtures("_pretending")


# The device refuses what it has to.


@pretending
def test_pretended_device_refuses_what_mps_does() -> None:
    there = torch.ones(2, 3, device=MPS)
    assert there.device == MPS
    assert (there + 1)[:, 1].device == MPS
    assert there.cpu().double().device.type == "cpu"
    with pytest.raises(TypeError, match="float64"):
        there.double()
    with pytest.raises(TypeError, match="float64"):
        there.sum(dtype=torch.float64)
    with pytest.raises(TypeError, match="float64"):
        torch.zeros(3).to(MPS, torch.float64)
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    with pytest.raises(RuntimeError, match="same device"):
        there + torch.ones(2, 3)


# Planes.


def sheets(maps: torch.Tensor, **options: Any) -> tuple[cf.Sheet, cf.Sheet]:
    """Draw maps on the device, and on the CPU by the reference."""
    with Pretending():
        actual = render(sent(maps.detach()), threads=1, **options)
    assert actual.manifest["backend"] == "torch"
    assert actual.manifest["maps"]["device"] == "mps:0"
    return actual, render(maps, backend="reference", **options)


@pytest.mark.parametrize("name", FITTING)
def test_render_every_case_equals_reference(name: str) -> None:
    case: Case = FITTING[name]
    grid = "auto" if case.grid == (0, 0) else "x".join(str(n or "") for n in case.grid)
    actual, expected = sheets(case.maps, tile=case.tile, gap=case.gap, margin=case.margin, grid=grid)
    assert_same_plane(actual.index, expected.index, levels=expected.manifest["palette"]["levels"])


OPTIONS: dict[str, dict[str, Any]] = {
    **{f"normalize_{way}": {"normalize": way} for way in ("channel", "layer", "percentile", "symmetric", "sigmoid")},
    "normalize_fixed": {"normalize": "fixed", "vmin": -1, "vmax": 2},
    "percentiles_near_the_ends": {"normalize": "percentile", "percentile": (0.1, 99.9)},
    **{f"align_{align}": {"align": align} for align in ("left", "center", "corners")},
    "nearest": {"upsampling": "nearest"},
    "smaller_than_maps": {"tile": (2, 3)},
    **{f"rank_{rank}": {"sort": True, "rank": rank} for rank in ("mean", "abs-mean", "max", "variance", "nonzero")},
    "rank_norm": {"topk": 5, "rank": "norm"},
    **{f"reduce_{way}": {"reduce": way} for way in ("sum", "mean", "max", "strongest")},
    "beside": {"reduce": "sum,mean,max,strongest", "beside": True, "topk": 3, "rank": "abs-mean"},
    "channels": {"channels": "5,0,3,3"},
    "all_that_is_written": {"label": True, "title": "maps", "colorbar": True, "gap": 2, "margin": 3},
}


def ordinary() -> torch.Tensor:
    """Return maps whose channels have ranks of their own, (12, 5, 6) float32, some values 0 and one channel dead."""
    maps = torch.relu(noise(12, 5, 6) + torch.linspace(-1, 1, 12)[:, None, None]) * torch.arange(12.0)[:, None, None]
    maps[3, 2, 2] = torch.nan
    return maps


@pytest.mark.parametrize(("name", "make"), in_turns(OPTIONS, [ordinary, mixed]))
def test_render_every_option_equals_reference(name: str, make: Callable[[], torch.Tensor]) -> None:
    actual, expected = sheets(make(), **({"tile": (11, 13)} | OPTIONS[name]))
    assert_same_plane(actual.index, expected.index, levels=expected.manifest["palette"]["levels"])
    for ours, theirs in zip(actual.manifest["tiles"], expected.manifest["tiles"], strict=True):
        assert ours == approximately(theirs)


def approximately(numbers: dict[str, Any]) -> dict[str, Any]:
    """Accept what sums in float32 differ by."""
    return {key: close_to(value, NO_FLOAT64) if isinstance(value, float) else value for key, value in numbers.items()}


def test_render_vector_equals_reference() -> None:
    vector = noise(70)
    vector[7] = torch.nan
    for options in ({}, {"normalize": "percentile"}, {"reduce": "mean,max", "beside": True}):
        actual, expected = sheets(vector, **options)
        assert_same_plane(actual.index, expected.index, levels=expected.manifest["palette"]["levels"])
        assert actual.manifest["strongest"] == expected.manifest["strongest"]


def test_files_equal_those_of_the_cpu(tmp_path: Path) -> None:
    maps, photo = ordinary(), np.full((50, 60, 3), 90, np.uint8)
    for folder, given in (("there", sent(maps)), ("here", maps)):
        (tmp_path / folder).mkdir()
        with Pretending():
            save_sheet(given, tmp_path / folder / "sheet.png", tile=20, threads=1, overlay=photo)
            save_tiles(given, tmp_path / folder / "tiles", tile=20, threads=1)
    files = [path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*.png")]
    assert len(files) == 13
    for file in files:
        ours, theirs = (np.asarray(Image.open(tmp_path / folder / file).convert("RGB")) for folder in ("there", "here"))
        assert_close(ours, theirs, A_LEVEL_AS_COLOUR, str(file))


def test_compare_draws_both_sides() -> None:
    maps, other = ordinary(), ordinary() * 2
    with Pretending():
        actual = compare(sent(maps), sent(other), tile=12, threads=1)
    expected = compare(maps, other, tile=12)
    for ours, theirs in ((actual.pair, expected.pair), (actual.difference, expected.difference)):
        assert_same_plane(ours.index, theirs.index)


# Measurements.


@pytest.mark.parametrize("name", FITTING)
def test_statistics_every_case_equal_reference(name: str) -> None:
    maps = as_maps(FITTING[name].maps)
    with Pretending():
        found = channel_statistics(backends.choose("auto", "mps"), sent(maps))
    assert found.mean.dtype == torch.float32
    values = maps.contiguous().numpy()
    assert_same_range((found.vmin.cpu(), found.vmax.cpu()), reference.channel_range(values))
    for ours, theirs in zip(
        (found.mean, found.std, found.zeros, found.nan, found.inf), reference.channel_moments(values), strict=True
    ):
        unit = max(1.0, float(np.abs(values[np.isfinite(values)]).max(initial=0)))
        assert_close(ours.cpu().numpy() / unit, theirs / unit, NO_FLOAT64)


def test_statistics_of_large_values_do_not_overflow() -> None:
    maps = noise(3, 6, 7) * torch.tensor([1e30, 1e38, 1e-30])[:, None, None]
    with Pretending():
        mean, std, *_ = torch_ops.channel_moments(sent(maps))
    assert_close(mean, maps.double().mean((1, 2)), NO_FLOAT64_MEAN)
    assert_close(std, maps.double().std((1, 2), correction=0), NO_FLOAT64)


@pytest.mark.parametrize("maps", [ordinary(), mixed(), noise(9)], ids=["ordinary", "mixed", "vector"])
def test_layer_report_equals_that_of_the_cpu(maps: torch.Tensor) -> None:
    with Pretending():
        actual = cf.layer_report(sent(maps))
    expected = cf.layer_report(maps)
    assert vars(actual) | {"ranges": None} == approximately(vars(expected) | {"ranges": None})
    assert actual.ranges.counts == expected.ranges.counts


def test_parameters_are_measured_on_the_cpu() -> None:
    weights = noise(5, 4, 3, 3)
    with Pretending():
        (actual,) = histograms.measure([sent(weights)], threads=1)
    (expected,) = histograms.measure([weights], threads=1)
    assert (actual.mean, actual.std, actual.counts.tolist()) == (expected.mean, expected.std, expected.counts.tolist())


# The backend for other libraries.


@pytest.mark.parametrize("normalize", ["channel", "layer", "percentile", "symmetric", "sigmoid"])
def test_render_index_stays_on_the_device(normalize: str) -> None:
    batch = noise(2, 5, 4, 6)
    with Pretending():
        actual = cf.render_index(sent(batch), tile=9, normalize=normalize)
        assert type(actual) is There
        assert actual.dtype == torch.uint8
    assert_same_plane(actual.cpu().flatten(0, 1), cf.render_index(batch, tile=9, normalize=normalize).flatten(0, 1))


# What has sums in float64 of its own.


@pretending
def test_psnr_equals_that_of_the_cpu() -> None:
    one, other = noise(3, 6, 7).clamp(0, 1), noise(3, 6, 7).flip(1).clamp(0, 1)
    assert psnr(sent(one), sent(other)) == psnr(one, other)
