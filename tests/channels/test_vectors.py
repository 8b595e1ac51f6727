"""Vectors: the bar of cells, its range, and the ranked list."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.architectures import RepeatedWeights
from support.assertions import A_LEVEL, FLOAT32_RATIO, assert_close, close_to
from support.plain import render, visualize
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.channels.vectors import Entry, strongest
from cnnviz_fast.errors import ShapeError


def bar_of(sheet: cf.Sheet) -> tuple[int, int]:
    """Return height and width of the bar, in px; the list stands below it."""
    grid = sheet.manifest["sheet"]
    assert grid["height"] > grid["rows"] * grid["tile_h"]
    return grid["rows"] * grid["tile_h"], grid["cols"] * grid["tile_w"]


@pytest.fixture
def vector() -> torch.Tensor:
    return torch.randn(100, generator=torch.Generator().manual_seed(0))


def test_render_vector_is_a_bar_of_cells_on_one_range(vector: torch.Tensor) -> None:
    sheet = render(vector, colormap="gray")
    assert bar_of(sheet) == (2 * 16, 64 * 16)
    span = vector.max() - vector.min()
    for channel, tile in enumerate(sheet.manifest["tiles"]):
        y0, x0, y1, x1 = tile["box"]
        cell = sheet.index[y0:y1, x0:x1]
        assert (cell == cell[0, 0]).all()
        assert int(cell[0, 0]) == close_to(float((vector[channel] - vector.min()) / span) * 255, A_LEVEL)
    assert sheet.manifest["options"]["normalize"] == "layer"


def test_render_short_vector_is_as_wide_as_it_is_long() -> None:
    assert bar_of(render(np.arange(5.0))) == (16, 5 * 16)
    assert bar_of(render(np.arange(1.0))) == (16, 16)


@pytest.mark.parametrize(
    ("options", "shape"),
    [({"tile": 4}, (8, 256)), ({"scale": 3}, (6, 192)), ({"grid": "10x"}, (160, 160)), ({"topk": 3}, (16, 48))],
)
def test_render_vector_takes_the_options_that_are_given(
    options: dict[str, object], shape: tuple[int, int], vector: torch.Tensor
) -> None:
    assert bar_of(render(vector, **options)) == shape


def test_render_vector_keeps_a_range_that_is_given(vector: torch.Tensor) -> None:
    largest = float(vector.abs().max())
    ends = {"symmetric": (-largest, largest), "percentile": tuple(np.percentile(vector.numpy(), (1, 99)))}
    for normalize, (low, high) in ends.items():
        sheet = render(vector, normalize=normalize, colormap="gray")
        assert sheet.manifest["options"]["normalize"] == normalize
        shown = sheet.index[:32:16, ::16].ravel()[:100].astype(int)
        assert_close(shown, (vector.numpy().clip(low, high) - low) / (high - low) * 255, A_LEVEL)
        assert [(tile["vmin"], tile["vmax"]) for tile in sheet.manifest["tiles"]] == [
            close_to((low, high), FLOAT32_RATIO)
        ] * 100
    fixed = render(vector, normalize="fixed", vmin=0, vmax=1, colormap="gray")
    expected = np.floor(vector.clamp(0, 1).numpy() * 255 + 0.5)
    assert (fixed.index[:32:16, ::16].ravel()[:100] == expected).all()


def test_render_map_of_one_cell_is_drawn_as_a_vector(vector: torch.Tensor) -> None:
    assert (render(vector[:, None, None]).index == render(vector).index).all()


def test_render_list_has_a_bar_for_each_of_the_strongest(vector: torch.Tensor) -> None:
    sheet = render(vector, colormap="gray", provenance=cf.Provenance(categories=[f"class {i}" for i in range(100)]))
    foot = sheet.index[2 * 16 :]
    ink = sheet.manifest["palette"]["ink"]
    longest = [len(list(run)) for run in _runs(foot == ink)]
    assert len(longest) == 10
    assert longest == sorted(longest, reverse=True)
    shares = [entry["share"] for entry in sheet.manifest["strongest"]]
    assert shares[0] == 1
    assert longest == close_to([share * longest[0] for share in shares], A_LEVEL)  # px


def _runs(ink: np.ndarray) -> list[list[int]]:
    """Return the pixels of the longest horizontal bar of each line of text: runs of at least 20 px of ink."""
    bars: dict[int, list[int]] = {}
    previous = False
    for y, row in enumerate(ink):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
        lengths = edges[1::2] - edges[::2]
        long = lengths.max(initial=0) >= 20
        if long and not previous:
            bars[y] = [0] * int(lengths.max())
        previous = long
    return list(bars.values())


def test_strongest_greatest_first_ties_to_the_lowest_channel() -> None:
    values = torch.tensor([1.0, 3.0, float("nan"), 3.0, float("inf"), -1.0])[:, None, None]
    assert strongest(values) == [Entry(1, 3.0, 1.0), Entry(3, 3.0, 1.0), Entry(0, 1.0, 0.5), Entry(5, -1.0, 0.0)]
    assert strongest(torch.full((2, 1, 1), 4.0)) == [Entry(0, 4.0, 1.0), Entry(1, 4.0, 1.0)]
    assert strongest(torch.full((2, 1, 1), float("nan"))) == []
    assert [entry.channel for entry in strongest(torch.arange(100.0)[:, None, None])] == list(range(99, 89, -1))


def test_strongest_names_classes_only_where_they_are_as_many() -> None:
    values = torch.tensor([1.0, 3.0, 2.0])[:, None, None]
    assert [entry.category for entry in strongest(values, ("a", "b", "c"))] == ["b", "c", "a"]
    assert {entry.category for entry in strongest(values, ("a", "b"))} == {None}


def test_visualize_fully_connected_layers_of_alexnet(photo: Path, tmp_path: Path) -> None:
    with RepeatedWeights():
        model = cf.load_model("alexnet", weights="none", device="cpu")
    named = type(model)(**{**vars(model), "categories": tuple(f"class {i}" for i in range(1000))})
    layers = ["classifier.1", "classifier.4", "classifier.6"]
    sheets = visualize(named, photo, layers, tmp_path)
    assert [len(sheet.manifest["tiles"]) for sheet in sheets] == [4096, 4096, 1000]
    acts = cf.capture(model, cf.load_images(photo, model), layers)
    for sheet, output in zip(sheets, acts.values(), strict=True):
        best = output[0].sort(descending=True, stable=True).indices[:10].tolist()
        assert [entry["channel"] for entry in sheet.manifest["strongest"]] == best
        assert sheet.manifest["axes"] == "nc"
    assert [sheet.manifest["strongest"][0]["category"] is None for sheet in sheets] == [True, True, False]
    entry = sheets[2].manifest["strongest"][0]
    assert entry["category"] == f"class {entry['channel']}"
    written = json.loads((tmp_path / "classifier.6" / f"{photo.stem}.json").read_text())
    assert written["strongest"][0] == entry
    assert "categories" not in written


def test_report_of_a_vector_calls_no_channel_flat() -> None:
    report = cf.layer_report(torch.tensor([0.0, 1.0, 2.0]))
    assert (report.channels, report.dead, report.flat) == (3, [0], [])


def test_capture_head_in_a_model_of_ones_own_is_drawn(photo: Path) -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 7))
    (pooled, head) = visualize(model, photo, ["0", "2"])
    assert bar_of(pooled) == (16, 3 * 16)
    assert bar_of(head) == (16, 7 * 16)


def test_render_list_is_of_the_channels_that_are_picked(vector: torch.Tensor) -> None:
    sheet = render(vector, channels="3,0-6,3", provenance=cf.Provenance(categories=[f"class {i}" for i in range(100)]))
    entries = sheet.manifest["strongest"]
    assert [entry["channel"] for entry in entries] == vector[:7].argsort(descending=True).tolist()
    assert [entry["category"] for entry in entries] == [f"class {entry['channel']}" for entry in entries]
    assert (entries[0]["share"], entries[-1]["share"]) == (1, 0)


def test_render_vector_over_an_image_is_refused(vector: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match="a vector, cannot be laid over an image"):
        render(vector, overlay=np.zeros((9, 9, 3), dtype=np.uint8))
