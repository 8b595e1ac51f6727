"""Kernels, numba: measure channels, in vector code. Part of the backend `numba_cpu`."""

from __future__ import annotations

import numpy as np
from numba import float32, float64, types
from numpy.typing import NDArray

from .numba_jit import compiled, read_only

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Counts = NDArray[np.int64]

_LINE = float32[::1]

_LOWEST, _HIGHEST = np.finfo(np.float32).min.view(np.int32), np.finfo(np.float32).max.view(np.int32)
"""Bits of the least and greatest float32 that are finite."""


def channel_range(maps: Floats) -> tuple[Floats, Floats]:
    """Find the least and the greatest finite value of each channel. Same as `reference.channel_range`."""
    vmin, vmax = np.empty(len(maps), np.float32), np.empty(len(maps), np.float32)
    flat = np.ascontiguousarray(maps).reshape(len(maps), -1)
    _channel_range(flat, flat.view(np.int32), vmin, vmax)
    return vmin, vmax


def channel_moments(maps: Floats) -> tuple[Doubles, Doubles, Doubles, Counts, Counts]:
    """Measure what else a channel holds. Same as `reference.channel_moments`, but sums are taken in another order."""
    count = len(maps)
    mean, std, zeros = np.empty(count), np.empty(count), np.empty(count)
    nan, inf = np.empty(count, np.int64), np.empty(count, np.int64)
    _channel_moments(np.ascontiguousarray(maps).reshape(count, -1), mean, std, zeros, nan, inf)
    return mean, std, zeros, nan, inf


@compiled(types.int32(types.int32))
def _key(bits: np.int32) -> np.int32:
    """Map the bits of a float32 to an integer of the same order, and back; a NaN comes before -inf or behind +inf."""
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@compiled(types.void(read_only(float32, 2), read_only(types.int32, 2), _LINE, _LINE))
def _channel_range(maps: Floats, bits: NDArray[np.int32], vmin: Floats, vmax: Floats) -> None:
    """Fill `vmin` and `vmax`, each (C,) float32, for maps given as (C, H*W) float32 and as their bits.

    Minimum and maximum of integers are vector code, ten times as fast as those of floats with NaN.
    """
    for c in range(maps.shape[0]):
        least, greatest = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
        for i in range(bits.shape[1]):
            key = _key(bits[c, i])
            least, greatest = min(least, key), max(greatest, key)
        if _key(_LOWEST) <= least and greatest <= _HIGHEST:
            low, high = np.int32(_key(least)).view(np.float32), np.int32(_key(greatest)).view(np.float32)
        else:
            low, high = np.float32(np.inf), np.float32(-np.inf)
            for i in range(maps.shape[1]):
                value = maps[c, i]
                if np.isfinite(value):
                    low, high = min(low, value), max(high, value)
        nothing = low > high
        vmin[c] = np.float32(np.nan) if nothing else low
        vmax[c] = np.float32(np.nan) if nothing else high


@compiled(
    types.void(read_only(float32, 2), float64[::1], float64[::1], float64[::1], types.int64[::1], types.int64[::1]),
    reorder_sums=True,
)
def _channel_moments(maps: Floats, mean: Doubles, std: Doubles, zeros: Doubles, nan: Counts, inf: Counts) -> None:
    """Fill the five results, each (C,), for maps given as (C, H*W) float32."""
    size = maps.shape[1]
    for c in range(maps.shape[0]):
        total, zero, not_finite, not_number = 0.0, 0, 0, 0
        for i in range(size):
            value = maps[c, i]
            finite = np.isfinite(value)
            total += np.float64(value) if finite else 0.0
            zero += value == 0
            not_finite += not finite
            not_number += np.isnan(value)
        middle = total / (size - not_finite)
        squares = 0.0
        for i in range(size):
            value = maps[c, i]
            distance = np.float64(value) - middle if np.isfinite(value) else 0.0
            squares += distance * distance
        mean[c] = middle
        std[c] = np.sqrt(squares / (size - not_finite))
        zeros[c] = zero / size
        nan[c] = not_number
        inf[c] = not_finite - not_number
