"""What commands that draw maps share: which files show a layer of an image, and what is printed of them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from .outputs import format_name, refuse_several, single_file
from .terminal import DONE, FAILED, PARTLY, complain, print_json, print_lines, print_path
from .viewer import open_drawn

if TYPE_CHECKING:
    from ..formats.output_folders import OutputFolder
    from ..sheets.plan import Plan


@dataclass(frozen=True)
class SheetFiles:
    """A sheet for each layer: OUT/LAYER/IMAGE.png, or the one file that was named.

    planned: plans of sheets so far, so that a second one for one file is refused before the first is drawn.
    """

    format: str
    file: Path | None = None
    planned: list[Plan] = field(default_factory=list)

    def plan(self, *given: Any, **known: Any) -> Plan:
        """Plan a sheet as `plan_sheet` does, and refuse one that the format cannot hold."""
        from ..formats.picture import check_size
        from ..sheets.plan import plan_sheet

        plan = plan_sheet(*given, **known)
        if self.file is not None:
            self.planned.append(plan)
            refuse_several(self.file, len(self.planned))
        check_size(Path(f"sheet.{self.format}"), plan.grid.height, plan.grid.width)
        return plan

    def write(self, plan: Plan, out: OutputFolder, layer: str, image: str) -> list[Path]:
        """Write the sheet.

        Args:
            plan: of the sheet.
            out: folder of all outputs.
            layer: folder of the layer.
            image: stem of the image.

        Returns:
            Its path.
        """
        from ..sheets.render import write_sheet

        if self.file is not None:
            out.check(self.file, plan.describe)
            return [write_sheet(plan, self.file)]
        return [write_sheet(plan, out.place(layer, image, f".{self.format}", plan.describe))]


@dataclass(frozen=True)
class TileFiles:
    """A file for each tile: OUT/LAYER/tiles/IMAGE/CHANNEL.png.

    name: pattern of the file names; see save_tiles.
    suffix: what stands for {suffix} in it.
    """

    name: str
    suffix: str

    def plan(self, *given: Any, **known: Any) -> Plan:
        """Plan tiles as `plan_tiles` does, and refuse names and sizes that files cannot have."""
        from ..formats.picture import check_size
        from ..sheets.tiles import plan_tiles, tile_names

        plan = plan_tiles(*given, **known)
        check_size(Path(tile_names(plan, self.name, self.suffix)[0]), plan.grid.tile_h, plan.grid.tile_w)
        return plan

    def write(self, plan: Plan, out: OutputFolder, layer: str, image: str) -> list[Path]:
        """Write the tiles and their manifest.

        Args:
            plan: of the tiles.
            out: folder of all outputs.
            layer: folder of the layer.
            image: stem of the image.

        Returns:
            The path of each tile.
        """
        from ..sheets.tiles import tile_names, write_tiles

        folder = out.place(layer, image, "", plan.describe, kind="tiles")
        return write_tiles(plan, [folder / name for name in tile_names(plan, self.name, self.suffix)])


def files_of(arguments: argparse.Namespace, inputs: int = 1) -> SheetFiles | TileFiles:
    """Return which files a command writes: with --each tiles, else sheets.

    Args:
        arguments: of the command.
        inputs: number of images, as far as it is known.

    Raises:
        OptionError: --name or --suffix stands without --each, the name ends otherwise than --format says, or one file
            is named for several sheets.
    """
    from ..formats.picture import format_of

    given, file, format = vars(arguments), single_file(arguments.out), format_name(arguments)
    name, suffix = given.get("name"), given.get("suffix", "")
    if not given.get("each"):
        if name or suffix:
            raise OptionError("name and suffix go with each: sheets are named after layer and image.")
        refuse_several(file, inputs)
        return SheetFiles(format, file)
    if file is not None:
        raise OptionError(f"out must be a folder with each, got {str(file)!r}.")
    if name and format != "png" and format_of(Path(f"x.{format}")) != format_of(Path(name)):
        raise OptionError(f"name must end as format {format!r} does, got {name!r}. Leave format out.")
    files = TileFiles(name or f"{{channel}}.{format}", suffix)
    if name or suffix:
        from ..sheets.tiles import fill_names

        fill_names(["0"], files.name, suffix)  # what is wrong with it shows before a model is loaded
    return files


class Results:
    """What came of each input: paths are printed at once, or with JSON everything at the end.

    as_json: which of the two.
    inputs: what goes in: "images" or "atlases".
    """

    def __init__(self, as_json: bool, inputs: str) -> None:
        self.as_json = as_json
        self.inputs = inputs
        self._files: list[dict[str, Any]] = []
        self._failures: list[dict[str, Any]] = []
        self._reports: list[dict[str, Any]] = []

    def add(self, shown: dict[str, Any], paths: Sequence[Path], plan: Plan) -> None:
        """Print the files that show one layer, and the report on it where one was asked for.

        Args:
            shown: what they show, such as {"image": "cat.png", "layer": "conv1"}.
            paths: of the files.
            plan: of them.
        """
        self._files += [{**shown, "path": str(path)} for path in paths]
        if not self.as_json:
            for path in paths:
                print_path(path)
        if plan.report is None:
            return
        entries = plan.entries or ()
        strongest = {"strongest": [dataclasses.asdict(entry) for entry in entries]} if entries else {}
        self._reports.append({**shown, **dataclasses.asdict(plan.report), **strongest})
        if not self.as_json:
            ranked = [f"{'strongest' if not place else '':<9}  {entry.line}" for place, entry in enumerate(entries)]
            print_lines([f"{', '.join(filter(None, shown.values()))}:", *plan.report.lines(), *ranked])

    def fail(self, shown: dict[str, Any], error: Exception) -> None:
        """Keep the reason why an input failed; it is printed at the end."""
        self._failures.append({**shown, "reason": str(error)})

    def finish(self, count: int, folder: Path | None = None) -> int:
        """Print the rest on `count` inputs, and return the exit code; open what was drawn below a folder, if given."""
        if folder is not None:
            open_drawn([Path(file["path"]) for file in self._files], folder)
        if self.as_json:
            reports = {"reports": self._reports} if self._reports else {}
            print_json({"files": self._files, "failed": self._failures, **reports})
        for failure in self._failures:
            complain(failure["reason"])
        if self._failures and self._files:
            complain(f"{len(self._failures)} of {count} {self.inputs} failed.")
        return DONE if not self._failures else PARTLY if self._files else FAILED
