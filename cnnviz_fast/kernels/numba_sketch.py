"""Kernels for distributions, numba: count values in the buckets that `quantile_sketch` defines."""

from __future__ import annotations

import numpy as np
from numba import boolean, int64, types, uint32
from numpy.typing import NDArray

from .numba_jit import compiled, read_only

Floats = NDArray[np.float32]
Counts = NDArray[np.int64]


def count(values: Floats, pages: Counts, counts: Counts) -> NDArray[np.bool_]:
    """Count each channel's values in the buckets of octaves that have a page.

    Args:
        values: (C, n) float32, C-contiguous, finite or not. Not modified.
        pages: (512,) int64. First column of `counts` for the 64 buckets of each octave; -1 if it has no page.
        counts: (C, 64 * number of pages) int64, C-contiguous. Added to.

    Returns:
        (512,) bool. Octaves that have values but no page. These values were not counted.

    Formula:
        octave = sign and exponent = bits >> 23; bucket in it = the top 6 bits of the mantissa. A zero is not counted.
    """
    missing = np.zeros(len(pages), np.bool_)
    _count(values.view(np.uint32), pages, counts, missing)
    return missing


def nonzero(counts: Counts, columns: Counts) -> tuple[Counts, Counts, Counts]:
    """Gather the counts that are not 0.

    Args:
        counts: (C, W) int64, C-contiguous. Not modified.
        columns: (W,) int64, C-contiguous. All columns, in the order wanted.

    Returns:
        The number of such counts in each row, (C,) int64; and for all of them, row by row in the order of `columns`,
        their positions in `columns` and the counts, (M,) int64 each.
    """
    found = np.count_nonzero(counts, axis=1)
    place, count = (np.empty(int(found.sum()), np.int64) for _ in range(2))
    _nonzero(counts, columns, place, count)
    return found, place, count


@compiled(types.void(read_only(int64, 2), read_only(int64, 1), int64[::1], int64[::1]))
def _nonzero(counts: Counts, columns: Counts, place: Counts, count: Counts) -> None:
    """Fill `place` and `count` as `nonzero` returns them."""
    end = 0
    for c in range(counts.shape[0]):
        for k in range(columns.shape[0]):
            value = counts[c, columns[k]]
            if value != 0:
                place[end] = k
                count[end] = value
                end += 1


@compiled(types.void(read_only(uint32, 2), read_only(int64, 1), int64[:, ::1], boolean[::1]))
def _count(bits: NDArray[np.uint32], pages: Counts, counts: Counts, missing: NDArray[np.bool_]) -> None:
    """Add to `counts` and set `missing` as `count` returns it, for values given as their bits."""
    for c in range(bits.shape[0]):
        row = counts[c]
        for i in range(bits.shape[1]):
            octave = bits[c, i] >> uint32(23)
            page = pages[octave]
            if page >= 0:
                # Unsigned, since numba tests signed indices for negative ones. A zero adds 0: a branch, which after a
                # ReLU cannot be predicted, costs more.
                bucket = np.uint64(page) + np.uint64((bits[c, i] >> uint32(17)) & uint32(63))
                row[bucket] += int64((bits[c, i] & uint32(0x7FFFFFFF)) != 0)
            else:
                missing[octave] = True
