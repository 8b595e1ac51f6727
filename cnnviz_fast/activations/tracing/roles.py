"""What each axis of a tensor holds: batch, channels, rows, columns, time, or several of these, one inside another.

An axis is a tuple of parts, the outermost first: the tokens of a ViT are (rows, columns), the windows of Swin (batch,
rows of windows, columns of windows). An axis of length 1 has no parts. What happens to axes when a tensor is reshaped,
resized, cut or added to another is written down here; which operation does what, in rules.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

# TAPS are the cells under a kernel, unfolded, what was pooled along rows of rows, and positions in another order, or of
# frequencies: no grid shows them. RESTORED are such whose order was changed once more: they may be in order again.
BATCH, CHANNELS, TIME, ROWS, COLUMNS, LENGTH, TAPS, RESTORED, UNKNOWN = "n", "c", "t", "h", "w", "l", "k", "r", "?"
PLACES = (TIME, ROWS, COLUMNS, LENGTH)

MOST_LOST = Fraction(1, 4)
"""Share of the image's rows or columns that may be cut off: with more, what is left is another picture."""


@dataclass(frozen=True)
class Part:
    """What an axis, or a factor of its length, holds.

    Attributes:
        kind: one of the letters above.
        size: number of entries.
        stride: of an outer part of rows or columns, such as the rows of windows: cells from one entry to the next.
        total: cells of all rows or columns of which this is a part; 0 for other kinds.
        shift: cells by which they have been rolled.
        flipped: whether they run backwards.
        before: cells of the image's first rows or columns that are cut off; negative where cells were added there.
        after: the same at the other end.
        scattered: whether neighbours are no neighbours in the image, since pieces were joined.
        prefix: tokens before the grid; only for a part that holds a grid.
        suffix: tokens behind it.
        grid: the parts of the grid, of tokens that have a prefix or a suffix; () for other parts.
    """

    kind: str
    size: int
    stride: int = 1
    total: int = 0
    shift: int = 0
    flipped: bool = False
    before: Fraction = Fraction(0)
    after: Fraction = Fraction(0)
    scattered: bool = False
    prefix: int = 0
    suffix: int = 0
    grid: tuple[Part, ...] = ()

    @property
    def runs(self) -> bool:
        """Whether it is all of the rows, columns or steps that are drawn, and not rolled or flipped."""
        return self.kind in PLACES and self.size * self.stride == self.total and not self.shift and not self.flipped

    @property
    def covers(self) -> bool:
        """Whether it runs over the whole image, in order, with its middle less than a cell from its place."""
        if not (self.before or self.after or self.scattered):
            return self.runs
        lost = self.before + self.after
        is_near = abs(self.before - self.after) < 2  # twice what the middle moves by
        return self.runs and not self.scattered and is_near and lost <= MOST_LOST * (self.total + lost)


Axis = tuple[Part, ...]
Roles = tuple[Axis, ...]
"""What each axis of a tensor holds."""


def whole(kind: str, size: int) -> Axis:
    """Return an axis that holds one thing."""
    return () if size == 1 and kind not in PLACES else (Part(kind, size, 1, size if kind in PLACES else 0),)


def length(axis: Axis) -> int:
    """Return the length of an axis."""
    return math.prod(part.size for part in axis)


def is_place(axis: Axis) -> bool:
    """Check whether an axis holds positions, all of them or some."""
    return any(part.kind in PLACES or part.grid for part in axis)


def regrouped(roles: Roles, shape: Sequence[int]) -> Roles:
    """Return the axes of a tensor that is viewed in another shape: parts are split and merged where it needs that."""
    parts = [part for axis in roles for part in axis if part.size > 1]
    found: list[Axis] = []
    for size in shape:
        axis: list[Part] = []
        missing = size
        while missing > 1 and parts:
            part = parts.pop(0)
            if missing % part.size == 0:
                missing //= part.size
            elif part.size % missing == 0 and not part.grid:
                inner = part.size // missing
                parts.insert(0, replace(part, size=inner))
                outer = part.stride * inner if part.kind in (BATCH, *PLACES) else 1
                part, missing = replace(part, size=missing, stride=outer), 1
            else:
                return tuple(whole(UNKNOWN, each) for each in shape)
            axis.append(part)
        found.append(_merged(axis))
    return tuple(found)


def _merged(parts: Iterable[Part]) -> Axis:
    """Merge neighbours that belong together: what was split before, and channels with channels."""
    done: list[Part] = []
    for part in parts:
        last = done[-1] if done else None
        if last is not None and last.kind == part.kind and not part.grid and not last.grid:
            same = replace(last, size=part.size, stride=part.stride) == part
            if last.kind in (CHANNELS, UNKNOWN, RESTORED) or (same and last.stride == part.stride * part.size):
                done[-1] = replace(part, size=last.size * part.size)
                continue
        done.append(part)
    return tuple(done)


def rolled(axis: Axis, amount: int) -> Axis:
    """Return an axis whose entries were moved round by an amount."""
    if any(part.scattered for part in axis):
        return axis
    if len(axis) == 1 and axis[0].kind in PLACES:
        return (replace(axis[0], shift=(axis[0].shift + amount) % axis[0].size),)
    return axis if all(part.kind == CHANNELS for part in axis) else whole(UNKNOWN, length(axis))


def flipped(axis: Axis) -> Axis:
    """Return an axis that runs backwards."""
    if all(part.kind in (CHANNELS, *PLACES) for part in axis):
        return tuple(replace(p, flipped=not p.flipped) if p.kind in PLACES and not p.scattered else p for p in axis)
    return whole(UNKNOWN, length(axis))
