"""Tars alone: where a run before has left them, and what of them is told."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cnnviz_fast.errors import WriteError
from cnnviz_fast.runs.folder.tars import TarWriter

MOST_BYTES = 4096
FIRST, SECOND = "shard-000000.tar", "shard-000001.tar"


def begun(folder: Path, rows: list[dict[str, Any]]) -> TarWriter:
    return TarWriter(folder, "shard-", MOST_BYTES, rows)


def added(tars: TarWriter, name: str, size: int = 1500) -> dict[str, Any]:
    """Append a file, which takes 2048 bytes with its header; return its row."""
    (tars.staged / name).write_bytes(bytes(size))
    return tars.add([name])


def names_in(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


@pytest.mark.parametrize("more", [["c"], []])
def test_a_tar_that_was_large_enough_when_the_run_was_killed_is_ended_first(more: list[str], tmp_path: Path) -> None:
    tars = begun(tmp_path, [])
    rows = [added(tars, "a"), added(tars, "b")]
    tars.leave()  # before the turn that comes next
    tars = begun(tmp_path, rows)
    assert names_in(tmp_path / FIRST) == ["a", "b"]
    assert [added(tars, name)["shard"] for name in more] == [SECOND for _ in more]
    assert tars.turn() == [FIRST]
    assert tars.turn() == []
    assert tars.close() == [SECOND for _ in more]
    assert sorted(path.name for path in tmp_path.glob("*.tar")) == [FIRST, *(SECOND for _ in more)]
    tars.leave()


def test_a_tar_that_is_ended_when_the_run_is_taken_up_is_told_at_the_latest_at_the_end(tmp_path: Path) -> None:
    tars = begun(tmp_path, [])
    rows = [added(tars, "a"), added(tars, "b")]
    tars.leave()
    tars = begun(tmp_path, rows)
    added(tars, "c")
    assert tars.close() == [FIRST, SECOND]
    tars.leave()


def test_a_new_run_begins_with_the_first_tar(tmp_path: Path) -> None:
    tars = begun(tmp_path, [{"layer": "0"}])  # a row of a run without tars
    assert tars.name == FIRST
    assert tars.close() == []
    tars.leave()
    assert os.listdir(tmp_path) == []


def test_nothing_is_staged_where_the_tars_cannot_be_taken_up(tmp_path: Path) -> None:
    (tmp_path / f".{FIRST}.part").mkdir()
    with pytest.raises(WriteError, match=FIRST):
        begun(tmp_path, [])
    assert os.listdir(tmp_path) == [f".{FIRST}.part"]
