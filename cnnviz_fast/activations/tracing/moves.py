"""What operations that move entries do to axes: views, cuts, joins, rolls, pads, picks and unfolding.

Each function is the rule of some operations: from their arguments and outputs it finds what the outputs' axes hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .roles import (
    CHANNELS,
    COLUMNS,
    ROWS,
    TAPS,
    UNKNOWN,
    Axis,
    Roles,
    broadcast,
    cut,
    is_place,
    joined_tokens,
    length,
    regrouped,
    resized,
    whole,
)

if TYPE_CHECKING:
    import torch

    Found = Roles | None
    Rule = Callable[[Sequence[Any], list[torch.Tensor]], list[Found]]


_ATTRIBUTE = "_cnnviz_roles"


def roles_of(value: Any) -> Found:
    """Return the roles of a tensor; None for one that came from no input, and for what is no tensor."""
    found: Found = getattr(value, _ATTRIBUTE, None)
    return found


def set_roles(tensor: torch.Tensor, roles: Found) -> None:
    """Note what the axes of a tensor hold."""
    if roles is not None:
        setattr(tensor, _ATTRIBUTE, roles)


def unknown(tensor: torch.Tensor) -> Roles:
    """Return the roles of a tensor of which nothing is known but that it came from an input."""
    return tuple(whole(UNKNOWN, size) for size in tensor.shape)


def dim_of(args: Sequence[Any], position: int, ndim: int, default: int = 0) -> int:
    """Return the axis that an argument of an operation names, counted from 0.

    Args:
        args: of the operation, without those at the end that have their default.
        position: of the argument.
        ndim: number of axes.
        default: of the argument.

    Returns:
        The axis.
    """
    dim = args[position] if len(args) > position else default
    return int(dim) % max(ndim, 1)


def replaced(roles: Roles, dim: int, axis: Axis) -> Roles:
    """Return roles of which one axis is another."""
    return (*roles[:dim], axis, *roles[dim + 1 :])


def viewed(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Split and merge axes as a view in another shape does."""
    return [regrouped(roles_of(args[0]) or (), tuple(tensor.shape)) for tensor in outputs]


def permuted(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Order axes as permute does."""
    roles = roles_of(args[0]) or ()
    return [tuple(roles[dim] for dim in args[1])]


def transposed(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Swap two axes."""
    order = list(roles_of(args[0]) or ())
    a, b = args[1:3] if len(args) > 2 else (0, -1)
    if order:
        order[a], order[b] = order[b], order[a]
    return [tuple(order)]


def expanded(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Repeat entries; those of positions are then in no order that is followed."""
    shape = tuple(outputs[0].shape)
    roles = roles_of(args[0]) or ()
    aligned = ((),) * (len(shape) - len(roles)) + roles
    return [tuple(a if length(a) == size else _grown(a, size) for a, size in zip(aligned, shape, strict=True))]


def _grown(axis: Axis, size: int) -> Axis:
    """Return an axis whose entries are repeated."""
    return _picked(axis, size)


def sliced(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Keep a range of one axis."""
    roles, size = roles_of(args[0]) or (), args[0].shape
    dim = dim_of(args, 1, len(roles))
    given = [*args[2:], None, None, None][:3]
    start, stop, step = slice(*given).indices(size[dim])
    return [replaced(roles, dim, cut(roles[dim], start, stop, step))]


def split(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Cut one axis into several outputs."""
    roles = roles_of(args[0]) or ()
    dim, start = dim_of(args, 2, len(roles)), 0
    found: list[Found] = []
    for tensor in outputs:
        stop = start + tensor.shape[dim]
        found.append(replaced(roles, dim, cut(roles[dim], start, stop)))
        start = stop
    return found


def selected(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Drop an axis of which one entry is left."""
    roles = roles_of(args[0]) or ()
    dim = dim_of(args, 1, len(roles))
    return [(*roles[:dim], *roles[dim + 1 :])] * len(outputs)


def concatenated(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Join tensors along an axis."""
    tensors = [tensor for tensor in args[0] if tensor.numel()]
    dim = dim_of(args, 1, outputs[0].ndim)
    known = [roles_of(tensor) for tensor in tensors]
    found = broadcast([replaced(roles, dim, ()) for roles in known if roles], outputs[0].ndim)
    return [replaced(found, dim, _row_of([(r or ((),) * (dim + 1))[dim] for r in known], tensors, dim))]


def _row_of(axes: list[Axis], tensors: list[torch.Tensor], dim: int) -> Axis:
    """Return the axis along which tensors were concatenated: channels, or a grid of tokens between other tokens."""
    sizes = [tensor.shape[dim] for tensor in tensors]
    places = [index for index, axis in enumerate(axes) if is_place(axis)]
    if not places and all(part.kind == CHANNELS for axis in axes for part in axis):
        return whole(CHANNELS, sum(sizes))
    if len(places) > 1 and all(len(axes[at]) > 1 or axes[at][0].grid for at in places):
        return whole(TAPS, sum(sizes))  # a pyramid
    if len(places) != 1:
        return whole(UNKNOWN, sum(sizes))
    (at,) = places
    only = axes[at][0]
    grid, prefix, suffix = (only.grid, only.prefix, only.suffix) if only.grid else (axes[at], 0, 0)
    if len(grid) < 2 and not only.grid:
        return whole(UNKNOWN, sum(sizes))  # rows beside other rows
    return joined_tokens(grid, sum(sizes[:at]) + prefix, suffix + sum(sizes[at + 1 :]))


def stacked(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Join tensors along a new axis."""
    ndim = outputs[0].ndim
    dim = dim_of(args, 1, ndim)
    found = broadcast([roles for tensor in args[0] if (roles := roles_of(tensor))], ndim - 1)
    return [(*found[:dim], whole(CHANNELS, len(args[0])), *found[dim:])]


def shifted(change: Callable[..., Axis], has_amounts: bool) -> Rule:
    """Make the rule of a roll or a flip."""

    def rule(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
        roles = roles_of(args[0]) or ()
        dims = args[-1]
        if not isinstance(dims, (list, tuple)) or not dims or len(args) != 2 + has_amounts:
            return [unknown(outputs[0])]
        amounts = args[1] if has_amounts else [0] * len(dims)
        for dim, amount in zip(dims, amounts, strict=True):
            at = dim % len(roles)
            roles = replaced(roles, at, change(roles[at], amount) if has_amounts else change(roles[at]))
        return [roles]

    return rule


def padded(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Add entries at the ends of axes, from the last one on, or cut them off where the number is negative."""
    roles, pads = list(roles_of(args[0]) or ()), args[1]
    for back in range(len(pads) // 2):
        before, after = pads[2 * back : 2 * back + 2]
        at = len(roles) - 1 - back
        axis, size = roles[at], outputs[0].shape[at]
        if before < 0 or after < 0:
            old = args[0].shape[at]
            axis = cut(axis, max(0, -before), old - max(0, -after))
        before, after = max(0, before), max(0, after)
        if before or after:
            tokens = len(axis) > 1 and is_place(axis)
            axis = joined_tokens(axis, before, after) if tokens else resized(axis, size, before + after)
        roles[at] = axis
    return [tuple(roles)]


def unfolded(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Follow im2col: each position has the values of all cells under a kernel, which are no channels."""
    size, roles = outputs[0].shape[1], roles_of(args[0]) or ()
    kernel, dilation, padding, stride = args[1:5]
    grid = [
        (length + 2 * p - d * (k - 1) - 1) // s + 1
        for length, k, d, p, s in zip(args[0].shape[2:], kernel, dilation, padding, stride, strict=True)
    ]
    place = tuple(part for axis, new in zip(roles[2:], grid, strict=True) for part in resized(axis, new))
    return [(roles[0], whole(TAPS, size), place)]


def folded(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Add unfolded cells up to maps again."""
    roles, (_, channels, height, width) = roles_of(args[0]) or (), outputs[0].shape
    if [part.kind for part in roles[2]] != [ROWS, COLUMNS]:
        return [(roles[0], whole(CHANNELS, channels), whole(UNKNOWN, height), whole(UNKNOWN, width))]
    return [(roles[0], whole(CHANNELS, channels), whole(ROWS, height), whole(COLUMNS, width))]


def windowed(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Follow Tensor.unfold: windows along one axis, whose cells get a new last axis."""
    roles, (size, step) = roles_of(args[0]) or (), args[2:4]
    dim = dim_of(args, 1, len(roles))
    count, old = outputs[0].shape[dim], args[0].shape[dim]
    if size == step and count * size == old:
        outer, inner = regrouped((roles[dim],), (count, size))
        return [(*replaced(roles, dim, outer), inner)]
    return [(*replaced(roles, dim, resized(roles[dim], count)), whole(UNKNOWN, size))]


def mixed_up(position: int) -> Rule:
    """Make the rule of an operation that orders or picks entries along the axis at this position of arguments."""

    def rule(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
        roles = roles_of(args[0])
        found: list[Found] = []
        for tensor in outputs:
            if roles is None or tensor.ndim != len(roles):
                found.append(unknown(tensor))
                continue
            dim = dim_of(args, position, len(roles), -1)
            found.append(replaced(roles, dim, _picked(roles[dim], tensor.shape[dim])))
        return found

    return rule


def _picked(axis: Axis, size: int) -> Axis:
    """Return an axis after entries were picked from it in any order; a second time, they may be in order again."""
    if all(part.kind == CHANNELS for part in axis):
        return whole(CHANNELS, size)
    return whole(TAPS if is_place(axis) else UNKNOWN, size)


def indexed(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Follow x[:, :, picks]: all axes but the one that a list of numbers picks from stay."""
    roles, given = roles_of(args[0]), args[1]
    picks = [(dim, index) for dim, index in enumerate(given) if index is not None]
    if roles is None or len(picks) != 1 or picks[0][1].ndim != 1 or outputs[0].ndim != len(roles):
        return [unknown(tensor) for tensor in outputs]
    dim = picks[0][0]
    return [replaced(roles, dim, _picked(roles[dim], outputs[0].shape[dim]))]
