"""Kernels, native: the same result as `reference`, in vector code compiled at install (csrc/kernels).

Maps are read as they lie in memory: float32, float16, bfloat16 or uint8, of any strides. Every rounding of the
reference is kept, at every level of vector instructions, so planes are equal, not only close.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import _native

if TYPE_CHECKING:
    from ..geometry import Grid, Positions, Strip
    from ..kernels import Paint

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Counts = NDArray[np.int64]


def render_strip(
    maps: Any,
    vmin: Any,
    vmax: Any,
    rows: Positions,
    cols: Positions,
    grid: Grid,
    paint: Paint,
    strip: Strip,
    out: NDArray[np.uint8],
) -> None:
    """Draw a band of rows of a sheet. Same as `reference.render_strip`."""
    render_strip_by(1, maps, vmin, vmax, rows, cols, grid, paint, strip, out)


def render_strip_by(
    threads: int,
    maps: Any,
    vmin: Any,
    vmax: Any,
    rows: Positions,
    cols: Positions,
    grid: Grid,
    paint: Paint,
    strip: Strip,
    out: NDArray[np.uint8],
) -> None:
    """Draw a band of rows of a sheet by native threads.

    Args:
        threads: at most as many draw at once.
        maps: (C, H, W) float32, float16, bfloat16 or uint8, of any strides. Not modified.
        vmin: (C,) float32. What becomes 0.
        vmax: (C,) float32. What becomes 1.
        rows: where the rows of a tile sample a map.
        cols: where its columns do.
        grid: of the sheet.
        paint: what the palette entries stand for.
        strip: which rows.
        out: (stop - start, width) uint8, C-contiguous. Written.
    """
    _native.render_strip(
        maps, vmin, vmax, rows.index, rows.fraction, cols.index, cols.fraction, grid.numbers,
        (paint.levels, paint.background, paint.bad), paint.flat, strip[0], out, threads,
    )  # fmt: skip


def blend_strip(
    index: NDArray[np.uint8],
    colors: NDArray[np.uint8],
    weights: NDArray[np.uint16],
    photo: NDArray[np.uint8],
    grid: Grid,
    strip: Strip,
    out: NDArray[np.uint8],
) -> None:
    """Colour a band of rows of a sheet, with a photo under every tile. Same as `reference.blend_strip`."""
    _native.blend_strip(index, colors, weights, photo, grid.numbers, grid.count, strip[0], out)


def channel_range(maps: Any) -> tuple[Floats, Floats]:
    """Find the least and the greatest finite value of each channel. Same as `reference.channel_range`."""
    vmin, vmax = np.empty(len(maps), np.float32), np.empty(len(maps), np.float32)
    _native.channel_range(maps, vmin, vmax)
    return vmin, vmax


def channel_moments(maps: Any) -> tuple[Doubles, Doubles, Doubles, Counts, Counts]:
    """Measure what else a channel holds. Same as `reference.channel_moments`, but sums are taken in another order."""
    return channel_measures(maps)[2:]


def channel_measures(maps: Any, threads: int = 1) -> tuple[Floats, Floats, Doubles, Doubles, Doubles, Counts, Counts]:
    """Return what channel_range and channel_moments return, in one pass and by several threads."""
    count = len(maps)
    vmin, vmax = np.empty(count, np.float32), np.empty(count, np.float32)
    mean, std, zeros = np.empty(count), np.empty(count), np.empty(count)
    nan, inf = np.empty(count, np.int64), np.empty(count, np.int64)
    _native.channel_measures(maps, threads, vmin, vmax, mean, std, zeros, nan, inf)
    return vmin, vmax, mean, std, zeros, nan, inf
