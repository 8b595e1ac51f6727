"""What each axis of a tensor holds: batch, channels, rows, columns, time, or several of these, one inside another.

An axis is a tuple of parts, the outermost first: the tokens of a ViT are (rows, columns), the windows of Swin (batch,
rows of windows, columns of windows). An axis of length 1 has no parts. What happens to axes when a tensor is reshaped,
resized, cut or added to another is written down here; which operation does what, in rules.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

# TAPS are the cells under a kernel, unfolded, what was pooled along rows of rows, and positions in another order, or of
# frequencies: no grid shows them.
BATCH, CHANNELS, TIME, ROWS, COLUMNS, TAPS, UNKNOWN = "n", "c", "t", "h", "w", "k", "?"
PLACES = (TIME, ROWS, COLUMNS)


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
        padding: cells that were added at the ends and may be cut off again.
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
    padding: int = 0
    prefix: int = 0
    suffix: int = 0
    grid: tuple[Part, ...] = ()

    @property
    def covers(self) -> bool:
        """Whether it runs over the whole image, in order."""
        return self.kind in PLACES and self.size * self.stride == self.total and not self.shift and not self.flipped


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


def resized(axis: Axis, size: int, padding: int = 0) -> Axis:
    """Return an axis after pooling, a convolution or an interpolation along it."""
    if len(axis) == 2 and axis[0].kind in PLACES and axis[1].kind == CHANNELS:
        axis = whole(axis[0].kind, length(axis))  # channels moved into space, as pixel_shuffle does
    if length(axis) == size and not padding:
        return axis
    if not axis or all(part.kind == CHANNELS for part in axis):
        return whole(CHANNELS, size)
    if all(part.kind == TAPS for part in axis):
        return whole(TAPS, size)
    if len(axis) > 1 and is_place(axis):
        return whole(TAPS, size)  # neighbours in such a row are no neighbours in the image
    if len(axis) == 1 and axis[0].covers:
        return (replace(axis[0], size=size, stride=1, total=size, padding=max(0, axis[0].padding + padding)),)
    if len(axis) == 1 and axis[0].kind in PLACES and axis[0].size % size == 0:
        return (replace(axis[0], size=size, stride=axis[0].stride * (axis[0].size // size)),)  # pooled inside windows
    return whole(UNKNOWN, size)


def cut(axis: Axis, start: int, stop: int, step: int = 1) -> Axis:
    """Return an axis of which only some entries are left.

    Args:
        axis: what it holds.
        start: the first entry.
        stop: the one behind the last.
        step: from one entry to the next.

    Returns:
        What is left: the same thing, unless so much is cut off that it is not the whole image any more.
    """
    size, old = len(range(start, stop, step)), length(axis)
    if size == old:
        return axis
    if not axis or all(part.kind == CHANNELS for part in axis):
        return whole(CHANNELS, size)
    only = axis[0] if len(axis) == 1 else None
    if only is not None and only.grid and step == 1:
        return _cut_tokens(only, start, stop)
    if only is not None and only.kind in PLACES and only.covers:
        lost = old - size
        if step > 1 and size >= old // step:
            return whole(only.kind, size)
        # More than padding, and more than a rim, is another picture.
        if step == 1 and lost <= only.padding + old // 4:
            left = max(0, only.padding - lost)
            return (replace(only, size=size, stride=1, total=size, padding=left),)
    return whole(UNKNOWN, size)


def _cut_tokens(part: Part, start: int, stop: int) -> Axis:
    """Cut tokens that have a prefix or a suffix."""
    before, after = part.prefix - start, part.suffix - (part.size - stop)
    if before >= 0 and after >= 0:
        return joined_tokens(part.grid, before, after)
    if stop <= part.prefix or start >= part.size - part.suffix:
        return whole(CHANNELS, stop - start)
    return whole(UNKNOWN, stop - start)


def joined_tokens(grid: Axis, prefix: int, suffix: int) -> Axis:
    """Return the axis of a grid of tokens between other tokens."""
    if not prefix and not suffix:
        return grid
    return (Part("tokens", length(grid) + prefix + suffix, prefix=prefix, suffix=suffix, grid=grid),)


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
            same = (last.total, last.shift, last.flipped) == (part.total, part.shift, part.flipped)
            if last.kind in (CHANNELS, UNKNOWN) or (same and last.stride == part.stride * part.size):
                done[-1] = replace(part, size=last.size * part.size, padding=max(last.padding, part.padding))
                continue
        done.append(part)
    return tuple(done)


def combined(first: Axis, second: Axis) -> Axis:
    """Return what an axis of a sum holds, from the axes of what is added: positions count before everything else."""
    if first == second or not second:
        return first
    if not first:
        return second
    size = length(first)
    if size != length(second):
        return whole(UNKNOWN, max(size, length(second)))
    if [(part.kind, part.size) for part in first] == [(part.kind, part.size) for part in second]:
        ordered = _rank(first) == _rank(second) == _IN_ORDER
        # What was cut into windows knows more than what was resized to as many cells.
        return max(first, second, key=_cells) if ordered else whole(UNKNOWN, size)
    ranks = _rank(first), _rank(second)
    if ranks[0] != ranks[1]:
        better, other = (first, second) if ranks[0] > ranks[1] else (second, first)
        mixed = is_place(better) and any(part.kind == BATCH for part in other)
        return whole(UNKNOWN, size) if mixed else better
    return whole(UNKNOWN, size)


_IN_ORDER = 3


def _rank(axis: Axis) -> int:
    """Return how much an axis says: all positions in order, some positions, channels or images, nothing."""
    if is_place(axis):
        parts = [part for one in axis for part in one.grid or (one,) if part.kind in PLACES]
        once = len({part.kind for part in parts}) == len(parts)
        return _IN_ORDER if once and all(part.covers for part in parts) else 2
    return 0 if any(part.kind in (UNKNOWN, TAPS) for part in axis) else 1


def _cells(axis: Axis) -> int:
    """Return the number of cells over which the positions of an axis were counted."""
    return sum(part.total for part in axis)


def rolled(axis: Axis, amount: int) -> Axis:
    """Return an axis whose entries were moved round by an amount."""
    if len(axis) == 1 and axis[0].kind in PLACES:
        return (replace(axis[0], shift=(axis[0].shift + amount) % axis[0].size),)
    return axis if all(part.kind == CHANNELS for part in axis) else whole(UNKNOWN, length(axis))


def flipped(axis: Axis) -> Axis:
    """Return an axis that runs backwards."""
    if all(part.kind in (CHANNELS, *PLACES) for part in axis):
        return tuple(replace(p, flipped=not p.flipped) if p.kind in PLACES else p for p in axis)
    return whole(UNKNOWN, length(axis))


def broadcast(all_roles: Iterable[Roles], ndim: int) -> Roles:
    """Return the axes of what an elementwise operation puts out: axes are matched from the last one on."""
    result: list[Axis] = [()] * ndim
    for roles in all_roles:
        for back, axis in enumerate(reversed(roles), 1):
            if back <= ndim:
                result[-back] = combined(result[-back], axis)
    return tuple(result)
