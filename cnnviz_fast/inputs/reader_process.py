"""What runs in a reader: a process that takes tasks from a pipe, notes which image it is at, and sends results back."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from types import SimpleNamespace, TracebackType
from typing import TypeVar

import numpy as np
import torch

from ..errors import ImageError, reason_of
from ..runtime import ctrl_c
from . import unnamed_memory

Result = TypeVar("Result")

BETWEEN = -1
"""A reader is starting, or is at work on a task but at no image."""

WAITING = -2
"""A reader waits for its next task."""

_STOPPED = -1
"""The row of the notes that tells whether readers are to stop; the others are theirs."""

_ORPHAN_POLL_S = 1.0
"""How often a waiting reader checks that its parent lives and wants it. The end of the pipe alone does not show that:
processes forked from the parent, a sibling or a DataLoader's worker, hold a copy of its end and keep it open."""


class Stopped(Exception):
    """Nobody wants what is being read."""


class Notes:
    """What each reader is at, in memory that all of them share with their parent."""

    def __init__(self, readers: int) -> None:
        """Make a row for each reader.

        Args:
            readers: how many there are; 0 for reading in a thread, whose notes nobody else sees.

        Raises:
            ImageError: memory cannot be shared.
        """
        self.shared = readers > 0
        self.reader = 0
        rows = torch.full((max(readers, 1) + 1, 2), BETWEEN, dtype=torch.int64)
        rows[_STOPPED] = 0
        try:
            self._rows = unnamed_memory.SharedNumbers(rows) if readers else SimpleNamespace(values=rows)
        except (OSError, RuntimeError) as error:
            raise cannot_start(error) from error

    def enter(self, position: int) -> None:
        """Note that this reader is now at the image of a position, at BETWEEN or at WAITING."""
        row = self._rows.values[self.reader]
        row[1] = time.monotonic_ns()  # first: the parent must never see the new position with the old time
        row[0] = position

    def begin(self, position: int) -> None:
        """Note that this reader is about to read an image; raise Stopped where nobody wants it."""
        if self.stopped:
            raise Stopped
        self.enter(position)

    def at(self, reader: int) -> tuple[int, float]:
        """Return the position that a reader is at (or BETWEEN, or WAITING), and for how many seconds it has been."""
        position, since = self._rows.values[reader].tolist()
        return position, (time.monotonic_ns() - since) / 1e9

    def of(self, reader: int) -> Notes:
        """Return the same notes for use by one reader, with its row as if it had just been started."""
        notes = Notes.__new__(Notes)
        notes.__dict__.update(self.__dict__, reader=reader)
        notes.enter(BETWEEN)
        return notes

    def stop(self) -> None:
        """Make each reader stop before its next image."""
        self._rows.values[_STOPPED] = 1

    @property
    def stopped(self) -> bool:
        """Whether the readers are to stop."""
        return bool(self._rows.values[_STOPPED, 0])


Task = Callable[[int, Mapping[int, str], Notes], Result]
"""(index, positions that are lost and why, notes) -> its result. It notes each image, and reads none that is lost."""


def cannot_start(error: BaseException) -> ImageError:
    """Return the error for readers that cannot be started."""
    return ImageError(
        f"processes that read images cannot be started: {reason_of(error, named=True)}. Set readers to 0."
    )


def serve(task: Task[Result], notes: Notes, pipe: Connection) -> None:
    """Run tasks in this process until there are no more, nobody wants them, the parent is gone, or one fails.

    Args:
        task: reads one batch.
        notes: of this reader.
        pipe: gives (index, lost positions), or None for the end. It takes (result, ""), or (None, reason) where the
            task failed; the process then ends, since what made the task fail may be the state of the process.
    """
    begin(notes.reader)
    started_by = multiprocessing.parent_process()  # not getppid(): the parent may be gone before this line is reached
    parent = started_by.pid if started_by else os.getppid()
    with contextlib.suppress(EOFError, OSError, Stopped):  # the parent is gone, or wants nothing more
        while True:
            notes.enter(WAITING)
            while not pipe.poll(_ORPHAN_POLL_S):
                if notes.stopped or os.getppid() != parent:
                    return
            asked = pipe.recv()
            if asked is None:
                return
            notes.enter(BETWEEN)
            index, lost = asked
            try:
                unnamed_memory.send(pipe, (task(index, lost, notes), ""))
            except Stopped:
                return
            except BaseException as error:
                unnamed_memory.send(pipe, (None, reason_of(error, named=True)))
                return


def _except_of_lost_parents(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an exception, unless it is that of the thread in which multiprocessing meets the end of a killed parent."""
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def begin(reader: int) -> None:
    """Set up a reader: no Ctrl-C, which a terminal sends to every process; one thread; random numbers of its own.

    OpenMP's threads do not survive a fork, so that torch would wait for them without end.
    """
    ctrl_c.ignore()
    sys.excepthook = _except_of_lost_parents
    torch.set_num_threads(1)
    random.seed(reader)
    np.random.seed(reader)
    torch.manual_seed(reader)
