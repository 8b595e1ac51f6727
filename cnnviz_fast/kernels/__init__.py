"""Kernels: the same functions, with the same arguments in the same order, in every backend module.

    channel_range(maps) -> (vmin, vmax)
    channel_moments(maps) -> (mean, std, zeros, nan, inf)
    render_strip(maps, vmin, vmax, rows, cols, grid, paint, strip, out) -> None
    blend_strip(index, colors, weights, photo, grid, strip, out) -> None

`reference` defines them and documents their arguments; the other modules give the same results, and document only what
differs. Of a `Grid` kernels know the number of tiles and how many are in a row, the size of a tile, where the first one
lies (top, left) and how far apart tiles are (step_y, step_x); all other pixels are background.

Kernels check nothing, since their callers do. `reference` and `numba_cpu` take and fill numpy arrays. `native_cpu` does
too, and reads float16, bfloat16 (as tensors) and uint8, of any strides. `torch_ops` takes
tensors, works on the device of `maps` (or of `index`, which may be a numpy array too), and fills a tensor or a numpy
array. `triton_gpu` does the same on CUDA; it also reads float16 and bfloat16, and several samples at once.

`numba_values`, `native_values` and `torch_values` hold the kernels for the values of parameters, `survey` and `spread`;
`numba_sketch`, `native_sketch` and `torch_sketch` those for distributions. The numba modules define these.
"""

from __future__ import annotations

from typing import NamedTuple


class Paint(NamedTuple):
    """What the palette entries stand for.

    levels: entries 0 .. levels - 1 show values.
    flat: the normalised value, 0 or 0.5, that stands for a channel whose range has no width.
    background: entry of pixels that belong to no tile.
    bad: entry of pixels that a NaN or an infinity touches.
    """

    levels: int
    flat: float
    background: int
    bad: int
