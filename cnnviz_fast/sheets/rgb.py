"""Sheets of tiles in colour: three plans of one grid, for red, green and blue, drawn by the kernels strip by strip.

What is written around tiles and between them has one colour in all three palettes, so it is drawn as on any sheet.
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..channels.tile_ranges import GivenRanges
from ..errors import OptionError
from ..formats import picture, png
from ..formats.manifest_files import refuse_other_json
from ..geometry import Grid, Strip, cut_strips
from ..options.drawing import RGB_OPTIONS, RenderOptions
from ..options.parsers import path as path_of
from ..provenance import Provenance, package_version
from ..runtime.files import json_bytes
from ..runtime.misspelt import unknown_option
from .manifest import SheetFacts, describe_grid
from .plan import Plan, plan_sheet
from .sheet import NOTEBOOK_PX, write_manifest

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class RgbPlan:
    """A sheet in colour: one plan each for red, green and blue, on the same grid and ranges."""

    planes: tuple[Plan, ...]

    @property
    def grid(self) -> Grid:
        """The grid of all three."""
        return self.planes[0].grid

    def describe(self) -> dict[str, Any]:
        """Return the manifest."""
        return self.planes[0].describe()

    def strips(self) -> list[Strip]:
        """Cut the sheet into strips."""
        return cut_strips(self.grid.height, self.grid.width, png.RGB_STRIP_PX)

    def draw(self, strip: Strip, out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Draw one strip into `out`, (rows of the strip, width, 3) uint8, and return it."""
        index = np.empty(out.shape[:2], dtype=np.uint8)
        for color, plane in enumerate(self.planes):
            out[..., color] = plane.palette.colors[plane.draw(strip, index), color]
        return out


@dataclass(frozen=True, eq=False, repr=False)
class RgbSheet:
    """A sheet in colour, drawn when its pixels are asked for.

    Attributes:
        plan: everything about it but its pixels.
    """

    plan: RgbPlan

    def __repr__(self) -> str:
        """Return what it is, in one line."""
        grid = self.plan.grid
        return f"RgbSheet({grid.count:,} tiles, {grid.height:,} x {grid.width:,} px)"

    @property
    def manifest(self) -> dict[str, Any]:
        """What the sheet shows, with a record for each tile."""
        return self.plan.describe()

    def rgb(self) -> NDArray[np.uint8]:
        """Return the sheet as (H, W, 3) uint8, RGB."""
        out = np.empty((self.plan.grid.height, self.plan.grid.width, 3), dtype=np.uint8)
        for strip in self.plan.strips():
            self.plan.draw(strip, out[strip.start : strip.stop])
        return out

    def pil(self) -> Image:
        """Return the sheet as a PIL image of mode RGB."""
        from PIL import Image

        return Image.fromarray(self.rgb())

    def save(self, path: str | os.PathLike[str], *, quality: int = 90, manifest: bool = True) -> Path:
        """Write the sheet, and its manifest beside it under the same name with the suffix .json.

        Args:
            path: the file; its suffix decides the format: .png, .jpg or .webp.
            quality: of JPEG and WebP, 1 to 100.
            manifest: False writes the sheet alone.

        Returns:
            The path.

        Raises:
            OptionError: the suffix names no format, or `quality` is out of range.
            EncodeError: the sheet is too large for the format.
            WriteError: a file cannot be written.
        """
        path = path_of("path", path)
        grid = self.plan.grid
        chosen = picture.check_size(path, grid.height, grid.width)
        if chosen.name == "NPY":
            raise OptionError(f"path must end in .png, .jpg or .webp for a sheet in colour, got {path.name!r}.")
        if manifest:
            refuse_other_json(path.with_suffix(".json"))
        if chosen.name == "PNG":
            write_png(self.plan, path)
        else:
            picture.write_picture(path, self.rgb(), None, quality=quality)
        if manifest:
            write_manifest(path, json_bytes(self.manifest))
        return path

    def _repr_png_(self) -> bytes:
        """Return a PNG for a notebook, scaled down where the sheet is large."""
        image = self.pil()
        factor = (NOTEBOOK_PX / (image.width * image.height)) ** 0.5
        if factor < 1:
            image = image.resize((max(1, int(image.width * factor)), max(1, int(image.height * factor))))
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def write_png(plan: RgbPlan, path: Path) -> None:
    """Draw a planned sheet into a PNG file, strip by strip."""
    png.write_png(path, plan.grid.height, plan.grid.width, None, plan.strips(), plan.draw, plan.planes[0].threads)


def rgb_sheet(
    images: NDArray[np.uint8],
    names: Sequence[str],
    provenance: Provenance,
    described: Mapping[str, Any],
    options: Mapping[str, Any],
) -> RgbSheet:
    """Plan a sheet of images of one size.

    Args:
        images: (K, H, W, 3) uint8. Not modified.
        names: what stands over each.
        provenance: where they came from, for the title and the manifest.
        described: what the manifest says beside that; `tiles` has a record for each image.
        options: those of `RGB_OPTIONS` that are given, by name.

    Returns:
        The sheet.

    Raises:
        OptionError: an option cannot be used here, or the sheet is too large.
    """
    for name in options:
        if name not in RGB_OPTIONS:
            raise unknown_option("sheet", name, RGB_OPTIONS)
    drawing = dataclasses.replace(RenderOptions.of(options), colormap="gray", marks=False)
    planes = torch.from_numpy(images).permute(3, 0, 1, 2).float()
    ranges = GivenRanges(torch.zeros(len(images)), torch.full((len(images),), 255.0))
    describe = partial(_describe, described)
    return RgbSheet(
        RgbPlan(
            tuple(
                plan_sheet(plane, drawing, provenance, names=names, ranges=ranges, describe=describe)
                for plane in planes
            )
        )
    )


def _describe(described: Mapping[str, Any], facts: SheetFacts) -> dict[str, Any]:
    """Return a manifest: the facts of the sheet, and what the caller says of each tile with its box."""
    tiles = [{**tile, "box": box} for tile, box in zip(described["tiles"], facts.grid.boxes(), strict=True)]
    return {
        "cnnviz_fast": package_version(),
        **facts.provenance.facts(),
        "maps": {"shape": [*facts.maps.shape[:1], 3, *facts.maps.shape[1:]]},
        "sheet": describe_grid(facts.grid),
        "backend": facts.backend,
        **described,
        "tiles": tiles,
    }
