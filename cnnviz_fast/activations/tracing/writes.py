"""What writing into a part of a tensor does to the axes of the whole: `out[:, :, :8] = x`.

A slice is a view, which knows the tensor that it was cut from and where. What is written into it lies in that tensor
as if it had been padded to its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .joins import Entry, piece_of
from .moves import dim_of, replaced, roles_of, set_roles, unknown
from .pieces import grown, resized
from .roles import CHANNELS, Axis, is_place, length, whole
from .sums import alongside

if TYPE_CHECKING:
    import torch

    from .moves import Found

_ATTRIBUTE = "_cnnviz_view"
_VIEWS = {"alias", "view", "permute", "transpose", "unsqueeze", "squeeze", "expand", "diagonal", "as_strided", "split",
          "split_with_sizes", "unbind"}  # fmt: skip


class _View(NamedTuple):
    """A view of a tensor.

    base: the tensor.
    dim: the axis along which it was sliced, or of which one entry was selected; None for other views, in which
        nothing is followed.
    where: start, stop and step along that axis.
    """

    base: torch.Tensor
    dim: int | None = None
    where: tuple[int, int, int] = (0, 0, 1)


def note_view(name: str, args: Sequence[Any], outputs: Sequence[torch.Tensor]) -> None:
    """Note on a view what it was made from."""
    if not outputs or outputs[0] is args[0]:  # a view in place is the tensor itself
        return
    if name in ("slice", "select"):
        dim = dim_of(args, 1, args[0].ndim)
        size = args[0].shape[dim]
        given = [*args[2:], None, None, None][:3]
        where = slice(*given).indices(size) if name == "slice" else (given[0] % size, given[0] % size + 1, 1)
        setattr(outputs[0], _ATTRIBUTE, _View(args[0], dim, where))
    elif name in _VIEWS:
        for output in outputs:
            setattr(output, _ATTRIBUTE, _View(args[0]))


def write_back(tensor: torch.Tensor, entry: Entry | None) -> None:
    """Note in the tensors of which this one is a view that it was written into.

    Args:
        tensor: (...) real dtype or complex. What was written into, with the roles of what was written.
        entry: the row or step that what was written was made from.
    """
    view: _View | None = getattr(tensor, _ATTRIBUTE, None)
    written = roles_of(tensor)
    if view is None or written is None:
        return
    base, dim, (start, stop, _) = view
    before = roles_of(base)
    found: Found = written if base.shape == tensor.shape else unknown(base)
    if dim is not None:
        if before is not None and _is_padding(before[dim], start, stop):
            return
        if tensor.ndim < base.ndim:
            written = (*written[:dim], () if entry is None else piece_of(entry), *written[dim:])
        found = replaced(written, dim, _put(written[dim], start, stop, base.shape[dim]))
        if before is not None and base.shape != tensor.shape:
            found = alongside([before, found], base.ndim)
    set_roles(base, found)
    write_back(base, entry)


def _put(axis: Axis, start: int, end: int, size: int) -> Axis:
    """Return an axis of a tensor of this size whose entries from start to end are those of another."""
    if not is_place(axis):
        return whole(CHANNELS, size)
    stretched = resized(axis, end - start)  # entries may be written in steps
    return stretched if size == end - start else grown(stretched, start, size - end)


def _is_padding(axis: Axis, start: int, end: int) -> bool:
    """Check whether entries from start to end lie outside of the image, as those do that wrap around at its ends."""
    if len(axis) != 1 or not axis[0].runs:
        return False
    return end <= -axis[0].before or start >= length(axis) + axis[0].after


def copied(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Follow copy_: what was there before is gone."""
    into, source = roles_of(args[0]), roles_of(args[1])
    if source is None or not outputs:
        return [into]
    axes = zip(((),) * (outputs[0].ndim - len(source)) + source, outputs[0].shape, strict=True)
    return [tuple(axis if length(axis) == size else whole(CHANNELS, size) for axis, size in axes)]
