"""The report of a layer: which channels are dead, flat, saturated or not finite, and how values are spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..kernels import backends
from .entrance import enter
from .statistics import ChannelStatistics, channel_statistics
from .values import as_maps

if TYPE_CHECKING:
    import torch

BINS = 10
"""Bins of the histogram of ranges."""

LISTED = 8
"""Channel numbers of each kind that fit a terminal of 80 columns; the manifest has them all."""


@dataclass(frozen=True)
class Histogram:
    """Counts in bins of equal width: bin i holds edges[i] <= x < edges[i + 1], the last one its upper edge too."""

    counts: list[int]
    edges: list[float]


@dataclass(frozen=True)
class LayerReport:
    """What the channels of a layer hold, in types that JSON has; lists hold channel numbers in ascending order.

    channels: number of channels.
    dead: channels that are all zero.
    flat: channels whose minimum is their maximum, the dead included; none of a vector, where every channel has one
        value.
    saturated: channels that are not flat and have at least half of their finite values within 1/255 of their range,
        one level of a tile, from their maximum, or from a minimum that is not 0, since a ReLU makes zeros.
    nonfinite: channels that hold a NaN or an infinity.
    sparsity: share of all values that are 0.
    min, max, mean, std: of all finite values of the layer (divisor n); None if there is none.
    ranges: histogram of maximum - minimum, from 0 to the largest; without channels that have no finite value.
    """

    channels: int
    dead: list[int]
    flat: list[int]
    saturated: list[int]
    nonfinite: list[int]
    sparsity: float
    min: float | None
    max: float | None
    mean: float | None
    std: float | None
    ranges: Histogram

    def lines(self) -> list[str]:
        """Return a short table for a terminal, in ASCII: the first channels of each kind, the ranges as counts."""
        values = "no finite value"
        if self.min is not None:
            values = f"{self.min:.4g} to {self.max:.4g}, mean {self.mean:.4g}, standard deviation {self.std:.4g}"
        rows = [("channels", str(self.channels)), ("values", values), ("sparsity", f"{self.sparsity:.1%}")]
        for kind in ("dead", "flat", "saturated", "nonfinite"):
            found = getattr(self, kind)
            listed = ", ".join(map(str, found[:LISTED])) + (", ..." if len(found) > LISTED else "")
            rows.append((kind, f"{len(found)}: {listed}" if found else "0"))
        if any(self.ranges.counts[1:]):  # otherwise every range is 0, as in a vector, or there is none
            counts = " ".join(map(str, self.ranges.counts))
            rows.append(("ranges", f"{counts} (channels; 0 to {self.ranges.edges[-1]:.4g})"))
        return [f"{name:<9}  {value}" for name, value in rows]


def layer_report(
    maps: Any, statistics: ChannelStatistics | None = None, *, axes: str = "auto", planes: Any = None
) -> LayerReport:
    """Report what the channels of a layer hold.

    Args:
        maps: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not; or what else render takes.
            Not modified.
        statistics: statistics of `maps`, on the CPU, if they are known already; None to measure them.
        axes: of `maps` where its channels are not first; see render.
        planes: of a volume, the plane to report; see render.

    Returns:
        The report.

    Raises:
        ShapeError: `maps` has another shape, or no pixels.
        DTypeError: `maps` is complex, sparse, on the meta device, or not an array.
    """
    values = as_maps(enter(maps, axes, planes).maps)
    known = statistics or channel_statistics(backends.choose("auto", str(values.device)), values).cpu()
    vmin, vmax = (side.numpy().astype(np.float64) for side in (known.vmin, known.vmax))
    ranges = (vmax - vmin)[np.isfinite(vmin)]
    counts, edges = np.histogram(ranges, bins=BINS, range=(0, ranges.max(initial=0) or 1))
    mean, std = _overall(values[0].numel(), known)
    return LayerReport(
        channels=len(values),
        dead=_numbers(known.dead),
        flat=_numbers(known.flat) if values[0].numel() > 1 else [],
        saturated=_numbers(_saturated(values, known)),
        nonfinite=_numbers(known.nonfinite),
        sparsity=float(known.zeros.mean()),
        min=float(np.nanmin(vmin)) if len(ranges) else None,
        max=float(np.nanmax(vmax)) if len(ranges) else None,
        mean=mean,
        std=std,
        ranges=Histogram(counts.tolist(), edges.tolist()),
    )


def _numbers(present: torch.Tensor) -> list[int]:
    """Return the numbers of the channels for which `present`, (C,) bool, is true."""
    numbers: list[int] = present.nonzero()[:, 0].tolist()
    return numbers


def _saturated(maps: torch.Tensor, statistics: ChannelStatistics) -> torch.Tensor:
    """Return which channels of (C, H, W) float32 `maps` are saturated, (C,) bool; see LayerReport."""
    vmin, vmax = (end.to(maps.device, non_blocking=True) for end in (statistics.vmin, statistics.vmax))
    level = vmax / 255 - vmin / 255  # the range itself may be beyond float32
    finite = maps.isfinite()

    def holds_half(near: torch.Tensor) -> torch.Tensor:
        return 2 * (near & finite).sum(dim=(1, 2)) >= finite.sum(dim=(1, 2))

    at_top = holds_half(maps >= (vmax - level)[:, None, None])
    at_bottom = holds_half(maps <= (vmin + level)[:, None, None])
    return (vmin < vmax) & (at_top | (at_bottom & (vmin != 0)))


def _overall(size: int, statistics: ChannelStatistics) -> tuple[float | None, float | None]:
    """Return mean and standard deviation of all finite values, from those of channels of `size` values each."""
    columns = (statistics.nan, statistics.inf, statistics.mean, statistics.std)
    nan, inf, mean, std = (column.numpy().astype(np.float64) for column in columns)
    count = size - nan - inf
    if not count.any():
        return None, None
    mean, std = np.nan_to_num(mean), np.nan_to_num(std)  # channels without a finite value have weight 0
    overall = np.average(mean, weights=count)
    return float(overall), float(np.sqrt(np.average(std**2 + (mean - overall) ** 2, weights=count)))
