"""Where the time of a run goes: stages that are under way add up their seconds for whoever watches.

Where nobody does, a stage costs a look at a global. Seconds are those of all threads together.
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
        """Add to a stage; any thread may."""
        with self._lock:
            self._seconds[stage] += seconds

    def seconds(self) -> dict[str, float]:
        """Return the seconds spent so far."""
        with self._lock:
            return dict(self._seconds)


_watcher: Stages | None = None


@contextlib.contextmanager
def watched(stages: Stages) -> Iterator[None]:
    """Let stages of this process be added up, until the end of the block; the innermost watcher gets them."""
    global _watcher  # one for all threads: those of a run are not those that began it
    before, _watcher = _watcher, stages
    try:
        yield
    finally:
        _watcher = before


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the time of a block for a stage, less what stages within it take.

    Args:
        name: of the stage.
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


_local = threading.local()
