"""A cluster of Ray: connected to and left, without a word of its own on the terminal; shared out among actors.

connected       to the cluster that is asked for, or one on this machine
crew_of         how many actors, and what each of them gets
quiet_console   what Ray Data says goes to its log files
threads_ended   none of Ray Data's threads is left when Ray ends
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ...errors import BackendUnavailableError, OptionError, reason_of

PORT = 6379
"""Of `ray start --head`."""

KNOCK_S = 5.0
"""That a cluster has to answer in. Ray itself would go on asking for a minute."""

DATA_THREADS = ("StreamingExecutor", "iter_threaded", "ray-data-metadata-prefetch")
"""How the names of those threads of Ray Data 2.60 begin that ask something of Ray."""

DATA_ENDS_S = 30.0
"""That they have to end in. It takes them a moment, on a machine that is busy some seconds."""


class ActorPool(NamedTuple):
    """Actors: how many, the CPUs of each, and whether each has a GPU."""

    actors: int
    cpus: int
    on_gpu: bool


def pool_of(nodes: Sequence[Mapping[str, float]], workers: int | None) -> ActorPool:
    """Share a cluster out among actors.

    Args:
        nodes: resources of each machine, as Ray has them.
        workers: how many actors; None for one on each GPU, or, without any, for half the CPUs, at most 8.

    Returns:
        The actors, with as many CPUs as each can have on one machine.

    Raises:
        OptionError: the cluster has not so much.
    """
    on_gpu = any(node.get("GPU", 0) >= 1 for node in nodes)

    def room(cpus: int) -> int:
        """Count the actors that fit."""
        places = [node.get("CPU", 0) // cpus for node in nodes]
        if on_gpu:
            places = [min(place, node.get("GPU", 0)) for place, node in zip(places, nodes, strict=True)]
        return int(sum(map(int, places)))

    most = room(1)
    actors = (most if on_gpu else min(8, max(1, most // 2))) if workers is None else workers
    if not 1 <= actors <= most:
        unit = "GPUs, with a CPU each," if on_gpu else "CPUs"
        raise OptionError(f"workers must be from 1 to the {unit} of the Ray cluster, which are {most}, got {actors}.")
    cpus = max(1, int(sum(node.get("CPU", 0) for node in nodes)) // actors)
    return ActorPool(actors, next(c for c in range(cpus, 0, -1) if room(c) >= actors), on_gpu)


@contextlib.contextmanager
def threads_ended() -> Iterator[None]:
    """Let the threads that Ray Data starts in the block end with it, which Ray Data itself waits 2 s for.

    One that asks something of Ray 2.60 after its end makes it begin anew, or ends the process with exit code 1 and not
    a word: see CoreWorkerProcess::GetCoreWorker in src/ray/core_worker/core_worker_process.cc.
    """
    before = threading.enumerate()
    try:
        yield
    finally:
        last = time.monotonic() + DATA_ENDS_S
        for thread in threading.enumerate():
            if thread not in before and thread.name.startswith(DATA_THREADS):
                thread.join(max(0.0, last - time.monotonic()))


@contextlib.contextmanager
def connected(ray: Any, address: str | None) -> Iterator[None]:
    """Connect to a cluster for the block, unless the program is connected already.

    Args:
        ray: the package.
        address: HOST:PORT, or one of Ray's own words auto and local; None for what Ray finds, or starts here.

    Raises:
        OptionError: it is no such address, or the program is connected to another cluster.
        BackendUnavailableError: there is no cluster.
    """
    if ray.is_initialized():
        there = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", there):
            raise OptionError(f"address must be {there}, which this program is connected to, got {address!r}.")
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address not in (None, "auto", "local"):
        address = _answering(address)
    try:
        try:
            with _quiet_start(), _signals_left_alone():
                ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            raise _no_cluster(address or "this machine", reason_of(error)) from error
        with _messages_on_stderr():
            yield
    finally:
        ray.shutdown()


def _answering(address: str) -> str:
    """Return the address of a cluster with its port, once something has answered there."""
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port or PORT
    except ValueError:
        host = None
    if not host or "/" in address:
        raise OptionError(f"address must be HOST:PORT of the head of a Ray cluster, got {address!r}.")
    try:
        socket.create_connection((host, port), KNOCK_S).close()
    except OSError as error:
        raise _no_cluster(f"{host}:{port}", reason_of(error)) from error
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _no_cluster(address: str, why: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"no Ray cluster answers at {address}: {why.rstrip('.')}. Start one there: ray start --head"
    )


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Keep the C++ of Ray 2.60 from writing to stderr: at first how much it will write, later of its own worries."""
    name = "RAY_BACKEND_LOG_LEVEL"
    if name in os.environ:
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.environ[name] = "fatal"
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        del os.environ[name]
        os.close(kept)
        os.close(nowhere)


@contextlib.contextmanager
def _signals_left_alone() -> Iterator[None]:
    """Leave SIGTERM to the program, which Ray would have end with exit code 1 and not a word."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _messages_on_stderr() -> Iterator[None]:
    """Keep what Ray 2.60 prints of the cluster off stdout, where paths stand, and of actors that were sent home, all.

    It has no option for that: see listen_error_messages in ray/_private/worker.py.
    """
    from ray._private import worker

    printed = worker.print_to_stdstream

    def say(message: dict[str, Any], **how: Any) -> None:
        lines = [line for line in message["lines"] if "killed by `ray.kill`" not in line]
        printed(message | {"lines": lines, "is_err": True}, **how)

    worker.print_to_stdstream = say
    try:
        yield
    finally:
        worker.print_to_stdstream = printed


@contextlib.contextmanager
def quiet_console() -> Iterator[None]:
    """Leave what Ray Data says to its log files."""
    handlers = [handler for handler in logging.getLogger("ray.data").handlers if hasattr(handler, "stream")]
    before = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for handler, level in zip(handlers, before, strict=True):
            handler.setLevel(level)
