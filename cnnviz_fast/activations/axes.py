"""The axes of an output: how they are told, and how the output becomes maps (N, C, H, W).

    nchw      (N, C, H, W)       convolutions; the maps as they are
    nhwc      (N, H, W, C)       Swin, the inside of ConvNeXt
    tokens    (N, P + H*W, C)    ViT, DeiT, DINO: P prefix tokens (class, distillation, registers), which are left out
              (N, P + T*H*W, C)  MViT: one set of maps for each time step; must be named, tokens:1:8x14x14
    ncdhw     (N, C, D, H, W)    volumes; one set of maps for each plane
    ncthw     (N, C, T, H, W)    video; one set of maps for each time step
    nthwc     (N, T, H, W, C)    video transformers
    ncl       (N, C, L)          signals; a map of one row for each channel
    nlc       (N, L, C)          transformers for signals; the same
    nhw       (N, H, W)          depth maps; one map
    nc        (N, C)             fully connected layers; a map of one cell for each entry

Axes are told from two things together. The first is what the module or its model says: a Conv2d puts out channels
first whatever the numbers are, a LayerNorm or a Linear channels last, a model without either never channels last, and
tokens come from models that cut images into patches. The second is the shape: maps have the aspect of the image, and
there are as many tokens as a grid of that aspect has cells. Where two readings fit, or none, the output is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from ..errors import DTypeError, ShapeError
from ..options.reading import AxesOptions
from .evidence import (
    Evidence,
    TokenGrid,
    channels_position,
    grids_of,
    has_aspect,
    is_halved,
    known_grids,
    may_be_last,
    output_format,
    prefix_counts,
    widths,
)

if TYPE_CHECKING:
    import torch

_AXES = {"nchw": "(N, C, H, W)", "nhwc": "(N, H, W, C)", "tokens": "(N, T, C)",
         "ncdhw": "(N, C, D, H, W)", "ncthw": "(N, C, T, H, W)", "nthwc": "(N, T, H, W, C)",
         "ncl": "(N, C, L)", "nlc": "(N, L, C)", "nhw": "(N, H, W)", "nc": "(N, C)"}  # fmt: skip
_REORDERED = ("Hiera", "ViTMAE")
"""Families whose tokens do not lie row by row: Hiera sorts them by the units it masks, MAE shuffles them."""


@dataclass(frozen=True)
class Axes:
    """What the axes of an output mean.

    Attributes:
        name: nchw, nhwc, tokens, ncdhw, ncthw, nthwc, ncl, nlc, nhw or nc.
        steps: number of planes or time steps; 1 without an axis of these.
        prefix_tokens: number of tokens before the grid, which are left out.
        grid: (rows, columns) of the tokens; None for other axes.
    """

    name: str
    steps: int = 1
    prefix_tokens: int = 0
    grid: TokenGrid | None = None


def find_axes(shape: tuple[int, ...], evidence: Evidence | None = None, axes: str = "auto") -> Axes:
    """Find what the axes of an output mean.

    Args:
        shape: shape of the output.
        evidence: what else is known of it. Without it only (N, C), (N, C, H, W) and (N, C, T, H, W) are recognised.
        axes: auto, or the name of the axes; `AxesOptions` says how it is written.

    Returns:
        The axes, which fit the shape.

    Raises:
        ShapeError: the output has no maps, fits several readings or none, or does not fit the axes named.
        OptionError: `axes` is not a name of axes.
    """
    evidence = evidence or Evidence()
    name, prefix, grid = AxesOptions(axes=axes).parts
    if name != "auto":
        return _as_given(shape, evidence, name, prefix, grid)
    readers = {2: _read_vectors, 3: _read_tokens, 4: _read_maps, 5: _read_clips}
    if len(shape) not in readers:
        raise ShapeError(
            f"layer {evidence.layer!r} puts out {shape}; only outputs of 2 to 5 axes can be drawn. "
            f"`cnnviz layers` shows the shapes."
        )
    found = readers[len(shape)](shape, evidence)
    if evidence.input_shape is not None and shape[0] != evidence.input_shape[0]:
        _refuse(
            shape,
            evidence,
            f"it makes {shape[0]} entries (windows or regions) of the {evidence.input_shape[0]} images in the batch",
            f"'{found.name}' to see the first",
        )
    return found


def to_maps(output: torch.Tensor, axes: Axes, step: int = 0) -> torch.Tensor:
    """Return an output as maps.

    Args:
        output: (N, ...) real dtype, as `axes` says: nchw (N, C, H, W), nhwc (N, H, W, C), tokens (N, P + T*H*W, C),
            ncthw (N, C, T, H, W), nthwc (N, T, H, W, C) or nc (N, C). Not modified.
        axes: its axes, from `find_axes`.
        step: the time step, from 0.

    Returns:
        (N, C, H, W), same dtype and device: a view where strides allow one.

    Raises:
        DTypeError: the output is sparse.
    """
    import torch

    if output.layout != torch.strided:
        raise DTypeError(f"maps must be dense, got layout {output.layout}. Convert them: output.to_dense().")
    if axes.name == "tokens":
        assert axes.grid is not None
        rows, cols = axes.grid
        cells = output[:, axes.prefix_tokens :].reshape(len(output), axes.steps, rows, cols, -1)
        return cells[:, step].permute(0, 3, 1, 2)
    if axes.name in ("ncthw", "ncdhw"):
        return output[:, :, step]
    if axes.name == "nthwc":
        return output[:, step].permute(0, 3, 1, 2)
    if axes.name == "nc":
        return output[:, :, None, None]
    if axes.name in ("ncl", "nlc"):
        return (output if axes.name == "ncl" else output.transpose(1, 2))[:, :, None]
    if axes.name == "nhw":
        return output[:, None]
    return output.permute(0, 3, 1, 2) if axes.name == "nhwc" else output


def _as_given(
    shape: tuple[int, ...], evidence: Evidence, name: str, prefix: int | None, grid: tuple[int, ...] | None
) -> Axes:
    """Check the axes that the caller has named against the shape."""
    expected = _AXES[name]
    if len(shape) != expected.count(",") + 1:
        raise ShapeError(f"layer {evidence.layer!r} must put out {expected} for axes {name!r}, got {shape}.")
    if name == "tokens":
        prefixes = prefix_counts(evidence) if prefix is None else [prefix]
        fits = [(p, g) for p in prefixes for g in ([grid] if grid else grids_of(shape[1] - p, evidence))]
        fits = [(p, g) for p, g in fits if math.prod(g) + p == shape[1]]
        if len(fits) != 1:
            _refuse(
                shape,
                evidence,
                f"its {shape[1]} tokens are not one grid",
                "'tokens:PREFIX:HxW', such as 'tokens:1:14x14'",
            )
        ((prefix, whole),) = fits
        return Axes("tokens", math.prod(whole[:-2]), prefix, (whole[-2], whole[-1]))
    steps = shape[2] if name in ("ncthw", "ncdhw") else shape[1] if name == "nthwc" else 1
    return Axes(name, steps)


def _read_vectors(shape: tuple[int, ...], evidence: Evidence) -> Axes:
    """Return the only axes of an output of two."""
    return Axes("nc")


def _read_maps(shape: tuple[int, ...], evidence: Evidence) -> Axes:
    """Decide between (N, C, H, W) and (N, H, W, C)."""
    said = channels_position(evidence.module, shape)
    if said == "first" or (said is None and not may_be_last(evidence)):
        return Axes("nchw")
    first = said is None and has_aspect((shape[2], shape[3]), evidence)
    last = has_aspect((shape[1], shape[2]), evidence)
    if first and last and output_format(evidence.model) == "NHWC":
        first = False  # such a model states it for everything behind its patches
    if first == last:
        reason = "both (N, C, H, W) and (N, H, W, C) fit" if first else "neither (N, C, H, W) nor (N, H, W, C) fits"
        _refuse(shape, evidence, f"{reason} an image of {evidence.size}", "'nchw' or 'nhwc'")
    return Axes("nchw" if first else "nhwc")


def _read_clips(shape: tuple[int, ...], evidence: Evidence) -> Axes:
    """Decide between (N, C, T, H, W) and (N, T, H, W, C)."""
    said = channels_position(evidence.module, shape)
    if said == "first" or (said is None and not may_be_last(evidence)):
        return Axes(_depth_first(evidence), shape[2])
    first = said is None and has_aspect((shape[3], shape[4]), evidence)
    last = has_aspect((shape[2], shape[3]), evidence)
    if first == last:
        reason = "both (N, C, T, H, W) and (N, T, H, W, C) fit" if first else "neither fits"
        _refuse(shape, evidence, f"{reason} frames of {evidence.size}", "'ncthw' or 'nthwc'")
    return Axes(_depth_first(evidence), shape[2]) if first else Axes("nthwc", shape[1])


def _depth_first(evidence: Evidence) -> str:
    """Return what the third of five axes is: time, where clips in colour went in, else the depth of a volume."""
    clip = evidence.input_shape is None or evidence.input_shape[1] == 3
    return "ncthw" if clip else "ncdhw"


def _read_signals(shape: tuple[int, ...], evidence: Evidence) -> Axes:
    """Decide between (N, C, L) and (N, L, C) where a signal went in."""
    said = channels_position(evidence.module, shape)
    if said is None and may_be_last(evidence):
        _refuse(shape, evidence, "nothing says which of its axes are channels", "'ncl' or 'nlc'")
    return Axes("nlc" if said == "last" else "ncl")


def _read_tokens(shape: tuple[int, ...], evidence: Evidence) -> Axes:
    """Find the grid and the prefix of tokens; refuse other outputs of three axes."""
    advice = "'tokens:PREFIX:HxW', such as 'tokens:1:14x14'"
    if evidence.input_shape is not None and len(evidence.input_shape) in (2, 3):
        return _read_signals(shape, evidence)
    if evidence.input_shape is not None and shape[1:] == evidence.input_shape[-2:] and not may_be_last(evidence):
        return Axes("nhw")
    if evidence.model is None or evidence.input_shape is None:
        _refuse(shape, evidence, "tokens are not recognised without the model and its input", advice)
    families = (type(module).__name__ for module in evidence.model.modules())  # the model may hold another one
    if family := next((name for name in families if name.startswith(_REORDERED)), None):
        raise ShapeError(
            f"layer {evidence.layer!r} puts out {shape}, tokens that {family} does not keep row by row: "
            f"no grid shows them."
        )
    if len(evidence.input_shape) != 4 or not may_be_last(evidence):
        _refuse(shape, evidence, "nothing says that its three axes are tokens of an image", advice)
    known = known_grids(evidence)
    fits = [(prefix, grid) for prefix in prefix_counts(evidence) for grid in grids_of(shape[1] - prefix, evidence)]
    if known:
        fits = [(prefix, grid) for prefix, grid in fits if any(is_halved(grid, to) for to in known)]
    exact = [(prefix, grid) for prefix, grid in fits if grid in known]
    if len(exact or fits) != 1:
        count = "no grid" if not fits else "more than one grid"
        _refuse(shape, evidence, f"{count} of its {shape[1]} tokens fits an image of {evidence.size}", advice)
    prefix, grid = (exact or fits)[0]
    # Inside the blocks of mixers tokens come last. There the last axis fits a grid as well.
    swapped = [g for p in prefix_counts(evidence) for g in grids_of(shape[2] - p, evidence)]
    if known:
        swapped = [g for g in swapped if any(is_halved(g, to) for to in known)]
    if swapped and not (exact and not any(g in known for g in swapped)):
        inside = set(widths(evidence.module))
        if any(g in known for g in swapped) or shape[2] not in inside or shape[1] in inside:
            _refuse(shape, evidence, "both its last axes fit a grid", advice)
    return Axes("tokens", 1, prefix, grid)


def _refuse(shape: tuple[int, ...], evidence: Evidence, reason: str, axes: str) -> NoReturn:
    """Raise the error for axes that cannot be told, with the ones that may be named."""
    raise ShapeError(
        f"layer {evidence.layer!r} puts out {shape}, and its axes are ambiguous: {reason}. Name them: axes={axes}."
    )
