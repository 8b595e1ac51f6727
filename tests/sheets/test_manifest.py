"""The manifest of a sheet: boxes that hold their tiles, numbers that JSON has, flags, and what is left out."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from support.cases import INF, LARGEST, NAN, SMALLEST
from support.looping import case, over
from support.native_module import load_native
from support.plain import render

import cnnviz_fast as cf
from cnnviz_fast.channels.selection import Selection
from cnnviz_fast.channels.statistics import ChannelStatistics
from cnnviz_fast.geometry import Grid
from cnnviz_fast.options.drawing import RenderOptions
from cnnviz_fast.provenance import Provenance
from cnnviz_fast.runtime.files import json_bytes
from cnnviz_fast.sheets import manifest as manifests
from cnnviz_fast.sheets.manifest import SheetFacts, describe_grid, describe_sheet, sheet_json, with_files
from cnnviz_fast.sheets.plan import plan_sheet

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


@over("options", [{}, {"gap": 3, "margin": 2}, {"label": True}, {"title": "x", "colorbar": True}])
def test_manifest_box_holds_the_tile_and_nothing_else(options: dict[str, Any]) -> None:
    sheet = render(MAPS[:3], tile=6, **options)
    expected = render(MAPS[:3], tile=6, grid="x1", colormap="viridis").rgb().reshape(3, 6, 6, 3)
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


# As text: what the native module writes is what orjson makes of the records, byte by byte.


def facts_of(maps: torch.Tensor = MAPS, provenance: Provenance | None = None, **options: Any) -> SheetFacts:
    return plan_sheet(maps, RenderOptions.of(options), provenance or Provenance()).facts


def written_natively(facts: SheetFacts, monkeypatch: pytest.MonkeyPatch, files: Sequence[str] | None = None) -> bytes:
    """Return sheet_json of facts, which may not fall back to records in Python."""
    load_native()
    with monkeypatch.context() as patched:
        patched.setattr(manifests, "_describe_tiles", None)
        return sheet_json(facts, files)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gap": 3, "margin": 2, "label": True, "title": "{layer}", "colorbar": True},
        {"normalize": "layer", "report": True},
        {"normalize": "percentile", "percentile": (1, 99)},
        {"sort": True},
        {"topk": 2, "rank": "max"},
        {"reduce": ("sum", "strongest", "mean", "max")},
        {"reduce": ("sum", "max"), "beside": True},
        {"reduce": ("strongest",), "beside": True, "sort": True},
        {"channels": (4, 0, 3, 3)},
    ],
)
def test_manifest_written_natively_is_the_text_of_its_records(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = facts_of(provenance=Provenance(layer='é, "[quoted]"', image="a\\b"), **options)
    expected = json_bytes(describe_sheet(facts))
    assert written_natively(facts, monkeypatch) == expected


def test_manifest_of_a_vector_and_of_half_maps_written_natively_is_the_text_of_its_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for maps in (torch.tensor([1.0, NAN, -0.0, 5.0]), MAPS.half(), MAPS.bfloat16()):
        facts = facts_of(maps)
        expected = json_bytes(describe_sheet(facts))
        assert written_natively(facts, monkeypatch) == expected


ODD = [0.0, -0.0, NAN, INF, -INF, SMALLEST, -SMALLEST, LARGEST, -LARGEST, 1e-7, 1e-5, 1e15, 1e16, 1e17, 1.0, -1.0, 0.1]


def test_manifest_of_any_numbers_written_natively_is_the_text_of_its_records(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(100):
        with case(seed):
            check_any_numbers(seed, monkeypatch)


def check_any_numbers(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare a manifest of random numbers, and of odd ones, as both write it."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 12))

    def column(dtype: type[np.floating[Any]]) -> torch.Tensor:
        """Return odd values, and random bits, which are numbers of any size."""
        bits = rng.bytes(count * np.dtype(dtype).itemsize)
        return torch.from_numpy(np.where(rng.random(count) < 0.5, np.frombuffer(bits, dtype), dtype(rng.choice(ODD))))

    def some(values: list[Any]) -> list[Any] | None:
        return rng.choice(np.array(values, object), count).tolist() if rng.random() < 0.5 else None

    vmin, vmax, least, greatest = (column(np.float32) for _ in range(4))
    nan, inf = (torch.from_numpy(rng.integers(0, 3, count) << 40) for _ in range(2))
    mean, std, zeros = (column(np.float64) for _ in range(3))
    own = rng.random() < 0.5
    facts = replace(
        facts_of(torch.zeros(count, 2, 3), gap=int(rng.integers(3)), margin=int(rng.integers(999))),
        statistics=ChannelStatistics(least, greatest, mean, std, zeros, nan, inf),
        selection=Selection(
            some([None, 0, 10**6]) or list(range(count)), some([None, "sum", "strongest"]), some([None, *ODD])
        ),
        vmin=least if own else vmin,
        vmax=greatest if own else vmax,
    )
    expected = json_bytes(describe_sheet(facts))
    assert written_natively(facts, monkeypatch) == expected


ODD_NAMES = ["0.png", 'a","b', '","', '"', "\\", '\\","', '\\\\"', '{"channel":', "\u00e9 \u2603", "a\tb", ""]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_manifest_with_files_written_natively_is_the_text_of_its_records(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for options in ({}, {"reduce": ("sum", "max"), "beside": True}, {"channels": (4,)}):
        facts = facts_of(**options)
        files = [name, *ODD_NAMES][: len(facts.vmin)]
        expected = json_bytes(with_files(describe_sheet(facts), files))
        assert [tile["file"] for tile in json.loads(expected)["tiles"]] == files
        assert written_natively(facts, monkeypatch, files) == expected


def test_manifest_with_a_name_that_is_not_utf_8_is_ascii() -> None:
    facts = facts_of(provenance=Provenance(image="a\udcff.jpg"))
    assert sheet_json(facts) == json_bytes(describe_sheet(facts))
    assert sheet_json(facts).isascii()


def test_manifest_without_the_native_module_is_the_same_text(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = facts_of(sort=True)
    expected = sheet_json(facts)
    monkeypatch.setattr(manifests, "native", lambda: (None, "not built"))
    assert sheet_json(facts) == expected


def test_save_sheet_writes_the_manifest_of_its_sheet(tmp_path: Path) -> None:
    path = cf.save_sheet(MAPS, tmp_path / "a.png", tile=6)
    assert path.with_suffix(".json").read_bytes() == orjson.dumps(manifest_of())


@over("bad", [{"numbers": b"[1,2,3]"}, {"channels": b"[]"}, {"numbers": b""}, {"flat": np.ones(3, bool)}])
def test_tile_records_of_columns_that_are_too_short_are_refused(bad: dict[str, Any]) -> None:
    native = load_native()
    given = {
        "grid": Grid(2, 1, 2, 5, 5).numbers,
        "channels": b"[0,1]",
        "own_ranges": True,
        "numbers": b"[0,1,2,3,4,5,6,7,8,9]",
        **dict.fromkeys(("nan", "inf"), np.zeros(2, np.int64)),
        **dict.fromkeys(("flat", "dead"), np.zeros(2, bool)),
        **dict.fromkeys(("reductions", "scores"), b"[]"),
    }
    assert len(json.loads(native.tile_records(**given))) == 2
    with pytest.raises(ValueError, match="must"):
        native.tile_records(**(given | bad))
