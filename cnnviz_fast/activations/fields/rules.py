"""What each operation does to the reach of the tensors that it takes; reach.py says what that is.

A rule gets the arguments of an operation by name and returns the reach of what it puts out: one for all outputs, or one
for each. It raises Whole where an output may depend on the whole input. An operation without a rule always may.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .lines import adaptive, hull, repeated, resized, shifted, spread, window
from .reach import Axis, Reach, Whole, combined, joined, plain, plain_reach, regrouped, words

if TYPE_CHECKING:
    import torch

Found = Reach | list[Reach]


@dataclass(frozen=True)
class Call:
    """A call of an operation.

    Attributes:
        name: of the operation, without its overload.
        given: its arguments by name, defaults too.
        outputs: the tensors that it put out.
        known: finds the reach of a tensor; None for one that came from no input.
    """

    name: str
    given: Mapping[str, Any]
    outputs: Sequence[torch.Tensor]
    known: Callable[[Any], Reach | None]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first output."""
        return tuple(self.outputs[0].shape)

    @property
    def first(self) -> Reach:
        """Reach of the first argument."""
        return self.reach(next(iter(self.given.values())))

    def reach(self, tensor: torch.Tensor) -> Reach:
        """Return the reach of a tensor, whether or not it came from an input."""
        found = self.known(tensor)
        return plain_reach(tensor.shape) if found is None else found

    def dims(self, name: str) -> list[int]:
        """Return the axes of the first argument that an argument names; all where it names none."""
        ndim = len(self.first.axes)
        given = self.given.get(name)
        named = [given] if isinstance(given, int) else given or range(ndim)
        return [int(dim) % max(ndim, 1) for dim in named]

    def number(self, name: str) -> int:
        """Return an argument that is a whole number."""
        return int(self.given[name])


Rule = Callable[[Call], Found]


def elementwise(call: Call) -> Found:
    """Follow what works entry by entry."""
    return combined([call.reach(tensor) for tensor in tensors(call.given.values())], call.shape)


def tensors(values: Any) -> list[torch.Tensor]:
    """List the tensors among arguments, in lists too."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, (list, tuple)):
            found += tensors(value)
        elif hasattr(value, "shape") and hasattr(value, "dtype"):
            found.append(value)
    return found


def _viewed(call: Call) -> Found:
    return Reach(regrouped(call.first.axes, call.shape))


def _permuted(call: Call) -> Found:
    return Reach(tuple(call.first.axes[dim] for dim in call.dims("dims")))


def _transposed(call: Call) -> Found:
    axes = list(call.first.axes)
    a, b = (call.number("dim0"), call.number("dim1")) if "dim0" in call.given else (0, -1)
    if axes:
        axes[a], axes[b] = axes[b], axes[a]
    return Reach(tuple(axes))


def _expanded(call: Call) -> Found:
    return combined([call.first], call.shape)


def _repeated(call: Call) -> Found:
    axes = ((),) * (len(call.shape) - len(call.first.axes)) + call.first.axes
    found = []
    for axis, times, size in zip(axes, call.given["repeats"], call.shape, strict=True):
        if times != 1 and any(digit.kind is not None for digit in axis):
            raise Whole("copies of maps side by side")
        found.append(axis if times == 1 else plain(size))
    return Reach(tuple(found))


def _sliced(call: Call) -> Found:
    (dim,), size = call.dims("dim"), call.given["self"].shape[call.number("dim")]
    start, _, step = slice(call.given["start"], call.given["end"], call.given["step"]).indices(size)
    return call.first.reading(dim, shifted(start, step), call.shape[dim], "a cut")


def _split(call: Call) -> Found:
    (dim,), start, found = call.dims("dim"), 0, []
    for output in call.outputs:
        found.append(call.first.reading(dim, shifted(start), output.shape[dim], "a cut"))
        start += output.shape[dim]
    return found


def _selected(call: Call) -> Found:
    (dim,) = call.dims("dim")
    _refuse(call.first, [dim], "one position taken out of")
    return call.first.without_axis(dim)


def _refuse(reach: Reach, dims: Sequence[int], what: str) -> None:
    """Raise Whole where any of these axes holds positions."""
    kinds = set[int]().union(*(reach.kinds(dim) for dim in dims))
    if kinds:
        raise Whole(f"{what} {words(kinds)}")


def _padded(call: Call) -> Found:
    given = call.given["pad"] if "pad" in call.given else call.given["padding"]
    found = call.first
    for at, before in enumerate(given[::2]):
        dim = len(call.shape) - 1 - at
        found = found.reading(dim, shifted(-int(before)), call.shape[dim], "padding")
    return found


def _joined(call: Call) -> Found:
    """Follow cat: channels of several tensors, or rows of one with constants around it, as padding puts them."""
    parts = [part for part in call.given["tensors"] if part.numel()]
    dim = call.number("dim") % len(call.shape)
    reaches = [call.reach(part) for part in parts]
    with_positions = [at for at, reach in enumerate(reaches) if reach.kinds(dim)]
    if not with_positions:
        return combined([reach.with_axis(dim, plain(call.shape[dim])) for reach in reaches], call.shape)
    others = [reach for at, reach in enumerate(reaches) if at not in with_positions]
    if len(with_positions) > 1 or any(reach.holds_positions() for reach in others):
        raise Whole(f"{words(reaches[with_positions[0]].kinds(dim))} of several maps joined")
    at = with_positions[0]
    before = sum(part.shape[dim] for part in parts[:at])
    return reaches[at].reading(dim, shifted(-before), call.shape[dim], "tokens joined")


def _stacked(call: Call) -> Found:
    dim = call.number("dim") % len(call.shape)
    reaches = [call.reach(part) for part in call.given["tensors"]]
    both = combined(reaches, [size for at, size in enumerate(call.shape) if at != dim])
    return Reach((*both.axes[:dim], plain(call.shape[dim]), *both.axes[dim:]))


def _flipped(call: Call) -> Found:
    found = call.first
    for dim in call.dims("dims"):
        found = found.reading(dim, shifted(call.shape[dim] - 1, -1), call.shape[dim], "a flip")
    return found


def _over(name: str, what: str) -> Rule:
    """Make the rule of what takes all entries along axes together: those that the argument of this name names."""

    def rule(call: Call) -> Found:
        dims = call.dims(name)
        _refuse(call.first, dims, f"{what or call.name.strip('_')} over")
        if len(call.shape) == len(call.first.axes):
            found = call.first
            for dim in dims:
                found = found.with_axis(dim, plain(call.shape[dim]))
            return found
        return Reach(tuple(axis for at, axis in enumerate(call.first.axes) if at not in dims))

    return rule


def _convolved(call: Call) -> Found:
    x, weight = call.first, call.reach(call.given["weight"])
    if weight.holds_positions():
        raise Whole("a convolution whose weights are made of positions")
    _refuse(x, [1], "a convolution whose channels are")
    found = x.with_axis(1, plain(call.shape[1]))
    for at, kernel in enumerate(call.given["weight"].shape[2:]):
        stride, padding, dilation = (_each(call.given[name], at) for name in ("stride", "padding", "dilation"))
        reads = (spread if call.given["transposed"] else window)(kernel, stride, padding, dilation)
        found = found.reading(at + 2, reads, call.shape[at + 2], "a convolution")
    return found


def _each(given: Any, at: int) -> int:
    """Return a setting for an axis, of which one number may stand for all."""
    return int(given) if isinstance(given, int) else int(given[at if len(given) > 1 else 0])


def _pooled(axes: int) -> Rule:
    """Make the rule of pooling over the last axes."""

    def rule(call: Call) -> Found:
        found = call.first
        for at in range(axes):
            dim = len(call.shape) - axes + at
            kernel = _each(call.given["kernel_size"], at)
            stride = _each(call.given["stride"] or call.given["kernel_size"], at)
            reads = window(kernel, stride, _each(call.given["padding"], at), _each(call.given.get("dilation", 1), at))
            found = found.reading(dim, reads, call.shape[dim], "pooling")
        return found

    return rule


def _pooled_to_size(call: Call) -> Found:
    found, x = call.first, call.given["self"]
    axes = len(call.given["output_size"])
    for dim in range(x.ndim - axes, x.ndim):
        if call.shape[dim] == 1 < x.shape[dim]:
            _refuse(found, [dim], "global pooling over")
        found = found.reading(dim, adaptive(x.shape[dim], call.shape[dim]), call.shape[dim], "pooling")
    return found


def _resized(kind: str) -> Rule:
    """Make the rule of enlarging or making smaller with this interpolation."""

    def rule(call: Call) -> Found:
        found, given = call.first, call.given
        x = given["self" if "self" in given else "input"]
        each = [given.get("scales_h"), given.get("scales_w", given.get("scales"))]
        scales = given.get("scale_factors") or each[-(x.ndim - 2) :]
        for dim, scale in zip(range(2, x.ndim), scales, strict=True):
            out = call.shape[dim]
            reads = resized(x.shape[dim], out, kind, scale, bool(given.get("align_corners")))
            found = found.reading(dim, reads, out, "a resize")
        return found

    return rule


def _normalised(call: Call) -> Found:
    """Follow the normalisation of the last axes: of channels, or of maps as a whole."""
    axes = len(call.given["normalized_shape"])
    _refuse(call.first, range(len(call.first.axes))[-axes:], "layer normalisation over")
    return _first_alone(call)


def _normalised_in_groups(call: Call) -> Found:
    _refuse(call.first, range(1, len(call.first.axes)), "group normalisation over")
    return _first_alone(call)


def _normalised_by_channel(call: Call) -> Found:
    if call.given.get("training", call.given.get("train", "no_training" not in call.name)):
        others = [dim for dim in range(len(call.first.axes)) if dim != 1]
        _refuse(call.first, others, "normalisation by the map's own values over")
    return _first_alone(call)


def _first_alone(call: Call) -> Found:
    """Return the reach of the first argument for the first output; others are statistics, of which nothing is made."""
    return [call.first, *(plain_reach(output.shape) for output in call.outputs[1:])]


def _product(first: str, second: str) -> Rule:
    """Make the rule of a product of two matrices, or of batches of them, the arguments of these names."""

    def rule(call: Call) -> Found:
        a, b = call.reach(call.given[first]), call.reach(call.given[second])
        for reach, dim in ((a, -1), (b, -2)):
            _refuse(reach, [dim], "a matrix product over")
        batch = combined([Reach(a.axes[:-2]), Reach(b.axes[:-2])], call.shape[:-2]).axes
        found = Reach((*batch, a.axes[-2], b.axes[-1]))
        others = [tensor for name, tensor in call.given.items() if name not in (first, second)]
        return combined([found, *map(call.reach, tensors(others))], call.shape)

    return rule


def _attended(call: Call) -> Found:
    query, key, value = (call.reach(call.given[name]) for name in ("query", "key", "value"))
    for reach in (key, value):
        _refuse(reach, [len(reach.axes) - 2], "attention over")
    found = combined([Reach(reach.axes[:-2]) for reach in (query, key, value)], call.shape[:-2])
    made = Reach((*found.axes, query.axes[-2], value.axes[-1]))
    return [made, *(plain_reach(output.shape) for output in call.outputs[1:])]


def _rolled(call: Call) -> Found:
    moved = [dim for dim, by in zip(call.dims("dims"), call.given["shifts"], strict=False) if by]
    _refuse(call.first, moved, "a roll around the ends of")
    return call.first


def _shuffled_up(call: Call) -> Found:
    times, found = call.number("upscale_factor"), call.first
    found = found.with_axis(len(call.shape) - 3, plain(call.shape[-3]))
    for dim in (len(call.shape) - 2, len(call.shape) - 1):
        found = found.reading(dim, repeated(times), call.shape[dim], "a shuffle")
    return found


def _shuffled_down(call: Call) -> Found:
    times, found = call.number("downscale_factor"), call.first
    found = found.with_axis(len(call.shape) - 3, plain(call.shape[-3]))
    for dim in (len(call.shape) - 2, len(call.shape) - 1):
        found = found.reading(dim, hull(times), call.shape[dim], "a shuffle")
    return found


def _same(call: Call) -> Found:
    return call.first


def _picked(call: Call) -> Found:
    """Follow an axis without positions of which entries are picked by a list of indices."""
    (dim,), picked = call.dims("dim"), call.given["index"]
    _refuse(call.first, [dim], "picked")
    if call.known(picked) is not None:
        raise Whole("entries picked by the values of a tensor")
    return call.first.with_axis(dim, plain(call.shape[dim]))


def _indexed(call: Call) -> Found:
    """Follow x[:, indices], where the indices come from no input."""
    given = call.given["indices"]
    dims = [dim for dim, index in enumerate(given) if index is not None]
    if any(call.known(given[dim]) is not None for dim in dims):
        raise Whole("entries picked by the values of a tensor")
    _refuse(call.first, dims, "picked")
    if len(dims) != 1 or given[dims[0]].ndim != 1:
        raise Whole("entries picked along several axes")
    return call.first.with_axis(dims[0], plain(call.shape[dims[0]]))


def _windows(call: Call) -> Found:
    """Follow Tensor.unfold: an axis of windows, and one of the cells of each behind all others."""
    (dim,) = call.dims("dimension")
    size, step = call.number("size"), call.number("step")
    found = call.first.reading(dim, window(size, step, 0), call.shape[dim], "windows")
    return Reach((*found.axes, plain(size)))


def _patches(call: Call) -> Found:
    """Follow im2col: channels with the cells of a patch, and an axis of patches."""
    x = call.first if len(call.first.axes) == 4 else Reach(((), *call.first.axes))
    _refuse(x, [1], "patches whose channels are")
    counts, lines = [], list[Axis]()
    for at, size in enumerate(call.given["self"].shape[-2:]):
        kernel, stride, padding, dilation = (
            _each(call.given[name], at) for name in ("kernel_size", "stride", "padding", "dilation")
        )
        counts.append((size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1)
        found = x.reading(2 + at, window(kernel, stride, padding, dilation), counts[-1], "patches")
        lines.append(found.axes[2 + at])
    axes = (x.axes[0], plain(call.shape[-2]), joined([digit for axis in lines for digit in axis]))
    return Reach(axes if len(call.shape) == 3 else axes[1:])


def _copied(call: Call) -> Found:
    return combined([call.reach(call.given["src"])], call.shape)


def _linear(call: Call) -> Found:
    x = call.first
    _refuse(x, [len(x.axes) - 1], "a matrix product over")
    return x.with_axis(len(x.axes) - 1, plain(call.shape[-1]))


def _as_real(call: Call) -> Found:
    return Reach((*call.first.axes, plain(2)))


def _rules(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_rules(
        "view _unsafe_view reshape _reshape_alias view_copy squeeze unsqueeze squeeze_copy unsqueeze_copy flatten "
        "unflatten",
        _viewed,
    ),
    **_rules("permute permute_copy", _permuted),
    **_rules("t transpose transpose_copy", _transposed),
    **_rules("expand expand_copy", _expanded),
    **_rules("repeat", _repeated),
    **_rules("slice slice_copy narrow", _sliced),
    **_rules("split split_with_sizes unsafe_split unsafe_split_with_sizes chunk", _split),
    **_rules("select select_copy unbind", _selected),
    **_rules("constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d", _padded),
    **_rules("cat", _joined),
    **_rules("stack", _stacked),
    **_rules("flip", _flipped),
    **_rules("roll", _rolled),
    **_rules("sum amax amin max min var std prod argmax argmin any all logsumexp var_mean std_mean", _over("dim", "")),
    **_rules("mean", _over("dim", "mean")),
    **_rules("linalg_vector_norm norm", _over("dim", "norm")),
    **_rules("_softmax _safe_softmax _log_softmax softmax log_softmax", _over("dim", "softmax (attention)")),
    **_rules("cumsum cumprod sort argsort topk", _over("dim", "")),
    **_rules("convolution _convolution", _convolved),
    **_rules("max_pool1d avg_pool1d", _pooled(1)),
    **_rules("max_pool2d_with_indices max_pool2d avg_pool2d", _pooled(2)),
    **_rules("max_pool3d_with_indices avg_pool3d", _pooled(3)),
    **_rules("_adaptive_avg_pool2d adaptive_max_pool2d _adaptive_avg_pool3d adaptive_max_pool3d", _pooled_to_size),
    **_rules("upsample_nearest1d upsample_nearest2d", _resized("nearest")),
    **_rules("_upsample_nearest_exact1d _upsample_nearest_exact2d", _resized("nearest_exact")),
    **_rules("upsample_linear1d upsample_bilinear2d", _resized("linear")),
    **_rules("upsample_bicubic2d", _resized("bicubic")),
    **_rules("_upsample_bilinear2d_aa", _resized("linear_aa")),
    **_rules("_upsample_bicubic2d_aa", _resized("bicubic_aa")),
    **_rules("native_layer_norm _fused_rms_norm", _normalised),
    **_rules("native_group_norm", _normalised_in_groups),
    **_rules(
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm",
        _normalised_by_channel,
    ),
    **_rules("mm", _product("self", "mat2")),
    **_rules("bmm", _product("self", "mat2")),
    **_rules("addmm", _product("mat1", "mat2")),
    **_rules("baddbmm addbmm", _product("batch1", "batch2")),
    **_rules("linear", _linear),
    **_rules(
        "scaled_dot_product_attention _scaled_dot_product_attention_math _scaled_dot_product_flash_attention "
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention "
        "_scaled_dot_product_fused_attention_overrideable _scaled_dot_product_cudnn_attention",
        _attended,
    ),
    **_rules("pixel_shuffle", _shuffled_up),
    **_rules("pixel_unshuffle", _shuffled_down),
    **_rules("channel_shuffle native_channel_shuffle alias detach clone contiguous lift_fresh _to_copy to", _same),
    **_rules(
        "hardswish hardsigmoid hardtanh relu6 mish silu elu celu selu leaky_relu prelu _prelu_kernel softplus gelu "
        "log_sigmoid_forward softshrink hardshrink threshold rrelu rrelu_with_noise lerp addcmul addcdiv "
        "masked_fill where bernoulli real imag complex polar conj _conj _neg_view fill zero floor_divide nan_to_num",
        elementwise,
    ),
    **_rules("index_select", _picked),
    **_rules("index", _indexed),
    **_rules("unfold", _windows),
    **_rules("im2col", _patches),
    **_rules("copy", _copied),
    **_rules("view_as_real", _as_real),
}
"""Operation -> its rule. What torch itself marks as pointwise needs none; it does not mark all activations."""
