"""Runs that are taken up: what is done again, what is not, and what tars hold then."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from support.runs import (
    COUNT,
    LAYERS,
    QUICK,
    assert_same_outcome,
    digests,
    make_images,
    members,
    rows,
    small_model,
)

import cnnviz_fast as cf
from cnnviz_fast.channels.dataset_files import read_statistics
from cnnviz_fast.errors import WriteError
from cnnviz_fast.runs import runner


def test_a_second_run_does_nothing_again(images: Path, tmp_path: Path) -> None:
    options = {"save": "sheets,statistics", **QUICK}
    first = cf.run(small_model(), images, LAYERS, tmp_path, **options)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    second = cf.run(small_model(), images, LAYERS, tmp_path, **options)
    assert (first.finished, first.skipped) == (COUNT, 0)
    assert (second.finished, second.skipped, second.images) == (0, COUNT, COUNT)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")} == before
    assert read_statistics(tmp_path / "statistics.safetensors")["0"].images == COUNT


def test_images_that_have_come_since_are_done_too(images: Path, alone: Path, tmp_path: Path) -> None:
    options = {"save": "sheets,atlases,statistics", **QUICK}
    some = sorted(images.iterdir())[:9]
    cf.run(small_model(), some, LAYERS, tmp_path, **options)
    summary = cf.run(small_model(), images, LAYERS, tmp_path, **options)
    assert (summary.finished, summary.skipped) == (COUNT - 9, 9)
    assert_same_outcome(tmp_path, alone)


def test_statistics_miss_no_image_that_was_finished_after_their_last_checkpoint(
    images: Path, alone: Path, tmp_path: Path
) -> None:
    options = {"save": "sheets,atlases,statistics", **QUICK}
    cf.run(small_model(), sorted(images.iterdir())[:9], LAYERS, tmp_path, **options)
    early = read_statistics(tmp_path / "statistics.safetensors")
    kept = (tmp_path / "statistics.safetensors").read_bytes()
    cf.run(small_model(), sorted(images.iterdir())[:17], LAYERS, tmp_path, **options)
    (tmp_path / "statistics.safetensors").write_bytes(kept)  # as a kill leaves it: eight images behind the index
    assert early["0"].images == 9
    cf.run(small_model(), images, LAYERS, tmp_path, **options)
    assert_same_outcome(tmp_path, alone)


def test_a_finished_image_that_is_gone_has_no_other_counted_twice(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 6)
    out, options = tmp_path / "out", {"save": "statistics", **QUICK}
    cf.run(small_model(), tmp_path / "in", LAYERS, out, **options)
    (out / "statistics.safetensors").unlink()  # as if killed before the first checkpoint
    (tmp_path / "in" / "p0002.png").unlink()
    for _ in range(2):
        cf.run(small_model(), tmp_path / "in", LAYERS, out, **options)
        assert read_statistics(out / "statistics.safetensors")["0"].images == 5


def test_images_of_one_name_are_kept_apart_and_not_overwritten(images: Path, tmp_path: Path) -> None:
    for name, provenance in (("a", "p0001.png"), ("b", "p0002.png")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.png").write_bytes((images / provenance).read_bytes())
    cf.run(small_model(), tmp_path / "a", ["0"], tmp_path / "out", **QUICK)
    cf.run(small_model(), tmp_path / "b", ["0"], tmp_path / "out", **QUICK)
    cf.run(small_model(), [tmp_path / "a", tmp_path / "b"], ["0"], tmp_path / "out", **QUICK)
    made = digests(tmp_path / "out")
    assert len(set(made.values())) == len(made) == 2


def test_a_run_that_is_stopped_measures_nothing_again(
    images: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for share in ("PART_SHARE", "WHOLE_SHARE"):
        monkeypatch.setattr(f"cnnviz_fast.runs.checkpoints.{share}", 1e-9)  # nothing is kept after the first time
    options = {"save": "sheets,atlases,statistics", **QUICK}

    def interrupt(path: Path) -> None:
        if path.name == "p0009.png" and path.parent.name == "0":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        cf.run(small_model(), images, LAYERS, tmp_path, on_file=interrupt, **options)
    (kept,) = tmp_path.glob(".statistics.*")
    assert read_statistics(kept)["0"].images == len(rows(tmp_path)) / len(LAYERS) < COUNT
    cf.run(small_model(), images, LAYERS, tmp_path, **options)
    assert_same_outcome(tmp_path, alone)


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
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("cnnviz_fast.runs.outputs.write_picture", FullDisk(10))
        with pytest.raises(WriteError, match="No space left"):
            cf.run(small_model(), images, ["0"], tmp_path, save="sheets,statistics", **QUICK)
    assert len(rows(tmp_path)) == 8  # two whole batches
    summary = cf.run(small_model(), images, ["0"], tmp_path, save="sheets,statistics", **QUICK)
    assert (summary.finished, summary.skipped) == (COUNT - 8, 8)
    assert read_statistics(tmp_path / "statistics.safetensors")["0"].images == COUNT


def test_tars_hold_what_loose_files_would(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cf.run(small_model(), images, LAYERS, tmp_path / "loose", **QUICK)
    told: list[Path] = []
    monkeypatch.setattr(runner, "MEGABYTE", 20_000)
    cf.run(small_model(), images, LAYERS, tmp_path / "tars", shards=1, on_file=told.append, **QUICK)
    tars = sorted((tmp_path / "tars").glob("*.tar"))
    assert len(tars) > 2
    assert told == tars
    loose = {name: (tmp_path / "loose" / name).read_bytes() for name in digests(tmp_path / "loose")}
    assert members(tmp_path / "tars") == loose
    assert [path.name for path in (tmp_path / "tars").iterdir() if path.is_dir()] == []
    first = rows(tmp_path / "tars")[0]
    assert (first["shard"], first["files"]) == ("shard-000000.tar", ["0/p0000.png"])


@pytest.mark.parametrize("lost", [1, 5, 30])
def test_tars_hold_no_image_twice_where_the_index_was_damaged(
    lost: int, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "MEGABYTE", 20_000)
    cf.run(small_model(), images, LAYERS, tmp_path, shards=1, **QUICK)
    expected = members(tmp_path)
    lines = (tmp_path / "index.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "index.jsonl").write_bytes(b"".join(lines[:-lost]))
    cf.run(small_model(), images, LAYERS, tmp_path, shards=1, **QUICK)
    assert members(tmp_path) == expected


def test_tars_are_taken_up_where_the_index_ends(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = sorted(images.iterdir())[:8]
    with monkeypatch.context() as patch:
        patch.setattr("cnnviz_fast.runs.folder.tars.TarWriter.close", lambda self: [])  # as a kill leaves it
        cf.run(small_model(), some, LAYERS, tmp_path, shards=1, **QUICK)
    (part,) = tmp_path.glob(".shard-*.part")
    with open(part, "ab") as file:
        file.write(b"half a file that the index does not know" * 50)
    cf.run(small_model(), images, LAYERS, tmp_path, shards=1, **QUICK)
    cf.run(small_model(), images, LAYERS, tmp_path / "whole", **QUICK)
    whole = {name: (tmp_path / "whole" / name).read_bytes() for name in digests(tmp_path / "whole")}
    assert members(tmp_path) == whole
