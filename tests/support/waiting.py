"""Threads that wait for each other, watched: a test goes on once they wait, not after some time."""

from __future__ import annotations

import threading
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
