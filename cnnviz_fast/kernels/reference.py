"""Kernels, reference: the definition of every pixel, in numpy and plain loops; slow on purpose."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..geometry import Grid, Positions, Strip
    from ..kernels import Paint

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Counts = NDArray[np.int64]


def channel_range(maps: Floats) -> tuple[Floats, Floats]:
    """Find the least and the greatest finite value of each channel.

    Args:
        maps: (C, H, W) float32, finite or not. Not modified.

    Returns:
        vmin, vmax: (C,) float32. NaN for a channel without a finite value.
    """
    vmin = np.full(len(maps), np.nan, dtype=np.float32)
    vmax = np.full(len(maps), np.nan, dtype=np.float32)
    for c in range(len(maps)):
        for value in maps[c].flat:
            if math.isfinite(value):
                vmin[c] = value if math.isnan(vmin[c]) else min(vmin[c], value)
                vmax[c] = value if math.isnan(vmax[c]) else max(vmax[c], value)
    return vmin, vmax


def channel_moments(maps: Floats) -> tuple[Doubles, Doubles, Doubles, Counts, Counts]:
    """Measure what else a channel holds.

    Args:
        maps: (C, H, W) float32, finite or not. Not modified.

    Returns:
        mean, std: (C,) float64. Of the finite values, std with divisor n; NaN for a channel without one.
        zeros: (C,) float64. Share of the values that are 0.
        nan, inf: (C,) int64. Number of NaN, and of infinities of either sign.
    """
    count = len(maps)
    mean, std, zeros = np.full(count, np.nan), np.full(count, np.nan), np.zeros(count)
    nan, inf = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    for c in range(count):
        values = [float(value) for value in maps[c].flat]
        finite = [value for value in values if math.isfinite(value)]
        zeros[c] = values.count(0.0) / len(values)
        nan[c] = sum(math.isnan(value) for value in values)
        inf[c] = sum(math.isinf(value) for value in values)
        if finite:
            mean[c] = math.fsum(finite) / len(finite)
            std[c] = math.sqrt(math.fsum((value - mean[c]) ** 2 for value in finite) / len(finite))
    return mean, std, zeros, nan, inf


def normalize(value: np.float32, vmin: np.float32, vmax: np.float32, flat: float) -> np.float32:
    """Bring one value of a map into [0, 1].

    Args:
        value: a value of the map, finite or not.
        vmin: lower end of the channel's range.
        vmax: upper end; equal to `vmin` for a flat channel.
        flat: the normalised value of a flat channel.

    Returns:
        The value in [0, 1], or NaN.

    Formula:
        (value - vmin) / (vmax - vmin), clamped; `flat` if vmin = vmax; NaN if the value is not finite.
        If vmax - vmin overflows float32, all three are halved first.
    """
    if not math.isfinite(value):
        return np.float32(np.nan)
    if vmin == vmax:
        return np.float32(flat)
    with np.errstate(over="ignore"):
        half = np.float32(0.5) if np.isinf(vmax - vmin) else np.float32(1)
        v = (value * half - vmin * half) / (vmax * half - vmin * half)
    return np.float32(max(0.0, min(1.0, float(v))))


def blend(before: np.float32, after: np.float32, fraction: np.float32) -> np.float32:
    """Interpolate between two neighbours; a neighbour with weight 0 has no effect, even if it is NaN."""
    return before if fraction == 0 else np.float32(before + fraction * (after - before))


def pixel(values: Floats, y: int, x: int, fraction_y: np.float32, fraction_x: np.float32, paint: Paint) -> int:
    """Compute the palette entry of one pixel of a tile.

    Args:
        values: (H, W) float32, in [0, 1] or NaN. A normalised map.
        y: source row at or before the sample.
        x: source column at or before the sample.
        fraction_y: how far the sample lies towards the next row, 0 to 1.
        fraction_x: how far the sample lies towards the next column, 0 to 1.
        paint: what the palette entries stand for.

    Returns:
        floor(v * (levels - 1) + 0.5), or the `bad` entry if v is NaN.
    """
    below, right = min(y + 1, values.shape[0] - 1), min(x + 1, values.shape[1] - 1)
    top = blend(values[y, x], values[y, right], fraction_x)
    bottom = blend(values[below, x], values[below, right], fraction_x)
    v = blend(top, bottom, fraction_y)
    if math.isnan(v):
        return paint.bad
    return int(np.floor(v * np.float32(paint.levels - 1) + np.float32(0.5)))


def render_strip(
    maps: Floats,
    vmin: Floats,
    vmax: Floats,
    rows: Positions,
    cols: Positions,
    grid: Grid,
    paint: Paint,
    strip: Strip,
    out: NDArray[np.uint8],
) -> None:
    """Draw a band of rows of a sheet.

    Args:
        maps: (C, H, W) float32, finite or not. Not modified.
        vmin: (C,) float32. Lower end of the range on which each channel is drawn.
        vmax: (C,) float32. Upper end; equal to `vmin` for a flat channel.
        rows: where the rows of a tile sample the rows of a map.
        cols: where the columns of a tile sample the columns of a map.
        grid: the grid, with one tile for each channel.
        paint: what the palette entries stand for.
        strip: first row of the sheet to draw, and the row after the last, in px.
        out: (stop - start, width) uint8, C-contiguous. Every pixel is written.

    Source:
        Same positions as torch.nn.functional.interpolate(mode="bilinear") for align center and corners.
    """
    start, stop = strip
    out[:] = paint.background
    for c in range(len(maps)):
        top, left = grid.origin(c)
        first, last = max(start - top, 0), min(stop - top, grid.tile_h)
        if first >= last:
            continue
        values = np.empty_like(maps[c])
        for i, j in np.ndindex(values.shape):
            values[i, j] = normalize(maps[c, i, j], vmin[c], vmax[c], paint.flat)
        for y in range(first, last):
            for x in range(grid.tile_w):
                out[top + y - start, left + x] = pixel(
                    values, int(rows.index[y]), int(cols.index[x]), rows.fraction[y], cols.fraction[x], paint
                )


def over(weight: int, color: int, under: int) -> int:
    """Lay one colour component over another, each 0 to 255, by a weight of 0 to 256.

    Formula:
        (weight * color + (256 - weight) * under) / 256, rounded half up: exact in integers, and below 2^16.
    """
    return (weight * color + (256 - weight) * under + 128) // 256


def blend_strip(
    index: NDArray[np.uint8],
    colors: NDArray[np.uint8],
    weights: NDArray[np.uint16],
    photo: NDArray[np.uint8],
    grid: Grid,
    strip: Strip,
    out: NDArray[np.uint8],
) -> None:
    """Colour a band of rows of a sheet, with a photo under every tile.

    Args:
        index: (stop - start, width) uint8. What render_strip drew for these rows. Not modified.
        colors: (256, 3) uint8. The palette.
        weights: (256,) uint16, 0 to 256. Weight of each entry's colour over the photo, in 1/256.
        photo: (tile_h, tile_w, 3) uint8, C-contiguous. What lies under every tile.
        grid: the grid.
        strip: first row of the sheet that `index` holds, and the row after the last, in px.
        out: (stop - start, width, 3) uint8, C-contiguous. Every pixel is written, outside tiles without a photo.
    """
    start, stop = strip
    for y, x in np.ndindex(index.shape):
        out[y, x] = colors[index[y, x]]
    for c in range(grid.count):
        top, left = grid.origin(c)
        for y in range(max(start - top, 0), min(stop - top, grid.tile_h)):
            for x in range(grid.tile_w):
                entry = index[top + y - start, left + x]
                for k in range(3):
                    color, under = int(colors[entry, k]), int(photo[y, x, k])
                    out[top + y - start, left + x, k] = over(int(weights[entry]), color, under)
