"""Where the time of a run goes: stages add their seconds to a watcher, if there is one.

Without a watcher a stage costs one look at a global. Seconds of all threads are added together.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator


class Stages:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def add(self, stage: str, seconds: float) -> None:
        """Add seconds to a stage. Any thread may."""
        with self._lock:
            self._seconds[stage] += seconds

    def seconds(self) -> dict[str, float]:
        """Return the seconds spent so far."""
        with self._lock:
            return dict(self._seconds)


_watcher: Stages | None = None


@contextlib.contextmanager
def watched(stages: Stages) -> Iterator[None]:
    """Collect the stages of this process until the end of the block; the innermost watcher gets them."""
    global _watcher  # one for all threads: a run works in other threads than the one that began it
    before, _watcher = _watcher, stages
    try:
        yield
    finally:
        _watcher = before


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Add the time of a block to a stage, without the time of stages within it.

    Args:
        name: name of the stage.
    """
    watcher = _watcher
    if watcher is None:
        yield
        return
    outer = getattr(_local, "inner", 0.0)
    _local.inner = 0.0
    start = time.perf_counter()
    try:
        yield
    finally:
        spent = time.perf_counter() - start
        watcher.add(name, spent - _local.inner)
        _local.inner = outer + spent


@contextlib.contextmanager
def record() -> Iterator[dict[str, float]]:
    """Add what a block finds out about the stages of its own work, which other threads may have done.

    Yields:
        A mapping for the block to fill: the name of each stage, and the seconds that all threads spent in it.
    """
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    yield seconds
    if _watcher is not None:
        for name, spent in seconds.items():
            _watcher.add(name, spent)
        _local.inner = getattr(_local, "inner", 0.0) + time.perf_counter() - start


_local = threading.local()
