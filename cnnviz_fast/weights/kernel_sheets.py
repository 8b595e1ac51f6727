"""Sheets of the weights of a layer, drawn as any sheet is: enlarged by a whole number, each weight a square.

    rgb         3 input channels: a colour tile for each output channel, on the range of its own three planes
    grid        rows are output channels and columns input channels; all on one range, 0 in the middle
    single      1 input channel (depthwise or grey): a tile for each output channel; all on one range, 0 in the middle
    norm, mean  a tile for each output channel: Euclidean norm or mean over its input channels, on one range
    matrix      1x1 kernels and the weights of linear layers: one tile, rows are outputs and columns inputs; of more
                than SHEET_PX of either, a pixel is a mean of those at its place, the nearest of which count most

`auto` is matrix, rgb or single where the weight has the shape for it, and otherwise grid, or norm where the grid would
have more than GRID_PX. 1x1 kernels are always drawn as a matrix: each of their tiles would be a single weight.

A weight of another shape than (out, in, height, width) is brought into it. (out, in) become 1x1 kernels, and
(out, in, width) kernels one row high. The time steps of (out, in, time, height, width) become further input channels,
or further output channels where `in` is 3. Leading axes of 1 before a matrix are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..channels.statistics import ChannelStatistics, channel_statistics
from ..channels.tile_ranges import GivenRanges
from ..channels.values import as_maps
from ..errors import OptionError, ShapeError
from ..formats.manifest_files import refuse_other_json
from ..geometry import Grid, plan_grid
from ..kernels import backends
from ..options.drawing import RenderOptions
from ..options.weights import KernelOptions
from ..provenance import Provenance
from ..runtime.files import json_bytes
from ..sheets.manifest import SheetFacts
from ..sheets.plan import Plan, plan_sheet
from ..sheets.render import write_sheet
from ..sheets.rgb import RgbPlan, write_png
from ..sheets.sheet import write_manifest
from .histogram_sheet import manifest_head

if TYPE_CHECKING:
    from .parameters import HeldTensor

GRID_PX = 1 << 24
"""Largest grid that `auto` draws, at 1 px a weight: 16.8 megapixels, a sheet of 4096 px a side. 512 x 512 kernels of
3 x 3 take a quarter of it."""

SHEET_PX = 2048
"""Longer side of a sheet that is enlarged no further, and of a matrix at most."""

LARGEST_SCALE = 16

GAP_COLOR = "#202020"
"""Between tiles, and where the last row has none: black, as flat kernels are, would pass for one."""

RGB, MATRIX = "rgb", "matrix"


@dataclass(frozen=True, eq=False)
class _Tiles:
    """What the tiles of a sheet show.

    shows: the name of the kind of sheet, such as "norm".
    maps: (K, H, W) float32. One for each tile.
    rows: of the grid; 0 for as many as needed.
    cols: of the grid, likewise.
    signed: whether 0 lies in the middle of the range, rather than at its lower end.
    """

    shows: str
    maps: torch.Tensor
    rows: int
    cols: int
    signed: bool


def plan_kernels(
    weight: torch.Tensor, options: KernelOptions, *, name: str = "weight", provenance: Provenance | None = None
) -> Plan | RgbPlan:
    """Plan the sheet of a weight.

    Args:
        weight: (out, in, ...) real dtype, 2 dimensions or more, on any device, finite or not. Not modified.
        options: which kind of sheet, and how large.
        name: of the parameter, for the manifest.
        provenance: the model that it belongs to, for the manifest.

    Returns:
        The plan, for write_kernels. Its manifest says what the tiles are, with no record for each.

    Raises:
        ShapeError: `weight` has less than 2 dimensions, or no values.
        DTypeError: `weight` is complex, sparse or on the meta device.
        OptionError: the option `kernels` is "none".
    """
    if weight.ndim < 2 or 0 in weight.shape:
        raise ShapeError(f"weight must have at least 2 dimensions and a value, got shape {tuple(weight.shape)}.")
    kernels = _as_kernels(weight)
    tiles = _choose(kernels, options.kernels)
    grid = _fitting_grid(tiles, options.scale)
    drawing = RenderOptions(
        plain=True, tile=(grid.tile_h, grid.tile_w), grid=(grid.rows, grid.cols), gap=grid.gap,
        background=GAP_COLOR,
        upsampling="nearest" if tiles.maps[0].numel() <= grid.tile_h * grid.tile_w else "bilinear",
        colormap=options.colormap or ("coolwarm" if tiles.signed else "viridis"),
        normalize="symmetric" if tiles.signed else "layer", threads=options.threads,
    )  # fmt: skip
    described: dict[str, Any] = {"parameter": name, "shape": list(weight.shape), "shows": tiles.shows}
    if tiles.shows == RGB:
        return _plan_rgb(kernels, drawing, described, provenance or Provenance())
    statistics = channel_statistics(backends.choose(drawing.backend, "cpu"), tiles.maps).cpu()
    vmin, vmax = _common_range(statistics, tiles.signed)
    described |= {"vmin": vmin, "vmax": vmax}
    return plan_sheet(
        tiles.maps,
        drawing,
        provenance or Provenance(),
        measured=statistics,
        ranges=GivenRanges(torch.full((len(tiles.maps),), vmin), torch.full((len(tiles.maps),), vmax)),
        describe=partial(_describe, described),
    )


def _common_range(statistics: ChannelStatistics, signed: bool) -> tuple[float, float]:
    """Return the one range of all tiles: from 0, or as far below 0 as above it. NaN where nothing is finite."""
    # fmin and fmax pass over the NaN of tiles that hold nothing finite.
    low, high = float(np.fmin.reduce(statistics.vmin.numpy())), float(np.fmax.reduce(statistics.vmax.numpy()))
    largest = max(-low, high) if signed else high
    return (-largest if signed else 0.0), largest


def write_kernels(plan: Plan | RgbPlan, path: Path) -> Path:
    """Draw a planned sheet into a PNG file, and write its manifest beside it.

    Args:
        plan: of plan_kernels.
        path: the file, ending in .png.

    Returns:
        The path.

    Raises:
        WriteError: the file cannot be written.
    """
    if isinstance(plan, Plan):
        return write_sheet(plan, path)
    refuse_other_json(path.with_suffix(".json"))
    write_png(plan, path)
    write_manifest(path, json_bytes(plan.describe()))
    return path


def kernels_of(held: HeldTensor) -> torch.Tensor:
    """Return a module's weight with its output channels on the first axis.

    Transposed convolutions have them on the second axis. Those with groups are left as they are: there the second axis
    holds the outputs of one group only.
    """
    from torch.nn.modules.conv import _ConvTransposeNd

    turned = isinstance(held.module, _ConvTransposeNd) and held.module.groups == 1 and held.values.ndim > 2
    return held.values.transpose(0, 1) if turned else held.values


def _as_kernels(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight as (out, in, height, width) float32 on the CPU; the docstring of the module says how."""
    while weight.ndim == 3 and weight.shape[0] == 1:
        weight = weight[0]
    if weight.ndim == 2:
        weight = weight[:, :, None, None]
    elif weight.ndim == 3:
        weight = weight[:, :, None]
    elif weight.ndim > 4:
        weight = weight.flatten(0, weight.ndim - 5)
        weight = weight.movedim(2, 1).flatten(0, 1) if weight.shape[1] == 3 else weight.flatten(1, 2)
    return as_maps(weight.flatten(0, 1)).cpu().reshape(weight.shape)


def _choose(kernels: torch.Tensor, wanted: str) -> _Tiles:
    """Choose what is drawn of kernels, (out, in, height, width) float32."""
    outputs, inputs, height, width = kernels.shape
    if wanted == "none":
        raise OptionError("kernels must name a kind of sheet, got 'none'. Take auto.")
    if height * width == 1:
        return _Tiles(MATRIX, kernels[None, :, :, 0, 0], 1, 1, signed=True)
    if wanted == "auto" and inputs == 1:
        return _Tiles("single", kernels[:, 0], 0, 0, signed=True)
    if wanted == "auto" and inputs == 3:
        return _Tiles(RGB, kernels[:, 0], 0, 0, signed=True)
    if wanted == "auto":
        wanted = "grid" if outputs * (height + 1) * inputs * (width + 1) <= GRID_PX else "norm"
    if wanted == "grid":
        return _Tiles("grid", kernels.flatten(0, 1), outputs, inputs, signed=True)
    if wanted == "norm":
        return _Tiles("norm", torch.linalg.vector_norm(kernels, dim=1), 0, 0, signed=False)
    return _Tiles("mean", kernels.mean(dim=1), 0, 0, signed=True)


def _fitting_grid(tiles: _Tiles, scale: int | None) -> Grid:
    """Lay tiles out at `scale` px a weight, or at the largest scale at which no side is longer than SHEET_PX.

    A matrix of more weights is reduced to that.
    """
    count, height, width = tiles.maps.shape

    def grid(px: int) -> Grid:
        gap = max(1, px // 4) if count > 1 else 0  # wide enough to tell where one kernel ends
        return plan_grid(count, height * px, width * px, grid=(tiles.rows, tiles.cols), gap=gap)

    if scale:
        return grid(scale)
    if tiles.shows == MATRIX and max(height, width) > SHEET_PX:
        return plan_grid(1, min(height, SHEET_PX), min(width, SHEET_PX))
    fitting = (grid(px) for px in range(LARGEST_SCALE, 0, -1))
    return next((found for found in fitting if max(found.height, found.width) <= SHEET_PX), grid(1))


def _plan_rgb(
    kernels: torch.Tensor, drawing: RenderOptions, described: dict[str, Any], provenance: Provenance
) -> RgbPlan:
    """Plan three planes, each kernel on the range of its finite values.

    A weight that is not finite spoils its pixel in all three.
    """
    finite = kernels.isfinite()
    vmin = kernels.where(finite, torch.inf).amin((1, 2, 3))
    vmax = kernels.where(finite, -torch.inf).amax((1, 2, 3))
    sound = kernels.where(finite.all(dim=1, keepdim=True), torch.nan)
    described = {**described, "vmin": vmin.tolist(), "vmax": vmax.tolist()}
    gray = replace(drawing, colormap="gray", normalize="channel")
    planes = (
        plan_sheet(
            sound[:, color], gray, provenance, ranges=GivenRanges(vmin, vmax), describe=partial(_describe, described)
        )
        for color in range(3)
    )
    return RgbPlan(tuple(planes))


def _describe(described: dict[str, Any], facts: SheetFacts) -> dict[str, Any]:
    return {**manifest_head(facts), **described}
