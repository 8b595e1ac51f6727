"""What convolutions and interpolations do to axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from .moves import roles_of
from .pieces import resized, scattered
from .roles import (
    BATCH,
    CHANNELS,
    COLUMNS,
    LENGTH,
    PLACES,
    RESTORED,
    ROWS,
    TIME,
    UNKNOWN,
    Axis,
    Roles,
    is_place,
    length,
    whole,
)

if TYPE_CHECKING:
    import torch

    from .moves import Found


def convolved(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Follow a convolution: its channels are new, and rows and columns are resized."""
    roles, kernel, shape = roles_of(args[0]), args[1].shape, tuple(outputs[0].shape)
    if roles is None:
        return [None]
    spatial = roles[2:] if len(roles) != 4 else _as_maps(roles, begins=max(kernel[2:]) > 1)
    ends = [_without_padding(axis, args, at) for at, axis in enumerate(spatial)]
    resize = (resized(axis, size) for axis, size in zip(ends, shape[2:], strict=True))
    return [(roles[0], whole(CHANNELS, shape[1]), *resize)]


def _as_maps(roles: Roles, begins: bool) -> Roles:
    """Return rows and columns as a convolution over (N, C, H, W) takes them.

    Args:
        roles: of what goes in.
        begins: whether maps may begin here, inside the model, as a decoder's, or as the spectrum of a signal.

    Returns:
        The two axes: at no place where sight of them was lost, where only parts of them are left, and where channels
        were moved into one more than into the other.
    """
    spatial, kinds = roles[2:], (ROWS, COLUMNS)
    if begins and all(part.kind in (CHANNELS, BATCH, RESTORED, LENGTH) for axis in spatial for part in axis):
        return tuple(whole(kind, length(axis)) for kind, axis in zip(kinds, spatial, strict=True))
    into = [axis for axis in spatial if is_place(axis) and all(part.kind == CHANNELS for part in axis[1:])]
    uneven = len({length(axis) // axis[0].size for axis in into}) > 1
    outer = {part.kind for part in roles[0]}
    lost = any(_is_lost(axis, outer) for axis in spatial)
    return tuple(
        scattered(whole(kind, length(axis)), length(axis))
        if uneven or _is_lost(axis, outer) or (lost and len(axis) > 1)
        else axis
        for kind, axis in zip(kinds, spatial, strict=True)
    )


def _is_lost(axis: Axis, outer: set[str]) -> bool:
    """Check whether sight of an axis was lost, or it holds parts of rows of which the others are not in the batch."""
    unknown_part = any(part.kind == UNKNOWN for part in axis)
    inside = len(axis) == 1 and axis[0].kind in PLACES and axis[0].size * axis[0].stride < axis[0].total
    return unknown_part or (inside and axis[0].kind not in outer)


def _without_padding(axis: Axis, args: Sequence[Any], at: int) -> Axis:
    """Return rows or columns of which a convolution uses up cells that were added at their ends."""
    kernel, padding, dilation, transposed = args[1].shape[2:], *args[4:7]
    if len(axis) != 1 or not axis[0].runs or transposed:
        return axis
    part, reach = axis[0], Fraction((kernel[at] - 1) * dilation[at], 2) - padding[at]
    used = min(max(reach, 0), max(-part.before, -part.after, 0))
    if not used:
        return axis
    left = part.size - int(2 * used)
    if part.kind == TIME and part.before == -2 * reach:  # causal: a step follows from those up to it
        return (replace(part, size=left, stride=1, total=left, before=Fraction(0)),)
    return (replace(part, size=left, stride=1, total=left, before=part.before + used, after=part.after + used),)


def enlarged(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Follow an interpolation; what was pooled to one cell becomes rows and columns again."""
    roles, shape = roles_of(args[0]) or (), tuple(outputs[0].shape)
    kinds = (ROWS, COLUMNS)
    places = (axis or whole(kind, 1) for axis, kind in zip(roles[2:], kinds, strict=True))
    return [(*roles[:2], *(resized(axis, size) for axis, size in zip(places, shape[2:], strict=True)))]
