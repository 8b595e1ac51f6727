"""The chunks of a run: shared out among Ray's actors, and done again from where an actor died.

chunks_of       which batches an actor does in one go
batch_results   have actors do the chunks; yields the result of each batch exactly once
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from ...errors import BackendError, OptionError, reason_of
from ...models.factories import FILE_MODULE
from .actor import Actor, ActorTask, BatchResult
from .cluster import ActorPool

CHUNK_BATCHES = 64
"""Batches in a chunk at most. Each chunk starts processes that read, in about the time of a batch."""

ATTEMPTS = 4
"""Deaths over the same images, after which the images are taken to be the cause, and not the machines."""

UNDER_WAY = 2
"""Batches that an actor may die of: the model is at one, while the files of the one before are written."""

START_DEATHS = 8
"""Actors that die in a row before they are prepared, after which the run is given up."""

POLL_S = 1.0
"""Time after which a run that waits for actors looks whether it is stopped."""


def chunks_of(batches: Sequence[Any], actors: int) -> list[Sequence[Any]]:
    """Divide batches into chunks: long ones first, so long as twice as many are left for each of the other actors.

    Args:
        batches: all of them.
        actors: how many there are.

    Returns:
        The batches of each chunk, in order.
    """
    chunks = []
    while batches:
        size = min(CHUNK_BATCHES, -(-len(batches) // (2 * actors - 1)))
        chunks.append(batches[:size])
        batches = batches[size:]
    return chunks


def batch_results(pool: ActorPool, task: ActorTask) -> Generator[BatchResult, None, None]:
    """Run the chunks of a task on actors. Closing the generator ends the actors.

    Args:
        pool: how many actors, and what each of them gets.
        task: its folder of notes exists.

    Yields:
        The result of each batch, in order within its chunk. It counts as written down when the next one is asked for.

    Raises:
        BackendError: actors keep dying, or Ray itself fails.
        CnnvizError: an error that every image would meet.
    """
    import ray

    actors = _Actors(ray, pool, task)
    try:
        yield from actors.results()
    except ray.exceptions.RayError as error:
        raise BackendError(f"Ray cannot go on: {reason_of(error)}. What is finished stays; run it again.") from error
    finally:
        actors.kill()


class _Actors:
    """The actors of a run, and how far each chunk is.

    Ray restarts and repeats nothing: which batches are done is known only here.
    """

    def __init__(self, ray: Any, pool: ActorPool, task: ActorTask) -> None:
        self.ray, self.pool, self.task = ray, pool, task
        self.factory = ray.remote(Actor).options(
            num_cpus=pool.cpus,
            num_gpus=1 if pool.on_gpu else 0,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        self.packed = ray.put(_packed(task))
        self.left = deque(range(len(task.chunks)))  # chunks that no actor is at
        self.done = [0] * len(task.chunks)  # batches of each chunk whose results were yielded
        self.deaths = [0] * len(task.chunks)  # of actors at each chunk since its last result
        self.start_deaths = 0
        self.alive: list[Any] = []
        self.idle: list[Any] = []
        self.starting: dict[Any, Any] = {}  # reference -> actor that is being prepared
        self.busy: dict[Any, tuple[Any, int]] = {}  # generator of references -> actor and its chunk

    def results(self) -> Iterator[BatchResult]:
        """Do all chunks, or those that were begun when the run was stopped."""
        while self.busy or (self.left and not self.task.stopped):
            self._start()
            self._hand_out()
            ready, _ = self.ray.wait([*self.starting, *self.busy], num_returns=1, timeout=POLL_S)
            for answer in ready:
                if answer in self.starting:
                    self._welcome(answer)
                else:
                    yield from self._receive(answer)

    def kill(self) -> None:
        """Kill all actors, whatever they are at."""
        for actor in self.alive:
            self.ray.kill(actor)

    def _start(self) -> None:
        """Start actors, but not more than there are chunks to do. Without room in the cluster they come later."""
        while len(self.alive) < min(self.pool.actors, len(self.left) + len(self.busy)):
            actor = self.factory.remote(self.packed)
            self.alive.append(actor)
            self.starting[actor.prepare.remote()] = actor

    def _hand_out(self) -> None:
        """Send chunks to the actors that are idle."""
        while self.idle and self.left and not self.task.stopped:
            actor, chunk = self.idle.pop(), self.left.popleft()
            answer = actor.do.options(num_returns="streaming").remote(chunk, self.done[chunk])
            self.busy[answer] = actor, chunk

    def _welcome(self, answer: Any) -> None:
        """Take an actor in that is prepared."""
        actor = self.starting.pop(answer)
        try:
            packed = self.ray.get(answer)
        except self.ray.exceptions.RayError:
            self._bury(actor)
            self.start_deaths += 1
            if self.start_deaths >= START_DEATHS:
                raise
        else:
            _unpickled(packed)
            self.start_deaths = 0
            self.idle.append(actor)

    def _receive(self, answer: Any) -> Iterator[BatchResult]:
        """Take the next result of a chunk, or its end, or the death of its actor."""
        actor, chunk = self.busy.pop(answer)
        try:
            packed = self.ray.get(next(answer))
        except StopIteration:
            self.idle.append(actor)
        except self.ray.exceptions.RayTaskError:  # the actor lives, and would fail again
            raise
        except self.ray.exceptions.RayError:
            self._bury(actor)
            yield from self._noted(chunk)
            self._take_back(chunk)
        else:
            self.busy[answer] = actor, chunk  # behind the others, so that they get their turn
            yield from self._deliver(chunk, _unpickled(packed))

    def _bury(self, actor: Any) -> None:
        """Drop an actor that died. Ray also calls those dead that it cannot reach: they are killed."""
        self.alive.remove(actor)
        self.ray.kill(actor)

    def _deliver(self, chunk: int, result: BatchResult) -> Iterator[BatchResult]:
        note = self.task.note(chunk, self.done[chunk])
        self.done[chunk] += 1
        self.deaths[chunk] = 0
        yield result
        note.unlink(missing_ok=True)  # whoever asks for the next result has written this one down

    def _noted(self, chunk: int) -> Iterator[BatchResult]:
        """Read the results from the notes that an actor has left, and that have not arrived otherwise."""
        with contextlib.suppress(FileNotFoundError):
            while True:
                packed = self.task.note(chunk, self.done[chunk]).read_bytes()
                yield from self._deliver(chunk, pickle.loads(packed))

    def _take_back(self, chunk: int) -> None:
        """Put what is left of a chunk before the others, unless too many actors have died over it."""
        done = self.done[chunk]
        if done == len(self.task.chunks[chunk]):
            return
        self.deaths[chunk] += 1
        if self.deaths[chunk] >= ATTEMPTS:
            positions = [position for batch in self.task.chunks[chunk][done : done + UNDER_WAY] for position in batch]
            first, last = (self.task.images.named(position).name for position in (positions[0], positions[-1]))
            raise BackendError(
                f"Ray's actors died {ATTEMPTS} times over the same {len(positions)} images, {first} to {last}. See why "
                f"in Ray's logs, /tmp/ray/session_latest/logs; where memory ended, lower batch or readers."
            )
        self.left.appendleft(chunk)


def _unpickled(packed: bytes) -> Any:
    """Unpickle what an actor sends; an error is raised."""
    value = pickle.loads(packed)
    if isinstance(value, Exception):
        raise value
    return value


def _packed(task: ActorTask) -> bytes:
    """Pickle a task, with the code of models that were made by files, which no other process can import."""
    from ray import cloudpickle

    files = [module for name, module in list(sys.modules.items()) if name.startswith(FILE_MODULE)]
    for module in files:
        cloudpickle.register_pickle_by_value(module)
    try:
        packed: bytes = cloudpickle.dumps(task)
    except Exception as error:  # a user's own objects may raise anything
        raise OptionError(f"model and images must pickle for engine 'ray', but do not: {reason_of(error)}.") from error
    finally:
        for module in files:
            cloudpickle.unregister_pickle_by_value(module)
    return packed
