"""Rules of operations whose units read a window of positions: convolution, pooling, resizing, shuffles, patches."""

from __future__ import annotations

from typing import Any

from .calls import Call, Found, Rule, refuse
from .lines import Reads, adaptive, hull, repeated, resampled, spread, window
from .reach import Axis, Reach, Whole, joined, plain


def convolved(call: Call) -> Found:
    """Follow a convolution, transposed or not."""
    x, weight = call.first, call.reach(call.given["weight"])
    if weight.holds_positions():
        raise Whole("a convolution whose weights are made of positions")
    refuse(x, [1], "a convolution whose channels are")
    found = x.with_axis(1, plain(call.shape[1]))
    for at, kernel in enumerate(call.given["weight"].shape[2:]):
        stride, padding, dilation = (_each(call.given[name], at) for name in ("stride", "padding", "dilation"))
        reads = (spread if call.given["transposed"] else window)(kernel, stride, padding, dilation)
        found = found.reading(at + 2, reads, call.shape[at + 2], "a convolution")
    return found


def _each(given: Any, at: int) -> int:
    """Return a setting for an axis, of which one number may stand for all."""
    return int(given) if isinstance(given, int) else int(given[at if len(given) > 1 else 0])


def pooled(axes: int) -> Rule:
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


def pooled_to_size(call: Call) -> Found:
    """Follow adaptive pooling."""
    found, x = call.first, call.given["self"]
    axes = len(call.given["output_size"])
    for dim in range(x.ndim - axes, x.ndim):
        if call.shape[dim] == 1 < x.shape[dim]:
            refuse(found, [dim], "global pooling over")
        found = found.reading(dim, adaptive(x.shape[dim], call.shape[dim]), call.shape[dim], "pooling")
    return found


def resized(kind: str) -> Rule:
    """Make the rule of enlarging or making smaller with this interpolation."""

    def rule(call: Call) -> Found:
        found, given = call.first, call.given
        x = given["self" if "self" in given else "input"]
        each = [given.get("scales_h"), given.get("scales_w", given.get("scales"))]
        scales = given.get("scale_factors") or each[-(x.ndim - 2) :]
        for dim, scale in zip(range(2, x.ndim), scales, strict=True):
            out = call.shape[dim]
            reads = resampled(x.shape[dim], out, kind, scale, bool(given.get("align_corners")))
            found = found.reading(dim, reads, out, "a resize")
        return found

    return rule


def shuffled_up(call: Call) -> Found:
    """Follow channels that are moved into rows and columns."""
    return _shuffled(call, repeated(call.number("upscale_factor")))


def shuffled_down(call: Call) -> Found:
    """Follow rows and columns that are moved into channels."""
    return _shuffled(call, hull(call.number("downscale_factor")))


def _shuffled(call: Call, reads: Reads) -> Found:
    found = call.first.with_axis(len(call.shape) - 3, plain(call.shape[-3]))
    for dim in (len(call.shape) - 2, len(call.shape) - 1):
        found = found.reading(dim, reads, call.shape[dim], "a shuffle")
    return found


def unfolded(call: Call) -> Found:
    """Follow Tensor.unfold: an axis of windows, and one of the cells of each behind all others."""
    (dim,) = call.dims("dimension")
    size, step = call.number("size"), call.number("step")
    found = call.first.reading(dim, window(size, step, 0), call.shape[dim], "windows")
    return Reach((*found.axes, plain(size)))


def patches(call: Call) -> Found:
    """Follow im2col: channels with the cells of a patch, and an axis of patches."""
    x = call.first if len(call.first.axes) == 4 else Reach(((), *call.first.axes))
    refuse(x, [1], "patches whose channels are")
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
