"""The manifest of a sheet: boxes that hold their tiles, numbers that JSON has, flags, and what is left out."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from support.cases import INF, NAN

import cnnviz_fast as cf
from cnnviz_fast.geometry import Grid
from cnnviz_fast.sheets.manifest import describe_grid

MAPS = torch.tensor([
    [[0.0, 1.0], [2.0, 3.0]],
    [[0.0, 0.0], [0.0, 0.0]],
    [[5.0, 5.0], [5.0, 5.0]],
    [[NAN, 1.0], [INF, 3.0]],
    [[NAN, NAN], [-INF, NAN]],
])  # fmt: skip


def manifest_of(maps: torch.Tensor = MAPS, **options: Any) -> dict[str, Any]:
    return cf.render(maps, tile=6, **options).manifest


def column(manifest: dict[str, Any], name: str) -> list[Any]:
    return [tile[name] for tile in manifest["tiles"]]


def test_describe_grid_has_its_numbers_and_the_size_that_follows() -> None:
    grid = Grid(5, 2, 3, 4, 6, gap=1, margin=2, head=7, foot=3)
    said = describe_grid(grid)
    assert list(said)[:2] == ["height", "width"]
    assert (said["height"], said["width"]) == (2 * 4 + 1 + 2 * 2 + 7 + 3, 3 * 6 + 2 * 1 + 2 * 2)
    assert Grid(**{name: value for name, value in said.items() if name not in ("height", "width")}) == grid


def test_manifest_is_json_whatever_the_maps_hold() -> None:
    manifest = manifest_of(report=True)
    assert json.loads(json.dumps(manifest, allow_nan=False)) == json.loads(json.dumps(manifest))
    assert column(manifest, "min") == [0.0, 0.0, 5.0, 1.0, None]
    assert column(manifest, "max") == [3.0, 0.0, 5.0, 3.0, None]
    assert column(manifest, "mean") == [1.5, 0.0, 5.0, 2.0, None]
    assert column(manifest, "std") == [math.sqrt(1.25), 0.0, 0.0, 1.0, None]
    assert column(manifest, "zeros") == [0.25, 1.0, 0.0, 0.0, 0.0]
    assert column(manifest, "nan") == [0, 0, 0, 1, 3]
    assert column(manifest, "inf") == [0, 0, 0, 1, 1]


def test_manifest_flags_say_what_is_flat_dead_and_not_finite() -> None:
    assert column(manifest_of(), "flags") == [[], ["flat", "dead"], ["flat"], ["nonfinite"], ["nonfinite"]]


@pytest.mark.parametrize("options", [{}, {"gap": 3, "margin": 2}, {"label": True}, {"title": "x", "colorbar": True}])
def test_manifest_box_holds_the_tile_and_nothing_else(options: dict[str, Any]) -> None:
    sheet = cf.render(MAPS[:3], tile=6, **options)
    expected = cf.render(MAPS[:3], tile=6, grid="x1", colormap="viridis").rgb().reshape(3, 6, 6, 3)
    for tile, pixels in zip(sheet.manifest["tiles"], expected, strict=True):
        y0, x0, y1, x1 = tile["box"]
        assert (y1 - y0, x1 - x0) == (6, 6)
        drawn = sheet.rgb()[y0:y1, x0:x1]
        # Another number of palette entries is left where text and gaps take some.
        assert np.array_equal(drawn.std(axis=(0, 1)) > 0, pixels.std(axis=(0, 1)) > 0)
    boxes = {tuple(tile["box"]) for tile in sheet.manifest["tiles"]}
    assert len(boxes) == 3
    grid = sheet.manifest["sheet"]
    assert all(0 <= y0 < y1 <= grid["height"] and 0 <= x0 < x1 <= grid["width"] for y0, x0, y1, x1 in boxes)


def test_manifest_tiles_say_what_is_reduced_and_how_they_rank_only_where_they_are() -> None:
    assert not {"reduce", "rank"} & set(manifest_of()["tiles"][0])
    reduced = manifest_of(MAPS[:3], reduce="sum,strongest", beside=True)
    assert column(reduced, "reduce") == ["sum", "strongest", None, None, None]
    assert column(reduced, "channel") == [None, 2, 0, 1, 2]
    ranked = manifest_of(MAPS[:3], topk=2, rank="max")
    assert column(ranked, "rank") == [5.0, 3.0]
    assert column(ranked, "channel") == [2, 0]


def test_manifest_range_is_the_one_that_was_drawn() -> None:
    fixed = manifest_of(MAPS[:3], normalize="fixed", vmin=-1, vmax=2)
    assert (column(fixed, "vmin"), column(fixed, "vmax")) == ([-1.0] * 3, [2.0] * 3)
    assert column(fixed, "min") == [0.0, 0.0, 5.0]


def test_manifest_head_says_what_drew_it_and_what_was_given() -> None:
    provenance = cf.Provenance("resnet18", "none", "layer1", "cat.png", categories=["a"] * 5)
    manifest = manifest_of(MAPS.half(), provenance=provenance, backend="torch")
    assert manifest["cnnviz_fast"] == cf.__version__
    assert manifest["maps"] == {"shape": [5, 2, 2], "dtype": "float16", "device": "cpu"}
    assert (manifest["model"], manifest["layer"], manifest["image"]) == ("resnet18", "layer1", "cat.png")
    assert "categories" not in manifest
    assert (manifest["backend"], manifest["options"]["tile"], manifest["overlay"]) == ("torch", 6, None)
    assert not {"report", "strongest"} & set(manifest)
