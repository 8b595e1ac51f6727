"""Kernels, numba: tiles over a photo. Part of the backend `numba_cpu`; a pixel is computed in 64 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import int64, types, uint8, uint64
from numpy.typing import NDArray

from .numba_jit import compiled, read_only

if TYPE_CHECKING:
    from ..geometry import Grid, Strip

Bytes = NDArray[np.uint8]
Lanes = NDArray[np.uint64]


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
    _blend_strip(
        np.ascontiguousarray(index), _lanes_of(colors, weights), _lanes_of(colors, np.full_like(weights, 256)), photo,
        grid.count, grid.cols, grid.tile_h, grid.tile_w, grid.step_y, grid.step_x, grid.top, grid.left,
        strip[0], out,
    )  # fmt: skip


def _lanes_of(colors: NDArray[np.uint8], weights: NDArray[np.uint16]) -> Lanes:
    """Pack what a pixel needs of its entry into 64 bits: weight * color + 128 of r, g, b, and 256 - weight, in 16 each.

    One load and one multiplication then make a pixel. No lane overflows, see reference.over.
    """
    parts = np.empty((len(colors), 4), np.uint16)
    parts[:, :3] = weights[:, None] * colors + np.uint16(128)
    parts[:, 3] = 256 - weights
    shifts = np.arange(0, 64, 16, dtype=np.uint64)
    packed: Lanes = (parts.astype(np.uint64) << shifts).sum(axis=1, dtype=np.uint64)
    return packed


@compiled(types.void(read_only(uint8, 1), read_only(uint64, 1), read_only(uint64, 1), uint8[:, ::1]))
def _lay_over(entries: Bytes, lanes: Lanes, under: Lanes, out: Bytes) -> None:
    """Write a line of pixels, (W, 3) uint8, from their `entries` and what lies under them, packed as in `_lanes_of`."""
    for x in range(len(entries)):
        lane = lanes[entries[x]]
        rgb = (lane & uint64(0xFFFF_FFFF_FFFF)) + under[x] * (lane >> uint64(48))
        out[x, 0] = np.uint8(rgb >> uint64(8))
        out[x, 1] = np.uint8(rgb >> uint64(24))
        out[x, 2] = np.uint8(rgb >> uint64(40))


@compiled(
    types.void(
        read_only(uint8, 2), uint64[::1], uint64[::1], read_only(uint8, 3),
        int64, int64, int64, int64, int64, int64, int64, int64, int64, uint8[:, :, ::1],
    )
)  # fmt: skip
def _blend_strip(
    index: Bytes, lanes: Lanes, plain: Lanes, photo: Bytes,
    count: int, grid_cols: int, tile_h: int, tile_w: int, step_y: int, step_x: int, top: int, left: int,
    start: int, out: Bytes,
) -> None:  # fmt: skip
    """Colour the rows of the sheet from `start` on; `plain` is `lanes` for pixels without a photo."""
    under, nothing = np.zeros(tile_w, np.uint64), np.zeros(index.shape[1], np.uint64)
    for y in range(len(index)):
        entries, line = index[y], out[y]
        row, t = divmod(start + y - top, step_y)
        done = 0
        if start + y >= top and t < tile_h:
            for x in range(tile_w):
                pixel = photo[t, x]
                under[x] = uint64(pixel[0]) | uint64(pixel[1]) << uint64(16) | uint64(pixel[2]) << uint64(32)
            for c in range(row * grid_cols, min((row + 1) * grid_cols, count)):
                x0 = left + (c - row * grid_cols) * step_x
                _lay_over(entries[done:x0], plain, nothing, line[done:x0])
                done = x0 + tile_w
                _lay_over(entries[x0:done], lanes, under, line[x0:done])
        _lay_over(entries[done:], plain, nothing, line[done:])
