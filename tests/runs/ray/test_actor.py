"""An actor by itself, in this process and without Ray: what it sends and notes of a chunk, and how errors come back."""

from __future__ import annotations

import dataclasses
import os
import pickle
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.runs import small_model

import cnnviz_fast as cf
from cnnviz_fast.errors import BackendError, OptionError
from cnnviz_fast.inputs.images import usual_spec
from cnnviz_fast.pipeline import Drawing
from cnnviz_fast.runs.batches import OutputSpec
from cnnviz_fast.runs.collected import Statistics
from cnnviz_fast.runs.images import images_of
from cnnviz_fast.runs.outputs import outputs_of
from cnnviz_fast.runs.ray import actor as ray_actor
from cnnviz_fast.runs.ray.actor import NOTES, STOP, Actor, ActorTask, BatchResult


@pytest.fixture
def task(images: Path, tmp_path: Path) -> ActorTask:
    """Return the task of an actor: a chunk of two batches of four images, and one of a single batch."""
    model = small_model()
    drawing = Drawing(cf.RenderOptions(tile=12))
    outputs = outputs_of(("sheets",), "png")
    output_spec = OutputSpec(["0"], drawing, outputs, tmp_path, collects=[Statistics()], batch=16)
    (tmp_path / NOTES).mkdir()
    chunks = [[range(0, 4), range(4, 8)], [range(8, 12)]]
    listed = images_of(images, usual_spec(model, 10**6))
    return ActorTask(model, listed, chunks, {9: "other"}, output_spec, 0, os.getcwd(), 1, False, 60.0)


def prepared(task: ActorTask) -> Actor:
    actor = Actor(pickle.dumps(task))
    assert pickle.loads(actor.prepare()) is None
    return actor


def do(task: ActorTask, chunk: int, begin: int = 0) -> Iterator[Any]:
    """Return what a new actor makes of a chunk."""
    for packed in prepared(task).do(chunk, begin):
        yield pickle.loads(packed)


def stems(result: BatchResult) -> list[str]:
    return [one.image.stem for one in result.outcome.finished]


def test_chunk_gives_the_result_of_each_batch(task: ActorTask) -> None:
    first, second = do(task, 0)
    assert stems(first) == ["p0000", "p0001", "p0002", "p0003"]
    assert stems(second) == ["p0004", "p0005", "p0006", "p0007"]
    assert [one.outcome.collected["statistics"]["0"].values for one in (first, second)] == [4 * 144] * 2
    assert {"decode", "forward", "render", "encode", "write"} == set(first.seconds)
    assert min(second.seconds.values()) >= 0


def test_result_is_noted_before_it_is_sent(task: ActorTask) -> None:
    results = prepared(task).do(0, 0)
    assert list(task.notes.iterdir()) == []
    first = next(results)
    assert task.note(0, 0).read_bytes() == first
    assert next(results) == task.note(0, 1).read_bytes()
    assert list(results) == []
    assert sorted(path.name for path in task.notes.iterdir()) == ["0-0.done", "0-1.done"]


def test_chunk_that_is_done_again_goes_on_where_it_is_told_to(task: ActorTask) -> None:
    (second,) = do(task, 0, begin=1)
    assert stems(second) == ["p0004", "p0005", "p0006", "p0007"]
    assert not (task.output_spec.folder / "0" / "p0000.png").exists()  # it was not made again
    assert [path.name for path in task.notes.iterdir()] == ["0-1.done"]


def test_stems_that_the_run_chose_are_used(task: ActorTask) -> None:
    (result,) = do(task, 1)
    assert stems(result) == ["p0008", "other", "p0010", "p0011"]
    assert (task.output_spec.folder / "0" / "other.png").exists()


def test_stopped_actor_begins_no_batch(task: ActorTask) -> None:
    (task.notes / STOP).touch()
    assert list(do(task, 0)) == []
    assert [path.name for path in task.notes.iterdir()] == [STOP]


def test_folder_that_an_actor_does_not_see_is_an_error(task: ActorTask) -> None:
    elsewhere = dataclasses.replace(task.output_spec, folder=Path("/nowhere/out"))
    error = pickle.loads(Actor(pickle.dumps(dataclasses.replace(task, output_spec=elsewhere))).prepare())
    assert isinstance(error, OptionError)
    assert "out must lie on a file system that all machines of the cluster share" in str(error)
    assert str(error).endswith("does not see /nowhere/out.")


def test_what_an_actor_cannot_import_is_an_error_that_names_its_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = ModuleType("only_here")
    exec("class Images(list):\n    pass", vars(elsewhere))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "only_here", elsewhere)
        packed = pickle.dumps(elsewhere.Images())
    error = pickle.loads(Actor(packed).prepare())
    assert isinstance(error, BackendError)
    assert "cannot load the model or the images: No module named 'only_here'. Install what they need on" in str(error)


def test_error_that_does_not_pickle_comes_back_by_its_words(task: ActorTask, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(Exception):
        pass

    def fail(*_: Any) -> None:
        raise Odd("held together by string", threading.Lock())

    monkeypatch.setattr(ray_actor, "_results", fail)
    (error,) = do(task, 0)
    assert isinstance(error, BackendError)
    assert "held together by string" in str(error)
