"""Runs over many pictures: what comes out, in which order, what is done again, and what stops them."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.assertions import assert_same_plane
from support.runs import (
    COUNT,
    LAYERS,
    NET,
    assert_same_outcome,
    assert_same_statistics,
    digests,
    make_pictures,
    rows,
    small_model,
    sorted_rows,
)
from torch.utils.data import DataLoader, Dataset

import cnnviz_fast as cf
from cnnviz_fast.channels.dataset_files import read_statistics
from cnnviz_fast.errors import CaptureError, ImagesFailedError, OptionError, WriteError
from cnnviz_fast.runs import batches as work
from cnnviz_fast.runs import runner as run_account
from cnnviz_fast.runs.ranks import Ranks

QUICK: dict[str, Any] = {"batch": 4, "workers": 0, "tile": 12, "progress": "none"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of COUNT pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    make_pictures(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def alone(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that was left alone: sheets, atlases and statistics."""
    folder = tmp_path_factory.mktemp("alone")
    cf.run(small_model(), pictures, LAYERS, folder, save="sheets,atlases,statistics", **QUICK)
    return folder


def plane_of(path: Path) -> np.ndarray:
    """Return the index plane of a sheet."""
    with Image.open(path) as image:
        assert image.mode in "LP"
        return np.asarray(image)


# What comes out.


def test_every_sheet_is_the_one_that_save_sheet_writes(pictures: Path, alone: Path, tmp_path: Path) -> None:
    model = small_model()
    for path in sorted(pictures.iterdir())[:5]:
        maps = cf.capture(model, cf.load_images(path, model), LAYERS)
        for layer in LAYERS:
            cf.save_sheet(maps[layer][0], tmp_path / "sheet.png", tile=12)
            # Within a level: a batch of four goes through other code of torch than one picture alone.
            assert_same_plane(plane_of(alone / layer / f"{path.stem}.png"), plane_of(tmp_path / "sheet.png"))
            atlas = cf.read_atlas(alone / layer / f"{path.stem}.atlas")
            torch.testing.assert_close(atlas.vmax, maps[layer][0].amax(dim=(1, 2)), rtol=1e-6, atol=1e-6)
            assert atlas.provenance.image == str(path)


def test_the_index_has_a_row_for_each_picture_and_layer_in_order(pictures: Path, alone: Path) -> None:
    found = rows(alone)
    assert [(Path(row["image"]).stem, row["layer"]) for row in found] == [
        (path.stem, layer) for path in sorted(pictures.iterdir()) for layer in LAYERS
    ]
    assert found[0]["shape"] == [6, 12, 12]
    assert found[0]["files"] == ["0/p0000.png", "0/p0000.atlas"]
    model = small_model()
    first = cf.capture(model, cf.load_images(pictures / "p0000.png", model), ["0"])["0"]
    assert (found[0]["min"], found[0]["max"]) == pytest.approx((float(first.min()), float(first.max())), rel=1e-6)
    assert not (alone / "failed.jsonl").exists()


def test_the_manifest_says_what_the_run_was(alone: Path) -> None:
    manifest = json.loads((alone / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert (manifest["pictures"], manifest["finished"], manifest["failed"]) == (COUNT, COUNT, 0)
    assert manifest["layers"]["0"]["shape"] == [6, 12, 12]
    assert manifest["layers"]["0"]["grid"]["tile_h"] == 12
    assert manifest["statistics"] == "statistics.safetensors"
    assert set(manifest["stages"]) == {"decode", "forward", "render", "encode", "write"}


def test_statistics_are_those_of_all_activations_together(pictures: Path, alone: Path) -> None:
    model = small_model()
    everything = cf.capture(model, cf.load_images(pictures, model), LAYERS)
    for layer, found in read_statistics(alone / "statistics.safetensors").items():
        values = everything[layer].double().numpy().swapaxes(0, 1).reshape(everything[layer].shape[1], -1)
        np.testing.assert_allclose(found.mean, values.mean(axis=1), rtol=1e-6)
        np.testing.assert_allclose(found.variance, values.var(axis=1), rtol=1e-6)
        assert np.array_equal(found.vmin, values.min(axis=1))
        assert np.array_equal(found.vmax, values.max(axis=1))
        assert found.images == COUNT


@pytest.mark.parametrize(
    ("save", "files"),
    [
        ("sheets", {"0/p0000.jpg"}),
        ("tiles", {"0/tiles/p0000/0.jpg", "0/tiles/p0000/5.jpg", "0/tiles/p0000/manifest.json"}),
        ("maps,sum,mean,max", {"0/p0000.safetensors", "0/sum/p0000.safetensors", "0/max/p0000.safetensors"}),
        ("statistics", set()),
    ],
)
def test_what_comes_out_is_what_save_names(save: str, files: set[str], pictures: Path, tmp_path: Path) -> None:
    cf.run(small_model(), pictures / "p0000.png", ["0"], tmp_path, save=save, format="jpg", **QUICK)
    made = set(digests(tmp_path))
    assert files <= made
    assert bool(made) == bool(files)
    assert (tmp_path / "statistics.safetensors").exists() == (save == "statistics")


def test_maps_and_what_they_are_reduced_to_are_the_models_own(pictures: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model = small_model()
    cf.run(model, pictures / "p0003.png", ["2"], tmp_path, save="maps,sum", **QUICK)
    maps = cf.capture(model, cf.load_images(pictures / "p0003.png", model), ["2"])["2"][0]
    assert torch.equal(load_file(tmp_path / "2" / "p0003.safetensors")["2"], maps)
    total = load_file(tmp_path / "2" / "sum" / "p0003.safetensors")["2"]
    torch.testing.assert_close(total, maps.double().sum(0, keepdim=True).float())


def test_paths_are_told_as_files_come(pictures: Path, tmp_path: Path) -> None:
    told: list[Path] = []
    cf.run(small_model(), pictures, ["0"], tmp_path, on_file=told.append, **QUICK)
    assert told == [tmp_path / "0" / f"p{n:04d}.png" for n in range(COUNT)]


def test_every_drawing_option_and_an_overlay_reach_the_sheets(pictures: Path, tmp_path: Path) -> None:
    model, path = small_model(), pictures / "p0001.png"
    options: dict[str, Any] = {"tile": 48, "gap": 2, "normalize": "layer", "label": True, "colormap": "gray", "topk": 4}
    cf.run(model, path, ["2"], tmp_path / "run", overlay=True, **{**QUICK, **options})
    (expected,) = cf.visualize(model, path, ["2"], overlay=True, **options)
    with Image.open(tmp_path / "run" / "2" / "p0001.png") as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), expected.rgb())
    assert rows(tmp_path / "run")[0]["tiles"] == [str(tile["channel"]) for tile in expected.manifest["tiles"]]


# The same whatever the way.


@pytest.mark.parametrize("options", [{"workers": 2}, {"threads": 1}, {"workers": 1, "threads": 3, "max_pixels": 2000}])
def test_the_outcome_does_not_depend_on_the_way(
    options: dict[str, Any], pictures: Path, alone: Path, tmp_path: Path
) -> None:
    cf.run(small_model(), pictures, LAYERS, tmp_path, save="sheets,atlases,statistics", **{**QUICK, **options})
    assert_same_outcome(tmp_path, alone)


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_another_size_of_batch_moves_pixels_by_a_level_at_most(
    batch: int, pictures: Path, alone: Path, tmp_path: Path
) -> None:
    cf.run(small_model(), pictures, LAYERS, tmp_path, **{**QUICK, "batch": batch})
    for name in digests(tmp_path):
        assert_same_plane(plane_of(tmp_path / name), plane_of(alone / name))


def test_the_outcome_does_not_depend_on_the_order_of_the_pictures(pictures: Path, alone: Path, tmp_path: Path) -> None:
    shuffled = sorted(pictures.iterdir())
    np.random.default_rng(1).shuffle(shuffled)  # type: ignore[arg-type]
    cf.run(small_model(), shuffled, LAYERS, tmp_path, save="sheets,atlases,statistics", **QUICK)
    assert_same_outcome(tmp_path, alone)


@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
def test_ranks_share_a_run(
    launcher: str, pictures: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {
        "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
        "slurm": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    }[launcher]
    for rank in range(3):
        for name, value in zip(names, (rank, 3, rank), strict=True):
            monkeypatch.setenv(name, str(value))
        summary = cf.run(small_model(), pictures, LAYERS, tmp_path, save="sheets,atlases,statistics", **QUICK)
        assert summary.finished == summary.pictures == len(range(rank, COUNT, 3))
    assert_same_outcome(tmp_path, alone)
    assert (tmp_path / "index-1-of-3.jsonl").exists()


def test_ranks_that_are_none_are_refused(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match=r"got RANK=2, WORLD_SIZE=2, LOCAL_RANK=0\.$"):
        cf.run(small_model(), pictures, LAYERS, tmp_path, **QUICK)


# One scale for a data set.


def test_normalize_dataset_draws_every_sheet_on_the_range_of_all(pictures: Path, alone: Path, tmp_path: Path) -> None:
    model = small_model()
    cf.run(model, pictures, ["0"], tmp_path, normalize="dataset", **QUICK)
    statistics = read_statistics(alone / "statistics.safetensors")["0"]
    for path in sorted(pictures.iterdir())[:3]:
        maps = cf.capture(model, cf.load_images(path, model), ["0"])["0"][0]
        expected = cf.save_sheet(
            maps, tmp_path / "expected.png", tile=12, threads=1, normalize="dataset", statistics=statistics
        )
        assert (tmp_path / "0" / path.name).read_bytes() == expected.read_bytes()


def test_a_second_run_reuses_the_statistics_of_the_first(pictures: Path, alone: Path, tmp_path: Path) -> None:
    file = alone / "statistics.safetensors"
    cf.run(small_model(), pictures, ["0"], tmp_path / "a", normalize="dataset", statistics=str(file), **QUICK)
    cf.run(small_model(), pictures, ["0"], tmp_path / "b", normalize="dataset", **QUICK)
    assert not (tmp_path / "a" / ".dataset").exists()
    first, second = digests(tmp_path / "a"), digests(tmp_path / "b")
    assert first == {name: digest for name, digest in second.items() if not name.startswith(".dataset/")}


def test_a_run_keeps_the_scale_that_it_began_with(pictures: Path, tmp_path: Path) -> None:
    some = sorted(pictures.iterdir())[:9]
    cf.run(small_model(), some, ["0"], tmp_path, normalize="dataset", **QUICK)
    scale = (tmp_path / ".dataset" / "statistics.safetensors").read_bytes()
    assert cf.run(small_model(), pictures, ["0"], tmp_path, normalize="dataset", **QUICK).finished == COUNT - 9
    assert (tmp_path / ".dataset" / "statistics.safetensors").read_bytes() == scale


def test_one_scale_in_the_folder_of_another_run_is_refused_before_anything_is_measured(
    pictures: Path, tmp_path: Path
) -> None:
    cf.run(small_model(), pictures, ["0"], tmp_path, **QUICK)
    with pytest.raises(OptionError, match="holds a run with other settings: normalize: dataset here, channel there"):
        cf.run(small_model(), pictures, ["0"], tmp_path, normalize="dataset", **QUICK)
    assert not (tmp_path / ".dataset").exists()


def test_one_scale_is_not_measured_where_nothing_is_drawn(pictures: Path, tmp_path: Path) -> None:
    cf.run(small_model(), pictures, ["0"], tmp_path, normalize="dataset", save="atlases", **QUICK)
    assert not (tmp_path / ".dataset").exists()
    assert len(digests(tmp_path)) == COUNT


def test_statistics_that_are_none_are_refused(pictures: Path, tmp_path: Path) -> None:
    for content in (None, b"nothing"):
        file = tmp_path / "statistics.safetensors"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(cf.CnnvizError, match="statistics"):
            cf.run(small_model(), pictures, ["0"], tmp_path / "out", normalize="dataset", statistics=str(file), **QUICK)
        assert not (tmp_path / "out").exists()


def test_statistics_without_normalize_dataset_are_refused(pictures: Path, alone: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^statistics go with normalize 'dataset', got normalize 'channel'\.$"):
        cf.run(small_model(), pictures, ["0"], tmp_path, statistics=str(alone / "statistics.safetensors"), **QUICK)


# Again.


def test_a_second_run_does_nothing_again(pictures: Path, tmp_path: Path) -> None:
    options = {"save": "sheets,statistics", **QUICK}
    first = cf.run(small_model(), pictures, LAYERS, tmp_path, **options)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    second = cf.run(small_model(), pictures, LAYERS, tmp_path, **options)
    assert (first.finished, first.skipped) == (COUNT, 0)
    assert (second.finished, second.skipped, second.pictures) == (0, COUNT, COUNT)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == before
    assert read_statistics(tmp_path / "statistics.safetensors")["0"].images == COUNT


def test_pictures_that_have_come_since_are_done_too(pictures: Path, alone: Path, tmp_path: Path) -> None:
    options = {"save": "sheets,atlases,statistics", **QUICK}
    some = sorted(pictures.iterdir())[:9]
    cf.run(small_model(), some, LAYERS, tmp_path, **options)
    summary = cf.run(small_model(), pictures, LAYERS, tmp_path, **options)
    assert (summary.finished, summary.skipped) == (COUNT - 9, 9)
    assert_same_outcome(tmp_path, alone)


def test_statistics_miss_no_picture_that_was_finished_after_their_last_checkpoint(
    pictures: Path, alone: Path, tmp_path: Path
) -> None:
    options = {"save": "sheets,atlases,statistics", **QUICK}
    cf.run(small_model(), sorted(pictures.iterdir())[:9], LAYERS, tmp_path, **options)
    early = read_statistics(tmp_path / "statistics.safetensors")
    kept = (tmp_path / "statistics.safetensors").read_bytes()
    cf.run(small_model(), sorted(pictures.iterdir())[:17], LAYERS, tmp_path, **options)
    (tmp_path / "statistics.safetensors").write_bytes(kept)  # as a kill leaves it: eight pictures behind the index
    assert early["0"].images == 9
    cf.run(small_model(), pictures, LAYERS, tmp_path, **options)
    assert_same_outcome(tmp_path, alone)


def test_a_finished_picture_that_is_gone_has_no_other_counted_twice(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 6)
    out, options = tmp_path / "out", {"save": "statistics", **QUICK}
    cf.run(small_model(), tmp_path / "in", LAYERS, out, **options)
    (out / "statistics.safetensors").unlink()  # as if killed before the first checkpoint
    (tmp_path / "in" / "p0002.png").unlink()
    for _ in range(2):
        cf.run(small_model(), tmp_path / "in", LAYERS, out, **options)
        assert read_statistics(out / "statistics.safetensors")["0"].images == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [({"tile": 13}, "tile: 13 here, 12 there"), ({"save": "tiles"}, "save"), ({"align": "left"}, "align")],
)
def test_a_folder_of_another_run_is_refused(
    change: dict[str, Any], message: str, pictures: Path, tmp_path: Path
) -> None:
    cf.run(small_model(), pictures, ["0"], tmp_path, **QUICK)
    before = digests(tmp_path)
    with pytest.raises(OptionError, match=message):
        cf.run(small_model(), pictures, ["0"], tmp_path, **{**QUICK, **change})
    assert digests(tmp_path) == before


def test_other_weights_are_another_run(pictures: Path, tmp_path: Path) -> None:
    cf.run(small_model(), pictures, ["0"], tmp_path, **QUICK)
    other = small_model()
    with torch.no_grad():
        next(other.module.parameters()).view(-1)[0] += 1e-3
    with pytest.raises(OptionError, match="weights"):
        cf.run(other, pictures, ["0"], tmp_path, **QUICK)


def test_pictures_of_one_name_are_kept_apart_and_not_overwritten(pictures: Path, tmp_path: Path) -> None:
    for name, provenance in (("a", "p0001.png"), ("b", "p0002.png")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.png").write_bytes((pictures / provenance).read_bytes())
    cf.run(small_model(), tmp_path / "a", ["0"], tmp_path / "out", **QUICK)
    cf.run(small_model(), tmp_path / "b", ["0"], tmp_path / "out", **QUICK)
    cf.run(small_model(), [tmp_path / "a", tmp_path / "b"], ["0"], tmp_path / "out", **QUICK)
    made = digests(tmp_path / "out")
    assert len(set(made.values())) == len(made) == 2


# What fails.


def damage(folder: Path, count: int) -> set[str]:
    """Damage pictures, each in another way; return their names."""
    good = (folder / "p0000.png").read_bytes()
    ways = [
        b"", b"\x89PNG\r\n\x1a\n", good[: len(good) // 2], b"GIF89a" + bytes(20), b"\xff\xd8\xff\xe0" + bytes(50),
        os.urandom(500), b"<svg/>", good[:40] + bytes(60) + good[100:], b"RIFF\0\0\0\0WEBP", b"BM" + bytes(9),
    ]  # fmt: skip
    names = set()
    for n in range(count):
        path = folder / f"p{2 * n + 1:04d}.png"
        path.write_bytes(ways[n % len(ways)])
        names.add(path.name)
    return names


@pytest.mark.parametrize("workers", [0, 1])
def test_exactly_the_damaged_pictures_are_in_failed(workers: int, tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 40)
    damaged = damage(tmp_path / "in", 10)
    summary = cf.run(small_model(), tmp_path / "in", ["0"], tmp_path / "out", **{**QUICK, "workers": workers})
    failed = rows(tmp_path / "out", "failed")
    assert {Path(row["image"]).name for row in failed} == damaged
    assert all(row["reason"] for row in failed)
    assert (summary.finished, summary.failed) == (30, 10)
    assert len(digests(tmp_path / "out")) == 30
    again = cf.run(small_model(), tmp_path / "in", ["0"], tmp_path / "out", **QUICK)
    assert (again.finished, again.failed, again.skipped) == (0, 10, 30)
    assert len(rows(tmp_path / "out", "failed")) == 10


def test_strict_stops_at_the_first_failure(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 20)
    (tmp_path / "in" / "p0009.png").write_bytes(b"")
    with pytest.raises(ImagesFailedError, match=r"p0009\.png: .* Without strict the others would be done\.$"):
        cf.run(small_model(), tmp_path / "in", ["0"], tmp_path / "out", strict=True, **QUICK)
    done = {Path(row["image"]).name for row in rows(tmp_path / "out")}
    assert done == {f"p{n:04d}.png" for n in range(8)}


class Picky(torch.nn.Module):
    """A model that fails on bright pictures, and runs out of memory on more than two."""

    def __init__(self, most: int = 1000) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3)
        self.most = most
        self.sizes: list[int] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(batch))
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")
        if (batch.mean(dim=(1, 2, 3)) > 2).any():
            raise ValueError("too bright")
        return self.conv(batch)


def test_a_picture_on_which_the_model_fails_costs_only_itself(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 10)
    Image.new("RGB", (32, 32), "white").save(tmp_path / "in" / "p0005.png")
    summary = cf.run(Picky(), tmp_path / "in", ["conv"], tmp_path / "out", **QUICK)
    (failed,) = rows(tmp_path / "out", "failed")
    assert failed["image"].endswith("p0005.png")
    assert "too bright" in failed["reason"]
    assert summary.finished == 9


def test_a_batch_that_does_not_fit_is_halved_and_stays_so(pictures: Path, tmp_path: Path) -> None:
    model = Picky(most=3)
    summary = cf.run(model, pictures, ["conv"], tmp_path, **{**QUICK, "batch": 8})
    assert summary.finished == COUNT
    assert model.sizes[:4] == [8, 4, 2, 2]
    assert set(model.sizes[3:]) == {2}


@pytest.mark.parametrize("left", [1, 3])
def test_a_batch_that_is_filled_up_is_halved_where_that_is_too_much(left: int, pictures: Path, tmp_path: Path) -> None:
    some = sorted(pictures.iterdir())[: 8 + left]
    first, second = Picky(), Picky(most=4)
    second.load_state_dict(first.state_dict())
    cf.run(first, some[:8], ["conv"], tmp_path, **{**QUICK, "batch": 8})
    summary = cf.run(second, some, ["conv"], tmp_path, **{**QUICK, "batch": 8})
    assert summary.finished == left
    assert second.sizes == [8, 4]


def test_one_picture_that_does_not_fit_ends_the_run(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(MemoryError, match="too little memory"):
        cf.run(Picky(most=0), pictures, ["conv"], tmp_path, **QUICK)


def test_memory_that_runs_out_while_files_are_made_halves_the_pictures(
    pictures: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = work.measure_batch

    def scarce(maps: torch.Tensor, options: Any) -> Any:
        if len(maps) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return measure(maps, options)

    monkeypatch.setattr(work, "measure_batch", scarce)
    cf.run(small_model(), pictures, LAYERS, tmp_path, save="sheets,atlases,statistics", **QUICK)
    assert_same_outcome(tmp_path, alone)


def test_memory_that_runs_out_one_by_one_is_no_failure_of_a_picture(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 8)
    Image.new("RGB", (32, 32), "white").save(tmp_path / "in" / "p0001.png")
    model = Picky()
    forward, calls = model.forward, [0]

    def scarce(batch: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(batch)

    model.forward = scarce  # type: ignore[method-assign]
    summary = cf.run(model, tmp_path / "in", ["conv"], tmp_path / "out", **QUICK)
    assert (summary.finished, summary.failed) == (7, 1)


def test_pictures_that_are_left_and_all_fail_are_failures_where_others_were_finished(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 4)
    model = Picky()
    cf.run(model, tmp_path / "in", ["conv"], tmp_path / "out", **QUICK)
    for name in ("x1.png", "x2.png"):
        Image.new("RGB", (32, 32), "white").save(tmp_path / "in" / name)
    summary = cf.run(model, tmp_path / "in", ["conv"], tmp_path / "out", **QUICK)
    assert (summary.skipped, summary.failed) == (4, 2)


class Small(Dataset[torch.Tensor]):
    """Pictures in memory, of which the first ones are too small for the model."""

    def __init__(self, small: int) -> None:
        self.small = small

    def __len__(self) -> int:
        return 12

    def __getitem__(self, position: int) -> torch.Tensor:
        size = 2 if position < self.small else 24
        return torch.rand(3, size, size, generator=torch.Generator().manual_seed(position))


@pytest.mark.parametrize("small", [1, 2, 3])
def test_pictures_at_the_front_that_fail_do_not_stop_the_others(small: int, tmp_path: Path) -> None:
    summary = cf.run(Picky(), Small(small), ["conv"], tmp_path, **QUICK)
    assert (summary.finished, summary.failed) == (12 - small, small)
    again = cf.run(Picky(), Small(small), ["conv"], tmp_path / "again", save="statistics", **QUICK)
    assert (again.finished, again.failed) == (12 - small, small)


def test_a_model_that_fails_on_a_whole_batch_before_any_other_is_said_once(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="the model failed"):
        cf.run(Picky(), Small(9), ["conv"], tmp_path, **QUICK)


class Growing(torch.nn.Module):
    """A model with a layer of as many channels as its input is high."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Identity()

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.layer(batch[:, :1].expand(-1, batch.shape[2], -1, -1))


class Sizes(Small):
    """Pictures of which the third one is larger."""

    def __getitem__(self, position: int) -> torch.Tensor:
        return torch.ones(3, 30 if position == self.small else 24, 24)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_layer_of_other_channels_costs_its_picture_where_statistics_are_kept(batch: int, tmp_path: Path) -> None:
    options = {**QUICK, "batch": batch, "save": "sheets,statistics"}
    for _ in range(2):  # taken up, too
        summary = cf.run(Growing(), Sizes(2), ["layer"], tmp_path, **options)
        assert (summary.finished + summary.skipped, summary.failed) == (11, 1)
    (failed,) = rows(tmp_path, "failed")
    assert failed["reason"] == (
        "layer 'layer' must have as many channels for every picture, 24, got 30. Leave statistics out."
    )
    assert read_statistics(tmp_path / "statistics.safetensors")["layer"].images == 11
    assert cf.run(Growing(), Sizes(2), ["layer"], tmp_path / "sheets", **QUICK).finished == 12


class Windows(torch.nn.Module):
    """A model whose layer puts out tokens, which are maps where they come to a square alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Identity()

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.layer(batch[:, :, :, ::6].flatten(2).transpose(1, 2))


def test_a_run_whose_first_picture_left_has_no_maps_is_taken_up(tmp_path: Path) -> None:
    summary = cf.run(Windows(), Sizes(2), ["layer"], tmp_path, axes="tokens:0:24x4", **QUICK)
    assert (summary.finished, summary.failed) == (11, 1)
    again = cf.run(Windows(), Sizes(2), ["layer"], tmp_path, axes="tokens:0:24x4", **QUICK)
    assert (again.finished, again.failed, again.skipped) == (0, 1, 11)


def test_a_layer_that_never_runs_is_said_once(pictures: Path, tmp_path: Path) -> None:
    class Idle(Picky):
        def __init__(self) -> None:
            super().__init__()
            self.idle = torch.nn.ReLU()

    model = Idle()
    with pytest.raises(CaptureError, match="never ran"):
        cf.run(model, pictures, ["idle"], tmp_path, **QUICK)
    assert len(model.sizes) == 5


def test_what_is_wrong_with_every_picture_is_raised(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(cf.CnnvizError, match="layer9"):
        cf.run(small_model(), pictures, ["layer9"], tmp_path / "a", **QUICK)
    with pytest.raises(OptionError, match="channels must lie in"):
        cf.run(small_model(), pictures, ["0"], tmp_path / "b", channels="99", **QUICK)


class FullDisk:
    """Stands where sheets are written, on a disk that holds so many."""

    def __init__(self, holds: int) -> None:
        self.left = holds
        self.lock = threading.Lock()

    def __call__(self, plan: Any, path: Path) -> None:
        from cnnviz_fast.sheets.render import write_picture

        with self.lock:
            if not self.left:
                raise WriteError(f"cannot write {path}: No space left on device.")
            self.left -= 1
        write_picture(plan, path)


def test_a_full_disk_stops_the_run_and_what_was_done_stays(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("cnnviz_fast.runs.outputs.write_picture", FullDisk(10))
        with pytest.raises(WriteError, match="No space left"):
            cf.run(small_model(), pictures, ["0"], tmp_path, save="sheets,statistics", **QUICK)
    assert len(rows(tmp_path)) == 8  # two whole batches
    summary = cf.run(small_model(), pictures, ["0"], tmp_path, save="sheets,statistics", **QUICK)
    assert (summary.finished, summary.skipped) == (COUNT - 8, 8)
    assert read_statistics(tmp_path / "statistics.safetensors")["0"].images == COUNT


def test_pictures_whose_names_look_like_files_of_a_run_do_not_meet(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for n, name in enumerate(("cat.png", "cat.sum.png", "cat.png.png", "sum.png", "tiles.png", "cat.atlas.png")):
        (tmp_path / "in" / name).write_bytes((pictures / f"p000{n}.png").read_bytes())
    save = "sheets,tiles,atlases,maps,sum,max"
    cf.run(small_model(), tmp_path / "in", LAYERS, tmp_path / "out", save=save, **QUICK)
    named = [file for row in rows(tmp_path / "out") for file in row["files"]]
    assert len(set(map(str.casefold, named))) == len(named)
    assert set(named) == set(digests(tmp_path / "out"))


def test_another_number_of_ranks_takes_up_sheets_but_neither_statistics_nor_tars(
    pictures: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, options in (("sheets", {}), ("statistics", {"save": "statistics"}), ("tars", {"shards": 1})):
        cf.run(small_model(), sorted(pictures.iterdir())[:9], LAYERS, tmp_path / name, **{**QUICK, **options})
        for rank in range(2):
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("WORLD_SIZE", "2")
            if name == "sheets":
                cf.run(small_model(), pictures, LAYERS, tmp_path / name, **QUICK)
            else:
                with pytest.raises(OptionError, match=r"as many processes as began it, 1, got 2\."):
                    cf.run(small_model(), pictures, LAYERS, tmp_path / name, **{**QUICK, **options})
        monkeypatch.delenv("RANK")
        monkeypatch.delenv("WORLD_SIZE")
    sheets = {name: digest for name, digest in digests(alone).items() if name.endswith("png")}
    assert digests(tmp_path / "sheets") == sheets


@pytest.mark.parametrize(("began", "tried"), [(2, 1), (1, 2)])
def test_a_number_of_ranks_that_is_refused_leaves_the_run_as_it_was(
    began: int, tried: int, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_by(world: int) -> None:
        for rank in range(world):
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("WORLD_SIZE", str(world))
            cf.run(small_model(), pictures, LAYERS, tmp_path, save="statistics", **QUICK)

    run_by(began)
    with pytest.raises(OptionError, match=rf"by as many processes as began it, {began}, got {tried}\. Give another"):
        run_by(tried)
    run_by(began)


def test_standard_input_is_refused_for_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match=r"^images must not be '-' for 2 processes, .* Write the list to a file\.$"):
        cf.run(small_model(), [["-"]], ["0"], tmp_path, **QUICK)


def test_ranks_leave_alone_what_others_may_be_writing(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0").mkdir()
    young, old = (tmp_path / "0" / f".p{n}.png.0123456{n}.part" for n in range(2))
    for path, age_s in ((young, 60), (old, 3600)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age_s,) * 2)
    (tmp_path / ".running-1-of-2").touch()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    cf.run(small_model(), pictures / "p0000.png", ["0"], tmp_path, **QUICK)
    assert young.exists()
    assert not old.exists()


def test_tables_without_pyarrow_are_refused_before_anything_is_done(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(OptionError, match="Parquet tables need the package pyarrow"):
        cf.run(small_model(), pictures, ["0"], tmp_path, parquet=True, **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_keeps_what_the_manifest_tells(pictures: Path, tmp_path: Path) -> None:
    for _ in range(2):
        cf.run(small_model(), pictures, LAYERS, tmp_path, **QUICK)
        layers = json.loads((tmp_path / "manifest.json").read_text())["layers"]
        assert layers["0"]["shape"] == [6, 12, 12]
        assert layers["0"]["grid"]["tile_h"] == 12


def test_other_pictures_in_memory_are_another_run(tmp_path: Path) -> None:
    first, second = (torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    cf.run(small_model(), first, ["0"], tmp_path, **QUICK)
    assert cf.run(small_model(), first, ["0"], tmp_path, **QUICK).skipped == 3
    with pytest.raises(OptionError, match="pictures"):
        cf.run(small_model(), second, ["0"], tmp_path, **QUICK)


# Programs' own data.


class Tensors(Dataset[Any]):
    """A data set of a program: pairs of a picture and a label."""

    def __init__(self, pictures: Path) -> None:
        self.paths = sorted(pictures.iterdir())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        with Image.open(self.paths[index]) as image:
            return image.convert("RGB"), 7


def test_a_data_set_and_a_loader_give_the_same_sheets(pictures: Path, alone: Path, tmp_path: Path) -> None:
    model = small_model()
    cf.run(model, Tensors(pictures), LAYERS, tmp_path / "set", **QUICK)
    prepared = torch.stack([model.preprocess(picture) for picture, _ in (Tensors(pictures)[n] for n in range(COUNT))])
    loader = DataLoader(torch.utils.data.TensorDataset(prepared), batch_size=6)
    cf.run(model, loader, LAYERS, tmp_path / "loader", **QUICK)
    expected = {
        name[2:-4]: digest for name, digest in digests(alone).items() if name.startswith("0/") and "png" in name
    }
    for folder in ("set", "loader"):
        made = digests(tmp_path / folder)
        assert [made[f"0/{n:08d}.png"] for n in range(COUNT)] == [expected[f"p{n:04d}"] for n in range(COUNT)]
    assert rows(tmp_path / "loader")[0]["key"] == "dataset/00000000"
    assert cf.run(model, loader, LAYERS, tmp_path / "loader", **QUICK).finished == 0


@pytest.mark.parametrize("world", [1, 2])
def test_marks_of_another_number_of_processes_go_with_the_next_run(
    world: int, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".running", ".running-1-of-3"):
        (tmp_path / name).touch()  # as kills leave them
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", str(world))
    cf.run(small_model(), pictures / "p0000.png", ["0"], tmp_path, **QUICK)
    assert list(tmp_path.glob(".running*")) == []


def test_the_last_of_several_processes_sees_the_rows_of_all(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet

    from cnnviz_fast.runs.folder import index as index_files

    batches, passes = index_files._batches, iter(range(9))
    has_read, go_on = threading.Event(), threading.Event()

    def slow(folder: Path) -> Any:
        number = next(passes)
        yield from batches(folder)
        if number == 1:  # the first process has read what there is, and not written it yet
            has_read.set()
            go_on.wait(20)

    monkeypatch.setattr(index_files, "_batches", slow)
    ranks = iter(range(2))
    monkeypatch.setattr(importlib.import_module("cnnviz_fast.runs.api"), "place_in", lambda: Ranks(next(ranks), 2, 0))

    def run() -> None:
        cf.run(small_model(), pictures, ["0"], tmp_path, parquet=True, **QUICK)

    threads = [threading.Thread(target=run) for _ in range(2)]
    threads[0].start()
    assert has_read.wait(60)
    threads[1].start()
    threads[1].join(2)
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert parquet.read_table(tmp_path / "index.parquet").num_rows == COUNT


class Drawn(torch.utils.data.TensorDataset):
    """A data set that says what it is of."""

    def __repr__(self) -> str:
        return f"Drawn from {self.root}"

    root = "here"


def test_another_data_set_of_the_same_class_is_another_run(tmp_path: Path) -> None:
    zeros, ones = (torch.full((5, 3, 24, 24), float(value)) for value in range(2))
    tensors = torch.utils.data.TensorDataset
    assert cf.run(small_model(), tensors(zeros), ["0"], tmp_path, **QUICK).finished == 5
    assert cf.run(small_model(), tensors(zeros), ["0"], tmp_path, **QUICK).skipped == 5
    for other in (tensors(ones), DataLoader(tensors(ones), batch_size=2), Drawn(zeros)):
        with pytest.raises(OptionError, match="pictures: "):
            cf.run(small_model(), other, ["0"], tmp_path, **QUICK)


class Random(Small):
    """Pictures that are others each time."""

    def __getitem__(self, position: int) -> torch.Tensor:
        return torch.rand(3, 24, 24)


def test_a_data_set_of_chance_can_be_taken_up(tmp_path: Path) -> None:
    for skipped in (0, 12):
        assert cf.run(small_model(), Random(0), ["0"], tmp_path, **QUICK).skipped == skipped


# Tar files.


def members(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.glob("shard-*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                assert member.name not in found
                found[member.name] = file.read()
    return found


def test_tars_hold_what_loose_files_would(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cf.run(small_model(), pictures, LAYERS, tmp_path / "loose", **QUICK)
    told: list[Path] = []
    monkeypatch.setattr(run_account, "MEGABYTE", 20_000)
    cf.run(small_model(), pictures, LAYERS, tmp_path / "tars", shards=1, on_file=told.append, **QUICK)
    tars = sorted((tmp_path / "tars").glob("*.tar"))
    assert len(tars) > 2
    assert told == tars
    loose = {name: (tmp_path / "loose" / name).read_bytes() for name in digests(tmp_path / "loose")}
    assert members(tmp_path / "tars") == loose
    assert [path.name for path in (tmp_path / "tars").iterdir() if path.is_dir()] == []
    first = rows(tmp_path / "tars")[0]
    assert (first["shard"], first["files"]) == ("shard-000000.tar", ["0/p0000.png"])


@pytest.mark.parametrize("lost", [1, 5, 30])
def test_tars_hold_no_picture_twice_where_the_index_was_damaged(
    lost: int, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_account, "MEGABYTE", 20_000)
    cf.run(small_model(), pictures, LAYERS, tmp_path, shards=1, **QUICK)
    expected = members(tmp_path)
    lines = (tmp_path / "index.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "index.jsonl").write_bytes(b"".join(lines[:-lost]))
    cf.run(small_model(), pictures, LAYERS, tmp_path, shards=1, **QUICK)
    assert members(tmp_path) == expected


def test_tars_are_taken_up_where_the_index_ends(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = sorted(pictures.iterdir())[:8]
    with monkeypatch.context() as patch:
        patch.setattr("cnnviz_fast.runs.folder.tars.TarWriter.close", lambda self: [])  # as a kill leaves it
        cf.run(small_model(), some, LAYERS, tmp_path, shards=1, **QUICK)
    (part,) = tmp_path.glob(".shard-*.part")
    with open(part, "ab") as file:
        file.write(b"half a file that the index does not know" * 50)
    cf.run(small_model(), pictures, LAYERS, tmp_path, shards=1, **QUICK)
    cf.run(small_model(), pictures, LAYERS, tmp_path / "whole", **QUICK)
    whole = {name: (tmp_path / "whole" / name).read_bytes() for name in digests(tmp_path / "whole")}
    assert members(tmp_path) == whole


# Signals and kills, on the command line.


@pytest.fixture
def net(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    return tmp_path / "net.py"


def command(net: Path, pictures: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "cnnviz_fast", "render", f"{net}:make", str(pictures), "--layer", "0", "2", "--size",
        "24", "--tile", "12", "--batch", "4", "--out", str(out), *more,
    ]  # fmt: skip


def said(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def wait_for_rows(out: Path, count: int, process: subprocess.Popen[Any]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if (out / "index.jsonl").exists() and len((out / "index.jsonl").read_bytes().splitlines()) >= count:
            return
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_finishes_what_is_under_way(number: signal.Signals, net: Path, tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 400)
    arguments = command(net, tmp_path / "in", tmp_path / "out", "--save", "sheets,statistics")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_rows(tmp_path / "out", 16, process)
    process.send_signal(number)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "stopping after what is under way" in said
    done = rows(tmp_path / "out")
    assert 16 <= len(done) < 800
    assert len(printed.splitlines()) == len(done)
    assert {str(tmp_path / "out" / row["files"][0]) for row in done} == set(printed.splitlines())
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["complete"] is False
    assert subprocess.run(arguments, capture_output=True, check=False).returncode == 0
    assert len(rows(tmp_path / "out")) == 800
    assert read_statistics(tmp_path / "out" / "statistics.safetensors")["0"].images == 400


SLOW_NET = (
    NET.replace("return nn.Sequential(", "return nn.Sequential(Slow(), ")
    + """

class Slow(nn.Module):
    calls = 0

    def forward(self, batch):
        import time

        self.calls += 1
        time.sleep(60 if self.calls > 2 else 0)
        return batch
"""
)


HANGING = """
import sys
import time
from pathlib import Path

import torch
from support.runs import LAYERS, small_model
from torch.utils.data import Dataset

import cnnviz_fast as cf


class Hanging(Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, position):
        if position == 20:
            Path(sys.argv[2]).touch()
            time.sleep(60)
        return torch.zeros(3, 24, 24)


try:
    cf.run(small_model(), Hanging(), LAYERS, sys.argv[1], batch=4, workers=1, progress="none")
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_the_first_signal_does_not_wait_for_a_picture_that_hangs(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", HANGING, str(tmp_path / "out"), str(tmp_path / "hangs")]
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(arguments, env=os.environ | {"PYTHONPATH": path}, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not ((tmp_path / "hangs").exists() and len(rows(tmp_path / "out")) == 40):
        time.sleep(0.01)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - begin < 20
    assert said == (
        "cnnviz: stopping after what is under way; once more to stop at once\n"
        "cnnviz: stopped after 20 pictures; the same call goes on with the others\n"
    )


def test_the_second_signal_stops_at_once(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(SLOW_NET)
    make_pictures(tmp_path / "in", 40)
    arguments = command(tmp_path / "net.py", tmp_path / "in", tmp_path / "out", "--layer", "1")
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    wait_for_rows(tmp_path / "out", 2, process)
    process.send_signal(signal.SIGINT)
    while "stopping after" not in (line := process.stderr.readline()):
        assert line
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert time.monotonic() - begin < 20


def test_kills_at_random_moments_leave_what_a_run_alone_makes(net: Path, tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 160)
    save = ("--save", "sheets,atlases,statistics")
    subprocess.run(command(net, tmp_path / "in", tmp_path / "alone", *save), check=True, capture_output=True)
    arguments = command(net, tmp_path / "in", tmp_path / "out", *save)
    random = np.random.default_rng(5)
    for kill in range(1, 5):
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_rows(tmp_path / "out", int(60 * kill), process)
        time.sleep(float(random.uniform(0, 0.02)))
        assert process.poll() is None, "it ended before it was killed"
        process.kill()
        process.wait()
        (tmp_path / "out" / "0" / f".p0001.png.0123456{kill}.part").write_bytes(b"half")  # as a kill may leave it
        for path in (tmp_path / "out").glob("*/[!.]*.png"):
            with Image.open(path) as image:
                image.load()
    subprocess.run(arguments, check=True, capture_output=True)
    assert digests(tmp_path / "out") == digests(tmp_path / "alone")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        path.name for path in (tmp_path / "alone").iterdir()
    }
    assert sorted_rows(tmp_path / "out") == sorted_rows(tmp_path / "alone")
    assert_same_statistics(read_statistics(tmp_path / "out" / "statistics.safetensors"), tmp_path / "alone")


def test_a_folder_that_another_run_is_in_is_refused(net: Path, tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 400)
    arguments = command(net, tmp_path / "in", tmp_path / "out")
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_rows(tmp_path / "out", 4, process)
        process.send_signal(signal.SIGSTOP)
        second = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert second.returncode == 2
        assert "is in use by another run" in second.stderr
    finally:
        process.kill()
        process.wait()


# On the command line.


@pytest.fixture
def listed(pictures: Path, tmp_path: Path) -> Path:
    (tmp_path / "list.txt").write_text("\n".join(map(str, sorted(pictures.iterdir()))) + "\nmissing.png\n")
    return tmp_path / "list.txt"


def test_a_list_with_a_missing_picture_ends_with_three(net: Path, listed: Path, tmp_path: Path) -> None:
    done = said(command(net, listed, tmp_path / "out", "--workers", "0"))
    assert done.returncode == 3
    assert len(done.stdout.splitlines()) == 2 * COUNT
    assert f"{COUNT} pictures in" in done.stderr
    assert "1 failed: see" in done.stderr
    assert "decode" in done.stderr
    (failed,) = rows(tmp_path / "out", "failed")
    assert failed["image"].endswith("missing.png")


def test_json_lines_of_progress_and_a_json_summary(net: Path, pictures: Path, tmp_path: Path) -> None:
    done = said(command(net, pictures, tmp_path / "out", "--progress", "json", "--json", "--workers", "0"))
    assert done.returncode == 0
    summary = json.loads(done.stdout)
    assert (summary["pictures"], summary["finished"], summary["failed"]) == (COUNT, COUNT, 0)
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert lines[-1]["finished"] == COUNT
    assert set(lines[-1]) == {"finished", "failed", "skipped", "total", "per_s", "left_s"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--save", "sheet"], "save must be"),
        (["--name", "{channel}.png"], "name and suffix go with"),
        (["--address", "here"], "address goes with engine 'ray'"),
        (["--batch", "0"], "batch must be"),
        (["--statistics", "x"], "statistics go with normalize 'dataset'"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_done(
    more: list[str], message: str, net: Path, pictures: Path, tmp_path: Path
) -> None:
    done = said(command(net, pictures, tmp_path / "out", *more))
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out" / "0").exists()


def test_a_compressed_shard_is_told_how_to_be_unpacked(net: Path, tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 2)
    with tarfile.open(tmp_path / "s.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "in" / "p0000.png", "a.png")
    done = said(command(net, tmp_path / "s.tar.gz", tmp_path / "out"))
    assert done.returncode == 1
    assert "gunzip" in done.stderr


def test_a_process_of_torchrun_whose_pictures_all_failed_does_not_end_the_others(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.txt").write_text("missing.png\n")
    arguments = command(net, tmp_path / "list.txt", tmp_path / "out")
    assert said(arguments).returncode == 1
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert said(arguments).returncode == 0


def test_an_empty_folder_is_refused(net: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = said(command(net, tmp_path / "empty", tmp_path / "out"))
    assert done.returncode == 1
    assert "holds no" in done.stderr


def test_each_is_another_word_for_tiles(net: Path, pictures: Path, tmp_path: Path) -> None:
    done = said(command(net, pictures, tmp_path / "out", "--each", "--workers", "0"))
    assert done.returncode == 0
    assert (tmp_path / "out" / "0" / "tiles" / "p0000" / "5.png").exists()


# Hostile.


HOSTILE = [
    "n" * 250, "a\nb", "a\x1b[31m", "Case", "case", "CON", "-rf", "a\\..\\b", "$(x)", "{channel}", "%s", "e\u0301",
    "\xe9", "\udcff",
]  # fmt: skip


class ImageId(torch.nn.Module):
    """A model whose layers have names that no file can have, or that become the same."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("a/b", "a-b", "A-B", "/etc", "x" * 300, "y" * 300 + "1", "y" * 300 + "2", " ", "\n", "con"):
            self._modules[name] = torch.nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return torch.cat([layer(batch) for layer in self._modules.values()])


@pytest.mark.parametrize("shards", [None, 1])
def test_names_of_pictures_and_layers_stay_inside_and_apart(shards: int | None, pictures: Path, tmp_path: Path) -> None:
    content = (pictures / "p0000.png").read_bytes()
    (tmp_path / "in").mkdir()
    for name in HOSTILE:
        with open(os.path.join(tmp_path, "in", f"{name}.png"), "wb") as file:
            file.write(content)
    out = tmp_path / "out"
    summary = cf.run(ImageId(), tmp_path / "in", "*", out, save="sheets,tiles,atlases,maps", shards=shards, **QUICK)
    assert summary.finished == len(HOSTILE)
    found = rows(out)
    assert len(found) == len(HOSTILE) * 10
    files = [file for row in found for file in row["files"]]
    assert len({file.casefold() for file in files}) == len(files)
    assert set(files) == set(members(out) if shards else digests(out))
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}
    assert not any(".." in Path(file).parts or Path(file).is_absolute() for file in files)


@pytest.mark.parametrize("where", ["in", "in/*.png", "in/**/*.png"])
def test_what_a_run_has_made_is_not_taken_for_pictures(where: str, tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 5)
    for skipped in (0, 5):
        summary = cf.run(small_model(), str(tmp_path / where), ["0"], tmp_path / "in" / "out", **QUICK)
        assert (summary.pictures, summary.skipped) == (5, skipped)


def test_what_another_run_has_made_is_not_taken_for_pictures(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 5)
    for out in ("a", "b"):
        assert cf.run(small_model(), tmp_path / "in", ["0"], tmp_path / "in" / out, **QUICK).pictures == 5
    assert cf.run(small_model(), tmp_path / "in" / "a" / "0", ["0"], tmp_path / "c", **QUICK).pictures == 5  # as named


def test_a_folder_below_out_may_hold_the_pictures(tmp_path: Path) -> None:
    make_pictures(tmp_path / "in", 5)
    for where in ("in", "in/*.png"):
        assert cf.run(small_model(), str(tmp_path / where), ["0"], tmp_path, **QUICK).pictures == 5


def test_a_folder_that_is_searched_is_no_out(tmp_path: Path) -> None:
    make_pictures(tmp_path, 5)
    with pytest.raises(OptionError, match=r"^out must not be a folder that is searched for images, got '.*'\. Give a"):
        cf.run(small_model(), tmp_path, ["0"], tmp_path, **QUICK)


def test_a_loader_that_shuffles_is_refused(tmp_path: Path) -> None:
    data = torch.utils.data.TensorDataset(torch.rand(4, 3, 24, 24))
    with pytest.raises(OptionError, match=r"got one that shuffles\. Set shuffle=False\.$"):
        cf.run(small_model(), DataLoader(data, batch_size=2, shuffle=True), ["0"], tmp_path, **QUICK)


def test_an_empty_data_set_is_refused(tmp_path: Path) -> None:
    data = torch.utils.data.TensorDataset(torch.zeros(0, 3, 24, 24))
    with pytest.raises(cf.CnnvizError, match=r"at least one picture, got an empty data set\.$"):
        cf.run(small_model(), data, ["0"], tmp_path, **QUICK)


def test_statistics_of_other_layers_are_refused(pictures: Path, alone: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"normalize": "dataset", **QUICK}
    file = str(alone / "statistics.safetensors")
    with pytest.raises(OptionError, match=r"^statistics have no layer '1'\."):
        cf.run(small_model(), pictures, ["1"], tmp_path / "b", statistics=file, **given)


def test_a_run_that_is_stopped_measures_nothing_again(
    pictures: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for share in ("PART_SHARE", "WHOLE_SHARE"):
        monkeypatch.setattr(f"cnnviz_fast.runs.statistics.{share}", 1e-9)  # nothing is kept after the first time
    options = {"save": "sheets,atlases,statistics", **QUICK}

    def interrupt(path: Path) -> None:
        if path.name == "p0009.png" and path.parent.name == "0":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        cf.run(small_model(), pictures, LAYERS, tmp_path, on_file=interrupt, **options)
    (kept,) = tmp_path.glob(".statistics.*")
    assert read_statistics(kept)["0"].images == len(rows(tmp_path)) / len(LAYERS) < COUNT
    cf.run(small_model(), pictures, LAYERS, tmp_path, **options)
    assert_same_outcome(tmp_path, alone)


def test_paths_and_the_bar_share_a_terminal(net: Path, pictures: Path, tmp_path: Path) -> None:
    import fcntl
    import pty
    import termios

    child, terminal = pty.fork()
    if not child:
        os.execv(sys.executable, command(net, pictures, tmp_path / "out"))
    said = b""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 30, 300, 0, 0))
    with open(terminal, "rb", buffering=0) as file, contextlib.suppress(OSError):  # Linux says the end so
        while some := file.read(1 << 16):
            said += some
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    lines = said.decode().replace("\r\n", "\n").split("\n")
    shown = {line.rpartition("\r")[2] for line in lines}  # what is left of a line after the bar was wiped off it
    assert {str(tmp_path / "out" / row["files"][0]) for row in rows(tmp_path / "out")} <= shown
    assert f"/{COUNT} [" in said.decode()
