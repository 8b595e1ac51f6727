"""What the C library does with memory that is freed: while a run goes on, it keeps it for the next batch.

By default glibc gives a heap of a thread back to the system as soon as nothing is left in it; the system clears each
page anew at the next first write. A pass of ResNet-50 on 16 images lost 295,000 pages that way, a third of its CPU
time, and now hardly any; ResNet-18 lost 53,000, and still loses 12,500, of a block that is too large for a heap.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any

# malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3

_USUAL = {_M_MMAP_THRESHOLD: 32 << 20, _M_TRIM_THRESHOLD: 64 << 20, _M_TOP_PAD: 128 << 10}
"""What glibc comes to by itself in a process that has freed a block of 32 MB. It can be set, not asked for."""

_KEEP = {**_USUAL, _M_TOP_PAD: 128 << 20}
"""A heap of a thread goes once the one before it has so much room, which none has: they are of 64 MB. Blocks over 32 MB
are mapped on their own as ever."""

_lock = threading.Lock()
_holders = 0  # of this process; the first one changes the settings, the last one takes them back


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Keep what is freed until the end of the block, and give it back to the system then.

    Elsewhere than with glibc, and where the environment has settings for it, nothing changes.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    _hold(libc, 1)
    try:
        yield
    finally:
        _hold(libc, -1)


def _hold(libc: Any, change: int) -> None:
    global _holders
    with _lock:
        before, _holders = _holders, _holders + change
        if 0 not in (before, _holders):
            return
        for option, value in (_KEEP if _holders else _USUAL).items():
            libc.mallopt(option, value)
        if not _holders:
            libc.malloc_trim(0)


@functools.cache
def _glibc() -> Any:
    """Return the C library where it is a glibc that nobody has set up otherwise."""
    try:
        os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError, OSError):
        return None
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return None
    return ctypes.CDLL(None)
