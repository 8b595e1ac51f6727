"""Pictures of weights: the histograms of all parameters in one sheet, a tile each, drawn as any sheet is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..options.drawing import RenderOptions
from ..provenance import Provenance, package_version
from ..sheets.manifest import describe_grid
from ..sheets.plan import Plan, plan_sheet
from .histograms import BINS

if TYPE_CHECKING:
    from ..geometry import Grid
    from .parameters import ParameterInfo

BAR_PX = 4
"""Width of a bar: 50 of them make a tile of 200 px, about as wide as the name above it."""

TILE_H_PX = 96
GAP_PX = 8
GAP_COLOR = "#404040"


def plan_histograms(
    infos: Sequence[ParameterInfo], *, provenance: Provenance | None = None, threads: int | None = None
) -> Plan:
    """Plan the sheet of histograms: a tile of 96 x 200 px for each parameter, white bars on black, above it its
    name and the values at its two sides.

    The tallest bar of a tile is as high as the tile, and a bin that is not empty is 1 px high at least. The manifest
    says which tile is which parameter, with all that is known of it.

    Args:
        infos: records of parameter_statistics.
        provenance: the model that they are of, for the manifest.
        threads: workers that draw and encode; None for one a core.

    Returns:
        The plan, for draw_sheet or write_sheet.

    Raises:
        InputError: `infos` is empty.
    """
    if not infos:
        raise InputError("infos must hold at least one parameter, got none. A model without parameters has no sheet.")
    bars = draw_bars(np.array([info.histogram for info in infos], dtype=np.int64))
    options = RenderOptions(
        tile=(TILE_H_PX, BINS * BAR_PX), gap=GAP_PX, margin=GAP_PX, background=GAP_COLOR, colormap="gray",
        upsampling="nearest", normalize="fixed", vmin=0, vmax=1, label=True, threads=threads,
    )  # fmt: skip
    plan = plan_sheet(bars, options, provenance or Provenance(), names=[_label(info) for info in infos])
    return dataclasses.replace(plan, describe=partial(_describe_histograms, plan, infos, provenance or Provenance()))


def draw_bars(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Draw histograms as maps, one column a bin.

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


def picture_head(provenance: Provenance, grid: Grid, backend: str) -> dict[str, Any]:
    """Return what the manifests of all pictures of weights begin with."""
    return {
        "cnnviz_fast": package_version(),
        "model": provenance.model,
        "weights": provenance.weights,
        "sheet": describe_grid(grid),
        "backend": backend,
    }


def _label(info: ParameterInfo) -> str:
    """Say what a histogram is of and, since every tile has its own scale, from where to where it goes."""
    if info.min is None:
        return f"{info.name}: no finite value"
    low, high = info.edges
    return f"{info.name}: {low:.3g} to {high:.3g}"


def _describe_histograms(plan: Plan, infos: Sequence[ParameterInfo], provenance: Provenance) -> dict[str, Any]:
    tiles = zip(infos, plan.grid.boxes(), strict=True)
    return {
        **picture_head(provenance, plan.grid, plan.backend.name),
        "tiles": [{"box": box, **vars(info)} for info, box in tiles],
    }
