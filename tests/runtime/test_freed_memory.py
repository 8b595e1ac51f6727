"""Memory that is freed while a run goes on: kept then, and given back at its end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from cnnviz_fast.runtime import freed_memory

resource = pytest.importorskip("resource")  # Windows has none, and no glibc

BLOCK, BLOCKS = 6_000_000, 4
"""Floats of a block, 24 MB: two fill a heap of a thread, and glibc gives the second heap back once it is empty."""

WARM = 12
"""Rounds after which blocks find room: malloc keeps 7 objects of each small size, which come to lie between them."""


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Look at an environment without settings for the memory."""
    for name in ("GLIBC_TUNABLES", "MALLOC_ARENA_MAX"):
        monkeypatch.delenv(name, raising=False)
    freed_memory._glibc.cache_clear()
    yield
    freed_memory._glibc.cache_clear()


def faults() -> int:
    """Fill blocks and free them, in the thread of the caller; return how many pages the system cleared for that."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    blocks = [torch.empty(BLOCK).fill_(1) for _ in range(BLOCKS)]
    del blocks
    return int(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)


def test_what_is_freed_in_a_thread_is_kept_until_the_end() -> None:
    if freed_memory._glibc() is None:
        pytest.skip("the C library is not glibc")

    def work() -> list[int]:
        found = [faults(), faults()]
        with freed_memory.kept():
            with freed_memory.kept():
                for _ in range(WARM):
                    faults()
            found.append(faults())
        return [*found, faults()]

    with ThreadPoolExecutor(1) as thread:
        _, before, kept, after = thread.submit(work).result()
    assert kept * 2 < min(before, after)  # a block may lie where it is mapped on its own


def test_settings_of_the_environment_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert freed_memory._glibc() is None
    with freed_memory.kept():
        assert freed_memory._holders == 0
