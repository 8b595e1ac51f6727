"""The sheet of histograms: every bar where numpy's counts say, and a manifest of what is where."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from support.looping import over
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.errors import InputError
from cnnviz_fast.sheets.lettering import FONT
from cnnviz_fast.sheets.render import draw_sheet, write_sheet
from cnnviz_fast.weights.histogram_sheet import draw_bars, plan_histograms

ZERO_BAR, ZERO_LINE = 153, 77
"""Greys of 0.6 and 0.3 of white: the bar that holds zero, and what is above it."""


@pytest.fixture
def infos() -> list[cf.ParameterInfo]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Conv2d(3, 8, 5), nn.BatchNorm2d(8), nn.Linear(30, 20))
    with torch.no_grad():
        model[2].bias.fill_(float("nan"))
    return cf.parameter_statistics(model)


def test_histogram_sheet_as_a_file_shows_every_bar(infos: list[cf.ParameterInfo], tmp_path: Path) -> None:
    path = write_sheet(plan_histograms(infos, provenance=cf.Provenance("net", "seeded")), tmp_path / "histograms.png")
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert (manifest["model"], manifest["weights"]) == ("net", "seeded")
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("L"))
    drawn = np.zeros(pixels.shape, bool)
    for tile, info in zip(manifest["tiles"], infos, strict=True):
        assert (tile["name"], tile["mean"], tile["histogram"]) == (info.name, info.mean, list(info.histogram))
        y0, x0, y1, x1 = tile["box"]
        assert (y1 - y0, x1 - x0) == (96, 200)
        heights = np.ceil(np.array(info.histogram) * 96 / max(1, *info.histogram)).astype(int)
        expected = np.zeros((96, 200), np.uint8)
        for place, height in enumerate(heights):
            expected[96 - height :, 4 * place : 4 * place + 4] = 255
        holds_zero = np.histogram([] if info.min is None else [0.0], bins=50, range=info.edges)[0]  # if any bin does
        for place in np.flatnonzero(holds_zero):
            line = expected[:, 4 * place : 4 * place + 4]
            line[:] = np.where(line == 255, ZERO_BAR, ZERO_LINE)
        np.testing.assert_array_equal(pixels[y0:y1, x0:x1], expected)
        drawn[y0:y1, x0:x1] = True
    assert set(pixels[~drawn]) == {0x40, 255}, "names in white on the gaps' grey"


def test_histogram_sheet_in_memory_is_the_same(infos: list[cf.ParameterInfo], tmp_path: Path) -> None:
    sheet = draw_sheet(plan_histograms(infos, threads=1))
    with Image.open(write_sheet(plan_histograms(infos), tmp_path / "h.png")) as image:
        np.testing.assert_array_equal(sheet.rgb(), np.asarray(image.convert("RGB")))
    assert [tile["name"] for tile in sheet.manifest["tiles"]] == [info.name for info in infos]


def info_of(histogram_at: float, edges: tuple[float, float]) -> cf.ParameterInfo:
    """Return what is known of a parameter of 1,500 values, all at one place between the edges."""
    (info,) = cf.parameter_statistics(nn.Linear(50, 30, bias=False))
    counts = np.histogram([histogram_at], bins=50, range=edges)[0] * 1500
    return dataclasses.replace(info, edges=edges, histogram=tuple(counts.tolist()))


@over(
    ("edges", "column"),
    [
        ((-1.0, 1.0), 25),
        ((-1.0, 3.0), 12),
        ((0.0, 1.0), 0),
        ((-1.0, 0.0), 49),
        ((0.5, 1.5), None),
        ((-3.0, -1.0), None),
    ],
)
def test_histogram_shows_where_zero_is_if_it_lies_inside(edges: tuple[float, float], column: int | None) -> None:
    sheet = draw_sheet(plan_histograms([info_of(edges[0] + 0.7 * (edges[1] - edges[0]), edges)]))
    ((y0, x0, y1, x1),) = [tile["box"] for tile in sheet.manifest["tiles"]]
    grey = (sheet.rgb()[y0:y1, x0:x1, 0] == ZERO_LINE).all(axis=0)
    assert np.flatnonzero(grey).tolist() == ([] if column is None else list(range(4 * column, 4 * column + 4)))


def test_histogram_says_its_name_its_sides_and_its_counts(infos: list[cf.ParameterInfo]) -> None:
    infos.append(info_of(0.5, (0.0, 1.0)))
    sheet = draw_sheet(plan_histograms(infos))
    said = [
        f"{i.name}: {i.edges[0]:.3g} to {i.edges[1]:.3g}, {i.count:,} values, at most {max(i.histogram):,} in a bar"
        for i in infos
    ]
    said[-2] = "2.bias: no finite value"
    assert "1.weight: 0.5 to 1.5, 8 values, at most 8 in a bar" in said  # all ones: half a unit on either side
    assert said[-1] == "weight: 0 to 1, 1,500 values, at most 1,500 in a bar"
    for tile, text in zip(sheet.manifest["tiles"], said, strict=True):
        y0, x0, _, _ = tile["box"]
        font = ImageFont.truetype(FONT, 12, layout_engine=ImageFont.Layout.BASIC)
        image, x = Image.new("1", (600, 40)), 0
        for word in text.split(" "):
            ImageDraw.Draw(image).text((x, 20), word, fill=1, font=font, anchor="ls")
            x += math.ceil(font.getlength(word, mode="1")) + int(font.getlength(" ", mode="1"))
        expected = np.asarray(image)[:, :x]
        expected = expected[np.flatnonzero(expected.any(axis=1))[0] : 20]  # down to the base line
        above = sheet.rgb()[y0 - 20 : y0, x0 : x0 + expected.shape[1], 0] == 255
        places = [above[y : y + len(expected)] for y in range(len(above) - len(expected) + 1)]
        assert any(np.array_equal(place, expected) for place in places), text


def test_draw_bars_by_hand() -> None:
    counts = np.zeros((2, 50), np.int64)
    counts[0, :4] = 6400, 3200, 1, 101
    assert draw_bars(counts).sum(axis=1)[:, :5].tolist() == [[96, 48, 1, 2, 0], [0, 0, 0, 0, 0]]
    assert draw_bars(counts)[0, :, 1].tolist() == [0] * 48 + [1] * 48


def test_histogram_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="infos must hold at least one parameter"):
        plan_histograms([])
