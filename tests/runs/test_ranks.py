"""Processes that share a run: each does its part, and none disturbs the others."""

from __future__ import annotations

import importlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.processes import Python
from support.runs import (
    COUNT,
    LAYERS,
    QUICK,
    assert_same_outcome,
    digests,
    small_model,
)
from support.waiting import wait_until

import cnnviz_fast as cf
from cnnviz_fast.errors import OptionError
from cnnviz_fast.runs.folder import index, lock
from cnnviz_fast.runs.ranks import Ranks, ranks_in


@pytest.mark.parametrize("launcher", ["torchrun", "slurm"])
def test_ranks_share_a_run(
    launcher: str, images: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {
        "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
        "slurm": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    }[launcher]
    for rank in range(3):
        for name, value in zip(names, (rank, 3, rank), strict=True):
            monkeypatch.setenv(name, str(value))
        summary = cf.run(small_model(), images, LAYERS, tmp_path, save="sheets,atlases,statistics", **QUICK)
        assert summary.finished == summary.images == len(range(rank, COUNT, 3))
    assert_same_outcome(tmp_path, alone)
    assert (tmp_path / "index-1-of-3.jsonl").exists()


def test_variables_that_are_no_rank_are_refused(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match=r"got RANK=2, WORLD_SIZE=2, LOCAL_RANK=0\.$"):
        cf.run(small_model(), images, LAYERS, tmp_path, **QUICK)


def slurm(task: object, first: object, last: object, count: object, step: object = 1) -> dict[str, str]:
    names = ("ID", "MIN", "MAX", "COUNT", "STEP")
    return {
        f"SLURM_ARRAY_TASK_{name}": str(value)
        for name, value in zip(names, (task, first, last, count, step), strict=True)
    }


def sge(task: object, first: object, last: object, step: object) -> dict[str, str]:
    names = ("ID", "FIRST", "LAST", "STEPSIZE")
    return {f"SGE_TASK_{name}": str(value) for name, value in zip(names, (task, first, last, step), strict=True)}


@pytest.mark.parametrize(
    ("environment", "ranks"),
    [
        (slurm(0, 0, 9, 10), (0, 10, 0)),
        (slurm(7, 1, 9, 5, 2), (3, 5, 0)),
        (slurm(4, 4, 4, 1), (0, 1, 0)),
        (sge(11, 1, 20, 10), (1, 2, 0)),
        (slurm(2, 1, 3, 3) | {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}, (5, 12, 1)),
        (sge("undefined", 0, 0, 0) | slurm(2, 1, 3, 3), (1, 3, 0)),
    ],
)
def test_tasks_of_a_job_array_are_ranks_only_where_that_is_asked_for(
    environment: dict[str, str], ranks: tuple[int, int, int]
) -> None:
    assert ranks_in(environment, array=True) == ranks
    assert ranks_in(environment).world_size == int(environment.get("WORLD_SIZE", 1))


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, r"neither SLURM_ARRAY_TASK_ID nor SGE_TASK_ID\. Elsewhere set RANK, from 0, and WORLD_SIZE\.$"),
        (sge("undefined", "undefined", "undefined", "undefined"), "neither SLURM_ARRAY_TASK_ID nor SGE_TASK_ID"),
        (slurm(3, 1, 7, 3), r"such as 0-9 or 1-9:2, got SLURM_ARRAY_TASK_ID=3, .* 3 tasks\. Submit all tasks: "),
        (slurm(2, 1, 9, 5, 2), "SLURM_ARRAY_TASK_ID=2"),
        (slurm(1, 1, "many", "some"), "SLURM_ARRAY_TASK_MAX=many"),
        ({"SGE_TASK_ID": "1"}, "SGE_TASK_LAST="),
    ],
)
def test_tasks_that_cannot_be_numbered_are_refused(environment: dict[str, str], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        ranks_in(environment, array=True)


def test_tasks_of_an_array_share_a_run_and_do_nothing_twice(
    images: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(task: int) -> int:
        for name, value in slurm(task, 1, 5, 3, 2).items():
            monkeypatch.setenv(name, value)
        return cf.run(
            small_model(), images, LAYERS, tmp_path, save="sheets,atlases,statistics", array=True, **QUICK
        ).finished

    done = [run(task) for task in (1, 3, 5)]
    assert done == [len(range(rank, COUNT, 3)) for rank in range(3)]
    assert [run(task) for task in (3, 5)] == [0, 0]
    assert_same_outcome(tmp_path, alone)


STOPS_HALF_WAY = """
import sys

from support.runs import LAYERS, QUICK, small_model
from support.waiting import hang

import cnnviz_fast as cf

files = []

def stop(path):
    files.append(path)
    if len(files) == 10:
        print("half way", flush=True)
        hang()

cf.run(
    small_model(), sys.argv[1], LAYERS, sys.argv[2], save="sheets,atlases,statistics", array=True, on_file=stop,
    **QUICK | {"batch": 2},
)
"""


def test_a_task_that_is_killed_and_queued_again_loses_nothing_and_does_nothing_twice(
    images: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(task: int) -> cf.RunSummary:
        be(task)
        return cf.run(small_model(), images, LAYERS, tmp_path, save="sheets,atlases,statistics", array=True, **QUICK)

    def be(task: int) -> None:
        for name, value in slurm(task, 0, 2, 3).items():
            monkeypatch.setenv(name, value)

    run(0)
    be(1)
    with Python("-c", STOPS_HALF_WAY, str(images), str(tmp_path)) as first:
        wait_until(lambda: first.printed or first.code is not None)
        with pytest.raises(OptionError, match=rf"in use by another run \(pid {first.pid} on "):
            run(1)  # a copy beside it
    again = run(1)
    assert again.finished
    assert again.skipped
    assert again.finished + again.skipped == len(range(1, COUNT, 3))
    run(2)
    assert_same_outcome(tmp_path, alone)
    assert list(tmp_path.glob(".*")) == []


def test_tasks_of_an_array_do_not_wait_for_the_statistics_of_others(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in slurm(0, 0, 9, 10).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OptionError, match=r"array takes normalize 'dataset' only with statistics of an earlier run\."):
        cf.run(small_model(), images, LAYERS, tmp_path, array=True, normalize="dataset", **QUICK)


def test_another_number_of_ranks_takes_up_sheets_but_neither_statistics_nor_tars(
    images: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, options in (("sheets", {}), ("statistics", {"save": "statistics"}), ("tars", {"shards": 1})):
        cf.run(small_model(), sorted(images.iterdir())[:9], LAYERS, tmp_path / name, **{**QUICK, **options})
        for rank in range(2):
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("WORLD_SIZE", "2")
            if name == "sheets":
                cf.run(small_model(), images, LAYERS, tmp_path / name, **QUICK)
            else:
                with pytest.raises(OptionError, match=r"as many processes as began it, 1, got 2\."):
                    cf.run(small_model(), images, LAYERS, tmp_path / name, **{**QUICK, **options})
        monkeypatch.delenv("RANK")
        monkeypatch.delenv("WORLD_SIZE")
    sheets = {name: digest for name, digest in digests(alone).items() if name.endswith("png")}
    assert digests(tmp_path / "sheets") == sheets


@pytest.mark.parametrize(("began", "tried"), [(2, 1), (1, 2)])
def test_a_number_of_ranks_that_is_refused_leaves_the_run_as_it_was(
    began: int, tried: int, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_by(world_size: int) -> None:
        for rank in range(world_size):
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("WORLD_SIZE", str(world_size))
            cf.run(small_model(), images, LAYERS, tmp_path, save="statistics", **QUICK)

    run_by(began)
    with pytest.raises(OptionError, match=rf"by as many processes as began it, {began}, got {tried}\. Start all "):
        run_by(tried)
    run_by(began)


def test_standard_input_is_refused_for_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match=r"^images must not be '-' for 2 processes, .* Write the list to a file\.$"):
        cf.run(small_model(), [["-"]], ["0"], tmp_path, **QUICK)


def test_ranks_leave_alone_what_others_may_be_writing(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "0").mkdir()
    young, old = (tmp_path / "0" / f".p{n}.png.0123456{n}.part" for n in range(2))
    for path, age_s in ((young, 60), (old, 3600)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age_s,) * 2)
    (tmp_path / ".running-1-of-2").touch()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    cf.run(small_model(), images / "p0000.png", ["0"], tmp_path, **QUICK)
    assert young.exists()
    assert not old.exists()


@pytest.mark.parametrize("world_size", [1, 2])
def test_marks_of_another_number_of_processes_go_with_the_next_run(
    world_size: int, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".running", ".running-1-of-3"):
        (tmp_path / name).touch()  # as kills leave them
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", str(world_size))
    cf.run(small_model(), images / "p0000.png", ["0"], tmp_path, **QUICK)
    assert list(tmp_path.glob(".running*")) == []


class WatchedLock:
    """A lock that shows whether a thread has had to wait for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.is_waited_for = threading.Event()

    def __enter__(self) -> None:
        if not self.lock.acquire(blocking=False):
            self.is_waited_for.set()
            self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def test_the_last_of_several_processes_sees_the_rows_of_all(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyarrow import parquet

    batches, passes = index._batches, iter(range(9))
    has_read, go_on, folder_lock = threading.Event(), threading.Event(), WatchedLock()

    def slow(folder: Path) -> Any:
        number = next(passes)
        yield from batches(folder)
        if number == 1:  # the first process has read what there is, and not written it yet
            has_read.set()
            go_on.wait(60)

    monkeypatch.setattr(index, "_batches", slow)
    monkeypatch.setattr(lock, "_threads", folder_lock)
    ranks = iter(range(2))
    monkeypatch.setattr(
        importlib.import_module("cnnviz_fast.runs.api"), "ranks_in", lambda **_: Ranks(next(ranks), 2, 0)
    )

    def run() -> None:
        cf.run(small_model(), images, ["0"], tmp_path, parquet=True, **QUICK)

    threads = [threading.Thread(target=run) for _ in range(2)]
    threads[0].start()
    assert has_read.wait(60)
    threads[1].start()
    wait_until(lambda: folder_lock.is_waited_for.is_set() or not threads[1].is_alive(), 60)
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert parquet.read_table(tmp_path / "index.parquet").num_rows == COUNT
