"""A Ray cluster: the connection to it, and how it is shared out among actors.

connected   to the cluster that is asked for, or to one on this machine
pool_of     how many actors there are, and what each of them gets
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ...errors import BackendUnavailableError, OptionError, reason_of
from .quirks import messages_on_stderr, quiet_start, signals_left_alone

PORT = 6379
"""Port that `ray start --head` listens on."""

KNOCK_S = 5.0
"""Time in which a cluster has to answer. Ray itself would go on asking for a minute."""


class ActorPool(NamedTuple):
    """Actors: how many, the CPUs of each, and whether each has a GPU."""

    actors: int
    cpus: int
    on_gpu: bool


def pool_of(nodes: Sequence[Mapping[str, float]], readers: int | None) -> ActorPool:
    """Share a cluster out among actors.

    Args:
        nodes: resources of each machine, as Ray reports them.
        readers: number of actors; None for one per GPU, or, in a cluster without GPUs, one per two CPUs, at most 8.

    Returns:
        The actors, with as many CPUs as each can have on one machine.

    Raises:
        OptionError: the cluster has too few CPUs or GPUs.
    """
    on_gpu = any(node.get("GPU", 0) >= 1 for node in nodes)

    def room(cpus: int) -> int:
        """Count the actors that fit, with so many CPUs each."""
        counts = [node.get("CPU", 0) // cpus for node in nodes]
        if on_gpu:
            counts = [min(count, node.get("GPU", 0)) for count, node in zip(counts, nodes, strict=True)]
        return int(sum(map(int, counts)))

    most = room(1)
    actors = (most if on_gpu else min(8, max(1, most // 2))) if readers is None else readers
    if not 1 <= actors <= most:
        unit = "GPUs, with a CPU each," if on_gpu else "CPUs"
        raise OptionError(f"readers must be from 1 to the {unit} of the Ray cluster, which are {most}, got {actors}.")
    cpus = max(1, int(sum(node.get("CPU", 0) for node in nodes)) // actors)
    return ActorPool(actors, next(c for c in range(cpus, 0, -1) if room(c) >= actors), on_gpu)


@contextlib.contextmanager
def connected(ray: Any, address: str | None) -> Iterator[None]:
    """Connect to a cluster for the block, unless the program is connected already.

    Args:
        ray: the package.
        address: HOST:PORT, or Ray's own words "auto" and "local"; None for the cluster that Ray finds, or one that it
            starts on this machine.

    Raises:
        OptionError: the address is malformed, or the program is connected to another cluster.
        BackendUnavailableError: no cluster answers.
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
            with quiet_start(ray), signals_left_alone():
                ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:
            raise _no_cluster(address or "this machine", reason_of(error)) from error
        with messages_on_stderr(ray):
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
