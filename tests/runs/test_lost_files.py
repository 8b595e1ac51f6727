"""What the index promises is not there: files were removed, a disk lost them, tars were cut or replaced."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.runs import (
    COUNT,
    LAYERS,
    QUICK,
    assert_same_outcome,
    digests,
    members,
    rows,
    small_model,
)
from support.shards import write_tar

import cnnviz_fast as cf
from cnnviz_fast.channels.dataset_files import read_statistics
from cnnviz_fast.runs import runner

SAVE = {"save": "sheets,atlases,statistics", **QUICK}

LOOSE_DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "longer": lambda path: os.truncate(path, path.stat().st_size + 1),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link to nowhere": lambda path: (path.unlink(), path.symlink_to("nowhere")),
}


def copied(run: Path, folder: Path) -> Path:
    return shutil.copytree(run, folder)


def test_loose_files_that_are_lost_are_made_again_and_nothing_else(images: Path, alone: Path, tmp_path: Path) -> None:
    out = copied(alone, tmp_path / "out")
    lost = sorted(out.glob("0/*.png"))[: len(LOOSE_DAMAGES)]
    for path, damage in zip(lost, LOOSE_DAMAGES.values(), strict=True):
        damage(path)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*/*") if path.stem not in {p.stem for p in lost}}
    summary = cf.run(small_model(), images, LAYERS, out, **SAVE)
    assert (summary.finished, summary.skipped) == (len(lost), COUNT - len(lost))
    assert_same_outcome(out, alone)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert cf.run(small_model(), images, LAYERS, out, **SAVE).skipped == COUNT


def test_rows_of_older_runs_promise_files_that_are_not_empty(images: Path, alone: Path, tmp_path: Path) -> None:
    out = copied(alone, tmp_path / "out")
    lines = rows(out)
    assert all(line.pop("sizes") for line in lines)
    (out / "index.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (out / "0" / "p0001.png").write_bytes(b"")
    (out / "2" / "p0004.atlas").unlink()
    assert cf.run(small_model(), images, LAYERS, out, **SAVE).finished == 2
    assert digests(out) == digests(alone)
    assert read_statistics(out / "statistics.safetensors")["0"].images == COUNT


@pytest.fixture(scope="module")
def whole_tars(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run with several tars, which no test changes."""
    folder = tmp_path_factory.mktemp("tars")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "MEGABYTE", 20_000)
        cf.run(small_model(), images, LAYERS, folder, shards=1, **QUICK)
    assert len(list(folder.glob("*.tar"))) > 2
    return folder


@pytest.fixture
def in_tars(whole_tars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of that folder."""
    monkeypatch.setattr(runner, "MEGABYTE", 20_000)
    return copied(whole_tars, tmp_path / "tars")


def other_tar(path: Path) -> None:
    write_tar(path, {f"0/{name}.png": bytes(300) for name in ("p0000", "p0001")})


def zeroed(path: Path) -> None:
    """Lose the middle of a tar, as a disk does: its size stays."""
    size = path.stat().st_size
    os.truncate(path, size // 2)
    os.truncate(path, size)


TAR_DAMAGES: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda path: os.truncate(path, 0),
    "cut in its first head": lambda path: os.truncate(path, 100),
    "cut in its middle": lambda path: os.truncate(path, path.stat().st_size // 2),
    "cut at its end": lambda path: os.truncate(path, path.stat().st_size - 1),
    "without its end": lambda path: os.truncate(path, path.stat().st_size - 1024),
    "with garbage behind": lambda path: path.write_bytes(path.read_bytes() + b"garbage" * 99),
    "with garbage as its end": lambda path: path.write_bytes(path.read_bytes()[:-1024] + b"x" * 1024),
    "with zeros in it": zeroed,
    "another tar": other_tar,
    "text": lambda path: path.write_text("nothing of the kind"),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "under its name while it was written": lambda path: path.rename(path.with_name(f".{path.name}.part")),
}


@pytest.mark.parametrize(("damage", "which"), [
    *((damage, 1) for damage in TAR_DAMAGES),
    *((damage, which) for which in (0, -1) for damage in ("gone", "cut in its middle", "without its end")),
])  # fmt: skip
def test_tars_that_are_damaged_hold_every_image_once_in_the_end(
    damage: str, which: int, images: Path, in_tars: Path
) -> None:
    expected = members(in_tars)
    TAR_DAMAGES[damage](sorted(in_tars.glob("*.tar"))[which])
    summary = cf.run(small_model(), images, LAYERS, in_tars, shards=1, **QUICK)
    assert summary.finished + summary.skipped == COUNT
    assert members(in_tars) == expected
    assert len(rows(in_tars)) == COUNT * len(LAYERS)
    assert not list(in_tars.glob(".*"))


def test_tars_cut_anywhere_hold_every_image_once_in_the_end(images: Path, in_tars: Path) -> None:
    expected = members(in_tars)
    chance = random.Random(4)
    for _ in range(5):
        path = chance.choice(sorted(in_tars.glob("*.tar")))
        os.truncate(path, chance.randrange(path.stat().st_size))
        cf.run(small_model(), images, LAYERS, in_tars, shards=1, **QUICK)
        assert members(in_tars) == expected


@pytest.mark.parametrize("end", [10**12, -1, 0, None, "512", 512.5, True, [1]])
def test_tars_a_row_with_an_absurd_end_is_not_trusted(end: Any, images: Path, in_tars: Path) -> None:
    expected = members(in_tars)
    lines = rows(in_tars)
    lines[-1]["end"] = end
    if end is None:
        del lines[-1]["end"]
    (in_tars / "index.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    cf.run(small_model(), images, LAYERS, in_tars, shards=1, **QUICK)
    assert members(in_tars) == expected
    assert all(path.stat().st_size < 10**6 for path in in_tars.iterdir())


@pytest.mark.parametrize("changes", [
    {"shard": "../elsewhere.tar"}, {"shard": 3}, {"shard": "shard-99999999999999.tar"}, {"shard": "\0"},
    {"files": "0/p0022.png"}, {"files": [None]}, {"files": ["\0"]}, {"files": ["../../x.png"]}, {"files": {"a": 1}},
])  # fmt: skip
def test_tars_rows_of_any_content_are_done_again(changes: dict[str, Any], images: Path, in_tars: Path) -> None:
    expected = members(in_tars)
    lines = rows(in_tars)
    lines[-1] |= changes
    (in_tars / "index.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert cf.run(small_model(), images, LAYERS, in_tars, shards=1, **QUICK).finished == 1
    assert members(in_tars) == expected


def test_what_a_loss_of_power_takes_is_made_again(images: Path, alone: Path, tmp_path: Path) -> None:
    chance = random.Random(9)
    for name in ("a", "b"):
        out = copied(alone, tmp_path / name)
        for path in chance.sample(sorted(out.glob("*/*")), 9):
            os.truncate(path, chance.choice([0, path.stat().st_size // 2]))
        index = out / "index.jsonl"
        os.truncate(index, chance.randrange(index.stat().st_size // 2, index.stat().st_size))
        cf.run(small_model(), images, LAYERS, out, **SAVE)
        assert_same_outcome(out, alone)


def test_lost_files_are_told_in_a_line(
    images: Path, alone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = copied(alone, tmp_path / "out")
    (out / "0" / "p0001.png").unlink()
    cf.run(small_model(), images, LAYERS, out, **SAVE)
    assert "done again, since files or rows of finished images are gone: 1\n" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["run.json", "manifest.json"])
def test_json_that_is_nested_without_end_is_refused_or_passed_over(
    name: str, images: Path, alone: Path, tmp_path: Path
) -> None:
    out = copied(alone, tmp_path / "out")
    for content in (
        b"[" * 100_000,
        b'{"layers":' * 100_000,
        b'{"layers": 3}',
        b'{"fingerprint": ' + b"[" * 500 + b"]" * 500 + b"}",
    ):
        (out / name).write_bytes(content)
        if name == "manifest.json":
            assert cf.run(small_model(), images, LAYERS, out, **SAVE).skipped == COUNT
            continue
        with pytest.raises(
            cf.CnnvizError, match=r"^folder '.*' holds a damaged run\.json: .{1,200}\. Give another folder\.$"
        ):
            cf.run(small_model(), images, LAYERS, out, **SAVE)
