"""What needs torch is made in a process of its own, which ends once nobody asks: torch takes half a GB for good."""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from ...errors import CnnvizError, reason_of
from ...runtime import ctrl_c

IDLE_S = 60.0
"""After which the process ends: starting it again takes a few seconds."""

Answer = tuple[bytes | None, CnnvizError | None]


class Apart:
    """Calls functions in a process that is started for the first of them, one after another; see Compute."""

    def __init__(self, idle_s: float = IDLE_S) -> None:
        """Start nothing yet.

        Args:
            idle_s: after which the process ends.
        """
        self._idle_s, self._lock = idle_s, threading.Lock()
        self._other: tuple[BaseProcess, Connection] | None = None

    def __call__(self, function: Callable[..., bytes | None], *arguments: Any) -> bytes | None:
        """Return what a function of a module returns; raise the CnnvizError that it raises, or that says how it failed.

        Args:
            function: to be called: here, where torch is loaded anyway, as a live model has it.
            *arguments: of it.
        """
        if "torch" in sys.modules:
            return function(*arguments)
        with self._lock:
            made, error = self._answer(function, arguments, may_have_ended=self._other is not None)
        if error is not None:
            raise error
        return made

    def _answer(self, function: Callable[..., bytes | None], arguments: Any, may_have_ended: bool) -> Answer:
        """Return what the process answers; once more where the one before may have ended, having nothing to do."""
        try:
            self._other = self._other or _started(self._idle_s)
            self._other[1].send((function, arguments))
            answer: Answer = self._other[1].recv()
            return answer
        except (EOFError, OSError) as ended:
            if self._other is not None:
                process, pipe = self._other
                self._other = None
                pipe.close()
                process.join()
            if may_have_ended:
                return self._answer(function, arguments, may_have_ended=False)
            raise CnnvizError("the process that makes it has ended: there may be too little memory.") from ended


def _started(idle_s: float) -> tuple[BaseProcess, Connection]:
    context = multiprocessing.get_context("spawn")  # not forked: a server has threads
    ours, theirs = context.Pipe()
    with contextlib.closing(theirs):  # so that the end of the process is that of the pipe
        process = context.Process(target=_serve, args=(theirs, idle_s), daemon=True)
        ctrl_c.start_unheard(process, context)
    return process, ours


def _serve(pipe: Connection, idle_s: float) -> None:
    """Call what comes through a pipe, until nothing has come for long or the server is gone."""
    ctrl_c.ignore()
    with contextlib.suppress(EOFError, OSError):
        while pipe.poll(idle_s):
            function, arguments = pipe.recv()
            pipe.send(_called(function, arguments))


def _called(function: Callable[..., bytes | None], arguments: Any) -> Answer:
    try:
        return function(*arguments), None
    except CnnvizError as error:
        return None, error
    except Exception as error:
        return None, CnnvizError(f"it cannot be made: {reason_of(error, named=True)}.")
