"""Choose which channels are drawn and in which order, and reduce them.

All work on values is done by batched torch operations on the device of the maps. Only a few numbers for each channel
come to the host, to be sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import OptionError
from ..kernels.torch_ops import widest
from .statistics import ChannelStatistics, channel_statistics

if TYPE_CHECKING:
    from ..kernels.backends import Backend
    from ..options.drawing import RenderOptions

SCORE_BITS = 40
"""Bits, 12 digits, to which scores are compared: float64 has 53, and a sum of a million values may lose 10 of them."""


@dataclass(frozen=True)
class Selection:
    """What each tile shows, in the order of the tiles.

    channels: number of each channel; None for a sum, mean or max of several.
    reductions: the reduction of each tile, None for a single channel; None in place of the list without reductions.
    scores: the score of each channel, None for a reduction or without a finite value; None in place of the list
        without ranking.
    """

    channels: list[int | None]
    reductions: list[str | None] | None = None
    scores: list[float | None] | None = None

    @property
    def names(self) -> list[str]:
        """Return the name of each tile: its channel number, such as "7", or its reduction, such as "sum"."""
        reductions = self.reductions or [None] * len(self.channels)
        return [reduction or str(c) for c, reduction in zip(self.channels, reductions, strict=True)]

    @property
    def labels(self) -> list[str]:
        """Return the label of each tile: its name, for the strongest channel with the number, as "strongest 7"."""
        return [
            name if name == str(c) or c is None else f"{name} {c}"
            for name, c in zip(self.names, self.channels, strict=True)
        ]


def select(
    maps: torch.Tensor, backend: Backend, options: RenderOptions, measured: ChannelStatistics | None = None
) -> tuple[torch.Tensor, Selection, ChannelStatistics]:
    """Choose, order and reduce channels: `channels` picks, `rank` orders, `topk` cuts; all picked ones are reduced.

    Args:
        maps: (C, H, W) float32, or another of `backend.dtypes`, finite or not. Not modified.
        backend: the backend whose kernels measure.
        options: `channels`, `topk`, `sort`, `rank`, `reduce` and `beside`.
        measured: statistics of the channels picked, on the CPU, if they are known already; None to measure them.

    Returns:
        (K, H, W) float32 or the dtype of `maps`, one map for each tile, reductions first: `maps` itself if every
        channel is drawn in order; what each tile shows; and statistics of the tiles, on the CPU.

    Raises:
        OptionError: `maps` does not have a channel, or `topk` is more than the channels to choose from.
    """
    picked, numbers = pick(maps, options.channels)
    if options.reduce is not None and not options.beside:
        reduced, channels = _reduce_all(picked, numbers, backend, options.reduce)
        return reduced, Selection(channels, list(options.reduce)), channel_statistics(backend, reduced).cpu()
    drawn, selection = picked, Selection(list(numbers))
    statistics = measured or channel_statistics(backend, picked, options.threads).cpu()
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
    """Compute the score by which each channel is ranked: a measure of its finite values.

    Args:
        maps: (C, H, W) real dtype, finite or not. Not modified.
        statistics: statistics of `maps`, on the CPU.
        rank: one of `options.RANKS`.

    Returns:
        (C,) float64, on the CPU. NaN for a channel without a finite value. Rounded to SCORE_BITS, so that the order of
        summing, which depends on the backend, does not decide between equal channels.
    """
    size = maps[0].numel()
    # In float64, which not every device has: squares may be beyond float32.
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
        numbers: channel number of each score. Among equal scores the lower number comes first.

    Returns:
        (C,) int64. Positions in `scores`.
    """
    order: NDArray[np.int64] = np.lexsort((np.asarray(numbers), -scores))
    return order


def pick(maps: torch.Tensor, channels: Sequence[int] | None) -> tuple[torch.Tensor, Sequence[int]]:
    """Pick channels by number.

    Args:
        maps: (C, H, W) real dtype, or (N, C, H, W). Not modified.
        channels: numbers in the order wanted, which may repeat, or None for all.

    Returns:
        (K, H, W) of the same dtype, or (N, K, H, W), or `maps` itself for None; and the K numbers.

    Raises:
        OptionError: `maps` does not have a channel.
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
    """Return (R, H, W) float32, a map for each reduction, and the channel number of each that is a single channel."""
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
        (H, W) float32, a new map. NaN wherever any channel is not finite, so it is drawn as bad. Summed in float64; a
        sum that float32 cannot hold is infinite.
    """
    if reduction == "max":
        cells = maps.amax(dim=0)
    else:
        cells = maps.sum(dim=0, dtype=widest(maps)) / (len(maps) if reduction == "mean" else 1)
    return cells.float().where(maps.isfinite().all(dim=0), torch.nan)
