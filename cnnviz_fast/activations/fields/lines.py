"""Which positions of the input each position of an axis depends on, as intervals that repeat.

Position i of a map reads input rows first[i] to last[i]. One period further on it reads the same, `shift` rows further
on: a convolution of stride 2 has period 1 and shift 2, what was enlarged twofold from it period 2 and shift 2. So a few
numbers stand for an axis of any length, and positions beyond its ends, which padding reads, have an interval too. What
convolution, pooling, resizing and cuts do to it is one thing: each new position reads a range of old ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_LONGEST_PERIOD = 1 << 16
"""Lines whose periods have no common multiple below it are joined over the axis alone."""


class Reads(NamedTuple):
    """Which old positions new ones read: position i those from first[i] to last[i], both included.

    One period, `len(first)`, further on, new positions read the same, `advance` old positions further on.
    """

    first: tuple[int, ...]
    last: tuple[int, ...]
    advance: int


@dataclass(frozen=True)
class Line:
    """Intervals of input positions for the positions of an axis.

    Attributes:
        first: (period,) the first input position that each depends on.
        last: (period,) the last one, included.
        shift: input positions by which intervals move from one period to the next.
    """

    first: tuple[int, ...] = (0,)
    last: tuple[int, ...] = (0,)
    shift: int = 1

    @property
    def period(self) -> int:
        """Number of positions after which intervals repeat."""
        return len(self.first)

    @property
    def stride(self) -> float:
        """Input positions between neighbours, on average."""
        return self.shift / self.period

    def at(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the intervals of positions, which may lie beyond the ends of the axis.

        Args:
            positions: (n) int64. Which ones.

        Returns:
            Two (n) int64: the first and the last input positions.
        """
        periods, phase = np.divmod(positions, self.period)
        moved = periods * self.shift
        return np.array(self.first)[phase] + moved, np.array(self.last)[phase] + moved

    def box(self) -> tuple[float, float]:
        """Return how far before and behind `stride * i` the smallest box reaches that holds the interval of any i."""
        even = self.stride * np.arange(self.period)
        return float(np.max(even - self.first)), float(np.max(self.last - even))


@lru_cache(maxsize=1 << 14)
def read(line: Line, reads: Reads) -> Line:
    """Return the line of new positions that read ranges of old ones.

    Args:
        line: of the old positions. Its intervals do not move back and forth, so those at the ends of a range bound it.
        reads: which old positions the new ones read.

    Returns:
        The line, of the shortest period.
    """
    repeats = line.period // math.gcd(line.period, reads.advance)
    moved = np.arange(repeats, dtype=np.int64)[:, None] * reads.advance
    ends = (line.at((np.array(end, np.int64) + moved).ravel()) for end in (reads.first, reads.last))
    (first_a, last_a), (first_b, last_b) = ends
    shift = line.shift * (repeats * reads.advance // line.period)
    return _shortest(np.minimum(first_a, first_b), np.maximum(last_a, last_b), shift)


@lru_cache(maxsize=1 << 14)
def union(a: Line, b: Line, size: int) -> Line | None:
    """Return the line of positions that depend on what either line says.

    Args:
        a: a line.
        b: another one.
        size: number of positions of the axis.

    Returns:
        The line; None where the two move apart, so that no stride holds for both.
    """
    if a == b:
        return a
    if a.shift * b.period == b.shift * a.period:
        period = math.lcm(a.period, b.period)
        shift = a.shift * (period // a.period)
    else:
        # Maps of 13 and 7 rows, brought to one size, lie on grids that differ by a fraction of a step.
        if abs(a.stride - b.stride) * size > 2 * max(abs(a.stride), abs(b.stride)):
            return None
        period = size
        shift = round(max(a.stride, b.stride) * size)
    if period > _LONGEST_PERIOD:
        return None
    positions = np.arange(period, dtype=np.int64)
    (first_a, last_a), (first_b, last_b) = a.at(positions), b.at(positions)
    return _shortest(np.minimum(first_a, first_b), np.maximum(last_a, last_b), shift)


def _shortest(first: NDArray[np.int64], last: NDArray[np.int64], shift: int) -> Line:
    """Return a line of the shortest period that has these intervals."""
    period = len(first)
    for shorter in (p for p in range(1, period) if period % p == 0 and shift * p % period == 0):
        moved = shift * shorter // period
        if all(np.array_equal(end[shorter:], end[:-shorter] + moved) for end in (first, last)):
            return Line(tuple(first[:shorter].tolist()), tuple(last[:shorter].tolist()), moved)
    return Line(tuple(first.tolist()), tuple(last.tolist()), shift)


def window(kernel: int, stride: int, padding: int, dilation: int = 1) -> Reads:
    """Return what the units of a convolution or pooling read along an axis.

    Args:
        kernel: its length.
        stride: positions between units.
        padding: positions before the first.
        dilation: positions between the taps of the kernel.

    Returns:
        The reads: the range from the first tap to the last, with the holes of a dilated kernel.
    """
    return Reads((-padding,), (-padding + dilation * (kernel - 1),), stride)


def shifted(start: int, step: int = 1) -> Reads:
    """Return what positions read that begin at an old one, and go on in steps."""
    return Reads((start,), (start,), step)


def spread(kernel: int, stride: int, padding: int, dilation: int = 1) -> Reads:
    """Return what the units of a transposed convolution read along an axis.

    Args:
        kernel: its length.
        stride: units between those of neighbouring positions.
        padding: units that are left out at the beginning.
        dilation: units between the taps of the kernel.

    Returns:
        The reads, which differ between phases: units that lie otherwise to the positions read.

    Formula:
        Unit i reads all j with i = j * stride - padding + k * dilation for a k from 0 to kernel - 1. Where there is
        none, as between the taps of a kernel shorter than the stride, the nearest j before it stands for that.
    """
    first, last = [], []
    for phase in range(stride):
        taps = (phase + padding - k * dilation for k in range(kernel))
        found = [tap // stride for tap in taps if tap % stride == 0] or [(phase + padding) // stride]
        first.append(min(found))
        last.append(max(found))
    return Reads(tuple(first), tuple(last), 1)


def adaptive(size: int, out: int) -> Reads:
    """Return what the cells of adaptive pooling from `size` to `out` positions read: torch's start and end indices."""
    common = math.gcd(size, out)
    cells = range(out // common)
    return Reads(
        tuple(i * size // out for i in cells), tuple(-(-(i + 1) * size // out) - 1 for i in cells), size // common
    )


def resampled(size: int, out: int, kind: str, scale: float | None, align_corners: bool) -> Reads:
    """Return what an axis reads that was resized from `size` to `out` positions.

    Args:
        size: positions before.
        out: positions after.
        kind: nearest, nearest_exact, linear, bicubic, or linear_aa and bicubic_aa with antialiasing.
        scale: the factor that torch was given in place of the ratio of sizes; None where it computes it.
        align_corners: whether the first and the last positions lie at the same place.

    Returns:
        The reads, beyond the ends as if the axis went on there.

    Source:
        torch's area_pixel_compute_source_index and its antialiased weights (aten/src/ATen/native/UpSample.h).
    """
    from fractions import Fraction

    if align_corners and out > 1:
        step = Fraction(size - 1, out - 1)
    else:
        step = Fraction(size, out) if scale is None else 1 / Fraction(scale).limit_denominator(1 << 12)
    half = Fraction(1, 2)
    ranges = []
    # Steps of 0, of a single position, repeat after one.
    for i in range(step.denominator):
        at = i * step if align_corners else (i + half) * step - half
        if kind == "nearest":
            ranges.append((math.floor(i * step),) * 2)
        elif kind == "nearest_exact":
            ranges.append((math.floor((i + half) * step),) * 2)
        elif kind.endswith("_aa"):
            reach = max(step, Fraction(1)) * (2 if kind == "bicubic_aa" else 1)
            centre = at + half
            ranges.append((_truncated(centre - reach + half), _truncated(centre + reach + half) - 1))
        else:
            before, behind = (1, 2) if kind == "bicubic" else (0, 1)
            base = math.floor(at)
            is_between = base != at  # else all weight lies on the one position
            ranges.append((base - before * is_between, base + behind * is_between))
    first, last = zip(*ranges, strict=True)
    return Reads(tuple(first), tuple(last), step.numerator)


def _truncated(place: object) -> int:
    return math.floor(place)  # type: ignore[call-overload, no-any-return]


def hull(count: int) -> Reads:
    """Return what positions read that stand for `count` old ones each."""
    return Reads((0,), (count - 1,), count)


def repeated(count: int) -> Reads:
    """Return what positions read of which `count` stand for each old one."""
    return Reads((0,) * count, (0,) * count, 1)
