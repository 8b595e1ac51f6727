"""Waiting for what another thread or process does, watched: a test goes on once it is so, not after some time.

The only home of `sleep` in tests. Scripts that run in a process of their own wait for a signal instead.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

PATIENCE_S = 20
"""How long a test waits for threads to wait before it fails."""

HANG_S = 100
"""How long what hangs does: longer than any test waits for it to be noticed, and not for ever if none does."""


def watch_waiting(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> threading.Semaphore:
    """Watch the conditions and semaphores of a module.

    Args:
        monkeypatch: undoes it.
        module: has `import threading`, and waits only on these.

    Returns:
        A semaphore that is released each time that a thread begins to wait.
    """
    begun = threading.Semaphore(0)

    class WatchedCondition(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            begun.release()
            return super().wait(timeout)

    class WatchedSemaphore(threading.Semaphore):
        def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
            if super().acquire(blocking=False):
                return True
            begun.release()
            return super().acquire(blocking, timeout)

    watched = {"Condition": WatchedCondition, "Semaphore": WatchedSemaphore}
    monkeypatch.setattr(module, "threading", SimpleNamespace(**{**vars(threading), **watched}))
    return begun


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until a condition holds; fail where it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.01)


def hang() -> None:
    """Hang, as a reader may at an image; whoever waits for this has to give it up."""
    time.sleep(HANG_S)


def await_random_moment(random: np.random.Generator, most_s: float) -> None:
    """Wait for a moment of no meaning, at which a process is killed: whatever it is at, nothing may be lost."""
    time.sleep(float(random.uniform(0, most_s)))
