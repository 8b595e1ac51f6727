"""What to name where the axes of tokens cannot be told: only readings that fit the output."""

from __future__ import annotations

import itertools
import math

from .evidence import Evidence, TokenGrid, grids_of, prefix_counts
from .proven import proof_of
from .record import TO_TOKENS


def token_names(shape: tuple[int, ...], evidence: Evidence, name: str = "tokens", suffix: int = 0) -> str:
    """Return how the axes of tokens are written, with an example that fits the output where one is known.

    Args:
        shape: shape of the output, of three axes.
        evidence: what is known of it.
        name: of the order of axes: tokens, tnc or nct.
        suffix: tokens behind the grid that are left out.

    Returns:
        Names in quotes, such as "'tokens:PREFIX:TxHxW', such as 'tokens:1:8x14x14'".
    """
    clip = evidence.input_shape is not None and len(evidence.input_shape) == 5
    form = "PREFIX:TxHxW" if clip else "PREFIX:HxW"
    count = shape[TO_TOKENS[name][1]]
    if (found := _fitting(shape, evidence, name, count, suffix)) is None:
        return f"'{name}:{form}' or '{name}:{form}:SUFFIX', of {count} tokens in all"
    prefix, grid, behind = found
    example = ":".join([name, str(prefix), "x".join(map(str, grid)), *([str(behind)] if behind else [])])
    return f"'{name}:{form}{':SUFFIX' if behind else ''}', such as '{example}'"


def _fitting(
    shape: tuple[int, ...], evidence: Evidence, name: str, count: int, suffix: int
) -> tuple[int, tuple[int, ...], int] | None:
    """Return the prefix, the grid, its time steps first, and the suffix that are likeliest for a number of tokens."""
    proof = proof_of(shape, evidence)
    if proof is not None and proof.name == name and proof.grid:
        grid = _grid(proof.steps, proof.grid)
        return proof.prefix, grid, count - proof.prefix - math.prod(grid)
    for prefix, steps in itertools.product(prefix_counts(evidence), _steps_of(evidence)):
        cells = count - suffix - prefix
        grids = [] if cells % steps else grids_of(cells // steps, evidence)
        if grids:
            return prefix, _grid(steps, grids[0]), suffix
    return None


def _grid(steps: int, grid: TokenGrid) -> tuple[int, ...]:
    return grid if steps == 1 else (steps, *grid)


def _steps_of(evidence: Evidence) -> list[int]:
    """List how many time steps tokens may have: those of the input, or fewer where steps are joined; 1 of an image."""
    shape = evidence.input_shape
    if shape is None or len(shape) != 5:
        return [1]
    frames = shape[1] if shape[2] in (1, 3) else shape[2]  # (N, T, C, H, W) or (N, C, T, H, W)
    return [frames // joined for joined in range(1, frames + 1) if frames % joined == 0]
