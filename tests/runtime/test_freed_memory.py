"""Memory that is freed while a run goes on: kept then, and given back at its end."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch

from cnnviz_fast.runtime import freed_memory

resource = pytest.importorskip("resource")  # Windows has none, and no glibc

BLOCK = 10_000_000  # floats: 40 MB, which glibc maps on its own
WARM = 12
"""Blocks after which one is found again: malloc keeps 7 objects of each small size, each of which may lie between two
blocks."""


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Look at an environment without settings for the memory."""
    for name in ("GLIBC_TUNABLES", "MALLOC_ARENA_MAX"):
        monkeypatch.delenv(name, raising=False)
    freed_memory._glibc.cache_clear()
    yield
    freed_memory._glibc.cache_clear()


def faults() -> int:
    """Fill a block of fresh memory and free it; return how many pages the system had to clear for that."""
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    torch.empty(BLOCK).fill_(1)
    return int(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)


def test_a_block_is_kept_until_the_end() -> None:
    if freed_memory._glibc() is None:
        pytest.skip("the C library is not glibc")
    with freed_memory.kept():
        with freed_memory.kept():
            for _ in range(WARM):
                faults()
        kept = faults()
    given_back = faults()
    assert kept * 10 < given_back  # pages of 4 kB or larger ones


def test_settings_of_the_environment_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert freed_memory._glibc() is None
    with freed_memory.kept():
        assert freed_memory._holders == 0
