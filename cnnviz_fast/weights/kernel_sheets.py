"""Pictures of weights: the kernels of a layer, drawn as any sheet is, enlarged by a whole number, nearest.

    rgb         3 input channels: a colour tile for each output channel, on the range of its own three planes
    grid        rows are output channels and columns input channels; all on one range, 0 in the middle
    single      1 input channel (depthwise or grey): a tile for each output channel; all on one range, 0 in the middle
    norm, mean  a tile for each output channel: Euclidean norm or mean over its input channels, on one range
    matrix      1x1 kernels and the weights of linear layers: one tile, rows are outputs and columns inputs

`auto` is matrix, rgb or single where the shape is theirs, and otherwise grid, or norm where the grid would have more
than GRID_PX. A matrix is a matrix whatever was asked for: its tiles would be pixels. A shape other than (out, in,
height, width) is read as one: (out, in) as 1x1 kernels, (out, in, width) as kernels one row high, the time steps of
(out, in, time, height, width) as further channels, further outputs where `in` is 3; leading axes of 1 before a matrix
are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..channels.values import as_maps
from ..errors import OptionError, ShapeError
from ..formats import png
from ..geometry import Grid, Strip, cut_strips, plan_grid
from ..options.drawing import RenderOptions
from ..options.weights import KernelOptions
from ..provenance import Provenance
from ..runtime.files import json_bytes
from ..sheets.plan import Plan, plan_sheet
from ..sheets.render import write_sheet
from ..sheets.sheet import write_manifest
from .histogram_sheet import picture_head

if TYPE_CHECKING:
    from .parameters import InMemoryImage

GRID_PX = 1 << 24
"""Largest grid that `auto` draws, at 1 px a weight: 16.8 megapixels, a sheet of 4096 px a side. 512 x 512 kernels of
3 x 3 take a quarter of it."""

SHEET_PX = 2048
"""Longer side of a sheet that is enlarged no further."""

LARGEST_SCALE = 16

RGB = "rgb"


@dataclass(frozen=True)
class RgbPlan:
    """A sheet in colour: one plan for each of red, green and blue, on the same grid and ranges."""

    planes: tuple[Plan, ...]
    describe: Callable[[], dict[str, Any]]

    @property
    def grid(self) -> Grid:
        """The grid of all three."""
        return self.planes[0].grid

    def draw(self, strip: Strip, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Draw one strip into `out`, (rows of the strip, width, 3) uint8, and return it."""
        index = np.empty(out.shape[:2], dtype=np.uint8)
        for color, plane in enumerate(self.planes):
            out[..., color] = plane.palette.colors[plane.draw(strip, index), color]
        return out


@dataclass(frozen=True)
class _Picture:
    """What is drawn: maps (C, H, W) float32, and how they lie. rows, cols: of the grid, 0 for as many as needed."""

    shows: str
    maps: torch.Tensor
    rows: int
    cols: int
    signed: bool


def plan_kernels(
    weight: torch.Tensor, options: KernelOptions, *, name: str = "weight", provenance: Provenance | None = None
) -> Plan | RgbPlan:
    """Plan the picture of a weight.

    Args:
        weight: (out, in, ...) real dtype, 2 dimensions or more, on any device, finite or not. Not modified.
        options: which picture, and how large.
        name: of the parameter, for the manifest.
        provenance: the model that it belongs to, for the manifest.

    Returns:
        The plan, for write_kernels. Its manifest says what the tiles are, with no record for each.

    Raises:
        ShapeError: `weight` has less than 2 dimensions, or no values.
        DTypeError: `weight` is complex, sparse or on the meta device.
        OptionError: the option `kernels` is none.
    """
    if weight.ndim < 2 or 0 in weight.shape:
        raise ShapeError(f"weight must have at least 2 dimensions and a value, got shape {tuple(weight.shape)}.")
    kernels = _as_kernels(weight)
    picture = _choose(kernels, options.kernels)
    described: dict[str, Any] = {"parameter": name, "shape": list(weight.shape), "shows": picture.shows}
    grid = _fitting_layout(picture, options.scale)
    drawing = RenderOptions(
        tile=(grid.tile_h, grid.tile_w), grid=(grid.rows, grid.cols), gap=grid.gap, upsampling="nearest",
        colormap=options.colormap or ("coolwarm" if picture.signed else "viridis"), threads=options.threads,
    )  # fmt: skip
    if picture.shows == RGB:
        return _plan_rgb(kernels, drawing, described, provenance or Provenance())
    plan = plan_sheet(picture.maps, drawing, provenance or Provenance())
    # The plan has measured every kernel; fmin and fmax pass over those that hold nothing finite.
    low, high = np.fmin.reduce(np.asarray(plan.vmin)), np.fmax.reduce(np.asarray(plan.vmax))
    vmin, vmax = (-max(-low, high), max(-low, high)) if picture.signed else (np.float32(0), high)
    described |= {"vmin": float(vmin), "vmax": float(vmax)}
    return replace(
        plan,
        vmin=plan.backend.to_array(torch.full((len(picture.maps),), float(vmin))),
        vmax=plan.backend.to_array(torch.full((len(picture.maps),), float(vmax))),
        paint=plan.paint._replace(flat=0.5 if picture.signed else 0.0),
        describe=partial(_describe, plan, described, provenance or Provenance()),
    )


def write_kernels(plan: Plan | RgbPlan, path: Path) -> Path:
    """Draw a planned picture into a PNG file, with its manifest beside it.

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
    height, width = plan.grid.height, plan.grid.width
    strips = cut_strips(height, width, png.RGB_STRIP_PX)
    png.write_png(path, height, width, None, strips, plan.draw, plan.planes[0].threads)
    write_manifest(path, json_bytes(plan.describe()))
    return path


def kernels_of(held: InMemoryImage) -> torch.Tensor:
    """Return a module's weight with its output channels first, which transposed convolutions have behind.

    With groups those keep their order: their second axis holds the outputs of one group only.
    """
    from torch.nn.modules.conv import _ConvTransposeNd

    turned = isinstance(held.module, _ConvTransposeNd) and held.module.groups == 1 and held.values.ndim > 2
    return held.values.transpose(0, 1) if turned else held.values


def _as_kernels(weight: torch.Tensor) -> torch.Tensor:
    """Return a weight as (out, in, height, width) float32 on the CPU; the head of this file says how."""
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


def _choose(kernels: torch.Tensor, wanted: str) -> _Picture:
    """Choose the picture of kernels, (out, in, height, width) float32."""
    outputs, inputs, height, width = kernels.shape
    if wanted == "none":
        raise OptionError("kernels must name a picture, got 'none'. Take auto.")
    if height * width == 1:
        return _Picture("matrix", kernels[None, :, :, 0, 0], 1, 1, signed=True)
    if wanted == "auto" and inputs == 1:
        return _Picture("single", kernels[:, 0], 0, 0, signed=True)
    if wanted == "auto" and inputs == 3:
        return _Picture(RGB, kernels[:, 0], 0, 0, signed=True)
    if wanted == "auto":
        wanted = "grid" if outputs * (height + 1) * inputs * (width + 1) <= GRID_PX else "norm"
    if wanted == "grid":
        return _Picture("grid", kernels.flatten(0, 1), outputs, inputs, signed=True)
    if wanted == "norm":
        return _Picture("norm", torch.linalg.vector_norm(kernels, dim=1), 0, 0, signed=False)
    return _Picture("mean", kernels.mean(dim=1), 0, 0, signed=True)


def _fitting_layout(picture: _Picture, scale: int | None) -> Grid:
    """Lay a picture out at `scale` px a weight, or at the largest scale at which it is at most SHEET_PX a side."""
    count, height, width = picture.maps.shape

    def grid(px: int) -> Grid:
        gap = max(1, px // 4) if count > 1 else 0  # as wide as it takes to tell kernels of enlarged weights apart
        return plan_grid(count, height * px, width * px, grid=(picture.rows, picture.cols), gap=gap)

    if scale:
        return grid(scale)
    fitting = (grid(px) for px in range(LARGEST_SCALE, 0, -1))
    return next((found for found in fitting if max(found.height, found.width) <= SHEET_PX), grid(1))


def _plan_rgb(
    kernels: torch.Tensor, drawing: RenderOptions, described: dict[str, Any], provenance: Provenance
) -> RgbPlan:
    """Plan three planes, each kernel on the range of all its finite values; a value that is not spoils its pixel."""
    finite = kernels.isfinite()
    vmin = kernels.where(finite, torch.inf).amin((1, 2, 3))
    vmax = kernels.where(finite, -torch.inf).amax((1, 2, 3))
    sound = kernels.where(finite.all(dim=1, keepdim=True), torch.nan)
    planes = []
    for color in range(3):
        plan = plan_sheet(sound[:, color], replace(drawing, colormap="gray"), provenance)
        planes.append(replace(plan, vmin=plan.backend.to_array(vmin), vmax=plan.backend.to_array(vmax)))
    described = {**described, "vmin": vmin.tolist(), "vmax": vmax.tolist()}
    return RgbPlan(tuple(planes), partial(_describe, planes[0], described, provenance))


def _describe(plan: Plan, described: dict[str, Any], provenance: Provenance) -> dict[str, Any]:
    return {**picture_head(provenance, plan.grid, plan.backend.name), **described}
