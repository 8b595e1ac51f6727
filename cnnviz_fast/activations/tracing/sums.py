"""What axes hold of tensors that are added to each other, or lie one behind another."""

from __future__ import annotations

from collections.abc import Iterable

from .pieces import scattered
from .roles import BATCH, PLACES, RESTORED, TAPS, UNKNOWN, Axis, Roles, is_place, length, whole

_IN_ORDER = 3


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
        if _rank(first) == _rank(second) == _IN_ORDER:
            # What was cut into windows knows more than what was resized to as many cells.
            return max(first, second, key=_cells)
        if _rank(first) == _rank(second) and first[0].runs and second[0].runs:
            return scattered(first, size)
    ranks = _rank(first), _rank(second)
    if ranks[0] != ranks[1]:
        better, other = (first, second) if ranks[0] > ranks[1] else (second, first)
        mixed = is_place(better) and any(part.kind == BATCH for part in other)
        return whole(UNKNOWN, size) if mixed else better
    return whole(UNKNOWN, size)


def _rank(axis: Axis) -> int:
    """Return how much an axis says: all positions in order, some positions, channels or images, nothing."""
    if is_place(axis):
        parts = [part for one in axis for part in one.grid or (one,) if part.kind in PLACES]
        once = len({part.kind for part in parts}) == len(parts)
        return _IN_ORDER if once and all(part.covers for part in parts) else 2
    return 0 if any(part.kind in (UNKNOWN, RESTORED, TAPS) for part in axis) else 1


def _cells(axis: Axis) -> int:
    """Return the number of cells over which the positions of an axis were counted."""
    return sum(part.total for part in axis)


def broadcast(all_roles: Iterable[Roles], ndim: int) -> Roles:
    """Return the axes of what an elementwise operation puts out: axes are matched from the last one on."""
    result: list[Axis] = [()] * ndim
    for roles in all_roles:
        for back, axis in enumerate(reversed(roles), 1):
            if back <= ndim:
                result[-back] = combined(result[-back], axis)
    return tuple(result)


def alongside(all_roles: Iterable[Roles], ndim: int) -> Roles:
    """Return the axes of maps that lie one behind another: they are at their places if all of them are."""
    known = list(all_roles)
    found = broadcast(known, ndim)
    return tuple(
        scattered(axis, length(axis)) if any(_is_aside(roles[at], axis) for roles in known) else axis
        for at, axis in enumerate(found)
    )


def _is_aside(axis: Axis, found: Axis) -> bool:
    """Check whether an axis holds places elsewhere than those that were found."""
    lost = any(part.kind == TAPS for part in axis) or (is_place(axis) and _rank(axis) < _IN_ORDER)
    return lost and _rank(found) == _IN_ORDER
