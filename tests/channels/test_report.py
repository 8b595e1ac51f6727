"""The report of a layer: every count against numpy, the kinds by hand, and what the terminal shows of it."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.assertions import ROUNDED, assert_same_statistics, close_to
from support.cases import CASES, INF, LARGEST, NAN, noise
from support.looping import over
from support.plain import visualize

import cnnviz_fast as cf
from cnnviz_fast.channels.statistics import channel_statistics
from cnnviz_fast.channels.values import as_maps
from cnnviz_fast.errors import DTypeError, ShapeError
from cnnviz_fast.kernels.backends import BACKENDS


def numpy_report(maps: np.ndarray) -> dict[str, Any]:
    """Work a report out channel by channel, from the words of its docstring."""
    found: dict[str, Any] = {kind: [] for kind in ("dead", "flat", "saturated", "nonfinite")}
    spans = []
    for c, channel in enumerate(maps):
        values = channel[np.isfinite(channel)]
        if (channel == 0).all():
            found["dead"].append(c)
        if values.size < channel.size:
            found["nonfinite"].append(c)
        if not values.size:
            continue
        low, high = values.min(), values.max()
        spans.append(float(high) - float(low))
        if low == high:
            if channel.size > 1:
                found["flat"].append(c)
            continue
        level = high / np.float32(255) - low / np.float32(255)
        at_top = 2 * (values >= high - level).sum() >= values.size
        at_bottom = low != 0 and 2 * (values <= low + level).sum() >= values.size
        if at_top or at_bottom:
            found["saturated"].append(c)
    everything = maps[np.isfinite(maps)].astype(np.float64)
    return found | {
        "channels": len(maps),
        "sparsity": (maps == 0).mean(),
        "spans": spans,
        "values": [f(everything) for f in (np.min, np.max, np.mean, np.std)] if everything.size else [None] * 4,
    }


def check(maps: torch.Tensor) -> None:
    report, expected = cf.layer_report(maps), numpy_report(maps.numpy())
    for name in ("channels", "dead", "flat", "saturated", "nonfinite"):
        assert getattr(report, name) == expected[name], name
    assert_same_statistics(np.float64(report.sparsity), expected["sparsity"])
    values = [report.min, report.max, report.mean, report.std]
    if expected["values"][0] is None:
        assert values == [None] * 4
    else:
        unit = max(1.0, *np.abs(expected["values"]))
        assert_same_statistics(np.array(values) / unit, np.array(expected["values"]) / unit)
    assert sum(report.ranges.counts) == len(expected["spans"])
    edges = report.ranges.edges
    assert (len(report.ranges.counts), len(edges), edges[0]) == (10, 11, 0)
    assert edges[-1] == (max(expected["spans"], default=0) or 1)
    for i, count in enumerate(report.ranges.counts):
        assert count == sum(edges[i] <= s and (s < edges[i + 1] or i == 9) for s in expected["spans"]), i


@over("name", CASES)
def test_layer_report_every_case_equals_numpy(name: str) -> None:
    check(as_maps(CASES[name].maps))


@given(data=st.data())
def test_layer_report_of_few_values_equals_numpy(data: st.DataObject) -> None:
    count, height, width = (data.draw(st.integers(1, most)) for most in (6, 3, 4))
    value = st.sampled_from([0.0, -0.0, 1.0, 0.999, 0.5, -1.0, NAN, INF, -INF])
    values = data.draw(st.lists(value, min_size=count * height * width, max_size=count * height * width))
    check(torch.tensor(values).reshape(count, height, width))


def test_layer_report_kinds_by_hand() -> None:
    maps = torch.linspace(1, 9, 8).repeat(8, 1).reshape(8, 2, 4)
    maps[1] = 0
    maps[2] = -2.5
    maps[3, 0] = 9  # half of it at the maximum
    maps[4, 0] = 1  # half of it at a minimum that is not 0
    maps[5, 0] = 0  # half of it at 0: a ReLU, not saturated
    maps[6, 0, :2] = torch.tensor([NAN, INF])
    maps[7] = NAN
    report = cf.layer_report(maps)
    assert (report.channels, report.dead, report.flat, report.nonfinite) == (8, [1], [1, 2], [6, 7])
    assert report.saturated == [3, 4]
    assert report.sparsity == (8 + 4) / 64
    assert (report.min, report.max) == (-2.5, 9)
    assert report.ranges.counts == [2, 0, 0, 1, 0, 0, 1, 0, 2, 1]


@over(("offset", "saturated"), [(0.9, True), (1.1, False)])
@over("top", [True, False])
def test_layer_report_saturated_is_within_one_level_of_an_end(offset: float, saturated: bool, top: bool) -> None:
    # Half of the values a little more, or less, than 1/255 of the range away from an end.
    values = torch.tensor([1.0, 2.0, 1.5, *[2 - offset / 255] * 2])
    values = values if top else 3 - values
    assert cf.layer_report(values[None, None]).saturated == ([0] if saturated else [])


def test_layer_report_is_the_same_by_every_backend_and_statistics() -> None:
    maps = as_maps(CASES["mixed"].maps)
    reports = [
        cf.layer_report(maps, channel_statistics(backend, maps))
        for backend in BACKENDS.values()
        if backend.takes("cpu")
    ]
    for report in reports:
        exact = dataclasses.replace(report, mean=0, std=0)
        assert exact == dataclasses.replace(cf.layer_report(maps), mean=0, std=0)


def test_layer_report_range_beyond_float32() -> None:
    report = cf.layer_report(torch.tensor([[[-LARGEST, LARGEST]], [[0.0, 1.0]]]))
    assert report.ranges.edges[-1] == 2 * LARGEST
    assert report.ranges.counts == [1, *[0] * 8, 1]


def test_layer_report_takes_numpy_halves_and_views_and_changes_nothing() -> None:
    maps = (noise(5, 4, 6).relu() * 3).half()
    before = maps.clone()
    expected = cf.layer_report(maps.float())
    for given_ in (maps, maps.numpy(), maps.permute(1, 2, 0).contiguous().permute(2, 0, 1)):
        assert cf.layer_report(given_) == expected
    assert torch.equal(maps, before)


@pytest.mark.parametrize(
    ("maps", "error"), [(torch.zeros(2, 3, 4, 5), ShapeError), (torch.zeros(1, 1, 1) * 1j, DTypeError)]
)
def test_layer_report_what_is_no_maps_is_refused(maps: torch.Tensor, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^maps must "):
        cf.layer_report(maps)


@over("name", ["mixed", "all_nan", "one_pixel", "largest_range", "all_infinite"])
def test_layer_report_is_strict_json(name: str) -> None:
    record = dataclasses.asdict(cf.layer_report(CASES[name].maps))
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_visualize_leaves_the_report_in_the_manifest() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU())
    torch.nn.init.zeros_(model[0].weight[2])
    torch.nn.init.zeros_(model[0].bias)
    (sheet,) = visualize(model, noise(1, 3, 9, 9), "1", tile=9, report=True)
    report = sheet.manifest["report"]
    assert (report["channels"], report["dead"]) == (5, [2])
    assert report["sparsity"] == close_to(np.mean([tile["zeros"] for tile in sheet.manifest["tiles"]]), ROUNDED)


def test_lines_are_the_short_table() -> None:
    maps = torch.zeros(100, 2, 2)
    maps[20:] = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    maps[99, 0, 0] = NAN
    assert cf.layer_report(maps).lines() == [
        "channels   100",
        "values     0 to 3, mean 1.203, standard deviation 1.166",
        "sparsity   39.8%",
        "dead       20: 0, 1, 2, 3, 4, 5, 6, 7, ...",
        "flat       20: 0, 1, 2, 3, 4, 5, 6, 7, ...",
        "saturated  0",
        "nonfinite  1: 99",
        "ranges     20 0 0 0 0 0 1 0 0 79 (channels; 0 to 3)",
    ]


def test_lines_without_a_finite_value_say_so() -> None:
    lines = cf.layer_report(torch.full((2, 1, 1), NAN)).lines()
    assert lines[1] == "values     no finite value"
    assert lines[6:] == ["nonfinite  2: 0, 1"]


def test_lines_of_a_vector_tell_no_ranges() -> None:
    assert cf.layer_report(torch.arange(9.0)).lines()[-1] == "nonfinite  0"


@over("name", CASES)
def test_lines_are_ascii_and_fit_the_terminal(name: str) -> None:
    lines = cf.layer_report(CASES[name].maps).lines()
    assert all(line.isascii() and len(line) <= 90 and "\n" not in line for line in lines)
