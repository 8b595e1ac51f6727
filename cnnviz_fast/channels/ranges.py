"""The range of values that the colormap spans, for each channel, as `normalize` asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..kernels.torch_ops import widest

if TYPE_CHECKING:
    from ..options.drawing import RenderOptions


def drawing_range(
    maps: torch.Tensor, vmin: torch.Tensor, vmax: torch.Tensor, options: RenderOptions
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decide the range of values that the colormap spans, for each channel.

    Args:
        maps: (C, H, W) real dtype, or (N, C, H, W) for several samples, which do not share ranges. Not modified.
        vmin: (C,) float32, or (N, C), any device. Least finite value of each channel; NaN if there is none. With
            normalize dataset, that of the whole data set, or its percentile.
        vmax: (C,) float32, or (N, C). Greatest finite value.
        options: `normalize` and what belongs to it.

    Returns:
        vmin, vmax: (C,) float32, or (N, C), on the device of `vmin`. Equal for a flat channel, NaN for one without
            finite values.
    """
    if options.normalize == "layer":
        finite = vmin.isfinite()
        low = vmin.where(finite, torch.inf).amin(-1, keepdim=True)
        high = vmax.where(finite, -torch.inf).amax(-1, keepdim=True)
        return low.expand_as(vmin).where(finite, torch.nan), high.expand_as(vmax).where(finite, torch.nan)
    if options.normalize == "percentile" and options.percentile is not None:
        low, high = (end.to(vmin.device) for end in _percentiles(maps, options.percentile))
        # If most values are equal, both percentiles may be. The full range then shows the other values.
        level = low == high
        return torch.where(level, vmin, low), torch.where(level, vmax, high)
    if options.normalize == "symmetric":
        magnitude = torch.maximum(vmin.abs(), vmax.abs())
        # A flat channel keeps its range without width: it is drawn in the middle colour and flagged.
        return torch.where(vmin == vmax, vmin, -magnitude), torch.where(vmin == vmax, vmax, magnitude)
    if options.normalize in ("sigmoid", "fixed"):
        ends = (0.0, 1.0) if options.normalize == "sigmoid" else (options.vmin, options.vmax)
        return torch.full_like(vmin, ends[0]), torch.full_like(vmax, ends[1])  # type: ignore[arg-type]  # fixed has both
    return vmin, vmax


def _percentiles(maps: torch.Tensor, percentile: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two percentiles of each channel's finite values, linear between neighbours as in numpy.nanpercentile.

    It sorts, since torch.nanquantile refuses more than 2^24 values.
    """
    flat = maps.flatten(-2).to(torch.float32)
    values = flat.where(flat.isfinite(), torch.nan).sort(dim=-1).values
    last = (values.isfinite().sum(dim=-1) - 1).clamp(min=0)

    def at(percent: float) -> torch.Tensor:
        position = last.to(wide) * (percent / 100)
        below = torch.minimum(position.floor().to(torch.int64), last)
        low = values.gather(-1, below[..., None])[..., 0].to(wide)
        high = values.gather(-1, torch.minimum(below + 1, last)[..., None])[..., 0].to(wide)
        half = (position - below) * (high / 2 - low / 2)  # half the way: the whole may be beyond float32
        return (low + half + half).to(torch.float32)

    wide = widest(maps)
    return at(percentile[0]), at(percentile[1])
