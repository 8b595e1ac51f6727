"""Kernels: the same functions, with the same arguments in the same order, in every backend module.

The contract (`reference` is its definition; the others give the same result):

    channel_range(maps) -> (vmin, vmax)
        maps: (C, H, W) float32. Not modified.
        vmin, vmax: (C,) float32. The least and greatest finite value of each channel; NaN where there is none.

    channel_moments(maps) -> (mean, std, zeros, nan, inf)
        maps: (C, H, W) float32. Not modified.
        mean, std: (C,) float64. Of the finite values, std with divisor n; NaN where there is none.
        zeros: (C,) float64. Share of the values that are 0.
        nan, inf: (C,) int64. Number of NaN, and of infinities of either sign.

    render_strip(maps, vmin, vmax, rows, cols, layout, paint, strip, out) -> None
        maps: (C, H, W) float32, finite or not. Not modified.
        vmin, vmax: (C,) float32. The range each channel is drawn on. Equal: a flat channel.
        rows, cols: Positions of a tile's rows in a map's rows, and of its columns.
        grid: Grid with count = C. Of it kernels know the number of tiles in a row, their size, where the first
            one lies (top, left) and how far apart they are (step_y, step_x); all else is background.
        paint: Paint.
        strip: (start, stop), the rows of the sheet to draw.
        out: (stop - start, width) uint8, C-contiguous, owned by the caller. Every pixel is written.

    blend_strip(index, colors, weights, photo, layout, strip, out) -> None
        index: (stop - start, width) uint8. What render_strip drew of these rows. Not modified.
        colors: (256, 3) uint8. The palette.
        weights: (256,) uint16, 0 to 256. The weight of each entry's colour over the photo, in 1/256.
        photo: (tile_h, tile_w, 3) uint8, C-contiguous. What lies under every tile.
        grid: Grid.
        strip: (start, stop), the rows of the sheet that `index` holds.
        out: (stop - start, width, 3) uint8, C-contiguous, owned by the caller. Every pixel is written.

Kernels check nothing: what calls them has. `reference` and `numba_cpu` take and fill numpy arrays; `torch_ops` takes
tensors, works on the device where `maps` (or `index`, which may be a numpy array too) lies, and fills a tensor or a
numpy array; so does `triton_gpu`, on CUDA. That one reads float16 and bfloat16 maps too, and its `channel_range` and
`render_strip` take several samples of one layout: maps (N, C, H, W), ranges (N, C), out (N, stop - start, width).

`numba_values` and `torch_values` hold the kernels for the values of parameters, `survey` and `spread`, in the same
manner; `histograms` calls them.
"""

from __future__ import annotations

from typing import NamedTuple


class Paint(NamedTuple):
    """Which palette entry stands for what.

    levels: entries 0 .. levels - 1 show values.
    flat: the normalised value, 0 or 0.5, at which a channel whose range has no width is drawn.
    background: entry of pixels that belong to no tile.
    bad: entry of pixels that a NaN or an infinity touches.
    """

    levels: int
    flat: float
    background: int
    bad: int
