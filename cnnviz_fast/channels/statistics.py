"""Statistics of channels, measured on the device of the maps by the kernels of a backend."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..kernels.torch_ops import widest
from ..runtime.workers import default_threads

if TYPE_CHECKING:
    from ..kernels.backends import Backend


@dataclass(frozen=True)
class ChannelStatistics:
    """What each channel holds; one entry for each channel, all on one device.

    vmin: (C,) float32. Least finite value; NaN if there is none.
    vmax: (C,) float32. Greatest finite value; NaN if there is none.
    mean: (C,) float64, float32 on MPS, as are std and zeros. Mean of the finite values; NaN if there is none.
    std: (C,) float64. Standard deviation of the finite values (divisor n); NaN if there is none.
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
        """Return whether no channel holds a NaN or an infinity."""
        return not (bool(self.nan.any()) or bool(self.inf.any()))

    @property
    def nonfinite(self) -> torch.Tensor:
        """Return which channels hold a NaN or an infinity, (C,) bool."""
        return (self.nan + self.inf) > 0

    @property
    def flat(self) -> torch.Tensor:
        """Return which channels have only one finite value, (C,) bool; the dead are among them."""
        return self.vmin == self.vmax

    @property
    def dead(self) -> torch.Tensor:
        """Return which channels are all zero, (C,) bool."""
        return self.zeros == 1

    def cpu(self) -> ChannelStatistics:
        """Copy the columns to the CPU in one transfer, which waits for the device once."""
        columns = [getattr(self, field.name) for field in dataclasses.fields(self)]
        if columns[0].device.type == "cpu":
            return self
        together = torch.stack([column.to(widest(column)) for column in columns]).cpu()
        return ChannelStatistics(*(row.to(column.dtype) for row, column in zip(together, columns, strict=True)))

    def __getitem__(self, channels: Any) -> ChannelStatistics:
        """Return the statistics of some channels, given as an index of tensors."""
        return ChannelStatistics(*(getattr(self, field.name)[channels] for field in dataclasses.fields(self)))

    def split(self, count: int) -> Iterator[ChannelStatistics]:
        """Return the statistics of the first `count` channels, of the next ones, and so on."""
        return map(ChannelStatistics, *(getattr(self, field.name).split(count) for field in dataclasses.fields(self)))

    def __add__(self, other: ChannelStatistics) -> ChannelStatistics:
        """Return the statistics of these channels, followed by those of `other`."""
        names = [field.name for field in dataclasses.fields(self)]
        return ChannelStatistics(*(torch.cat([getattr(self, name), getattr(other, name)]) for name in names))


def channel_statistics(backend: Backend, maps: torch.Tensor, threads: int | None = 1) -> ChannelStatistics:
    """Measure every channel, with the kernels of a backend.

    Args:
        backend: a backend that takes maps on the device of `maps`.
        maps: (C, H, W) float32, or another of `backend.dtypes`, finite or not. Not modified.
        threads: at most as many work at once; None for one a core.

    Returns:
        The statistics, on the device of `maps`.
    """
    measured = backend.measure(backend.to_array(maps), threads or default_threads())
    return ChannelStatistics(*map(torch.as_tensor, measured))
