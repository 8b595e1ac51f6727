"""What operations that move entries do to axes: views, cuts, rolls, picks and unfolding. Joins are in joins.py.

Each function is the rule of some operations: from their arguments and outputs it finds what the outputs' axes hold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .pieces import cut, resized, scattered
from .roles import (
    CHANNELS,
    COLUMNS,
    RESTORED,
    ROWS,
    TAPS,
    UNKNOWN,
    Axis,
    Roles,
    is_place,
    length,
    regrouped,
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
    """Repeat entries; those of positions are then side by side as they are not in the image."""
    shape = tuple(outputs[0].shape)
    roles = roles_of(args[0]) or ()
    aligned = ((),) * (len(shape) - len(roles)) + roles
    return [tuple(a if length(a) == size else _repeated(a, size) for a, size in zip(aligned, shape, strict=True))]


def _repeated(axis: Axis, size: int) -> Axis:
    """Return an axis whose entries are repeated."""
    return scattered(axis, size) if is_place(axis) else picked(axis, size)


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
    rows, columns = ((part,) for part in roles[2])
    return [(roles[0], whole(CHANNELS, channels), resized(rows, height), resized(columns, width))]


def windowed(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Follow Tensor.unfold: windows along one axis, whose cells get a new last axis."""
    roles, (size, step) = roles_of(args[0]) or (), args[2:4]
    dim = dim_of(args, 1, len(roles))
    count, old = outputs[0].shape[dim], args[0].shape[dim]
    if size == step and count * size == old:
        outer, inner = regrouped((roles[dim],), (count, size))
        return [(*replaced(roles, dim, outer), inner)]
    return [(*replaced(roles, dim, cut(roles[dim], 0, count * step, step)), whole(UNKNOWN, size))]


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
            found.append(replaced(roles, dim, picked(roles[dim], tensor.shape[dim])))
        return found

    return rule


def picked(axis: Axis, size: int) -> Axis:
    """Return an axis after entries were picked from it in any order; a second time, they may be in order again."""
    if all(part.kind == CHANNELS for part in axis):
        return whole(CHANNELS, size)
    return whole(TAPS if is_place(axis) else RESTORED if axis[0].kind == TAPS else UNKNOWN, size)


def indexed(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Follow x[:, :, picks]: all axes but those that numbers pick from stay."""
    roles, given = roles_of(args[0]), args[1]
    picks = {dim: index for dim, index in enumerate(given) if index is not None}
    dims = list(picks)
    if roles is None or not dims or dims != list(range(dims[0], dims[-1] + 1)):
        return [unknown(tensor) for tensor in outputs]
    if len(dims) == 1 and picks[dims[0]].ndim == 1:
        return [replaced(roles, dims[0], _at(roles[dims[0]], picks[dims[0]], outputs[0].shape[dims[0]]))]
    behind = roles[dims[-1] + 1 :]
    made = outputs[0].shape[dims[0] : outputs[0].ndim - len(behind)]
    from_places = next((roles[dim] for dim in dims if is_place(roles[dim])), ())
    return [(*roles[: dims[0]], *(picked(from_places, size) for size in made), *behind)]


def selected_by_index(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Follow index_select."""
    roles = roles_of(args[0])
    if roles is None:
        return [unknown(outputs[0])]
    dim = dim_of(args, 1, len(roles))
    return [replaced(roles, dim, _at(roles[dim], args[2], outputs[0].shape[dim]))]


def _at(axis: Axis, index: torch.Tensor, size: int) -> Axis:
    """Return an axis of which the entries at an index are left: a cut, where it counts on evenly and has values."""
    if index.is_floating_point() or index.is_meta or index.dtype.itemsize < 2 or not size:
        return picked(axis, size)
    first, *others = (int(number) % length(axis) for number in index.tolist())
    step = others[0] - first if others else 1
    evenly = [first + step * at for at in range(size)] == [first, *others]
    return cut(axis, first, first + step * size, step) if evenly and step > 0 else picked(axis, size)
