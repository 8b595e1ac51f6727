"""Pieces of rows and columns: what is left of an axis that is cut, what joined pieces make, and other sizes.

A piece knows how many cells of the image are missing at its ends (`Part.before` and `after`), so that it is known to be
whole again where it is joined with what it was cut from, or loses what was added to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from .roles import CHANNELS, PLACES, TAPS, UNKNOWN, Axis, Part, is_place, length, whole


def resized(axis: Axis, size: int) -> Axis:
    """Return an axis after pooling, a convolution or an interpolation along it."""
    if len(axis) == 2 and axis[0].kind in PLACES and axis[1].kind == CHANNELS:
        # Channels moved into space, as pixel_shuffle does.
        moved, many = axis[:1], length(axis)
        axis = (scaled(moved[0], many),) if moved[0].runs else scattered(moved, many)
    if length(axis) == size:
        return axis
    if not axis or all(part.kind == CHANNELS for part in axis):
        return whole(CHANNELS, size)
    if all(part.kind == TAPS for part in axis):
        return whole(TAPS, size)
    if len(axis) > 1 and is_place(axis):
        return whole(TAPS, size)  # neighbours in such a row are no neighbours in the image
    if len(axis) == 1 and axis[0].runs:
        return (scaled(axis[0], size),)
    if len(axis) == 1 and axis[0].kind in PLACES and axis[0].size % size == 0:
        return (replace(axis[0], size=size, stride=axis[0].stride * (axis[0].size // size)),)  # pooled inside windows
    return whole(UNKNOWN, size)


def scaled(part: Part, size: int) -> Part:
    """Return rows or columns of another number of cells, over the same piece of the image."""
    ratio = Fraction(size, part.total)
    return replace(part, size=size, stride=1, total=size, before=part.before * ratio, after=part.after * ratio)


def grown(axis: Axis, before: int, after: int) -> Axis:
    """Return an axis to whose ends cells were added, or from which they were cut off where the numbers are negative."""
    size = length(axis) + before + after
    if len(axis) > 1 and is_place(axis):
        return joined_tokens(axis, before, after)
    if len(axis) == 1 and axis[0].runs:
        part = scaled(axis[0], axis[0].size)
        return (replace(part, size=size, total=size, before=part.before - before, after=part.after - after),)
    return resized(axis, size)


def scattered(axis: Axis, size: int) -> Axis:
    """Return an axis of pieces that lie side by side as they do not in the image: drawn, but at no place in it."""
    if len(axis) == 1 and axis[0].kind in PLACES:
        is_part = axis[0].size * axis[0].stride < axis[0].total  # others are elsewhere, and may be put beside it again
        return whole(UNKNOWN, size) if is_part else (Part(axis[0].kind, size, total=size, scattered=True),)
    return whole(TAPS if is_place(axis) else UNKNOWN, size)


def cut(axis: Axis, start: int, stop: int, step: int = 1) -> Axis:
    """Return an axis of which only some entries are left.

    Args:
        axis: what it holds.
        start: the first entry.
        stop: the one behind the last.
        step: from one entry to the next.

    Returns:
        What is left: of rows and columns a piece that knows where it was.
    """
    size, old = len(range(start, stop, step)), length(axis)
    if size == old:
        return axis
    if not axis or all(part.kind == CHANNELS for part in axis):
        return whole(CHANNELS, size)
    only = axis[0] if len(axis) == 1 else None
    if only is not None and only.grid and step == 1:
        return _cut_tokens(only, start, stop)
    if only is not None and only.runs and size:
        end = min(start + size * step, old)
        (piece,) = grown(axis, -start, end - old)
        return (scaled(piece, size),)
    if len(axis) > 1 and is_place(axis):
        return _cut_rows(axis, start, stop) if step == 1 else whole(TAPS, size)
    return scattered(axis, size)


def _cut_rows(axis: Axis, start: int, stop: int) -> Axis:
    """Cut tokens without a prefix: between two rows, the rest is a grid again."""
    inner = length(axis[1:])
    if axis[0].runs and not start % inner and not stop % inner and stop > start:
        return (*cut(axis[:1], start // inner, stop // inner), *axis[1:])
    return whole(TAPS, stop - start)


def _cut_tokens(part: Part, start: int, stop: int) -> Axis:
    """Cut tokens that have a prefix or a suffix."""
    before, after = part.prefix - start, part.suffix - (part.size - stop)
    if before >= 0 and after >= 0:
        return joined_tokens(part.grid, before, after)
    if stop <= part.prefix or start >= part.size - part.suffix:
        return whole(CHANNELS, stop - start)
    return whole(TAPS, stop - start)


def joined(axes: Sequence[Axis], sizes: Sequence[int]) -> Axis:
    """Return rows or columns that were joined end to end: whole again where each goes on where the last one ended.

    Args:
        axes: of each tensor, () for one that came from no input or holds no places.
        sizes: their lengths.

    Returns:
        The axis; places in no order where pieces were left out, came twice or in another order.
    """
    at = [index for index, axis in enumerate(axes) if axis]
    parts = [axes[index][0] for index in at]
    first, last, total = parts[0], parts[-1], sum(sizes)
    inside = slice(at[0], at[-1] + 1)
    are_pieces = all(part.runs and not part.scattered for part in parts) and all(axes[inside])
    if not are_pieces or not all(map(_goes_on, parts, parts[1:])):
        return scattered(axes[at[0]], total)
    row = (replace(first, size=sum(sizes[inside]), stride=1, total=sum(sizes[inside]), after=last.after),)
    return grown(row, sum(sizes[: at[0]]), sum(sizes[at[-1] + 1 :]))


def _goes_on(first: Part, second: Part) -> bool:
    """Check whether a piece of the same rows or columns begins where another ends."""
    expected = (first.kind, first.before + first.size, first.after - second.size)
    return expected == (second.kind, second.before, second.after)


def joined_tokens(grid: Axis, prefix: int, suffix: int) -> Axis:
    """Return the axis of a grid of tokens between other tokens."""
    if not prefix and not suffix:
        return grid
    return (Part("tokens", length(grid) + prefix + suffix, prefix=prefix, suffix=suffix, grid=grid),)
