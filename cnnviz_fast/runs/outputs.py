"""What comes out of a picture and layer of a run: one kind of files each, in a folder of the layer.

    sheets      LAYER/PICTURE.png                 every channel in one picture
    tiles       LAYER/tiles/PICTURE/CHANNEL.png   a picture for each channel, with their manifest
    atlases     LAYER/PICTURE.atlas               every channel at its own resolution; see atlas.py
    maps        LAYER/PICTURE.safetensors         the maps themselves
    sum, ...    LAYER/sum/PICTURE.safetensors     what they are reduced to, (1, H, W)

No two files can meet, whatever pictures are called: they end differently, or lie in folders, which end in nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..channels.selection import reduced
from ..formats.atlas import SUFFIX, save_atlas
from ..formats.maps import write_maps
from ..formats.picture import format_of
from ..pipeline import LayerInput
from ..runtime.files import make_folder
from ..runtime.stage_times import stage
from ..sheets.manifest import describe_grid
from ..sheets.plan import plan_sheet
from ..sheets.render import write_picture
from ..sheets.tiles import MANIFEST_NAME, plan_tiles, tile_names, write_tiles

if TYPE_CHECKING:
    from ..sheets.plan import Plan


class Output(Protocol):
    """A kind of files."""

    def make(self, shown: LayerInput, folder: Path, layer: str, stem: str) -> tuple[list[str], dict[str, Any]]:
        """Make the files of a layer of one picture.

        Args:
            shown: the layer.
            folder: of the run.
            layer: folder of the layer in it.
            stem: of the picture's files.

        Returns:
            Paths of the files, relative to `folder`; and what the index tells of them, or, under "grid", the manifest.
        """


@dataclass(frozen=True)
class Sheets:
    """A picture of all channels."""

    format: str

    def make(self, shown: LayerInput, folder: Path, layer: str, stem: str) -> tuple[list[str], dict[str, Any]]:
        """See Product."""
        plan = _planned(shown)
        file = f"{layer}/{stem}.{self.format}"
        make_folder(folder / layer)
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
    """A picture for each channel, and their manifest."""

    format: str

    def make(self, shown: LayerInput, folder: Path, layer: str, stem: str) -> tuple[list[str], dict[str, Any]]:
        """See Product."""
        plan = _planned(shown, plan_tiles)
        names = tile_names(plan, f"{{channel}}.{self.format}", "")
        write_tiles(plan, [folder / layer / "tiles" / stem / name for name in names])
        return [f"{layer}/tiles/{stem}/{name}" for name in (*names, MANIFEST_NAME)], {}


@dataclass(frozen=True)
class Atlases:
    """Every channel at its own resolution."""

    def make(self, shown: LayerInput, folder: Path, layer: str, stem: str) -> tuple[list[str], dict[str, Any]]:
        """See Product."""
        file = f"{layer}/{stem}{SUFFIX}"
        make_folder(folder / layer)
        with stage("encode"):
            save_atlas(shown.maps, folder / file, provenance=shown.provenance)
        return [file], {}


@dataclass(frozen=True)
class Maps:
    """The maps, or what they are reduced to: sum, mean or max over the channels."""

    reduction: str | None = None

    def make(self, shown: LayerInput, folder: Path, layer: str, stem: str) -> tuple[list[str], dict[str, Any]]:
        """See Product."""
        maps = shown.maps
        if self.reduction is not None:
            with stage("render"):
                maps = reduced(maps, self.reduction)[None]
        file = f"{layer}/{self.reduction}/{stem}.safetensors" if self.reduction else f"{layer}/{stem}.safetensors"
        make_folder((folder / file).parent)
        with stage("encode"):
            write_maps({shown.provenance.layer or layer: (maps, shown.provenance)}, folder / file)
        return [file], {}


def _planned(shown: LayerInput, plan: Callable[..., Plan] = plan_sheet) -> Plan:
    with stage("render"):
        return shown.plan(plan)


def outputs_of(save: Sequence[str], format: str) -> list[Output]:
    """Return the kinds of files that names of `options.SAVES` stand for.

    Args:
        save: the names; statistics are none.
        format: of sheets and tiles: png, jpg, webp or npy.

    Returns:
        The kinds.

    Raises:
        OptionError: the format is none.
    """
    format_of(Path(f"sheet.{format}"))
    kinds: dict[str, Output] = {
        "sheets": Sheets(format),
        "tiles": Tiles(format),
        "atlases": Atlases(),
        "maps": Maps(),
        **{reduction: Maps(reduction) for reduction in ("sum", "mean", "max")},
    }
    return [kinds[name] for name in save if name != "statistics"]
