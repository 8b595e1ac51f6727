"""Readers: processes that read images ahead, each of which may crash or hang at any image.

    results   hands out tasks, at most two a reader, and gives their results in order
    readers   note the image they are at, read it, note the next one ...; see reader_process.py
    watch     a thread that kills a reader that is too long at one image

A reader that dies is replaced, and its tasks are run again. It may have been killed from outside, or have hung because
it was forked while another thread held a lock: an image is lost only once DEATHS readers have died at it.
"""

from __future__ import annotations

import contextlib
import heapq
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Generator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic

from torch.multiprocessing import get_context

from ..errors import ImageError, reason_of
from ..runtime import ctrl_c
from .main_guard import RAN_AGAIN, READER, no_guard
from .reader_process import BETWEEN, Notes, Result, Stopped, Task, cannot_start, serve
from .unnamed_memory import receive

POLL_S = 0.2
"""How often deaths, hangs and the end are looked for: seldom enough to cost nothing."""

CLOSING_S = 0.5
"""How long a reader may go on with its image once nobody wants the results."""

STALL_S = 60.0
"""After which a reader that has work but is at no image is killed: one that was forked while a lock was held, or that
cannot send its result. More than any takes to start."""

DEATHS = 2
"""Readers that die or hang at the same image, after which the image is taken to be the cause."""

FRUITLESS = 5
"""Deaths in a row without a result in between, and without an image to blame, after which reading is given up."""

AHEAD = 2
"""Tasks that a reader holds at most: the one that it runs and the next one."""

_DYING_S = 0.3
"""How long a process that has closed its pipe may take to end by itself, so that its exit code is its own."""


class _Reader:
    """A process, its pipe and the tasks that it has not answered."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self.process, self.pipe = process, pipe
        self.tasks: deque[int] = deque()
        self.late: int | None = None  # the position that it was killed for
        self.why = ""  # it is of no more use, where that is known before it is dead

    def end(self) -> None:
        """Wait a moment for the end of the process, then kill it."""
        self.process.join(_DYING_S)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
        self.pipe.close()

    def ending(self) -> str:
        """Return how the process ended: SIGKILL, exit code 3."""
        code = self.process.exitcode or 0
        if code >= 0:
            return f"exit code {code}"
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"


class Readers(Generic[Result]):
    """Runs a task for 0, 1, 2, ... in readers and gives its results in that order."""

    def __init__(self, task: Task[Result], count: int, *, readers: int, timeout_s: float) -> None:
        """Prepare; processes are started when the first result is asked for.

        Args:
            task: reads one batch. It is sent to the readers, so it has to pickle where they are not forked.
            count: of results.
            readers: how many processes; 0 runs the task where the results are asked for, and nothing can be killed.
            timeout_s: after which a reader is killed that is still at the same image.

        Raises:
            ImageError: there is too little shared memory.
        """
        self._task, self._count, self._timeout_s = task, count, timeout_s
        self._notes = Notes(readers)
        self._slots: list[_Reader | None] = [None] * readers
        self._next = 0
        self._again: list[int] = []  # a heap of tasks whose reader has died
        self._results: dict[int, Result] = {}  # that wait for their turn
        self._deaths: Counter[int] = Counter()  # of readers at each image
        self._lost: dict[int, str] = {}
        self._fruitless = 0
        self._stopped_at: float | None = None
        self._ended = threading.Event()

    def stop(self) -> None:
        """End the results, from any thread: after the images that are being read, or after CLOSING_S."""
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
        self._notes.stop()

    def results(self) -> Generator[Result, None, None]:
        """Return the results in order, one after another, until there are no more or `stop` is called.

        Raises:
            ImageError: readers cannot be started, or die again and again while they are at no image.
        """
        if not self._slots:
            with contextlib.suppress(Stopped):
                for index in range(self._count):
                    yield self._task(index, {}, self._notes)
            return
        watch = threading.Thread(target=self._watch, name="cnnviz watch", daemon=True)
        watch.start()
        try:
            for index in range(self._count):
                while index not in self._results:
                    self._hand_out(index)
                    self._receive_any()
                    if self._stopped_at is not None:
                        return
                result = self._results.pop(index)
                self._hand_out(index + 1)
                yield result
                del result  # its memory is the caller's alone
        finally:
            self._close(watch)

    def _hand_out(self, given: int) -> None:
        """Send tasks to the readers that hold the fewest, up to AHEAD a reader beyond the `given` results."""
        end = min(self._count, given + AHEAD * len(self._slots))
        while (self._again or self._next < end) and self._stopped_at is None:
            held = [len(reader.tasks) if reader else 0 for reader in self._slots]
            slot = held.index(min(held))
            if held[slot] == AHEAD:
                return
            if self._again:
                index = heapq.heappop(self._again)
            else:
                index, self._next = self._next, self._next + 1
            reader = self._slots[slot] = self._slots[slot] or self._start(slot)
            reader.tasks.append(index)
            with contextlib.suppress(OSError):  # it has just died: its tasks are handed out again
                reader.pipe.send((index, self._lost))

    def _start(self, slot: int) -> _Reader:
        try:
            context = get_context()
            ours, theirs = context.Pipe()
            with contextlib.closing(theirs):  # so that the death of the reader ends the pipe
                arguments = (self._task, self._notes.of(slot), theirs)
                process = context.Process(target=serve, args=arguments, name=READER, daemon=True)
                ctrl_c.start_unheard(process, context)
        except EOFError as error:  # of the process that forks them, which has ended while it began
            raise no_guard() from error
        except Exception as error:
            raise cannot_start(error) from error
        return _Reader(process, ours)

    def _receive_any(self) -> None:
        """Wait until a reader has sent something or died, for POLL_S at most, and take account of it."""
        readers = [(slot, reader) for slot, reader in enumerate(self._slots) if reader]
        ready = wait([each for _, reader in readers for each in (reader.pipe, reader.process.sentinel)], POLL_S)
        for slot, reader in readers:
            usable = reader.pipe not in ready or self._receive(reader)
            if usable and reader.process.exitcode is None:
                continue
            while usable and reader.pipe.poll():  # what it sent before it died
                usable = self._receive(reader)
            self._bury(slot, reader)

    def _receive(self, reader: _Reader) -> bool:
        """Take one message from a reader; return False where the reader is of no more use."""
        try:
            result, reader.why = receive(reader.pipe)
        except Exception as error:  # it has died, or this process cannot map what it sent
            reader.process.join(_DYING_S)
            if reader.process.exitcode is None:
                reader.why = reason_of(error, named=True)
            return False
        if reader.why:
            return False
        self._results[reader.tasks.popleft()] = result
        self._fruitless = 0
        return True

    def _bury(self, slot: int, reader: _Reader) -> None:
        """Note the image that a reader died at, and keep its tasks to be run again."""
        reader.end()
        if reader.process.exitcode == RAN_AGAIN:
            raise no_guard()
        self._slots[slot] = None
        for index in reader.tasks:
            heapq.heappush(self._again, index)
        if reader.late is not None:
            self._blame(reader.late, f"took longer than {self._timeout_s:g} s")
        elif (position := self._notes.at(slot)[0]) >= 0 and not reader.why:
            self._blame(position, f"the reader that decoded it died ({reader.ending()})")
        else:
            self._fruitless += 1
            if self._fruitless == FRUITLESS:
                why = reader.why or f"one died ({reader.ending()})"
                raise ImageError(
                    f"the processes that read images failed {FRUITLESS} times in a row, the last time: {why}. "
                    f"Set readers to 0, or give them more shared memory."
                )

    def _blame(self, position: int, why: str) -> None:
        self._fruitless = 0
        self._deaths[position] += 1
        if self._deaths[position] == DEATHS:
            self._lost[position] = why

    def _watch(self) -> None:
        """Kill each reader that is too long at one image, that stalls, or that does not stop; until the end.

        A thread of its own: a result is in the memory of its reader until it is taken, which waits for a reader that
        hangs in C and holds the lock of Python.
        """
        while not self._ended.wait(POLL_S):
            for slot, reader in enumerate(list(self._slots)):
                if reader is None:
                    continue
                position, seconds = self._notes.at(slot)
                if self._stopped_at is not None:
                    kill = time.monotonic() - self._stopped_at > CLOSING_S
                elif position >= 0:
                    kill = seconds > self._timeout_s
                    if kill and reader.late is None:
                        reader.late = position
                else:
                    kill = position == BETWEEN and seconds > STALL_S
                if kill:
                    reader.process.kill()

    def _close(self, watch: threading.Thread) -> None:
        """End all readers: at once those that wait for a task, the others after their image or after CLOSING_S."""
        self.stop()
        readers = [reader for reader in self._slots if reader]
        for reader in readers:
            with contextlib.suppress(OSError):
                reader.pipe.send(None)
        for reader in readers:
            reader.process.join()  # the watch kills those that take too long
            reader.pipe.close()
        self._ended.set()
        watch.join()
