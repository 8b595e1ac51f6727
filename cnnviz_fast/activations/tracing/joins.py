"""What operations that join tensors, or add to their ends, do to axes: concatenation, stacking and padding.

Pieces of rows and columns know where they were cut from (`Part.before`), so what was cut and is joined again in order
is known to be whole. A tensor of which one row or step was selected remembers which, for the same reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .moves import dim_of, replaced, roles_of
from .pieces import cut, grown, joined, joined_tokens, scattered
from .roles import CHANNELS, PLACES, TAPS, UNKNOWN, Axis, Part, is_place, length, whole
from .sums import alongside

if TYPE_CHECKING:
    import torch

    from .moves import Found

_ATTRIBUTE = "_cnnviz_entry"


class Entry(NamedTuple):
    """The row, column or step that was selected out of a tensor; what is computed from it alone keeps it.

    part: the axis that it was on.
    at: its number; None for what was computed from several of them.
    """

    part: Part
    at: int | None


def entry_of(value: Any) -> Entry | None:
    """Return the entry that a tensor was made from."""
    found: Entry | None = getattr(value, _ATTRIBUTE, None)
    return found


def keep_entries(tensors: Sequence[Any], outputs: Sequence[torch.Tensor]) -> None:
    """Note on outputs from which entry the tensors that an operation took were."""
    entries = dict.fromkeys(entry for tensor in tensors if (entry := entry_of(tensor)))
    if not entries:
        return
    first = next(iter(entries))
    for output in outputs:
        kinds = {part.kind for axis in roles_of(output) or () for part in axis}
        if first.part.kind not in kinds:
            setattr(output, _ATTRIBUTE, first if len(entries) == 1 else Entry(first.part, None))


def selected(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Drop an axis of which one entry is left."""
    roles = roles_of(args[0]) or ()
    given = args[2] if len(args) > 2 else None
    dim = dim_of(args, 1, len(roles))
    axis = roles[dim]
    if len(axis) == 1 and axis[0].runs:
        for count, output in enumerate(outputs):
            at = count if given is None else int(given) % axis[0].size
            setattr(output, _ATTRIBUTE, Entry(axis[0], at))
    return [(*roles[:dim], *roles[dim + 1 :])] * len(outputs)


def concatenated(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Join tensors along an axis."""
    tensors = [tensor for tensor in args[0] if tensor.numel()]
    dim = dim_of(args, 1, outputs[0].ndim)
    known = [roles_of(tensor) for tensor in tensors]
    found = alongside([replaced(roles, dim, ()) for roles in known if roles], outputs[0].ndim)
    axes = [roles[dim] if roles else () for roles in known]
    sizes = [tensor.shape[dim] for tensor in tensors]
    row = _row_of(axes, sizes) if any(axes) or set(sizes) != {1} else _row_of_entries(tensors)
    return [replaced(found, dim, row)]


def _row_of(axes: list[Axis], sizes: list[int]) -> Axis:
    """Return the axis along which tensors were concatenated: channels, rows, or a grid of tokens between others."""
    total = sum(sizes)
    places = [index for index, axis in enumerate(axes) if is_place(axis)]
    if not places:
        channels = all(part.kind == CHANNELS for axis in axes for part in axis)
        return whole(CHANNELS if channels else UNKNOWN, total)
    if all(len(axes[at]) == 1 and axes[at][0].kind in PLACES for at in places):
        return joined([axis if is_place(axis) else () for axis in axes], sizes)
    if len(places) > 1:
        return _grid_of_pieces(axes) or whole(TAPS, total)  # a pyramid
    (at,) = places
    only = axes[at][0]
    grid, prefix, suffix = (only.grid, only.prefix, only.suffix) if only.grid else (axes[at], 0, 0)
    return joined_tokens(grid, sum(sizes[:at]) + prefix, suffix + sum(sizes[at + 1 :]))


def _grid_of_pieces(axes: list[Axis]) -> Axis:
    """Return the grid of which tokens were cut between two rows, if these are all in order; () if not."""
    columns = axes[0][1:]
    if not columns or any(not axis or axis[1:] != columns for axis in axes):
        return ()
    rows = joined([axis[:1] for axis in axes], [axis[0].size for axis in axes])
    return () if rows[0].scattered else (*rows, *columns)


def stacked(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Join tensors along a new axis: channels, or rows that were selected before."""
    tensors, ndim = args[0], outputs[0].ndim
    dim = dim_of(args, 1, ndim)
    found = alongside([roles for tensor in tensors if (roles := roles_of(tensor))], ndim - 1)
    return [(*found[:dim], _row_of_entries(tensors), *found[dim:])]


def _row_of_entries(tensors: Sequence[Any]) -> Axis:
    """Return the axis along which tensors of one entry each were put side by side."""
    entries = [entry_of(tensor) for tensor in tensors]
    if len(tensors) == 1 or len(set(entries)) == 1 or None in entries:
        return whole(CHANNELS, len(tensors))
    return joined([piece_of(entry) for entry in entries if entry], [1] * len(entries))


def piece_of(entry: Entry) -> Axis:
    """Return the axis that holds nothing but an entry."""
    return scattered((entry.part,), 1) if entry.at is None else cut((entry.part,), entry.at, entry.at + 1)


def padded(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Add entries at the ends of axes, from the last one on, or cut them off where the number is negative."""
    roles, pads = list(roles_of(args[0]) or ()), args[1]
    for back in range(len(pads) // 2):
        before, after = pads[2 * back : 2 * back + 2]
        at = len(roles) - 1 - back
        left = cut(roles[at], max(0, -before), length(roles[at]) - max(0, -after))
        roles[at] = grown(left, max(0, before), max(0, after)) if max(before, after) > 0 else left
    return [tuple(roles)]
