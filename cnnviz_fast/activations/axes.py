"""The axes of an output: how they are told, and how the output becomes maps (N, C, H, W).

    nchw      (N, C, H, W)       convolutions; the maps as they are
    nhwc      (N, H, W, C)       Swin, the inside of ConvNeXt
    tokens    (N, P + H*W + S, C)  ViT, DeiT, DINO: P prefix tokens (class, distillation, registers) and S suffix tokens
                                 (YOLOS), which are left out
              (N, P + T*H*W, C)  MViT: one set of maps for each time step; must be named, tokens:1:8x14x14
    tnc       (P + H*W + S, N, C)  tokens first: nn.MultiheadAttention and nn.TransformerEncoder without batch_first
    nct       (N, C, P + H*W + S)  tokens last: before a patch embedding is transposed, inside the blocks of mixers
    ncdhw     (N, C, D, H, W)    volumes; one set of maps for each plane
    ncthw     (N, C, T, H, W)    video; one set of maps for each time step
    nthwc     (N, T, H, W, C)    video transformers
    ncl       (N, C, L)          signals; a map of one row for each channel
    nlc       (N, L, C)          transformers for signals; the same
    nhw       (N, H, W)          depth maps; one map
    nc        (N, C)             fully connected layers; a map of one cell for each entry
    matrix    (N, heads, T, S)   attention: a tile for each head; (N, T, S) is one. No maps of the image

Axes are told from evidence, the strongest first. A pass of a copy without values shows what each axis holds, followed
from the input on (tracing/). Where a model cannot run without values, two things are taken together. The
first is what the module or its model says: torch's own convolutions put out channels first whatever the numbers are,
its LayerNorm and Linear channels last, other modules where the width that they declare is; tokens come from models that
cut images into patches. The second is the shape: maps have the aspect of the image, and there are as many tokens as a
grid of that aspect has cells. Names of classes and the last dimension alone prove nothing. Where two readings fit, or
none, the output is refused.
"""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from ..errors import DTypeError, ShapeError
from ..models.layers import every_module
from ..options.reading import TOKEN_AXES, AxesOptions
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
from .tracing.proof import Proof, possible, prove
from .tracing.trace import traced_roles

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .tracing.roles import Roles

_AXES = {"nchw": "(N, C, H, W)", "nhwc": "(N, H, W, C)", "tokens": "(N, T, C)",
         "tnc": "(T, N, C)", "nct": "(N, C, T)", "matrix": "(N, heads, T, S)",
         "ncdhw": "(N, C, D, H, W)", "ncthw": "(N, C, T, H, W)", "nthwc": "(N, T, H, W, C)",
         "ncl": "(N, C, L)", "nlc": "(N, L, C)", "nhw": "(N, H, W)", "nc": "(N, C)"}  # fmt: skip
_TO_TOKENS = {"tokens": (0, 1, 2), "tnc": (1, 0, 2), "nct": (0, 2, 1)}
"""The order in which the axes of tokens become (N, T, C)."""
_REORDERED = ("Hiera", "ViTMAE")
"""Families whose tokens do not lie row by row: Hiera sorts them by the units it masks, MAE shuffles them."""


# The order of the axes of maps is the same for every size of input: a run over images of many sizes traces one of them.
_orders: weakref.WeakKeyDictionary[nn.Module, tuple[tuple[int, ...], dict[tuple[str, int], Proof]]]
_orders = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Axes:
    """What the axes of an output mean.

    Attributes:
        name: nchw, nhwc, tokens, tnc, nct, ncdhw, ncthw, nthwc, ncl, nlc, nhw, nc or matrix.
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
    asked = AxesOptions(axes=axes)
    name, prefix, grid = asked.parts
    if name in TOKEN_AXES:
        return _as_given_tokens(shape, evidence, asked)
    if name != "auto":
        return _as_given(shape, evidence, name, prefix, grid)
    if (proven := _as_proven(shape, evidence)) is not None:
        return proven
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
            tnc (P + T*H*W, N, C), nct (N, C, P + T*H*W), ncthw (N, C, T, H, W), nthwc (N, T, H, W, C), nc (N, C) or
            matrix (N, heads, T, S). Not modified.
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
    if axes.grid is not None:
        tokens = output.permute(_TO_TOKENS[axes.name])
        (rows, cols), start = axes.grid, axes.prefix_tokens
        tokens = tokens[:, start : start + axes.steps * rows * cols]
        return tokens.reshape(len(tokens), axes.steps, rows, cols, -1)[:, step].permute(0, 3, 1, 2)
    if axes.name == "matrix":
        return output if output.ndim == 4 else output[:, None]
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
    _check_rank(shape, evidence, name)
    steps = shape[2] if name in ("ncthw", "ncdhw") else shape[1] if name == "nthwc" else 1
    return Axes(name, steps)


def _check_rank(shape: tuple[int, ...], evidence: Evidence, name: str) -> None:
    """Refuse an output that has more or fewer axes than the name says."""
    expected = _AXES[name]
    if len(shape) != expected.count(",") + 1 and not (name == "matrix" and len(shape) == 3):
        raise ShapeError(f"layer {evidence.layer!r} must put out {expected} for axes {name!r}, got {shape}.")


def _as_given_tokens(shape: tuple[int, ...], evidence: Evidence, asked: AxesOptions) -> Axes:
    """Check a grid of tokens that the caller has named, or find what is not said of it."""
    name, prefix, grid = asked.parts
    _check_rank(shape, evidence, name)
    count, suffix = shape[_TO_TOKENS[name][1]], asked.suffix
    proof = proof_of(shape, evidence) if grid is None else None
    if proof is not None and proof.name == name and proof.grid and prefix in (None, proof.prefix):
        return Axes(name, proof.steps, proof.prefix, proof.grid)
    prefixes = prefix_counts(evidence) if prefix is None else [prefix]
    fits = [(p, g) for p in prefixes for g in ([grid] if grid else grids_of(count - p, evidence))]
    fits = [(p, g) for p, g in fits if math.prod(g) + p + suffix == count]
    if len(fits) != 1:
        advice = f"'{name}:PREFIX:HxW', such as '{name}:1:14x14', or '{name}:PREFIX:HxW:SUFFIX'"
        _refuse(shape, evidence, f"its {count} tokens are not one grid", advice)
    ((prefix, whole),) = fits
    return Axes(name, math.prod(whole[:-2]), prefix, (whole[-2], whole[-1]))


def proof_of(shape: tuple[int, ...], evidence: Evidence) -> Proof | None:
    """Return what a pass of the model proves of an output.

    Args:
        shape: shape of the output.
        evidence: its layer, the model and the input; the pass needs all three.

    Returns:
        The proof; None where the pass did not come that far, or lost sight of an axis.
    """
    if len(shape) not in (3, 4, 5):
        return None
    known = _orders_of(evidence.model)
    at = (evidence.layer, len(shape))
    if at in known:
        return known[at]
    roles = _roles(shape, evidence)
    proof = None if roles is None else prove(roles)
    if proof is not None and proof.name in ("nchw", "nhwc"):
        known[at] = proof
    return proof


def _orders_of(model: nn.Module | None) -> dict[tuple[str, int], Proof]:
    """Return the proofs of maps that are known of a model; none once it has got other layers."""
    if model is None:
        return {}
    layers = tuple(map(id, every_module(model).values()))
    if model not in _orders or _orders[model][0] != layers:
        _orders[model] = (layers, {})
    return _orders[model][1]


def _roles(shape: tuple[int, ...], evidence: Evidence) -> Roles | None:
    """Return what the axes of an output hold, None where no pass shows it."""
    if evidence.model is None or evidence.input_shape is None:
        return None
    # A pass with values takes as long as the user's own: not for a layer whose class says enough.
    values = channels_position(evidence.module, shape) != "first"
    return traced_roles(evidence.model, evidence.layer, shape, evidence.input_shape, values, evidence.called)


def _not_ruled_out(shape: tuple[int, ...], evidence: Evidence, sides: tuple[int, ...], name: str) -> bool:
    """Check whether what a pass saw allows maps of these sides: if it lost sight of them, others had this size."""
    roles = _roles(shape, evidence)
    allowed = None if roles is None else possible(roles)
    return allowed is None or (name in allowed and sides in known_grids(evidence))


def has_place(axes: Axes, shape: tuple[int, ...], evidence: Evidence) -> bool:
    """Check whether maps read by these axes lie in the image as they are drawn, so far as that is known."""
    if axes.name == "matrix":
        return False
    proof = proof_of(shape, evidence)
    name = "ncthw" if axes.name == "ncdhw" else axes.name  # which of the two it is no pass can tell
    return proof is None or proof.name == name


def _as_proven(shape: tuple[int, ...], evidence: Evidence) -> Axes | None:
    """Return the axes that a pass of the model proves, or refuse; None where it proves nothing."""
    proof = proof_of(shape, evidence)
    if proof is None:
        return None
    if proof.name:
        # The tokens of a clip must be named: a sheet for each of its steps is more than anyone expects.
        if proof.grid and proof.steps > 1:
            return None
        name = _depth_first(evidence) if proof.name == "ncthw" else proof.name
        return Axes(name, proof.steps, proof.prefix, proof.grid)
    if _begins_inside(shape, evidence, proof):
        return None
    raise ShapeError(
        f"layer {evidence.layer!r} puts out {shape}, which has no maps: {proof.reason}. "
        f"`cnnviz layers` shows the layers."
    )


def _begins_inside(shape: tuple[int, ...], evidence: Evidence, proof: Proof) -> bool:
    """Check whether maps may have begun inside a model, as a generator's: they hold no positions of its input."""
    if proof.places or len(shape) < 4:
        return False
    return channels_position(evidence.module, shape) == "first" or not may_be_last(evidence)


def _read_vectors(shape: tuple[int, ...], evidence: Evidence) -> Axes:
    """Return the only axes of an output of two."""
    return Axes("nc")


def _read_maps(shape: tuple[int, ...], evidence: Evidence) -> Axes:
    """Decide between (N, C, H, W) and (N, H, W, C)."""
    said = channels_position(evidence.module, shape)
    first, last = (_not_ruled_out(shape, evidence, shape[at : at + 2], name) for name, at in (("nchw", 2), ("nhwc", 1)))
    if said == "first" or (said is None and first and not may_be_last(evidence)):
        return Axes("nchw")
    first = first and said is None and has_aspect((shape[2], shape[3]), evidence)
    last = last and has_aspect((shape[1], shape[2]), evidence)
    if (first and _is_tokens_squared(shape[2:], evidence)) or (last and _is_tokens_squared(shape[1:3], evidence)):
        _refuse(shape, evidence, "it may hold tokens by tokens", "'matrix', or 'nchw' or 'nhwc'")
    if first and last and output_format(evidence.model) == "NHWC":
        first = False  # such a model states it for everything behind its patches
    if first == last:
        reason = "both (N, C, H, W) and (N, H, W, C) fit" if first else "neither (N, C, H, W) nor (N, H, W, C) fits"
        _refuse(shape, evidence, f"{reason} an image of {evidence.size}", "'nchw' or 'nhwc'")
    return Axes("nchw" if first else "nhwc")


def _is_tokens_squared(sides: tuple[int, ...], evidence: Evidence) -> bool:
    """Check whether both sides of maps are as long as there are tokens, as those of an attention matrix are."""
    known = known_grids(evidence)
    counts = {p + rows * cols for p in prefix_counts(evidence) for rows, cols in known}
    return sides[0] == sides[1] and sides[0] in counts and sides not in known


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
