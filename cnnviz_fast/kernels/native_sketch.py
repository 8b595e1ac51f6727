"""Kernels for distributions, native: the same counts as `numba_sketch`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import _native

Floats = NDArray[np.float32]
Counts = NDArray[np.int64]


def count(values: Floats, pages: Counts, counts: Counts) -> NDArray[np.bool_]:
    """Count each channel's values in the buckets of octaves with a page. Same as `numba_sketch.count`."""
    missing = np.zeros(len(pages), np.bool_)
    _native.count_values(values, pages, counts, missing)
    return missing


def nonzero(counts: Counts, columns: Counts) -> tuple[Counts, Counts, Counts]:
    """Gather the counts that are not 0. Same as `numba_sketch.nonzero`."""
    found = np.count_nonzero(counts, axis=1)
    place, count = (np.empty(int(found.sum()), np.int64) for _ in range(2))
    _native.gather_nonzero(counts, columns, place, count)
    return found, place, count
