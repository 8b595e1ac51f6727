"""Waiting for what another thread or process does, watched: a test goes on once it is so, not after some time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest

PATIENCE_S = 20
"""How long a test waits for threads to wait before it fails."""


def watch_waiting(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> threading.Semaphore:
    """Watch the conditions of a module.

    Args:
        monkeypatch: undoes it.
        module: has `import threading`, and waits only on conditions.

    Returns:
        A semaphore that is released each time that a thread begins to wait.
    """
    begun = threading.Semaphore(0)

    class WatchedCondition(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            begun.release()
            return super().wait(timeout)

    monkeypatch.setattr(module, "threading", SimpleNamespace(Condition=WatchedCondition, RLock=threading.RLock))
    return begun


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until a condition holds; fail where it does not within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.01)
