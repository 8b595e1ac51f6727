"""Kernels, torch: the same result as `reference` from batched tensor operations, on any device of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ..geometry import Grid, Positions, Strip
    from ..kernels import Paint


def channel_range(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the least and the greatest finite value of each channel. Same as `reference.channel_range`, in tensors."""
    finite = maps.isfinite()
    empty = ~finite.any(dim=2).any(dim=1)
    vmin = maps.where(finite, torch.inf).amin(dim=(1, 2)).masked_fill(empty, torch.nan)
    vmax = maps.where(finite, -torch.inf).amax(dim=(1, 2)).masked_fill(empty, torch.nan)
    return vmin, vmax


def channel_moments(
    maps: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Measure what else a channel holds. Same as `reference.channel_moments`, in tensors.

    Sums are taken in another order. On MPS results are float32 instead of float64.
    """
    flat = maps.flatten(1)
    wide = widest(maps)
    zeros = (flat == 0).sum(dim=1).to(wide) / flat.shape[1]
    finite = flat.isfinite()
    nan, inf = flat.isnan().sum(dim=1), flat.isinf().sum(dim=1)
    count = finite.sum(dim=1)
    values = flat.to(wide).where(finite, 0)
    unit = _unit(values)
    values = values / unit
    mean = values.sum(dim=1) / count
    std = ((values - mean[:, None]).where(finite, 0).square().sum(dim=1) / count).sqrt()
    return mean * unit[:, 0], std * unit[:, 0], zeros, nan, inf


def widest(maps: torch.Tensor) -> torch.dtype:
    """Return the widest dtype that the device of `maps` has.

    Args:
        maps: (...) float32.

    Returns:
        float64, in which positions beyond 2^24 are exact, and sums and squares nearly so; float32 on MPS.
    """
    return torch.float32 if maps.device.type == "mps" else torch.float64


def _unit(values: torch.Tensor) -> torch.Tensor:
    """Return the unit in which each channel of (C, V) `values` is summed, (C, 1): squares may exceed float32."""
    if values.dtype == torch.float64:
        return values.new_ones(1, 1)
    largest = values.abs().amax(dim=1, keepdim=True)
    return largest.where(largest > 0, 1)


def normalize(maps: torch.Tensor, vmin: torch.Tensor, vmax: torch.Tensor, flat: float) -> torch.Tensor:
    """Bring maps into [0, 1], each value as `reference.normalize` does.

    Args:
        maps: (C, H, W) float32, finite or not. Not modified.
        vmin: (C,) float32. Lower end of each channel's range.
        vmax: (C,) float32. Upper end; equal to `vmin` for a flat channel.
        flat: the normalised value of a flat channel.

    Returns:
        (C, H, W) float32, in [0, 1] or NaN.
    """
    low, high = vmin[:, None, None], vmax[:, None, None]
    half = torch.where((high - low).isinf(), 0.5, 1.0).to(maps.dtype)
    values = ((maps * half - low * half) / (high * half - low * half)).clamp(0, 1)
    values = torch.where(low == high, flat, values)
    return values.where(maps.isfinite(), torch.nan)


def blend(before: torch.Tensor, after: torch.Tensor, fraction: torch.Tensor) -> torch.Tensor:
    """Interpolate between neighbours. Same as `reference.blend` for every element of tensors."""
    return torch.where(fraction == 0, before, before + fraction * (after - before))


def render_strip(
    maps: torch.Tensor,
    vmin: torch.Tensor,
    vmax: torch.Tensor,
    rows: Positions,
    cols: Positions,
    grid: Grid,
    paint: Paint,
    strip: Strip,
    out: Any,
) -> None:
    """Draw a band of rows of a sheet. Same as `reference.render_strip`, in tensors on any device.

    `out` may be a numpy array or a tensor on any device.
    """
    start, stop = strip
    band = torch.full((stop - start, grid.width), paint.background, dtype=torch.uint8, device=maps.device)
    row_index, row_next, row_fraction = _on_device(rows, maps.shape[1], maps.device)
    col_index, col_next, col_fraction = _on_device(cols, maps.shape[2], maps.device)
    for first in range(0, grid.count, grid.cols):
        top, left = grid.origin(first)
        y = slice(max(start - top, 0), min(stop - top, grid.tile_h))
        if y.start >= y.stop:
            continue
        chosen = slice(first, min(first + grid.cols, grid.count))
        values = normalize(maps[chosen], vmin[chosen], vmax[chosen], paint.flat)
        lines = blend(values[:, :, col_index], values[:, :, col_next], col_fraction)
        tiles = blend(lines[:, row_index[y]], lines[:, row_next[y]], row_fraction[y, None])
        entries = torch.floor(tiles * (paint.levels - 1) + 0.5)
        entries = entries.nan_to_num(nan=paint.bad).to(torch.uint8)
        for position, tile in enumerate(entries):
            x = left + position * grid.step_x
            band[top + y.start - start : top + y.stop - start, x : x + grid.tile_w] = tile
    torch.as_tensor(out).copy_(band)


def blend_strip(
    index: Any,
    colors: Any,
    weights: Any,
    photo: Any,
    grid: Grid,
    strip: Strip,
    out: Any,
) -> None:
    """Colour a band of rows of a sheet, with a photo under every tile. Same as `reference.blend_strip`.

    The work is done on the device of `index`. Each array may be a numpy array or a tensor on any device.
    """
    plane = torch.as_tensor(index)
    table, weight_of, under = (
        torch.as_tensor(array).to(plane.device, torch.int32, non_blocking=True) for array in (colors, weights, photo)
    )
    entries = plane.int().flatten()
    rgb = table.index_select(0, entries).view(*plane.shape, 3)
    weight = weight_of.index_select(0, entries).view(*plane.shape, 1)
    start, stop = strip
    for c in range(grid.count):
        top, left = grid.origin(c)
        y = slice(max(start - top, 0), min(stop - top, grid.tile_h))
        if y.start >= y.stop:
            continue
        tile = slice(top + y.start - start, top + y.stop - start), slice(left, left + grid.tile_w)
        rgb[tile] = (weight[tile] * rgb[tile] + (256 - weight[tile]) * under[y] + 128) >> 8
    torch.as_tensor(out).copy_(rgb)


def _on_device(positions: Positions, n: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return index, neighbour and fraction of sampling positions as tensors on `device`, without waiting for it."""
    index = torch.from_numpy(positions.index).to(device, torch.int64, non_blocking=True)
    fraction = torch.from_numpy(positions.fraction).to(device, non_blocking=True)
    return index, (index + 1).clamp(max=n - 1), fraction
