"""`run` as a program calls it: what comes out, the same whatever the way."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.assertions import FLOAT32, FLOAT32_RATIO, assert_close, assert_same_plane, close_to
from support.runs import (
    COUNT,
    LAYERS,
    QUICK,
    assert_same_outcome,
    digests,
    plane_of,
    rows,
    small_model,
)

import cnnviz_fast as cf
from cnnviz_fast.channels.dataset_files import read_statistics
from cnnviz_fast.errors import OptionError


def test_every_sheet_is_the_one_that_save_sheet_writes(images: Path, alone: Path, tmp_path: Path) -> None:
    model = small_model()
    for path in sorted(images.iterdir())[:5]:
        maps = cf.capture(model, cf.load_images(path, model), LAYERS)
        for layer in LAYERS:
            cf.save_sheet(maps[layer][0], tmp_path / "sheet.png", tile=12, plain=True)
            # Within a level: a batch of four goes through other code of torch than one image alone.
            assert_same_plane(plane_of(alone / layer / f"{path.stem}.png"), plane_of(tmp_path / "sheet.png"))
            atlas = cf.read_atlas(alone / layer / f"{path.stem}.atlas")
            assert_close(atlas.vmax, maps[layer][0].amax(dim=(1, 2)), FLOAT32)
            assert atlas.provenance.image == str(path)


def test_the_index_has_a_row_for_each_image_and_layer_in_order(images: Path, alone: Path) -> None:
    found = rows(alone)
    assert [(Path(row["image"]).stem, row["layer"]) for row in found] == [
        (path.stem, layer) for path in sorted(images.iterdir()) for layer in LAYERS
    ]
    assert found[0]["shape"] == [6, 12, 12]
    assert found[0]["files"] == ["0/p0000.png", "0/p0000.atlas"]
    model = small_model()
    first = cf.capture(model, cf.load_images(images / "p0000.png", model), ["0"])["0"]
    assert (found[0]["min"], found[0]["max"]) == close_to((float(first.min()), float(first.max())), FLOAT32_RATIO)
    assert not (alone / "failed.jsonl").exists()


def test_the_summary_counts_files_that_a_folder_passed_over(tmp_path: Path) -> None:
    for name in ("in/a.png", "in/deeper/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((12, 12, 3), np.uint8)).save(tmp_path / name)
    for name in ("in/notes.txt", "in/deeper/c.heic"):
        (tmp_path / name).write_bytes(b"")
    summary = cf.run(small_model(), tmp_path / "in", "0", tmp_path / "out", **QUICK)
    assert (summary.images, summary.passed_over) == (2, 2)
    assert cf.run(small_model(), tmp_path / "in" / "a.png", "0", tmp_path / "one", **QUICK).passed_over == 0


def test_the_manifest_says_what_the_run_was(alone: Path) -> None:
    manifest = json.loads((alone / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert (manifest["images"], manifest["finished"], manifest["failed"]) == (COUNT, COUNT, 0)
    assert manifest["layers"]["0"]["shape"] == [6, 12, 12]
    assert manifest["layers"]["0"]["grid"]["tile_h"] == 12
    assert manifest["statistics"] == "statistics.safetensors"
    assert set(manifest["stages"]) == {"decode", "forward", "render", "encode", "write"}


def test_statistics_are_those_of_all_activations_together(images: Path, alone: Path) -> None:
    model = small_model()
    everything = cf.capture(model, cf.load_images(images, model), LAYERS)
    for layer, found in read_statistics(alone / "statistics.safetensors").items():
        values = everything[layer].double().numpy().swapaxes(0, 1).reshape(everything[layer].shape[1], -1)
        assert_close(found.mean, values.mean(axis=1), FLOAT32_RATIO)
        assert_close(found.variance, values.var(axis=1), FLOAT32_RATIO)
        assert np.array_equal(found.vmin, values.min(axis=1))
        assert np.array_equal(found.vmax, values.max(axis=1))
        assert found.images == COUNT


def test_every_drawing_option_and_an_overlay_reach_the_sheets(images: Path, tmp_path: Path) -> None:
    model, path = small_model(), images / "p0001.png"
    options: dict[str, Any] = {"tile": 48, "gap": 2, "normalize": "layer", "label": True, "colormap": "gray", "topk": 4}
    options["plain"] = False
    cf.run(model, path, ["2"], tmp_path / "run", overlay=True, **{**QUICK, **options})
    (expected,) = cf.visualize(model, path, ["2"], overlay=True, **options)
    with Image.open(tmp_path / "run" / "2" / "p0001.png") as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), expected.rgb())
    assert rows(tmp_path / "run")[0]["tiles"] == [str(tile["channel"]) for tile in expected.manifest["tiles"]]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"readers": 2}, marks=pytest.mark.long), {"threads": 1},
        {"readers": 1, "threads": 3, "max_pixels": 2000},
    ],
)  # fmt: skip
def test_the_outcome_does_not_depend_on_the_way(
    options: dict[str, Any], images: Path, alone: Path, tmp_path: Path
) -> None:
    cf.run(small_model(), images, LAYERS, tmp_path, save="sheets,atlases,statistics", **{**QUICK, **options})
    assert_same_outcome(tmp_path, alone)


@pytest.mark.parametrize("batch", [1, 7, pytest.param(100, marks=pytest.mark.long)])
def test_another_size_of_batch_moves_pixels_by_a_level_at_most(
    batch: int, images: Path, alone: Path, tmp_path: Path
) -> None:
    cf.run(small_model(), images, LAYERS, tmp_path, **{**QUICK, "batch": batch})
    for name in digests(tmp_path):
        assert_same_plane(plane_of(tmp_path / name), plane_of(alone / name))


def test_the_outcome_does_not_depend_on_the_order_of_the_images(images: Path, alone: Path, tmp_path: Path) -> None:
    shuffled = sorted(images.iterdir())
    np.random.default_rng(1).shuffle(shuffled)  # type: ignore[arg-type]
    cf.run(small_model(), shuffled, LAYERS, tmp_path, save="sheets,atlases,statistics", **QUICK)
    assert_same_outcome(tmp_path, alone)


def test_what_is_wrong_with_every_image_is_raised(images: Path, tmp_path: Path) -> None:
    with pytest.raises(cf.CnnvizError, match="layer9"):
        cf.run(small_model(), images, ["layer9"], tmp_path / "a", **QUICK)
    with pytest.raises(OptionError, match="channels must lie in"):
        cf.run(small_model(), images, ["0"], tmp_path / "b", channels="99", **QUICK)


def test_tables_without_pyarrow_are_refused_before_anything_is_done(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OptionError, match="Parquet tables need the package pyarrow"):
        cf.run(small_model(), images, ["0"], tmp_path, parquet=True, **QUICK)
    assert list(tmp_path.iterdir()) == []
