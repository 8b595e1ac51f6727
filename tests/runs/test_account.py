"""What a run writes down and reports: files, failures and the manifest."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import (
    COUNT,
    LAYERS,
    QUICK,
    digests,
    make_images,
    rows,
    small_model,
)
from support.waiting import wait_until

import cnnviz_fast as cf
from cnnviz_fast.errors import ImagesFailedError
from cnnviz_fast.runtime import disk


def test_paths_are_told_as_files_come(images: Path, tmp_path: Path) -> None:
    told: list[Path] = []
    cf.run(small_model(), images, ["0"], tmp_path, on_file=told.append, **QUICK)
    assert told == [tmp_path / "0" / f"p{n:04d}.png" for n in range(COUNT)]


def test_a_second_run_keeps_what_the_manifest_tells(images: Path, tmp_path: Path) -> None:
    for _ in range(2):
        cf.run(small_model(), images, LAYERS, tmp_path, **QUICK)
        layers = json.loads((tmp_path / "manifest.json").read_text())["layers"]
        assert layers["0"]["shape"] == [6, 12, 12]
        assert layers["0"]["grid"]["tile_h"] == 12


def damage(folder: Path, count: int) -> set[str]:
    """Damage images, each in another way; return their names."""
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


@pytest.mark.parametrize("readers", [0, 1])
def test_exactly_the_damaged_images_are_in_failed(readers: int, tmp_path: Path) -> None:
    make_images(tmp_path / "in", 40)
    damaged = damage(tmp_path / "in", 10)
    summary = cf.run(small_model(), tmp_path / "in", ["0"], tmp_path / "out", **{**QUICK, "readers": readers})
    failed = rows(tmp_path / "out", "failed")
    assert {Path(row["image"]).name for row in failed} == damaged
    assert all(row["reason"] for row in failed)
    assert (summary.finished, summary.failed) == (30, 10)
    assert len(digests(tmp_path / "out")) == 30
    again = cf.run(small_model(), tmp_path / "in", ["0"], tmp_path / "out", **QUICK)
    assert (again.finished, again.failed, again.skipped) == (0, 10, 30)
    assert len(rows(tmp_path / "out", "failed")) == 10


def test_strict_stops_at_the_first_failure(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 20)
    (tmp_path / "in" / "p0009.png").write_bytes(b"")
    with pytest.raises(ImagesFailedError, match=r"p0009\.png: .* Without strict the others would be done\.$"):
        cf.run(small_model(), tmp_path / "in", ["0"], tmp_path / "out", strict=True, **QUICK)
    done = {Path(row["image"]).name for row in rows(tmp_path / "out")}
    assert done == {f"p{n:04d}.png" for n in range(8)}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc, which knows the paths of open files")
@pytest.mark.parametrize("shards", [None, 1])
def test_rows_are_written_once_their_files_are_on_the_disk(
    shards: int | None, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[Path] = set()

    def flush(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        held = {tmp_path / row.get("shard", row["files"][0]) for row in rows(tmp_path)}
        assert shards or path not in held, "its row was there before"
        flushed.add(path)

    monkeypatch.setattr(os, "fsync", flush)
    cf.run(small_model(), images, LAYERS, tmp_path, shards=shards, **QUICK)
    named = {tmp_path / file for row in rows(tmp_path) for file in row["files"]}
    folders = {tmp_path} if shards else {tmp_path, *(tmp_path / layer for layer in LAYERS)}
    assert {path for path in flushed if path.is_dir()} == folders
    assert named <= flushed if not shards else tmp_path / ".shard-000000.tar.part" in flushed


def test_rows_of_many_files_are_written_once_the_file_system_is_on_the_disk(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def flush(_: int) -> int:
        counts.append(len(rows(tmp_path)))
        return 0

    monkeypatch.setattr(disk, "_syncfs", lambda: flush)
    monkeypatch.setattr(disk, "_MANY", 1)
    cf.run(small_model(), images, ["2"], tmp_path, save="tiles", **QUICK)
    assert counts == list(range(0, COUNT, QUICK["batch"]))
    assert len(rows(tmp_path)) == COUNT


def test_a_batch_is_written_down_although_the_next_one_fails_or_hangs(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 12)
    seen: list[int] = []

    def batches() -> Iterator[Any]:
        for first in (0, 4, 8):
            if first == 8:
                wait_until(lambda: len(rows(tmp_path / "out")) == 8, 60)
                seen.append(8)
                raise ValueError("gone")
            yield torch.zeros(4, 3, 24, 24)

    with pytest.raises(ValueError, match="gone"):
        cf.run(small_model(), batches(), ["0"], tmp_path / "out", **QUICK)
    assert seen == [8]
