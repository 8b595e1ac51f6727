"""A sheet of histograms: one tile for each parameter of a model, drawn as any sheet is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..options.drawing import RenderOptions
from ..provenance import Provenance, package_version
from ..sheets.manifest import SheetFacts, describe_grid
from ..sheets.plan import Plan, plan_sheet
from .histograms import BINS

if TYPE_CHECKING:
    from .parameters import ParameterInfo

BAR_PX = 4
"""Width of a bar: 50 of them make a tile of 200 px, about as wide as the name above it."""

TILE_H_PX = 96
ZERO_GRAYS = (0.6, 0.3)
"""The bar that holds zero, and what is above it, where 1 is white: together a line."""

GAP_PX = 8
GAP_COLOR = "#404040"


def plan_histograms(
    infos: Sequence[ParameterInfo], *, provenance: Provenance | None = None, threads: int | None = None
) -> Plan:
    """Plan the sheet of histograms: a tile of 96 x 200 px for each parameter, with white bars on black.

    Above each tile stand the name of its parameter, the values at its left and right side, and how many values there
    are in all and in the tallest bar. The bar that holds zero is grey, and so is what is above it. The tallest
    bar of a tile is as high as the tile, and a bin that is not empty is 1 px high at least. The manifest says which
    tile is which parameter, with its statistics.

    Args:
        infos: what parameter_statistics returns.
        provenance: the model that they belong to, for the manifest.
        threads: workers that draw and encode; None for one per core.

    Returns:
        The plan, for draw_sheet or write_sheet.

    Raises:
        InputError: `infos` is empty.
    """
    if not infos:
        raise InputError("infos must hold at least one parameter, got none. A model without parameters has no sheet.")
    bars = draw_bars(np.array([info.histogram for info in infos], dtype=np.int64))
    for tile, info in zip(bars, infos, strict=True):
        if (column := _zero_bin(info)) is not None:
            tile[:, column] = np.where(tile[:, column] > 0, *ZERO_GRAYS)
    options = RenderOptions(
        plain=True, tile=(TILE_H_PX, BINS * BAR_PX), gap=GAP_PX, margin=GAP_PX, background=GAP_COLOR, colormap="gray",
        upsampling="nearest", normalize="fixed", vmin=0, vmax=1, label=True, threads=threads,
    )  # fmt: skip
    names = [_label(info) for info in infos]
    return plan_sheet(
        bars, options, provenance or Provenance(), names=names, describe=partial(_describe_histograms, infos)
    )


def draw_bars(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Draw histograms as maps, with one column for each bin.

    Args:
        counts: (P, BINS) int64, at least 0.

    Returns:
        (P, TILE_H_PX, BINS) float32: 1 in a bar, 0 above it.

    Formula:
        height = ceil(count * TILE_H_PX / largest count)
    """
    largest = counts.max(axis=1, keepdims=True).clip(min=1)
    heights = -(-counts * TILE_H_PX // largest)
    above_ground = np.arange(TILE_H_PX, 0, -1)
    bars: NDArray[np.float32] = (above_ground[:, None] <= heights[:, None, :]).astype(np.float32)
    return bars


def manifest_head(facts: SheetFacts) -> dict[str, Any]:
    """Return what the manifests of all sheets of parameters begin with."""
    return {
        "cnnviz_fast": package_version(),
        "model": facts.provenance.model,
        "weights": facts.provenance.weights,
        "sheet": describe_grid(facts.grid),
        "backend": facts.backend,
    }


def _label(info: ParameterInfo) -> str:
    """Return the name of a parameter, and the ends and the counts of its histogram: every tile has its own scales."""
    if info.min is None:
        return f"{info.name}: no finite value"
    low, high = info.edges
    return f"{info.name}: {low:.3g} to {high:.3g}, {info.count:,} values, at most {max(info.histogram):,} in a bar"


def _zero_bin(info: ParameterInfo) -> int | None:
    """Return the bin of a histogram that holds zero; None where none does."""
    low, high = info.edges
    if info.min is None or not low <= 0 <= high:
        return None
    return min(int(-low / (high - low) * BINS), BINS - 1)


def _describe_histograms(infos: Sequence[ParameterInfo], facts: SheetFacts) -> dict[str, Any]:
    tiles = zip(infos, facts.grid.boxes(), strict=True)
    return {**manifest_head(facts), "tiles": [{"box": box, **vars(info)} for info, box in tiles]}
