"""Moments and histograms of many tensors, in two passes that all workers share.

    survey   range, sum, and counts of zeros, NaN and infinities, of pieces of at most PIECE values; then joined
    spread   squared distances from the mean of a tensor, and its histogram over its range

Small tensors go to the workers together and large ones in pieces, so that a model keeps every worker busy both with its
biases of 64 values and with its matrices of two million. The cut depends on the tensors alone: results are the same to
the last bit for any number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..kernels import backends
from ..runtime.workers import default_threads, in_order

if TYPE_CHECKING:
    import torch

BINS = 50

PIECE = 1 << 18
"""Values of a piece, and of what a worker does at once: 0.4 ms of work, and as float32 it stays in a 2 MB cache."""

DEVICE_PIECE = 1 << 24
"""Values of a piece on other devices, where it costs a few kernel launches, and 128 MB as float64."""

LEAST_SPAN = 2.0**-40
"""Least width of a range, as a share of its larger end, over which edges in float64 are within 1 % of a bin of their
exact places (50 bins * 2**-53 / 2**-40 = 0.6 %), as `spread` of the kernels for the CPU needs them. float32 has no
narrower range."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Measured:
    """What one tensor holds. Values that are not finite are counted, and otherwise left out.

    low, high: least and greatest value; NaN without finite values.
    mean: of the finite values; NaN without any.
    std: standard deviation, divisor n - 1; 0.0 for one value, NaN without any.
    zeros, nan, inf: how many of the values are 0, NaN, and infinite.
    counts: (BINS,) int64. Histogram of equal bins over [edges[0], edges[1]]; the last bin holds its upper edge too.
    edges: low and high. Where they are equal, half a unit below and above them; without finite values (0, 1).
    """

    low: float
    high: float
    mean: float
    std: float
    zeros: int
    nan: int
    inf: int
    counts: NDArray[np.int64]
    edges: tuple[float, float]


class _Piece(NamedTuple):
    """Part of a tensor: (N,) real dtype. `owner` is the position of the tensor among all."""

    owner: int
    values: torch.Tensor


@dataclass(frozen=True)
class _Survey:
    """What the first pass finds in a tensor; see Measured. `count` is the number of finite values."""

    count: int
    low: float
    high: float
    mean: float
    zeros: int
    nan: int
    inf: int

    @classmethod
    def joined(cls, size: int, pieces: list[list[float]]) -> _Survey:
        """Join what the kernel found in each piece of a tensor of `size` values."""
        lows, highs, sums, *counted = zip(*pieces, strict=True)
        zeros, nan, inf = (int(sum(column)) for column in counted)
        count, low, high = size - nan - inf, min(lows), max(highs)
        if not count:
            return cls(0, math.nan, math.nan, math.nan, zeros, nan, inf)
        return cls(count, low, high, low if low == high else sum(sums) / count, zeros, nan, inf)

    @property
    def edges(self) -> tuple[float, float]:
        """The range of the histogram, by numpy.histogram's rule."""
        if not self.count:
            return 0.0, 1.0
        return (self.low - 0.5, self.high + 0.5) if self.low == self.high else (self.low, self.high)


def measure(tensors: Sequence[torch.Tensor], threads: int | None = None) -> list[Measured]:
    """Measure many tensors.

    Args:
        tensors: each (any shape) real dtype, dense, on any device, finite or not. Not modified.
        threads: number of workers; None for one per core.

    Returns:
        A record for each.

    Formula:
        mean = sum / n; std = sqrt(sum((value - mean)^2) / (n - 1)); summed in float64.
        Bins as numpy.histogram(values.astype(float64), BINS) has them.
    """
    workers = threads or default_threads()
    backends.cpu_kernels("values")  # loads them, before workers start
    surveys: list[list[list[float]]] = [[] for _ in tensors]
    for piece, found in _run(lambda piece: _survey(piece.values), range(len(tensors)), tensors, workers):
        surveys[piece.owner].append(found)
    known = [_Survey.joined(tensor.numel(), found) for tensor, found in zip(tensors, surveys, strict=True)]

    squares = [0.0] * len(tensors)
    counts = [np.zeros(BINS, np.int64) for _ in tensors]
    edges = [bin_edges(*survey.edges) for survey in known]
    for owner, survey in enumerate(known):
        if survey.low == survey.high:
            counts[owner][_bin_of(survey.low, edges[owner])] = survey.count

    def spread(piece: _Piece) -> tuple[float, Any]:
        survey = known[piece.owner]
        return _spread(piece.values, survey.mean, edges[piece.owner], finite=not survey.nan + survey.inf)

    rest = [owner for owner, survey in enumerate(known) if survey.low < survey.high]
    for piece, (square, count) in _run(spread, rest, tensors, workers):
        squares[piece.owner] += square
        counts[piece.owner] += count
    return [_measured(*found) for found in zip(known, squares, counts, strict=True)]


def _measured(survey: _Survey, squares: float, counts: NDArray[np.int64]) -> Measured:
    std = math.sqrt(squares / max(1, survey.count - 1)) if survey.count else math.nan
    return Measured(
        survey.low, survey.high, survey.mean, std, survey.zeros, survey.nan, survey.inf, counts, survey.edges
    )


def bin_edges(low: float, high: float) -> NDArray[np.float64]:
    """Return the edges of BINS equal bins over [low, high], (BINS + 1,) float64: numpy.histogram's."""
    # numpy fails where the width overflows. Dividing both ends by 4 and the result by 1/4 is exact at that size.
    shrunk = 0.25 if math.isinf(high - low) else 1.0
    return np.linspace(low * shrunk, high * shrunk, BINS + 1) / shrunk


def _bin_of(value: float, edges: NDArray[np.float64]) -> int:
    """Return the bin of one value: the last bin whose lower edge is not above it."""
    return min(int(np.searchsorted(edges, value, side="right")), BINS) - 1


def _run(
    work: Callable[[_Piece], Result], owners: Sequence[int], tensors: Sequence[torch.Tensor], threads: int
) -> Iterator[tuple[_Piece, Result]]:
    """Work on all pieces of some tensors in parallel, and yield each with its result, in order."""
    turns = _turns(owners, tensors)
    for turn, results in zip(turns, in_order(lambda turn: [work(p) for p in turn], turns, threads), strict=True):
        yield from zip(turn, results, strict=True)


def _turns(owners: Sequence[int], tensors: Sequence[torch.Tensor]) -> list[list[_Piece]]:
    """Cut tensors into pieces, and collect pieces until a worker's turn has PIECE values."""
    import torch

    turns: list[list[_Piece]] = []
    room = 0
    for owner in owners:
        tensor = tensors[owner].detach()
        # In the order of memory, whatever the strides, so that a dense tensor is not copied.
        values = tensor.permute(sorted(range(tensor.ndim), key=tensor.stride, reverse=True)).reshape(-1)
        for part in torch.split(values, PIECE if tensor.device.type == "cpu" else DEVICE_PIECE):
            if not turns or len(part) > room:
                turns.append([])
                room = PIECE
            turns[-1].append(_Piece(owner, part))
            room -= len(part)
    return turns


def _widened(values: torch.Tensor) -> torch.Tensor:
    """Return values as the kernels take them: integers as float64, float32 and float64 as they are, others as float32.

    Values on a device without float64 are moved to the CPU.
    """
    import torch

    if values.device.type not in ("cpu", "cuda"):
        values = values.cpu()
    if values.dtype in (torch.float32, torch.float64):
        return values
    return values.to(torch.float32 if values.is_floating_point() or values.dtype == torch.bool else torch.float64)


def _cpu_kernels(values: torch.Tensor) -> ModuleType | None:
    """Return the kernels for values on the CPU; None for those on other devices, or where only torch works."""
    return backends.cpu_kernels("values") if values.device.type == "cpu" else None


def _survey(piece: torch.Tensor) -> list[float]:
    values = _widened(piece)
    if not len(values):
        return [math.inf, -math.inf, 0.0, 0.0, 0.0, 0.0]
    if kernels := _cpu_kernels(values):
        return list(map(float, kernels.survey(values.numpy())))
    from ..kernels import torch_values

    return list(map(float, torch_values.survey(values).tolist()))


def _spread(piece: torch.Tensor, mean: float, edges: NDArray[np.float64], finite: bool) -> tuple[float, Any]:
    import torch

    values = _widened(piece)
    if not finite:
        values = values[values.isfinite()]
    if (kernels := _cpu_kernels(values)) and _evenly_spaced(edges):
        return kernels.spread(values.numpy(), mean, edges)  # type: ignore[no-any-return]
    from ..kernels import torch_values

    squares, counts = torch_values.spread(values, mean, torch.from_numpy(edges))
    return squares, counts.cpu().numpy()


def _evenly_spaced(edges: NDArray[np.float64]) -> bool:
    """Return whether edges are spaced widely enough for bins to be found by arithmetic; see LEAST_SPAN."""
    low, high = float(edges[0]), float(edges[-1])
    span = high - low
    return max(abs(low), abs(high)) * LEAST_SPAN < span < math.inf and math.isfinite(BINS / span)
