"""Axes that the caller has named, held against the shape of the output."""

from __future__ import annotations

import math

from ...errors import ShapeError
from ...options.reading import AxesOptions
from .advice import token_names
from .evidence import Evidence, grids_of, prefix_counts
from .proven import proof_of
from .record import AXES, TO_TOKENS, Axes, refuse


def as_given(shape: tuple[int, ...], evidence: Evidence, name: str) -> Axes:
    """Check the axes that the caller has named against the shape."""
    _check_rank(shape, evidence, name)
    steps = shape[2] if name in ("ncthw", "ncdhw") else shape[1] if name == "nthwc" else 1
    return Axes(name, steps)


def as_given_tokens(shape: tuple[int, ...], evidence: Evidence, asked: AxesOptions) -> Axes:
    """Check a grid of tokens that the caller has named, or find what is not said of it."""
    name, prefix, grid = asked.parts
    _check_rank(shape, evidence, name)
    count, suffix = shape[TO_TOKENS[name][1]], asked.suffix
    proof = proof_of(shape, evidence) if grid is None else None
    if proof is not None and proof.name == name and proof.grid and prefix in (None, proof.prefix):
        return Axes(name, proof.steps, proof.prefix, proof.grid)
    prefixes = prefix_counts(evidence) if prefix is None else [prefix]
    fits = [(p, g) for p in prefixes for g in ([grid] if grid else grids_of(count - p, evidence))]
    fits = [(p, g) for p, g in fits if math.prod(g) + p + suffix == count]
    if len(fits) != 1:
        refuse(shape, evidence, f"its {count} tokens are not one grid", token_names(shape, evidence, name, suffix))
    ((prefix, whole),) = fits
    return Axes(name, math.prod(whole[:-2]), prefix, (whole[-2], whole[-1]))


def _check_rank(shape: tuple[int, ...], evidence: Evidence, name: str) -> None:
    """Refuse an output that has more or fewer axes than the name says."""
    expected = AXES[name]
    if len(shape) != expected.count(",") + 1 and not (name == "matrix" and len(shape) == 3):
        raise ShapeError(f"layer {evidence.layer!r} must put out {expected} for axes {name!r}, got {shape}.")
