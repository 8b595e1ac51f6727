"""Stage 2 of 7, workers: processes that read pictures, of which each may crash or hang at any picture.

    reader    the thread that asks torch's DataLoader for one result after another
    workers   note the picture they are at, read it, note the next one ...
    watch     a thread that kills the worker that is too long at one picture

The DataLoader ends with the first worker that dies. What that worker was at, is lost, and a new DataLoader goes on
behind what was given out. It is never in the main thread: there torch would raise the death of a worker at any line.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, get_worker_info

from ..errors import ImageError

Result = TypeVar("Result")

POLL_S = 0.2
"""How often deaths, hangs and the end of it all are looked for: seldom enough to cost nothing."""

CLOSING_S = 0.5
"""What a worker has left once nobody wants anything of it."""

STALL_S = 60.0
"""After which workers that are at no picture, and give nothing, count as lost: one that was forked while a lock was
held, or whose result could not be sent. More than what it takes to start any."""

FRUITLESS = 5
"""Starts in a row without a result, and without a picture to blame, after which it is given up."""

_IDLE = -1
_STARTING, _RUNNING, _STOPPED = range(3)


class Stopped(Exception):
    """Nobody wants what is being read."""


class Notes:
    """What each worker is at, in memory that all of them share."""

    def __init__(self, workers: int) -> None:
        self._table = torch.full((max(workers, 1), 2), _IDLE, dtype=torch.int64)
        self._state = torch.full((), _STARTING)
        if workers:
            _share(self._table, self._state)
        self._stopped_at: float | None = None  # for the process that stops them alone

    def begin(self, position: int) -> None:
        """Note, in a worker, that it is about to read a picture; raise Stopped where nobody wants it."""
        if self.stopped:
            raise Stopped
        row = self._row()
        row[1] = time.monotonic_ns()
        row[0] = position

    def end(self) -> None:
        """Note, in a worker, that it is at no picture."""
        self._row()[0] = _IDLE

    def at(self, worker: int) -> tuple[int | None, float]:
        """Give the position a worker is at, None for none, and for how many seconds it has been."""
        position, since = self._table[worker].tolist()
        return None if position == _IDLE else position, (time.monotonic_ns() - since) / 1e9

    def start(self) -> None:
        """Let the workers begin."""
        self._state.fill_(_RUNNING)

    def stop(self) -> None:
        """Let each worker stop before its next picture."""
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
        self._state.fill_(_STOPPED)

    def stopped_for(self) -> float:
        """Give the seconds since the workers were told to stop, 0 where they were not."""
        return 0.0 if self._stopped_at is None else time.monotonic() - self._stopped_at

    @property
    def stopped(self) -> bool:
        """Whether the workers are to stop."""
        return self._state.item() == _STOPPED

    def wait_for_start(self) -> None:
        """Wait, in a worker, until it may begin, or until whoever could say so is gone."""
        parent = os.getppid()
        while self._state.item() == _STARTING and os.getppid() == parent:
            time.sleep(0.001)

    def _row(self) -> torch.Tensor:
        worker = get_worker_info()
        row: torch.Tensor = self._table[0 if worker is None else worker.id]
        return row


def _share(*tables: torch.Tensor) -> None:
    try:
        for table in tables:
            table.share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError as error:  # where there is too little of it
        raise ImageError(
            f"workers that read images cannot be started: {_last_line(error)}. Set workers to 0."
        ) from error


Task = Callable[[int, Mapping[int, str], Notes], Result]
"""(index, positions that are lost and why, notes) -> its result. It notes each picture, and reads none that is lost."""


@dataclass(frozen=True)
class _Indexed(Generic[Result]):
    """A task as the data set of a DataLoader."""

    task: Task[Result]
    count: int
    lost: Mapping[int, str]
    notes: Notes

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Result:
        return self.task(index, self.lost, self.notes)


class Workers(Generic[Result]):
    """Runs a task for 0, 1, 2, ... and gives its results in that order."""

    def __init__(self, task: Task[Result], count: int, *, workers: int, timeout_s: float) -> None:
        """Prepare; processes are started when the first result is asked for.

        Args:
            task: reads one batch. It is sent to the workers, so it has to pickle where they are not forked.
            count: of results.
            workers: how many processes; 0 runs the task where the results are asked for, and nothing can be killed.
            timeout_s: after which a worker is killed that is still at the same picture.
        """
        self._task, self._count, self._workers, self._timeout_s = task, count, workers, timeout_s
        self._lost: dict[int, str] = {}
        self._late: dict[int | None, int | None] = {}
        self._now: tuple[Notes, list[BaseProcess]] = (Notes(workers), [])
        self._stopping = threading.Event()
        self._ended = threading.Event()

    def stop(self) -> None:
        """End the results, from any thread: after the pictures that are being read, or after CLOSING_S."""
        self._stopping.set()
        self._now[0].stop()

    def results(self) -> Generator[Result, None, None]:
        """Give the results in order, until there are no more or `stop` is called. Not in the main thread.

        Raises:
            ImageError: workers cannot be started, or die again and again while they are at no picture.
        """
        if not self._workers:
            with contextlib.suppress(Stopped):
                for index in range(self._count):
                    yield self._task(index, {}, self._now[0])
            return
        watch = threading.Thread(target=self._watch, name="cnnviz watch", daemon=True)
        watch.start()
        try:
            yield from self._all_results()
        finally:
            self._ended.set()
            watch.join()

    def _all_results(self) -> Iterator[Result]:
        """Start workers, and start them again behind what was given out, for as long as that leads to anything."""
        given = fruitless = 0
        while given < self._count and not self._stopping.is_set():
            before = given + len(self._lost)
            why = ""
            with self._started(given) as iterator:
                asked = time.monotonic()
                while given < self._count and not why:
                    try:
                        result = next(iterator)
                    except Exception as error:
                        if self._stopping.is_set():
                            return
                        why = self._what_ended(error, time.monotonic() - asked)
                        continue
                    given += 1
                    yield result
                    asked = time.monotonic()
            fruitless = 0 if given + len(self._lost) > before else fruitless + 1
            if fruitless == FRUITLESS:
                raise ImageError(
                    f"the workers that read images failed {FRUITLESS} times in a row, the last time: {why}. "
                    f"Set workers to 0, or give them more shared memory."
                )

    @contextlib.contextmanager
    def _started(self, first: int) -> Iterator[Any]:
        """Start workers for the results from `first` on, and let none of them be left in the end."""
        notes = Notes(self._workers)
        indexed: Any = _Indexed(self._task, self._count, dict(self._lost), notes)
        loader = DataLoader(
            indexed,
            batch_size=None,
            sampler=range(first, self._count),
            num_workers=self._workers,
            collate_fn=_unchanged,
            timeout=POLL_S,
            worker_init_fn=partial(_begin, notes),
            generator=torch.Generator().manual_seed(0),  # without one, the caller's own random numbers would change
        )
        try:
            iterator: Any = iter(loader)
        except Exception as error:
            notes.stop()
            message = f"workers that read images cannot be started: {_last_line(error)}. Set workers to 0."
            raise ImageError(message) from error
        try:
            self._now = (notes, iterator._workers)
            # Once the caller has used a DataLoader of their own, torch 2.10 to 2.15 raises the death of any worker that
            # it knows of in the main thread, wherever that is. It need not know of these, which wait until it does not.
            torch._C._remove_worker_pids(id(iterator))
            iterator._worker_pids_set = False
            notes.start()
            yield iterator
        finally:
            notes.stop()
            iterator._shutdown_workers()

    def _what_ended(self, error: Exception, seconds: float) -> str:
        """Say what ended the workers, and blame the pictures that they were at; "" where they only take their time."""
        notes, processes = self._now
        if str(error).startswith("DataLoader timed out"):
            idle = all(notes.at(worker)[0] is None for worker in range(len(processes)))
            return f"nothing came of them for {STALL_S:g} s" if idle and seconds > STALL_S else ""
        dead = _wait_for_dead(processes)
        for worker in dead:
            position, late = notes.at(worker)[0], self._late.pop(processes[worker].pid, None)
            if late is not None:
                self._lost[late] = f"took longer than {self._timeout_s:g} s"
            elif position is not None:
                self._lost[position] = f"the worker that decoded it died ({_ending(processes[worker])})"
        return f"one died ({_ending(processes[dead[0]])})" if dead else _last_line(error)

    def _watch(self) -> None:
        """Kill each worker that is too long at one picture, and those that do not stop, until all results are there."""
        while not self._ended.wait(POLL_S):
            notes, processes = self._now
            for worker, process in enumerate(processes):
                position, seconds = notes.at(worker)
                if notes.stopped:
                    late = notes.stopped_for() > CLOSING_S
                elif late := position is not None and seconds > self._timeout_s:
                    self._late.setdefault(process.pid, position)
                if late:
                    process.kill()


def _begin(notes: Notes, worker: int) -> None:
    """Begin a worker. Ctrl-C, which a terminal sends to all processes, is left to the one that began the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    notes.wait_for_start()


def _unchanged(result: Result) -> Result:
    return result


def _wait_for_dead(processes: list[BaseProcess]) -> list[int]:
    """Give the workers that are dead. One that has just broken off its connections is so in a moment."""
    last = time.monotonic() + 0.3
    while True:
        dead = [worker for worker, process in enumerate(processes) if process.exitcode is not None]
        if dead or time.monotonic() > last:
            return dead
        time.sleep(0.01)


def _ending(process: BaseProcess) -> str:
    """Word how a process ended: SIGKILL, exit code 3."""
    code = process.exitcode or 0
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _last_line(error: BaseException) -> str:
    """Word an error of a worker, whose traceback is its message, by its last line."""
    lines = str(error).strip().splitlines()
    return lines[-1].rstrip(".") if lines else type(error).__name__
