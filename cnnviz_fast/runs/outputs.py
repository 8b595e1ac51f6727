"""The kinds of files that a run writes of an image and layer, each kind in a folder of the layer.

    sheets      LAYER/IMAGE.png                 all channels in one sheet
    tiles       LAYER/tiles/IMAGE/CHANNEL.png   a file for each channel, with their manifest
    atlases     LAYER/IMAGE.atlas               every channel at its own resolution; see formats/atlas.py
    attribution METHOD/LAYER/IMAGE.atlas        heat maps; see attributed.py
    maps        LAYER/IMAGE.safetensors         the maps themselves
    sum, ...    LAYER/sum/IMAGE.safetensors     the maps reduced over their channels, (1, H, W)

No two files have the same name, whatever the images are called: their suffixes differ, or their folders do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..channels.selection import reduced
from ..formats.atlas import write_atlas
from ..formats.atlas_head import SUFFIX
from ..formats.maps import write_maps
from ..formats.picture import format_of
from ..pipeline import LayerInput
from ..provenance import MANIFEST_NAME
from ..runtime.files import make_folder
from ..runtime.stage_times import stage
from ..sheets.manifest import describe_grid
from ..sheets.plan import plan_sheet
from ..sheets.render import write_picture
from ..sheets.tiles import plan_tiles, tile_names, write_tiles

if TYPE_CHECKING:
    from ..sheets.plan import Plan


class Output(Protocol):
    """A kind of files."""

    def make(self, layer: LayerInput, folder: Path, part: str, stem: str) -> tuple[list[str], dict[str, Any]]:
        """Write the files of a layer of one image.

        Args:
            layer: its maps, and how they are drawn.
            folder: of the run.
            part: name of the layer's folder in it.
            stem: of the image's files.

        Returns:
            Paths of the files, relative to `folder`; and fields of the layer's IndexRow.
        """


@dataclass(frozen=True)
class Sheets:
    """One sheet of all channels."""

    format: str

    def make(self, layer: LayerInput, folder: Path, part: str, stem: str) -> tuple[list[str], dict[str, Any]]:
        """Write the sheet; see Output."""
        plan = _planned(layer)
        file = f"{part}/{stem}.{self.format}"
        make_folder(folder / part)
        write_picture(plan, folder / file)
        facts: dict[str, Any] = {"sheet": [plan.grid.height, plan.grid.width], "grid": describe_grid(plan.grid)}
        if plan.selection.scores is not None or plan.selection.reductions is not None:
            facts["tiles"] = plan.selection.names
        if plan.report is not None:
            facts["report"] = dataclasses.asdict(plan.report)
        if plan.entries is not None:
            facts["strongest"] = [dataclasses.asdict(entry) for entry in plan.entries]
        return [file], facts


@dataclass(frozen=True)
class Tiles:
    """A file for each channel, and their manifest."""

    format: str

    def make(self, layer: LayerInput, folder: Path, part: str, stem: str) -> tuple[list[str], dict[str, Any]]:
        """Write the tiles and their manifest; see Output."""
        plan = _planned(layer, plan_tiles)
        names = tile_names(plan, f"{{channel}}.{self.format}", "")
        write_tiles(plan, [folder / part / "tiles" / stem / name for name in names])
        return [f"{part}/tiles/{stem}/{name}" for name in (*names, MANIFEST_NAME)], {}


@dataclass(frozen=True)
class Atlases:
    """Every channel at its own resolution.

    unrounded: whether the maps are kept as they are too.
    """

    unrounded: bool = False

    def make(self, layer: LayerInput, folder: Path, part: str, stem: str) -> tuple[list[str], dict[str, Any]]:
        """Write the atlas; see Output."""
        file = f"{part}/{stem}{SUFFIX}"
        make_folder(folder / part)
        options = layer.options
        measured = layer.measured if options.channels is None and options.backend == "auto" else None
        with stage("encode"):
            write_atlas(layer.maps, folder / file, layer.provenance, measured, unrounded=self.unrounded)
        return [file], {}


@dataclass(frozen=True)
class Maps:
    """The maps, or their sum, mean or max over the channels."""

    reduction: str | None = None

    def make(self, layer: LayerInput, folder: Path, part: str, stem: str) -> tuple[list[str], dict[str, Any]]:
        """Write the maps; see Output."""
        maps = layer.maps
        if self.reduction is not None:
            with stage("render"):
                maps = reduced(maps, self.reduction)[None]
        file = f"{part}/{self.reduction}/{stem}.safetensors" if self.reduction else f"{part}/{stem}.safetensors"
        make_folder((folder / file).parent)
        with stage("encode"):
            write_maps({layer.provenance.layer or part: (maps, layer.provenance)}, folder / file)
        return [file], {}


def _planned(layer: LayerInput, plan: Callable[..., Plan] = plan_sheet) -> Plan:
    with stage("render"):
        return layer.plan(plan)


def outputs_of(save: Sequence[str], format: str) -> list[Output]:
    """Return the kinds of files that names of `options.runs.SAVES` stand for.

    Args:
        save: the names. Statistics and the strongest images are of all images, and so not among the kinds.
        format: of sheets and tiles: png, jpg, webp or npy.

    Returns:
        The kinds.

    Raises:
        OptionError: there is no such format.
    """
    format_of(Path(f"sheet.{format}"))
    kinds: dict[str, Output] = {
        "sheets": Sheets(format),
        "tiles": Tiles(format),
        "atlases": Atlases(),
        "maps": Maps(),
        **{reduction: Maps(reduction) for reduction in ("sum", "mean", "max")},
    }
    return [kinds[name] for name in save if name in kinds]


def heat_outputs_of(save: Sequence[str], format: str, *, drawn: bool) -> list[Output]:
    """Return the kinds of files that are written of heat maps.

    Args:
        save: names of `options.runs.SAVES`.
        format: of sheets.
        drawn: whether they are drawn over the image.

    Returns:
        The kinds; none where `save` names no attribution.
    """
    if "attribution" not in save:
        return []
    return [Sheets(format) if drawn else Atlases(unrounded=True)]
