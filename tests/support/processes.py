"""Processes that tests begin: forks of one that has imported torch and the package, which takes seconds, once.

In everything else each is as if Python had begun it: single-threaded, with streams, arguments and an environment of its
own. What a test asks of the very beginning or the very end of Python, it asks of `subprocess`.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import runpy
import sys
import tempfile
import weakref
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from types import TracebackType
from typing import IO

import pytest

IMPORTED = [
    "support.processes", "torch", "torchvision.transforms.v2", "cnnviz_fast.cli.main", "cnnviz_fast.inputs.reading",
    "cnnviz_fast.models.load", "cnnviz_fast.pipeline", "cnnviz_fast.runs.local",
]  # fmt: skip
"""Modules that a process finds imported."""


@functools.cache
def forking() -> ForkServerContext:
    """Return the context of multiprocessing whose processes are forks of one that has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ["PYTHONPATH"]]))
        patch.setenv("PYTHONHASHSEED", "1")  # in the process of the tests it is another
        ensure_running()
    return context


class Python:
    """A process that runs `python -m MODULE ...` or `python -c CODE ...`.

    Attributes:
        stdin: a pipe to it.
        pid: its number.
    """

    def __init__(self, *arguments: str, terminal: int | None = None) -> None:
        """Begin it.

        Args:
            arguments: -m and a module or -c and code, and what goes into `sys.argv` behind it.
            terminal: descriptor of what takes the place of stdout and stderr; None keeps both for `printed`, `said`.
        """
        files = contextlib.ExitStack()
        weakref.finalize(self, files.close)
        self._printed, self._said = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        files.callback(self._printed.close)
        files.callback(self._said.close)
        theirs, ours = os.pipe()
        self.stdin = files.enter_context(os.fdopen(ours, "w"))
        written = [self._printed.fileno(), self._said.fileno()] if terminal is None else [terminal, terminal]
        streams = [Connection(theirs), *(Connection(os.dup(descriptor)) for descriptor in written)]
        self._forked = forking().Process(target=_run, args=(arguments, dict(os.environ), streams))
        self._forked.start()
        for stream in streams:
            stream.close()
        self.pid = self._forked.pid or 0

    def __enter__(self) -> Python:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.end()

    @property
    def printed(self) -> str:
        """What it has written to stdout so far."""
        return _content(self._printed)

    @property
    def said(self) -> str:
        """What it has written to stderr so far."""
        return _content(self._said)

    @property
    def code(self) -> int | None:
        """The exit code, or minus the signal that has killed it; None while it runs."""
        return self._forked.exitcode

    def send(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.code is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, unless it has ended."""
        self._forked.kill()

    def end(self, seconds: float = 60) -> int:
        """Close its stdin and wait for its end; kill it and fail where that takes longer. Return `code`."""
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        self._forked.join(seconds)
        if self.code is None:
            self.kill()
            pytest.fail(f"it did not end within {seconds:g} s; it said: {self.said}")
        return self.code


def _content(file: IO[bytes]) -> str:
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()  # which moves no position in it


def _run(arguments: Sequence[str], environment: dict[str, str], streams: Sequence[Connection]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams):
        os.dup2(stream.fileno(), number)
        stream.close()
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    multiprocessing.set_start_method(None, force=True)  # of its own processes, which would be such forks too
    kind, what, *rest = arguments
    sys.argv = [kind, *rest]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(what, {"__name__": "__main__"})
