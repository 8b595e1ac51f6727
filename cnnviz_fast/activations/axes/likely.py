"""Axes that are likely by what the module and its model say and by the shape, where no pass proves any."""

from __future__ import annotations

from ...errors import ShapeError
from .advice import token_names
from .evidence import (
    Evidence,
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
from .proven import depth_first, not_ruled_out
from .record import Axes, refuse

_REORDERED = ("Hiera", "ViTMAE")
"""Families whose tokens do not lie row by row: Hiera sorts them by the units it masks, MAE shuffles them."""


def read_vectors(shape: tuple[int, ...], evidence: Evidence) -> Axes:
    """Return the only axes of an output of two."""
    return Axes("nc")


def read_maps(shape: tuple[int, ...], evidence: Evidence) -> Axes:
    """Decide between (N, C, H, W) and (N, H, W, C)."""
    said = channels_position(evidence.module, shape)
    first, last = (not_ruled_out(shape, evidence, shape[at : at + 2], name) for name, at in (("nchw", 2), ("nhwc", 1)))
    if said == "first" or (said is None and first and not may_be_last(evidence)):
        return Axes("nchw")
    first = first and said is None and has_aspect((shape[2], shape[3]), evidence)
    last = last and has_aspect((shape[1], shape[2]), evidence)
    if (first and _is_tokens_squared(shape[2:], evidence)) or (last and _is_tokens_squared(shape[1:3], evidence)):
        refuse(shape, evidence, "it may hold tokens by tokens", "'matrix', or 'nchw' or 'nhwc'")
    if first and last and output_format(evidence.model) == "NHWC":
        first = False  # such a model states it for everything behind its patches
    if first == last:
        reason = "both (N, C, H, W) and (N, H, W, C) fit" if first else "neither (N, C, H, W) nor (N, H, W, C) fits"
        refuse(shape, evidence, f"{reason} an image of {evidence.size}", "'nchw' or 'nhwc'")
    return Axes("nchw" if first else "nhwc")


def _is_tokens_squared(sides: tuple[int, ...], evidence: Evidence) -> bool:
    """Check whether both sides of maps are as long as there are tokens, as those of an attention matrix are."""
    known = known_grids(evidence)
    counts = {p + rows * cols for p in prefix_counts(evidence) for rows, cols in known}
    return sides[0] == sides[1] and sides[0] in counts and sides not in known


def read_clips(shape: tuple[int, ...], evidence: Evidence) -> Axes:
    """Decide between (N, C, T, H, W) and (N, T, H, W, C)."""
    said = channels_position(evidence.module, shape)
    if said == "first" or (said is None and not may_be_last(evidence)):
        return Axes(depth_first(evidence), shape[2])
    first = said is None and has_aspect((shape[3], shape[4]), evidence)
    last = has_aspect((shape[2], shape[3]), evidence)
    if first == last:
        reason = "both (N, C, T, H, W) and (N, T, H, W, C) fit" if first else "neither fits"
        refuse(shape, evidence, f"{reason} frames of {evidence.size}", "'ncthw' or 'nthwc'")
    return Axes(depth_first(evidence), shape[2]) if first else Axes("nthwc", shape[1])


def _read_signals(shape: tuple[int, ...], evidence: Evidence) -> Axes:
    """Decide between (N, C, L) and (N, L, C) where a signal went in."""
    said = channels_position(evidence.module, shape)
    if said is None and may_be_last(evidence):
        refuse(shape, evidence, "nothing says which of its axes are channels", "'ncl' or 'nlc'")
    return Axes("nlc" if said == "last" else "ncl")


def read_tokens(shape: tuple[int, ...], evidence: Evidence) -> Axes:
    """Find the grid and the prefix of tokens; refuse other outputs of three axes."""
    if evidence.input_shape is not None and len(evidence.input_shape) in (2, 3):
        return _read_signals(shape, evidence)
    if evidence.input_shape is not None and shape[1:] == evidence.input_shape[-2:] and not may_be_last(evidence):
        return Axes("nhw")
    if evidence.model is None or evidence.input_shape is None:
        refuse(
            shape, evidence, "tokens are not recognised without the model and its input", token_names(shape, evidence)
        )
    families = (type(module).__name__ for module in evidence.model.modules())  # the model may hold another one
    if family := next((name for name in families if name.startswith(_REORDERED)), None):
        raise ShapeError(
            f"layer {evidence.layer!r} puts out {shape}, tokens that {family} does not keep row by row: "
            f"no grid shows them."
        )
    if len(evidence.input_shape) != 4 or not may_be_last(evidence):
        refuse(shape, evidence, "nothing says that its three axes are tokens of an image", token_names(shape, evidence))
    known = known_grids(evidence)
    fits = [(prefix, grid) for prefix in prefix_counts(evidence) for grid in grids_of(shape[1] - prefix, evidence)]
    if known:
        fits = [(prefix, grid) for prefix, grid in fits if any(is_halved(grid, to) for to in known)]
    exact = [(prefix, grid) for prefix, grid in fits if grid in known]
    if len(exact or fits) != 1:
        count = "no grid" if not fits else "more than one grid"
        refuse(
            shape,
            evidence,
            f"{count} of its {shape[1]} tokens fits an image of {evidence.size}",
            token_names(shape, evidence),
        )
    prefix, grid = (exact or fits)[0]
    # Inside the blocks of mixers tokens come last. There the last axis fits a grid as well.
    swapped = [g for p in prefix_counts(evidence) for g in grids_of(shape[2] - p, evidence)]
    if known:
        swapped = [g for g in swapped if any(is_halved(g, to) for to in known)]
    if swapped and not (exact and not any(g in known for g in swapped)):
        inside = set(widths(evidence.module))
        if any(g in known for g in swapped) or shape[2] not in inside or shape[1] in inside:
            refuse(shape, evidence, "both its last axes fit a grid", token_names(shape, evidence))
    return Axes("tokens", 1, prefix, grid)
