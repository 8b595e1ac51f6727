"""What commands that draw maps share: how sheets or single files are planned and written, and what is said of them."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .exit_codes import DONE, FAILED, PARTLY
from .terminal import complain, print_json, tell

if TYPE_CHECKING:
    from ..sheets.plan import Plan

    Write = Callable[[Plan, Path], list[Path]]


def ways_of(arguments: argparse.Namespace) -> tuple[Callable[..., Plan], Write]:
    """Return what plans and what writes: a sheet, or a folder of single files.

    Planning also checks names and formats, so that they are refused before the first file is written.
    """
    from ..formats.picture import check_size
    from ..sheets.plan import plan_sheet
    from ..sheets.render import write_sheet
    from ..sheets.tiles import plan_tiles, tile_names, write_tiles

    name = getattr(arguments, "name", None) or f"{{channel}}.{arguments.format}"

    def tile_paths(plan: Plan, folder: Path) -> list[Path]:
        return [folder / file for file in tile_names(plan, name, arguments.suffix)]

    def checked_tiles(*given: Any, **known: Any) -> Plan:
        plan = plan_tiles(*given, **known)
        check_size(tile_paths(plan, Path())[0], plan.grid.tile_h, plan.grid.tile_w)
        return plan

    def checked_sheet(*given: Any, **known: Any) -> Plan:
        plan = plan_sheet(*given, **known)
        check_size(Path(f"sheet.{arguments.format}"), plan.grid.height, plan.grid.width)
        return plan

    if getattr(arguments, "each", False):
        return checked_tiles, lambda plan, path: write_tiles(plan, tile_paths(plan, path))
    return checked_sheet, lambda plan, path: [write_sheet(plan, path.with_name(f"{path.name}.{arguments.format}"))]


class Said:
    """What is said of a run: paths at once on stdout, or everything at the end as JSON.

    as_json: which of the two.
    inputs: what goes in, such as "pictures".
    """

    def __init__(self, as_json: bool, inputs: str) -> None:
        self.as_json = as_json
        self.inputs = inputs
        self.files: list[dict[str, Any]] = []
        self.failures: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []

    def written(self, of: dict[str, Any], paths: Sequence[Path], plan: Plan) -> None:
        """Say which files show one layer, and what was found in it where that is wanted.

        Args:
            of: what they show, such as {"image": "cat.png", "layer": "conv1"}.
            paths: of the files.
            plan: of them.
        """
        self.files += [{**of, "path": str(path)} for path in paths]
        if not self.as_json:
            print(*paths, sep="\n", flush=True)
        if plan.report is None:
            return
        entries = plan.entries or ()
        strongest = {"strongest": [dataclasses.asdict(entry) for entry in entries]} if entries else {}
        self.reports.append({**of, **dataclasses.asdict(plan.report), **strongest})
        if not self.as_json:
            ranked = [f"{'strongest' if not place else '':<9}  {entry.line}" for place, entry in enumerate(entries)]
            tell([f"{', '.join(filter(None, of.values()))}:", *plan.report.lines(), *ranked])

    def failed(self, of: dict[str, Any], error: Exception) -> None:
        """Keep what is wrong with one input for the end."""
        self.failures.append({**of, "reason": str(error)})

    def all(self, count: int) -> int:
        """Say the rest of `count` inputs, and return the exit code."""
        if self.as_json:
            reports = {"reports": self.reports} if self.reports else {}
            print_json({"files": self.files, "failed": self.failures, **reports})
        for failure in self.failures:
            complain(failure["reason"])
        if self.failures and self.files:
            complain(f"{len(self.failures)} of {count} {self.inputs} failed.")
        return DONE if not self.failures else PARTLY if self.files else FAILED
