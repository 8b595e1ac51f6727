"""Stage 4 of 7: which channels are drawn, in which order, and what they are reduced to.

Everything that touches values runs as batched torch operations on the device where the maps lie; only a few numbers a
channel come back from there, to be sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import OptionError
from .statistics import ChannelStatistics, channel_statistics, widest

if TYPE_CHECKING:
    from ..kernels.backends import Backend
    from ..options.drawing import RenderOptions

SCORE_BITS = 40
"""Scores are compared to this many bits, 12 digits: float64 has 53, of which a sum of a million values may lose 10."""


@dataclass(frozen=True)
class Selection:
    """What each tile shows, in the order of the tiles.

    channels: number of the channel; None for a sum, mean or max of several.
    reductions: what the tile is a reduction by, None for a channel as it is; None where nothing is reduced.
    scores: what the channel was ranked by, None for a reduction or without a finite value; None where none was ranked.
    """

    channels: list[int | None]
    reductions: list[str | None] | None = None
    scores: list[float | None] | None = None

    @property
    def names(self) -> list[str]:
        """Name each tile: by its channel number, such as "7", or by its reduction, such as "sum" or "strongest"."""
        reductions = self.reductions or [None] * len(self.channels)
        return [reduction or str(c) for c, reduction in zip(self.channels, reductions, strict=True)]

    @property
    def labels(self) -> list[str]:
        """Say what each tile shows: its name, and of the strongest also which channel it is, as "strongest 7"."""
        return [
            name if name == str(c) or c is None else f"{name} {c}"
            for name, c in zip(self.names, self.channels, strict=True)
        ]


def select(
    maps: torch.Tensor, backend: Backend, options: RenderOptions, measured: ChannelStatistics | None = None
) -> tuple[torch.Tensor, Selection, ChannelStatistics]:
    """Choose, order and reduce channels: `channels` picks, `rank` orders, `topk` cuts; reductions are of all picked.

    Args:
        maps: (C, H, W) float32, or another of `backend.dtypes`, finite or not. Not modified.
        backend: whose kernels measure.
        options: `channels`, `topk`, `sort`, `rank`, `reduce` and `beside`.
        measured: statistics of the channels picked, on the CPU, where they are known already.

    Returns:
        (K, H, W) float32 or as `maps`, one map a tile: `maps` itself where every channel is drawn in the order of
        numbers; what they are; and what they hold, on the CPU. Reductions come first.

    Raises:
        OptionError: a channel that `maps` does not have, or a `topk` of more channels than there are.
    """
    picked, numbers = pick(maps, options.channels)
    if options.reduce is not None and not options.beside:
        reduced, channels = _reduce_all(picked, numbers, backend, options.reduce)
        return reduced, Selection(channels, list(options.reduce)), channel_statistics(backend, reduced).cpu()
    drawn, selection = picked, Selection(list(numbers))
    statistics = measured or channel_statistics(backend, picked).cpu()
    if options.rank is not None:
        if options.topk is not None and options.topk > len(numbers):
            raise OptionError(f"topk must be at most the {len(numbers)} channels to choose from, got {options.topk}.")
        scores = channel_scores(picked, statistics, options.rank)
        order = best_first(scores, numbers)[: options.topk]
        ranked = torch.from_numpy(order)
        drawn, statistics = picked[ranked.to(maps.device, non_blocking=True)], statistics[ranked]
        shown = [None if score != score else score for score in scores[order].tolist()]
        selection = Selection([numbers[position] for position in order], scores=shown)
    if options.reduce is None:
        return drawn, selection, statistics

    reduced, channels = _reduce_all(picked, numbers, backend, options.reduce)
    beside = Selection(
        channels + selection.channels,
        [*options.reduce, *([None] * len(drawn))],
        [*([None] * len(reduced)), *selection.scores] if selection.scores is not None else None,
    )
    return torch.cat([reduced, drawn]), beside, channel_statistics(backend, reduced).cpu() + statistics


def channel_scores(maps: torch.Tensor, statistics: ChannelStatistics, rank: str) -> NDArray[np.float64]:
    """Give each channel the score that it is ranked by: a measure of its finite values.

    Args:
        maps: (C, H, W) real dtype, finite or not. Not modified.
        statistics: of `maps`, on the CPU.
        rank: one of `options.RANKS`.

    Returns:
        (C,) float64, on the CPU. NaN for a channel without a finite value. Rounded to SCORE_BITS, so that the order of
        summing, which differs from backend to backend, does not decide between equals.
    """
    size = maps[0].numel()
    # In float64, which not every device has had: what is squared here can be beyond float32.
    nonfinite, mean, std, zeros = (
        column.double()
        for column in (statistics.nan + statistics.inf, statistics.mean, statistics.std, statistics.zeros)
    )
    count = size - nonfinite
    if rank == "mean":
        score = mean
    elif rank == "abs-mean":
        finite = maps if statistics.all_finite else maps.where(maps.isfinite(), 0)
        score = torch.linalg.vector_norm(finite, ord=1, dim=(1, 2), dtype=widest(maps)).cpu() / count
    elif rank == "max":
        score = statistics.vmax
    elif rank == "variance":
        score = std.square()
    elif rank == "nonzero":
        score = (count - (zeros * size).round()) / count
    else:
        score = (count * (mean.square() + std.square())).sqrt()
    mantissa, exponent = np.frexp(score.numpy().astype(np.float64))
    rounded: NDArray[np.float64] = np.ldexp(np.round(mantissa * 2.0**SCORE_BITS), exponent - SCORE_BITS)
    return rounded


def best_first(scores: NDArray[np.float64], numbers: Sequence[int]) -> NDArray[np.int64]:
    """Order channels by score, the greatest first.

    Args:
        scores: (C,) float64. NaN comes last.
        numbers: channel number of each; of equal scores the lower number comes first.

    Returns:
        (C,) int64. Positions in `scores`.
    """
    order: NDArray[np.int64] = np.lexsort((np.asarray(numbers), -scores))
    return order


def pick(maps: torch.Tensor, channels: Sequence[int] | None) -> tuple[torch.Tensor, Sequence[int]]:
    """Pick channels by number.

    Args:
        maps: (C, H, W) real dtype, or (N, C, H, W). Not modified.
        channels: numbers in the order wanted, repeated ones too, or None for all.

    Returns:
        (K, H, W) of the same dtype, or (N, K, H, W), `maps` itself for None; and the K numbers.

    Raises:
        OptionError: a number that `maps` does not have.
    """
    count = maps.shape[-3]
    if channels is None:
        return maps, range(count)
    if max(channels) >= count:
        raise OptionError(f"channels must lie in 0..{count - 1}, got {max(channels)}. The layer has {count} channels.")
    return maps.index_select(-3, torch.tensor(channels).to(maps.device, non_blocking=True)), channels


def _reduce_all(
    maps: torch.Tensor, numbers: Sequence[int], backend: Backend, reductions: Sequence[str]
) -> tuple[torch.Tensor, list[int | None]]:
    """Return one (H, W) float32 map for each reduction, stacked, and the channel number of each that is a channel."""
    results: list[torch.Tensor] = []
    channels: list[int | None] = []
    for reduction in reductions:
        if reduction == "strongest":
            scores = channel_scores(maps, channel_statistics(backend, maps).cpu(), "abs-mean")
            strongest = int(best_first(scores, numbers)[0])
            results.append(maps[strongest].float())
            channels.append(numbers[strongest])
        else:
            results.append(reduced(maps, reduction))
            channels.append(None)
    return torch.stack(results), channels


def reduced(maps: torch.Tensor, reduction: str) -> torch.Tensor:
    """Reduce the channels of a layer to one map.

    Args:
        maps: (C, H, W) real dtype, finite or not. Not modified.
        reduction: sum, mean or max.

    Returns:
        (H, W) float32, a new map. NaN where any channel is not finite: what is missing in one is missing in the result,
        and drawn as bad. Summed in float64; a sum that float32 cannot hold is infinite.
    """
    if reduction == "max":
        cells = maps.amax(dim=0)
    else:
        cells = maps.sum(dim=0, dtype=widest(maps)) / (len(maps) if reduction == "mean" else 1)
    return cells.float().where(maps.isfinite().all(dim=0), torch.nan)
