"""Stage 4 of 7: maps as tensors, statistics of channels and the range each is drawn on.

Everything here runs as batched torch operations on the device where the maps lie.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import DTypeError, ShapeError
from ..kernels.torch_ops import widest as widest

if TYPE_CHECKING:
    from ..kernels.backends import Backend
    from ..options import RenderOptions


@dataclass(frozen=True)
class ChannelStatistics:
    """What each channel holds; one entry a channel, all on one device.

    vmin: (C,) float32. Least finite value; NaN where there is none.
    vmax: (C,) float32. Greatest finite value; NaN where there is none.
    mean: (C,) float64, float32 on MPS; so are std and zeros. Mean of the finite values; NaN where there is none.
    std: (C,) float64. Standard deviation of the finite values (divisor n); NaN where there is none.
    zeros: (C,) float64. Share of the values that are 0.
    nan: (C,) int64. Number of NaN.
    inf: (C,) int64. Number of infinities of either sign.
    """

    vmin: torch.Tensor
    vmax: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    zeros: torch.Tensor
    nan: torch.Tensor
    inf: torch.Tensor

    @property
    def all_finite(self) -> bool:
        """Whether no channel holds a NaN or an infinity."""
        return not bool(self.nonfinite.any())

    @property
    def nonfinite(self) -> torch.Tensor:
        """Tell, (C,) bool, which channels hold a NaN or an infinity."""
        return (self.nan + self.inf) > 0

    @property
    def flat(self) -> torch.Tensor:
        """Tell, (C,) bool, which channels have one finite value only; the dead are among them."""
        return self.vmin == self.vmax

    @property
    def dead(self) -> torch.Tensor:
        """Tell, (C,) bool, which channels are zero throughout."""
        return self.zeros == 1

    def cpu(self) -> ChannelStatistics:
        """Bring the columns to the CPU: by one transfer, for which the device is waited for once."""
        columns = [getattr(self, field.name) for field in dataclasses.fields(self)]
        if columns[0].device.type == "cpu":
            return self
        together = torch.stack([column.to(widest(column)) for column in columns]).cpu()
        return ChannelStatistics(*(row.to(column.dtype) for row, column in zip(together, columns, strict=True)))

    def __getitem__(self, channels: Any) -> ChannelStatistics:
        """Return the statistics of some channels, given as an index of tensors."""
        return ChannelStatistics(*(getattr(self, field.name)[channels] for field in dataclasses.fields(self)))

    def __add__(self, other: ChannelStatistics) -> ChannelStatistics:
        """Return the statistics of these channels and of those of `other`, one behind the other."""
        names = [field.name for field in dataclasses.fields(self)]
        return ChannelStatistics(*(torch.cat([getattr(self, name), getattr(other, name)]) for name in names))


def as_maps(maps: Any) -> torch.Tensor:
    """Check maps and widen them to float32, on the device where they lie.

    Args:
        maps: as for as_tensor.

    Returns:
        (C, H, W) float32, detached. `maps` itself where nothing had to change.

    Raises:
        InputError: as as_tensor does.
    """
    return as_tensor(maps).to(torch.float32)


def as_tensor(maps: Any) -> torch.Tensor:
    """Check maps, and leave tensors in their dtype.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, any strides; or a vector (C,), whose maps
            are single cells. Not modified.

    Returns:
        (C, H, W) real dtype, detached; float32 of a numpy array. `maps` itself where nothing had to change.

    Raises:
        ShapeError: `maps` is neither 3-dimensional nor a vector, or has no pixels.
        DTypeError: `maps` is complex, sparse, on the meta device, or no array at all.
    """
    if isinstance(maps, np.ndarray):
        if maps.dtype.kind not in "biuf":
            raise DTypeError(f"maps must be of a real dtype, got {maps.dtype}. Pass maps.real or abs(maps), say.")
        # torch knows neither foreign byte orders nor negative strides, nor all of numpy's dtypes.
        with np.errstate(over="ignore"):  # beyond float32 is infinite, as it is for tensors
            maps = torch.from_numpy(np.array(maps, dtype=np.float32, order="C"))
    if not isinstance(maps, torch.Tensor):
        raise DTypeError(f"maps must be a tensor or a numpy array, got {type(maps).__name__}.")
    if maps.ndim == 4:
        raise ShapeError(f"maps must have shape (C, H, W), got {tuple(maps.shape)}. Pass one sample: maps[0].")
    if maps.ndim not in (1, 3):
        raise ShapeError(
            f"maps must have shape (C, H, W), or (C,) for a vector, got {tuple(maps.shape)}. Pass one sample: maps[0]."
        )
    check_values(maps)
    values: torch.Tensor = maps.detach()
    return values[:, None, None] if values.ndim == 1 else values


def check_values(maps: torch.Tensor) -> None:
    """Refuse tensors without real values.

    Args:
        maps: (...) real dtype.

    Raises:
        ShapeError: `maps` has no pixels.
        DTypeError: `maps` is complex, sparse or on the meta device.
    """
    if maps.is_complex():
        raise DTypeError(f"maps must be of a real dtype, got {maps.dtype}. Pass maps.abs() or maps.real.")
    if maps.layout != torch.strided or maps.is_meta:
        kind = "the meta device" if maps.is_meta else str(maps.layout)
        raise DTypeError(f"maps must hold their values densely, got {kind}. Pass maps.to_dense() or a real tensor.")
    if 0 in maps.shape:
        raise ShapeError(f"maps must have at least one channel and one pixel, got shape {tuple(maps.shape)}.")


def channel_statistics(backend: Backend, maps: torch.Tensor) -> ChannelStatistics:
    """Measure every channel, by the kernels of a backend.

    Args:
        backend: one that takes maps on the device where `maps` lies.
        maps: (C, H, W) float32, or another of `backend.dtypes`, finite or not. Not modified.

    Returns:
        The statistics, on the device of `maps`.
    """
    array = backend.to_array(maps)
    columns = *backend.kernels.channel_range(array), *backend.kernels.channel_moments(array)
    return ChannelStatistics(*map(torch.as_tensor, columns))


def drawing_range(
    maps: torch.Tensor, vmin: torch.Tensor, vmax: torch.Tensor, options: RenderOptions
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decide the range of values that the colormap spans, for each channel.

    Args:
        maps: (C, H, W) real dtype, or (N, C, H, W) for several samples, each on its own. Not modified.
        vmin: (C,) float32, or (N, C), any device. Least finite value of each channel; NaN where there is none. With
            normalize dataset, that of the whole set, or its percentile.
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
        # Where most values are equal both percentiles can be: the full range then shows what there is.
        level = low == high
        return torch.where(level, vmin, low), torch.where(level, vmax, high)
    if options.normalize == "symmetric":
        magnitude = torch.maximum(vmin.abs(), vmax.abs())
        # A flat channel keeps its own range without width: it is drawn as the middle and flagged.
        return torch.where(vmin == vmax, vmin, -magnitude), torch.where(vmin == vmax, vmax, magnitude)
    if options.normalize in ("sigmoid", "fixed"):
        ends = (0.0, 1.0) if options.normalize == "sigmoid" else (options.vmin, options.vmax)
        return torch.full_like(vmin, ends[0]), torch.full_like(vmax, ends[1])  # type: ignore[arg-type]  # fixed has both
    return vmin, vmax


def squash(maps: torch.Tensor) -> torch.Tensor:
    """Send maps through a sigmoid; an infinity stays what it is, so that it is drawn as bad and not as 0 or 1.

    Args:
        maps: (..., H, W) real dtype. Not modified.

    Returns:
        (..., H, W) float32, in [0, 1] where finite.
    """
    values = maps.to(torch.float32)
    return torch.where(values.isinf(), values, values.sigmoid())


def shrink(maps: torch.Tensor, vmin: torch.Tensor, vmax: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Make maps smaller where a tile is smaller than they are, without aliasing; kernels only enlarge or copy.

    Args:
        maps: (C, H, W) real dtype, or (N, C, H, W), finite or not. Not modified.
        vmin: (C,) float32, or (N, C). Values are clamped to the range first, as the pixel rules say.
        vmax: (C,) float32, or (N, C). Its upper end.
        height: of a tile, in px.
        width: of a tile, in px.

    Returns:
        (C, min(H, height), min(W, width)) float32, or (N, C, ...). NaN where a sample that is not finite was touched.
            `maps` themselves, in their dtype, where they are no larger than a tile.

    Source:
        torch.nn.functional.interpolate(mode="bilinear", antialias=True, align_corners=False).
    """
    size = [min(maps.shape[-2], height), min(maps.shape[-1], width)]
    if size == list(maps.shape[-2:]):
        return maps
    values = maps.to(torch.float32)
    # NaN ends of a range belong to channels that have no finite value to clamp.
    low, high = (end.nan_to_num(0)[..., None, None] for end in (vmin, vmax))
    clamped = torch.clamp(values, low, high).where(values.isfinite(), torch.nan)
    every_channel = clamped.flatten(0, -3)[None]
    smaller = torch.nn.functional.interpolate(every_channel, size=size, mode="bilinear", antialias=True)
    return smaller.view(*maps.shape[:-2], *size)


def _percentiles(maps: torch.Tensor, percentile: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two percentiles of each channel's finite values, linear between neighbours as in numpy.nanpercentile.

    By sorting, since torch.nanquantile refuses more than 2^24 values.
    """
    flat = maps.flatten(-2).to(torch.float32)
    values = flat.where(flat.isfinite(), torch.nan).sort(dim=-1).values
    last = (values.isfinite().sum(dim=-1) - 1).clamp(min=0)

    def at(percent: float) -> torch.Tensor:
        position = last.to(wide) * (percent / 100)
        below = torch.minimum(position.floor().to(torch.int64), last)
        low = values.gather(-1, below[..., None])[..., 0].to(wide)
        high = values.gather(-1, torch.minimum(below + 1, last)[..., None])[..., 0].to(wide)
        half = (position - below) * (high / 2 - low / 2)  # of the way; the whole can be beyond float32
        return (low + half + half).to(torch.float32)

    wide = widest(maps)
    return at(percentile[0]), at(percentile[1])
