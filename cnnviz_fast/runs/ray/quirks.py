"""What Ray does to a terminal and to signals without an option against it, and how that is prevented.

quiet_start          Ray's C++ does not write to stderr
signals_left_alone   Ray does not take SIGTERM over
messages_on_stderr   Ray's messages about the cluster do not go to stdout

The first and the last rely on names that Ray does not document, so they act only in the versions of `KNOWN`. With other
versions a run does the same, but Ray may write to the terminal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

KNOWN = ((2, 60), (2, 61))
"""Versions of Ray that were checked: from the first one to before the second one."""

LOG_LEVEL = "RAY_BACKEND_LOG_LEVEL"
"""Environment variable: see RayLog::StartRayLog in src/ray/util/logging.cc."""

KILLED = "killed by `ray.kill`"
"""Part of Ray's message about each actor that a run ends."""


def is_known(ray: Any) -> bool:
    """Check whether this version of the package `ray` is one that was checked."""
    try:
        major, minor = map(int, ray.__version__.split(".")[:2])
    except (AttributeError, ValueError):
        return False
    return KNOWN[0] <= (major, minor) < KNOWN[1]


@contextlib.contextmanager
def quiet_start(ray: Any) -> Iterator[None]:
    """Keep Ray's C++ from writing to stderr, for a block that connects to a cluster.

    Without this it writes at once what it will log, and later what it worries about. A user who has set the variable
    wants to see that.
    """
    if LOG_LEVEL in os.environ or not is_known(ray):
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.environ[LOG_LEVEL] = "fatal"
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        del os.environ[LOG_LEVEL]
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def signals_left_alone() -> Iterator[None]:
    """Leave SIGTERM to the program, for a block that connects to a cluster.

    Ray's own handler ends the process at once and without a message: see sigterm_handler in `init` of
    ray/_private/worker.py. This does no harm in any version.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def messages_on_stderr(ray: Any) -> Iterator[None]:
    """Send Ray's messages about the cluster to stderr, since stdout is for paths; leave out those about ended actors.

    Ray prints them to stdout: see listen_error_messages in ray/_private/worker.py.
    """
    if not is_known(ray):
        yield
        return
    from ray._private import worker

    printed = worker.print_to_stdstream

    def print_to_stderr(message: dict[str, Any], **how: Any) -> None:
        lines = [line for line in message["lines"] if KILLED not in line]
        printed(message | {"lines": lines, "is_err": True}, **how)

    worker.print_to_stdstream = print_to_stderr
    try:
        yield
    finally:
        worker.print_to_stdstream = printed
