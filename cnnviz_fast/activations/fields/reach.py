"""What the axes of a tensor hold of the rows and columns of maps, and which part of the input those depend on.

An axis is a list of digits, the outermost first, as the digits of a number: an axis of 7 x 7 tokens has one of rows and
one of columns; one of channels has a plain digit. So reshapes only deal digits out anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .lines import Line, Reads, hull, read, repeated, shifted, union

KINDS = ("rows", "columns")


class Whole(Exception):
    """Raised by a rule where what an operation puts out may depend on the whole input, with the reason."""


class Digit(NamedTuple):
    """A part of an axis.

    size: number of its values.
    kind: 0 for rows, 1 for columns; None for what is no position: channels, images, cells within a patch.
    line: which input rows (or columns) each depends on; None for what is no position.
    """

    size: int
    kind: int | None = None
    line: Line | None = None


Axis = tuple[Digit, ...]


@dataclass(frozen=True)
class Reach:
    """Which part of the input a tensor depends on.

    Attributes:
        axes: what each axis holds; () for an axis of length 1.
        reasons: why it may depend on the whole input; () where it does not.
        joined: of what was joined along an axis without positions, such as the channels of branches, that axis, and the
            size and the reach of each part, until an operation mixes them; None for other tensors.
    """

    axes: tuple[Axis, ...]
    reasons: tuple[str, ...] = ()
    joined: tuple[int, tuple[tuple[int, Reach], ...]] | None = None

    def kinds(self, dim: int) -> set[int]:
        """Return which positions an axis holds."""
        return {digit.kind for digit in self.axes[dim] if digit.kind is not None}

    def holds_positions(self) -> bool:
        """Check whether any axis does."""
        return any(self.kinds(dim) for dim in range(len(self.axes)))

    def with_axis(self, dim: int, axis: Axis) -> Reach:
        """Return it with another axis."""
        return Reach((*self.axes[:dim], axis, *self.axes[dim + 1 :]), self.reasons)

    def without_axis(self, dim: int) -> Reach:
        """Return it without an axis, which holds no positions."""
        return Reach((*self.axes[:dim], *self.axes[dim + 1 :]), self.reasons)

    def cut(self, dim: int, start: int, step: int, size: int) -> Reach:
        """Return it with some entries of an axis; of what was joined along it only the parts that they are of count.

        Args:
            dim: the axis.
            start: the first of them.
            step: entries from one to the next.
            size: their number.

        Returns:
            The reach.

        Raises:
            Whole: the axis holds positions of several kinds.
        """
        if (start, step, size) == (0, 1, length(self.axes[dim])):
            return self  # torch 2.6 cuts each axis of x[:, :4]
        if self.joined is None or self.joined[0] != dim:
            return self.reading(dim, shifted(start, step), size, "a cut")
        taken, at, stop = [], 0, start + (size - 1) * step + 1
        for count, reach in self.joined[1]:
            if at < stop and start < at + count:
                taken.append(reach.with_axis(dim, plain(size)))
            at += count
        return combined(taken, [length(axis) for axis in self.with_axis(dim, plain(size)).axes])

    def reading(self, dim: int, reads: Reads, size: int, what: str) -> Reach:
        """Return it with an axis of which new positions read old ones.

        Args:
            dim: the axis.
            reads: which ones.
            size: number of new positions.
            what: the operation, for the reason.

        Returns:
            The reach; a plain axis has the new size.

        Raises:
            Whole: the axis holds rows and columns, or positions of parts.
        """
        axis = self.axes[dim]
        if not self.kinds(dim):
            return self.with_axis(dim, plain(size))
        if len(axis) != 1:
            if reads == Reads((0,), (0,), 1) and length(axis) == size:
                return self
            raise Whole(f"{what} along tokens")
        (digit,) = axis
        assert digit.line is not None  # it holds positions
        return self.with_axis(dim, (Digit(size, digit.kind, read(digit.line, reads)),))


def plain(size: int) -> Axis:
    """Return an axis without positions."""
    return () if size == 1 else (Digit(size),)


def plain_reach(shape: Sequence[int]) -> Reach:
    """Return the reach of a tensor that came from no input."""
    return Reach(tuple(plain(size) for size in shape))


def length(axis: Axis) -> int:
    """Return the number of entries of an axis."""
    return math.prod(digit.size for digit in axis)


def words(kinds: set[int]) -> str:
    """Return `rows and columns`, or which of the two."""
    return " and ".join(KINDS[kind] for kind in sorted(kinds))


def joined(digits: Sequence[Digit]) -> Axis:
    """Return digits that share an axis as few: what follows a position within it makes it a finer one."""
    axis: list[Digit] = []
    for digit in digits:
        before = axis[-1] if axis else None
        if digit.kind is None and digit.size == 1:
            continue
        if before is not None and digit.kind is None:
            line = before.line and read(before.line, repeated(digit.size))
            axis[-1] = Digit(before.size * digit.size, before.kind, line)
        else:
            axis.append(digit)
    return tuple(axis)


def regrouped(axes: Sequence[Axis], shape: Sequence[int]) -> tuple[Axis, ...]:
    """Deal the digits of axes out to those of another shape, in order, as a reshape does.

    Where rows are cut into windows, all cells of a window count as depending on what any of them does.

    Args:
        axes: before the reshape.
        shape: after it.

    Returns:
        The axes after it.

    Raises:
        Whole: a new axis would begin within a row.
    """
    left = [digit for axis in axes for digit in axis]
    dealt: list[list[Digit]] = []
    for size in shape:
        taken: list[Digit] = []
        missing = size
        if size == 1 and left and left[0].size == 1:  # a map of a single row keeps its axis
            taken.append(left.pop(0))
        while missing > 1:
            if not left:
                raise Whole("a reshape of positions")
            outer, rest = _cut(left.pop(0), missing)
            left[:0] = [] if rest is None else [rest]
            missing //= outer.size
            taken.append(outer)
        dealt.append(taken)
    if left:
        if any(digit.size > 1 for digit in left) or not dealt:
            raise Whole("a reshape of positions")
        dealt[-1] += left
    return tuple(map(joined, dealt))


def _cut(digit: Digit, wanted: int) -> tuple[Digit, Digit | None]:
    """Return a digit, or its outer part of the size wanted and the inner rest."""
    if wanted % digit.size == 0:
        return digit, None
    if digit.size % wanted:
        raise Whole("a reshape that cuts across rows")
    inner = digit.size // wanted
    line = digit.line and read(digit.line, hull(inner))
    return Digit(wanted, digit.kind, line), Digit(inner)


def combined(reaches: Sequence[Reach], shape: Sequence[int]) -> Reach:
    """Return the reach of what is made entry by entry out of tensors, broadcast to a shape: their union.

    Raises:
        Whole: their positions cannot be brought together.
    """
    axes: list[Axis] = [plain(size) for size in shape]
    for reach in reaches:
        for at, axis in enumerate(reach.axes, len(shape) - len(reach.axes)):
            axes[at] = _both(axes[at], axis, shape[at])
    return Reach(tuple(axes))


def _both(a: Axis, b: Axis, size: int) -> Axis:
    """Return the union of two axes, each of this size or of 1."""
    if a == b or all(digit.kind is None for digit in b):
        return a
    if all(digit.kind is None for digit in a):
        if length(b) == size:
            return b
        raise Whole(f"{words({d.kind for d in b if d.kind is not None})} of length 1 that are spread over others")
    if len(a) != len(b) or any(x[:2] != y[:2] for x, y in zip(a, b, strict=True)):
        raise Whole("positions of different kinds that are taken together")
    return tuple(_union(x, y) for x, y in zip(a, b, strict=True))


def _union(a: Digit, b: Digit) -> Digit:
    if a.line is None or b.line is None:
        return a
    line = union(a.line, b.line, a.size)
    if line is None:
        raise Whole("maps of different strides that are taken together")
    return Digit(a.size, a.kind, line)
