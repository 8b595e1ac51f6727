"""What each operation does to the axes of the tensors that it takes; roles.py says what axes hold.

A tensor without roles came from no input: a weight, a position table, a class token. An operation that is not listed
is taken for an elementwise one if its shapes allow that, else for one that resizes axes, as pooling does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from .convolutions import convolved, enlarged
from .joins import concatenated, entry_of, keep_entries, padded, selected, stacked
from .moves import (
    expanded,
    folded,
    indexed,
    mixed_up,
    permuted,
    replaced,
    roles_of,
    selected_by_index,
    set_roles,
    shifted,
    sliced,
    split,
    transposed,
    unfolded,
    unknown,
    viewed,
    windowed,
)
from .pieces import resized
from .roles import CHANNELS, LENGTH, RESTORED, TAPS, UNKNOWN, Axis, flipped, is_place, length, rolled, whole
from .sums import broadcast, combined
from .writes import copied, note_view, write_back

if TYPE_CHECKING:
    import torch

    from .moves import Found, Rule
    from .roles import Roles


def follow(operation: str, args: Sequence[Any], outputs: list[torch.Tensor]) -> None:
    """Note what the axes of an operation's outputs hold.

    Args:
        operation: its name, without its overload.
        args: its arguments.
        outputs: the tensors that it put out.
    """
    name = operation.rstrip("_")
    note_view(name, args, outputs)
    taken = list(_tensors(args))
    if name.startswith(("new_", "empty")) or not any(roles_of(tensor) is not None for tensor in taken):
        return
    held = roles_of(args[0])
    try:
        found = RULES.get(name, _otherwise)(args, outputs)
    except (IndexError, TypeError, ValueError):  # arguments as no rule expects them
        found = [unknown(tensor) for tensor in outputs]
    for tensor, roles in zip(outputs, found, strict=False):
        if roles is not None and [length(axis) for axis in roles] != list(tensor.shape):
            roles = unknown(tensor)
        set_roles(tensor, roles)
    if RULES.get(name) is not selected:
        keep_entries(taken, outputs)
    if name != operation and roles_of(args[0]) != held:
        write_back(args[0], entry_of(args[1]) if len(args) > 1 else None)


def _tensors(values: Any) -> Iterator[Any]:
    """List the tensors among arguments, in lists too."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _tensors(value)
        elif hasattr(value, "shape"):
            yield value


def _otherwise(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Take an operation for an elementwise one, or one that resizes the axes of its first input."""
    taken = [tensor for tensor in _tensors(args) if roles_of(tensor) is not None]
    return [_matched(taken, tensor) for tensor in outputs]


def _matched(taken: list[torch.Tensor], output: torch.Tensor) -> Roles:
    shape = tuple(output.shape)
    alike = [t for t in taken if t.ndim <= len(shape) and all(_fits(*pair) for pair in _from_the_last(t.shape, shape))]
    if len(alike) == len(taken):
        found = broadcast([roles_of(tensor) or () for tensor in taken], len(shape))
        return tuple(
            axis if length(axis) == size else whole(CHANNELS, size) for axis, size in zip(found, shape, strict=True)
        )
    first = next((tensor for tensor in taken if tensor.ndim == len(shape)), None)
    if first is None:
        return unknown(output)
    return tuple(resized(axis, size) for axis, size in zip(roles_of(first) or (), shape, strict=True))


def _from_the_last(short: Sequence[int], long: Sequence[int]) -> Iterator[tuple[int, int]]:
    return zip(reversed(short), reversed(long), strict=False)


def _fits(size: int, to: int) -> bool:
    return size in (1, to)


def _reduced(position: int) -> Rule:
    """Make the rule of a sum, mean or maximum whose axes are the argument at this position."""

    def rule(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
        roles = roles_of(args[0]) or ()
        given = args[position] if len(args) > position else None
        dims = [given] if isinstance(given, int) and not isinstance(given, bool) else given or range(len(roles))
        gone = {dim % max(len(roles), 1) for dim in dims} if isinstance(dims, (list, tuple, range)) else set()
        left: list[Axis] = [() if at in gone else axis for at, axis in enumerate(roles)]
        if outputs[0].ndim != len(roles):
            left = [axis for at, axis in enumerate(roles) if at not in gone]
        return [tuple(left)] * len(outputs)

    return rule


def _product(first: int) -> Rule:
    """Make the rule of a product of two matrices, or of batches of them, the first at this position of arguments."""

    def rule(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
        a, b = args[first : first + 2]
        shape = tuple(outputs[0].shape)
        none = ((),) * len(shape)
        left, right = roles_of(a) or none, roles_of(b) or none
        rows = left[-2] if roles_of(a) else whole(CHANNELS, shape[-2])
        columns = right[-1] if roles_of(b) else whole(CHANNELS, shape[-1])
        return [(*(combined(x, y) for x, y in zip(left[:-2], right[:-2], strict=True)), rows, columns)]

    return rule


def _of_last_axis(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    roles = roles_of(args[0])
    return [None if roles is None else (*roles[:-1], whole(CHANNELS, outputs[0].shape[-1]))]


def _attended(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    query, value = roles_of(args[0]), roles_of(args[2])
    shape = tuple(outputs[0].shape)
    if query is None or value is None:
        known = query or value or ()
        made = whole(CHANNELS, shape[-2]) if query is None else known[-2]
        return [(*known[:-2], made, whole(CHANNELS, shape[-1]))]
    batch = tuple(combined(a, b) for a, b in zip(query[:-2], value[:-2], strict=True))
    return [(*batch, query[-2], value[-1])]


def _to_frequencies(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    return _transformed(args, outputs, TAPS)


def _from_frequencies(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    return _transformed(args, outputs, RESTORED)


def _either_way(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    is_forward = args[3]
    return _transformed(args, outputs, TAPS if is_forward else RESTORED)


def _transformed(args: Sequence[Any], outputs: list[torch.Tensor], kind: str) -> list[Found]:
    """Follow a Fourier transform along the axes that are the second argument."""
    roles = roles_of(args[0]) or ()
    for dim in args[1]:
        of_samples = any(part.kind == LENGTH for part in roles[dim])  # their frequencies are channels
        made = CHANNELS if of_samples else kind if is_place(roles[dim]) or kind == RESTORED else UNKNOWN
        roles = replaced(roles, dim % len(roles), whole(made, outputs[0].shape[dim]))
    return [roles]


def _moved(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Follow what turns maps, or samples them at places of its own: rows and columns lie elsewhere then."""
    roles, shape = roles_of(args[0]), tuple(outputs[0].shape)
    if roles is None or len(shape) != 4:
        return [unknown(outputs[0])]
    batch = roles[0] if length(roles[0]) == shape[0] else whole(UNKNOWN, shape[0])
    return [(batch, whole(CHANNELS, shape[1]), whole(TAPS, shape[2]), whole(TAPS, shape[3]))]


def _written(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    """Follow x[mask] = values: numbers from elsewhere leave the rest where it is."""
    return [unknown(outputs[0]) if roles_of(args[0]) is None or roles_of(args[2]) else roles_of(args[0])]


def _all_unknown(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    return [unknown(tensor) for tensor in outputs]


def _as_real(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    return [(*(roles_of(args[0]) or ()), whole(CHANNELS, 2))]


def _as_complex(args: Sequence[Any], outputs: list[torch.Tensor]) -> list[Found]:
    return [(roles_of(args[0]) or ())[:-1]]


def _each(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_each("view _unsafe_view reshape _reshape_alias view_copy squeeze unsqueeze flatten unflatten", viewed),
    **_each("permute permute_copy", permuted),
    **_each("t transpose transpose_copy", transposed),
    **_each("expand repeat", expanded),
    **_each("slice slice_copy", sliced),
    **_each("split split_with_sizes unsafe_split chunk", split),
    **_each("select unbind", selected),
    **_each("copy", copied),
    **_each("cat", concatenated),
    **_each("stack", stacked),
    **_each("mean sum amax amin max min var std prod argmax argmin any all logsumexp var_mean std_mean", _reduced(1)),
    **_each("linalg_vector_norm norm", _reduced(2)),
    **_each("convolution _convolution", convolved),
    **_each("upsample_nearest2d upsample_bilinear2d upsample_bicubic2d _upsample_nearest_exact2d", enlarged),
    **_each("mm bmm", _product(0)),
    **_each("addmm baddbmm addbmm", _product(1)),
    **_each("linear", _of_last_axis),
    **_each(
        "scaled_dot_product_attention _scaled_dot_product_attention_math _scaled_dot_product_flash_attention "
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention "
        "_scaled_dot_product_fused_attention_overrideable _scaled_dot_product_cudnn_attention",
        _attended,
    ),
    **_each("roll", shifted(rolled, True)),
    **_each("flip", shifted(flipped, False)),
    **_each("constant_pad_nd reflection_pad1d reflection_pad2d replication_pad2d", padded),
    **_each("rot90 grid_sampler grid_sampler_2d cudnn_grid_sampler roi_align roi_pool ps_roi_align", _moved),
    **_each("im2col", unfolded),
    **_each("col2im", folded),
    **_each("unfold", windowed),
    **_each("index_select", selected_by_index),
    **_each("gather scatter scatter_add index_add index_copy", mixed_up(1)),
    **_each("topk", mixed_up(2)),
    **_each("sort argsort", mixed_up(1)),
    **_each("_fft_r2c", _to_frequencies),
    **_each("_fft_c2r", _from_frequencies),
    **_each("_fft_c2c", _either_way),
    **_each("index", indexed),
    **_each("index_put", _written),
    **_each("take as_strided masked_select masked_scatter embedding", _all_unknown),
    **_each("view_as_real", _as_real),
    **_each("view_as_complex", _as_complex),
}
"""Operation -> its rule."""
