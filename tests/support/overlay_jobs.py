"""What kernels are asked to blend over a photo, and the sheet expected of it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnviz_fast.geometry import Grid

Bytes = NDArray[np.uint8]


GRIDS = {
    "one_pixel": Grid(1, 1, 1, 1, 1),
    "one_tile": Grid(1, 1, 1, 5, 7),
    "full": Grid(6, 2, 3, 4, 5),
    "gap": Grid(6, 2, 3, 4, 5, gap=2),
    "margin": Grid(2, 1, 2, 3, 4, margin=3),
    "last_row_not_full": Grid(5, 2, 3, 4, 5, gap=1, margin=2),
    "last_rows_empty": Grid(3, 4, 2, 2, 3, gap=2, margin=1),
    "one_column": Grid(4, 4, 1, 3, 2),
}


def random_bytes(*shape: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def under_tiles(photo: Bytes, grid: Grid) -> tuple[Bytes, NDArray[np.bool_]]:
    """Lay a photo under every tile of a sheet by the grid's rule, written anew; and tell which pixels have one."""
    plane = np.zeros((grid.height, grid.width, 3), np.uint8)
    inside = np.zeros((grid.height, grid.width), bool)
    for position in range(grid.count):
        y = grid.margin + position // grid.cols * (grid.tile_h + grid.gap)
        x = grid.margin + position % grid.cols * (grid.tile_w + grid.gap)
        plane[y : y + grid.tile_h, x : x + grid.tile_w] = photo
        inside[y : y + grid.tile_h, x : x + grid.tile_w] = True
    return plane, inside


def mixed(colors: Bytes, photo: Bytes, alpha: Any) -> Bytes:
    """Compute alpha * colour + (1 - alpha) * photo in float64, rounded half up: exact for an alpha in 1/256."""
    return np.floor(alpha * colors.astype(float) + (1 - alpha) * photo + 0.5).astype(np.uint8)


@cache
def blend_job(name: str) -> tuple[Bytes, Bytes, NDArray[np.uint16], Bytes, Bytes]:
    """Return index, colors, weights (of every size, each entry its own), photo and the sheet expected of them."""
    grid = GRIDS[name]
    index, colors = random_bytes(grid.height, grid.width), random_bytes(256, 3, seed=1)
    photo = random_bytes(grid.tile_h, grid.tile_w, 3, seed=2)
    weights = np.random.default_rng(3).permutation(257)[:256].astype(np.uint16)
    weights[index[grid.margin, grid.margin]] = 256
    under, inside = under_tiles(photo, grid)
    alpha = np.where(inside, weights[index] / 256, 1)[..., None]
    return index, colors, weights, photo, mixed(colors[index], under, alpha)
