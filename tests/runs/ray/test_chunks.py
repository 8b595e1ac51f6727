"""Chunks: shared out among actors, each result once, whatever dies. Ray is played by objects of this process."""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cnnviz_fast.errors import BackendError, LayerNotFoundError, OptionError
from cnnviz_fast.runs.batches import ImageId
from cnnviz_fast.runs.ray import chunks as ray_chunks
from cnnviz_fast.runs.ray.actor import NOTES, STOP, ActorTask
from cnnviz_fast.runs.ray.chunks import ATTEMPTS, CHUNK_BATCHES, START_DEATHS, batch_results, chunks_of
from cnnviz_fast.runs.ray.cluster import ActorPool

ONE, TWO = ActorPool(1, 1, False), ActorPool(2, 1, False)


@pytest.mark.parametrize(
    ("batches", "actors", "sizes"),
    [
        (0, 2, []),
        (15, 1, [15]),
        (15, 2, [5, 4, 2, 2, 1, 1]),
        (3, 8, [1, 1, 1]),
        (2 * CHUNK_BATCHES + 5, 1, [CHUNK_BATCHES, CHUNK_BATCHES, 5]),
    ],
)
def test_chunks_of_shares_batches_out_in_order(batches: int, actors: int, sizes: list[int]) -> None:
    chunks = chunks_of(range(batches), actors)
    assert [len(chunk) for chunk in chunks] == sizes
    assert [batch for chunk in chunks for batch in chunk] == list(range(batches))


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class Answer:
    """What Ray returns of a call: a reference, or, of a generator, something that yields references."""

    def __init__(self, value: Callable[[], Any] | Iterator[Any]) -> None:
        self.value = value

    def __next__(self) -> Answer:
        try:
            result = next(self.value)  # type: ignore[arg-type]
        except RayError as error:
            return Answer(raising(error))
        return Answer(lambda: result)


def raising(error: Exception) -> Callable[[], Any]:
    def value() -> Any:
        raise error

    return value


class FakeRay:
    """What batch_results uses of Ray. An actor of `script` dies when a method raises RayError."""

    cloudpickle = SimpleNamespace(
        dumps=lambda task: b"",
        register_pickle_by_value=lambda module: None,
        unregister_pickle_by_value=lambda module: None,
    )
    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, script: Any) -> None:
        self.script = script
        self.actors: list[Any] = []
        self.killed: list[Any] = []
        self.options: dict[str, Any] = {}

    def remote(self, _: type) -> Any:
        return SimpleNamespace(options=self.with_options)

    def with_options(self, **options: Any) -> Any:
        self.options = options
        return SimpleNamespace(remote=self.start)

    def start(self, _: Any) -> Any:
        number = len(self.actors)

        def do(chunk: int, begin: int) -> Answer:
            return Answer(self.script.do(number, chunk, begin))

        self.actors.append(
            SimpleNamespace(
                prepare=SimpleNamespace(remote=lambda: Answer(lambda: self.script.prepare(number))),
                do=SimpleNamespace(options=lambda **_: SimpleNamespace(remote=do)),
            )
        )
        return self.actors[-1]

    def put(self, value: Any) -> Any:
        return value

    def get(self, answer: Answer) -> Any:
        assert callable(answer.value)
        return answer.value()

    def wait(self, answers: list[Answer], **_: Any) -> tuple[list[Answer], list[Answer]]:
        return answers[:1], answers[1:]

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)


class Script:
    """Actors that do what is asked for; a result is (chunk, batch, actor). Tests replace what they want otherwise."""

    def __init__(self, task: ActorTask) -> None:
        self.task = task
        self.asked: list[tuple[int, int]] = []

    def prepare(self, actor: int) -> bytes:
        return pickle.dumps(None)

    def do(self, actor: int, chunk: int, begin: int) -> Iterator[bytes]:
        self.asked.append((chunk, begin))
        for batch in range(begin, len(self.task.chunks[chunk])):
            yield from self.batch(actor, chunk, batch)

    def batch(self, actor: int, chunk: int, batch: int) -> Iterator[bytes]:
        packed = self.note(actor, chunk, batch)
        yield packed

    def note(self, actor: int, chunk: int, batch: int) -> bytes:
        packed = pickle.dumps((chunk, batch, actor))
        self.task.note(chunk, batch).write_bytes(packed)
        return packed


@pytest.fixture
def task(tmp_path: Path) -> ActorTask:
    """Return a task of three chunks, of three batches, of two, and of one, each of four images."""
    (tmp_path / NOTES).mkdir()
    chunks = [[range(0, 4), range(4, 8), range(8, 12)], [range(12, 16), range(16, 20)], [range(20, 24)]]
    images: Any = SimpleNamespace(named=lambda n: ImageId(f"p{n}", f"p{n}.png", f"p{n}"))
    output_spec: Any = SimpleNamespace(folder=tmp_path)
    model: Any = None
    return ActorTask(model, images, chunks, {}, output_spec, 0, "", 1, False, 60.0)


ALL = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0)]


@pytest.fixture
def script(task: ActorTask) -> Any:
    return Script(task)


@pytest.fixture
def ray(script: Any, monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake: Any = FakeRay(script)
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


def batches_of(results: Generator[Any, None, None]) -> list[tuple[int, int]]:
    return [result[:2] for result in results]


def test_results_come_once_in_the_order_of_each_chunk(ray: FakeRay, task: ActorTask) -> None:
    results = list(batch_results(ActorPool(2, 3, True), task))
    assert sorted(result[:2] for result in results) == ALL
    assert {actor for _, _, actor in results} == {0, 1}  # both had their turn
    assert [result[1] for result in results if result[0] == 0] == [0, 1, 2]
    assert (ray.options["num_cpus"], ray.options["num_gpus"]) == (3, 1)
    assert (ray.options["max_restarts"], ray.options["max_task_retries"]) == (0, 0)  # or results would come twice
    assert ray.killed == ray.actors


def test_no_more_actors_are_started_than_there_are_chunks(ray: FakeRay, task: ActorTask) -> None:
    assert sorted(batches_of(batch_results(ActorPool(8, 1, False), task))) == ALL
    assert len(ray.actors) == 3


def test_note_is_kept_until_the_next_result_is_asked_for(ray: FakeRay, task: ActorTask) -> None:
    results = batch_results(ONE, task)
    assert next(results)[:2] == (0, 0)
    assert task.note(0, 0).exists()
    next(results)
    assert not task.note(0, 0).exists()
    list(results)
    assert list(task.notes.iterdir()) == []


def test_chunk_goes_on_behind_what_was_finished_when_its_actor_dies(ray: FakeRay, task: ActorTask, script: Any) -> None:
    def batch(actor: int, chunk: int, batch: int) -> Iterator[bytes]:
        if (actor, chunk, batch) == (0, 0, 1):
            script.note(actor, chunk, batch)  # finished, but the actor dies before it has sent it
            raise RayError("died")
        yield script.note(actor, chunk, batch)

    script.batch = batch
    results = list(batch_results(ONE, task))
    assert [result[:2] for result in results] == ALL
    assert script.asked == [(0, 0), (0, 2), (1, 0), (2, 0)]
    assert [actor for _, _, actor in results] == [0, 0, 1, 1, 1, 1]
    assert ray.killed == ray.actors  # the first one too: Ray may only have lost sight of it


def test_actor_that_dies_when_all_is_sent_costs_nothing(ray: FakeRay, task: ActorTask, script: Any) -> None:
    def do(actor: int, chunk: int, begin: int) -> Iterator[bytes]:
        yield from Script.do(script, actor, chunk, begin)
        raise RayError("died")

    script.do = do
    assert batches_of(batch_results(ONE, task)) == ALL
    assert script.asked == [(0, 0), (1, 0), (2, 0)]


def test_images_over_which_actors_keep_dying_are_given_up(ray: FakeRay, task: ActorTask, script: Any) -> None:
    def batch(actor: int, chunk: int, batch: int) -> Iterator[bytes]:
        if (chunk, batch) == (0, 1):
            raise RayError("died")
        yield script.note(actor, chunk, batch)

    script.batch = batch
    results = batch_results(ONE, task)
    assert next(results)[:2] == (0, 0)
    with pytest.raises(BackendError) as caught:
        next(results)
    assert f"died {ATTEMPTS} times over the same 8 images, p4.png to p11.png. See why in" in str(caught.value)
    assert script.asked == [(0, 0)] + [(0, 1)] * (ATTEMPTS - 1)
    assert ray.killed == ray.actors


def test_deaths_over_other_images_are_counted_anew(ray: FakeRay, task: ActorTask, script: Any) -> None:
    deaths = Counter[tuple[int, int]]()

    def batch(actor: int, chunk: int, batch: int) -> Iterator[bytes]:
        deaths[chunk, batch] += 1
        if deaths[chunk, batch] < ATTEMPTS:
            raise RayError("died")
        yield script.note(actor, chunk, batch)

    script.batch = batch
    assert batches_of(batch_results(ONE, task)) == ALL


def test_actors_that_die_before_they_are_prepared_are_given_up(ray: FakeRay, task: ActorTask, script: Any) -> None:
    def prepare(actor: int) -> bytes:
        raise RayError("no memory.\nAnd more")

    script.prepare = prepare
    with pytest.raises(BackendError, match=r"^Ray cannot go on: no memory\. What is finished stays; run it again\.$"):
        list(batch_results(ONE, task))
    assert len(ray.actors) == START_DEATHS
    assert ray.killed == ray.actors


def test_deaths_before_preparation_are_counted_in_a_row(ray: FakeRay, task: ActorTask, script: Any) -> None:
    def prepare(actor: int) -> bytes:
        if actor % START_DEATHS < START_DEATHS - 1:
            raise RayError("died")
        return pickle.dumps(None)

    def do(actor: int, chunk: int, begin: int) -> Iterator[bytes]:
        yield from Script.do(script, actor, chunk, begin)
        raise RayError("died")  # so that each chunk takes another actor

    script.prepare, script.do = prepare, do
    assert batches_of(batch_results(ONE, task)) == ALL


def test_run_goes_on_without_an_actor_that_cannot_be_replaced(ray: FakeRay, task: ActorTask, script: Any) -> None:
    def wait(answers: list[Answer], **_: Any) -> tuple[list[Answer], list[Answer]]:
        ready = [answer for answer in answers if answer not in pending]
        return ready[:1], []

    def start(packed: Any) -> Any:
        actor = FakeRay.start(ray, packed)
        if len(ray.actors) > 2:  # there is no room for a third one
            answer = actor.prepare.remote()
            pending.append(answer)
            actor.prepare.remote = lambda: answer
        return actor

    def batch(actor: int, chunk: int, batch: int) -> Iterator[bytes]:
        if actor == 0:
            raise RayError("its machine died")
        yield script.note(actor, chunk, batch)

    pending: list[Answer] = []
    ray.wait, ray.start, script.batch = wait, start, batch  # type: ignore[method-assign]
    results = list(batch_results(TWO, task))
    assert sorted(result[:2] for result in results) == ALL
    assert {actor for _, _, actor in results} == {1}
    assert ray.killed == ray.actors  # the one that never came too


def test_stopped_run_takes_what_was_begun_and_begins_nothing_more(ray: FakeRay, task: ActorTask) -> None:
    results = batch_results(ONE, task)
    assert next(results)[:2] == (0, 0)
    (task.notes / STOP).touch()
    assert batches_of(results) == [(0, 1), (0, 2)]  # what this actor, which does not look, goes on to send


def test_stopped_run_takes_what_an_actor_that_died_has_noted(ray: FakeRay, task: ActorTask, script: Any) -> None:
    def batch(actor: int, chunk: int, batch: int) -> Iterator[bytes]:
        packed = script.note(actor, chunk, batch)
        if batch == 1:
            (task.notes / STOP).touch()
            raise RayError("died")
        yield packed

    script.batch = batch
    assert batches_of(batch_results(ONE, task)) == [(0, 0), (0, 1)]
    assert len(ray.actors) == 1


def test_run_that_is_stopped_before_an_actor_came_ends(ray: FakeRay, task: ActorTask) -> None:
    def wait(answers: list[Answer], **how: Any) -> tuple[list[Answer], list[Answer]]:
        assert how["timeout"] == ray_chunks.POLL_S
        (task.notes / STOP).touch()
        return [], answers

    ray.wait = wait  # type: ignore[method-assign]
    assert list(batch_results(ONE, task)) == []
    assert ray.killed == ray.actors


@pytest.mark.parametrize("method", ["prepare", "do"])
def test_error_of_every_image_is_raised_as_it_is_and_ends_all_actors(
    method: str, ray: FakeRay, task: ActorTask, script: Any
) -> None:
    error = pickle.dumps(LayerNotFoundError("no layer 'x'"))
    setattr(script, method, {"prepare": lambda actor: error, "do": lambda *_: iter([error])}[method])
    with pytest.raises(LayerNotFoundError, match=r"^no layer 'x'$"):
        list(batch_results(TWO, task))
    assert ray.killed == ray.actors


def test_error_of_rays_own_is_not_tried_again(ray: FakeRay, task: ActorTask, script: Any) -> None:
    def do(actor: int, chunk: int, begin: int) -> Iterator[bytes]:
        raise RayTaskError("out of disk.\nAnd more")
        yield b""

    script.do = do
    with pytest.raises(BackendError, match=r"^Ray cannot go on: out of disk\. What is finished"):
        list(batch_results(ONE, task))
    assert len(ray.actors) == 1


def test_closing_ends_all_actors(ray: FakeRay, task: ActorTask) -> None:
    results = batch_results(TWO, task)
    next(results)
    results.close()
    assert len(ray.actors) == 2
    assert ray.killed == ray.actors


def test_task_that_does_not_pickle_is_refused(ray: Any, task: ActorTask) -> None:
    def dumps(task: ActorTask) -> bytes:
        raise TypeError("cannot pickle 'lock' object")

    ray.cloudpickle = SimpleNamespace(**vars(ray.cloudpickle) | {"dumps": dumps})
    with pytest.raises(OptionError, match=r"^model and images must pickle for engine 'ray', but do not: cannot pickle"):
        list(batch_results(ONE, task))
    assert ray.actors == []
