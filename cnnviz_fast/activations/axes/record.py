"""The record of what the axes of an output mean, and the error where that cannot be told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from ...errors import ShapeError
from .evidence import Evidence, TokenGrid

AXES = {"nchw": "(N, C, H, W)", "nhwc": "(N, H, W, C)", "tokens": "(N, T, C)",
         "tnc": "(T, N, C)", "nct": "(N, C, T)", "matrix": "(N, heads, T, S)",
         "ncdhw": "(N, C, D, H, W)", "ncthw": "(N, C, T, H, W)", "nthwc": "(N, T, H, W, C)",
         "ncl": "(N, C, L)", "nlc": "(N, L, C)", "nhw": "(N, H, W)", "nc": "(N, C)"}  # fmt: skip
TO_TOKENS = {"tokens": (0, 1, 2), "tnc": (1, 0, 2), "nct": (0, 2, 1)}
"""The order in which the axes of tokens become (N, T, C)."""


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


def refuse(shape: tuple[int, ...], evidence: Evidence, reason: str, axes: str) -> NoReturn:
    """Raise the error for axes that cannot be told, with the ones that may be named.

    Args:
        shape: shape of the output.
        evidence: what is known of it.
        reason: why they cannot be told.
        axes: which names would settle it, in quotes.

    Raises:
        ShapeError: always.
    """
    raise ShapeError(
        f"layer {evidence.layer!r} puts out {shape}, and its axes are ambiguous: {reason}. Name them: axes={axes}."
    )
