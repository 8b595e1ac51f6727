"""How much more memory a call takes at its peak in this process, which should be one of its own: what others leave
behind, in caches and heaps, counts as well."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import pytest

needs_peaks = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux tells a process its peak memory"
)


def peak_bytes(call: Callable[[], object]) -> int:
    """Make a call, and return by how much the resident memory of this process rose above what it was before."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # or the call would begin with memory that earlier tests freed
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _status_bytes("VmRSS")
    call()
    return _status_bytes("VmHWM") - before


def resident_bytes() -> int:
    """Return what of this process lies in memory."""
    try:
        return _status_bytes("VmRSS")
    except OSError:
        pytest.skip("only Linux says how much memory a process holds now")


def _status_bytes(name: str) -> int:
    """Return one of the sizes in a process's status."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) * 1024
