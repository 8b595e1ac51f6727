"""`cnnviz render`: the main job; prints the path of each file it wrote."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import backends
from ..errors import CaptureError, ImageError, OptionError
from ..options import LayoutOptions, PreprocessOptions, RenderOptions
from . import DONE, FAILED, PARTLY
from .arguments import (
    MODEL_HELP,
    add_command,
    add_max_pixels,
    add_options,
    add_output,
    add_overlay,
    add_weights,
    options_of,
    output_folder,
    overlay_of,
)
from .terminal import complain, everything_is_loaded, print_json, tell

if TYPE_CHECKING:
    from ..look import Picture
    from ..models import LoadedModel
    from ..plan import Plan

    Write = Callable[[Plan, Path], list[Path]]


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(commands, "render", run, "draw sheets of layers for pictures; prints the path of each file")
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="files, folders or globs")
    parser.add_argument(
        "--layer", metavar="L", nargs="+", action="extend", required=True,
        help="names, wildcards, type:Conv2d, type:Conv2d#0,6 for some of them, numbers from `cnnviz layers`, or name:2 "
        "for the third call",
    )  # fmt: skip
    add_weights(parser)
    add_output(parser)
    _add_single_files(parser)
    add_max_pixels(parser)
    add_overlay(parser)
    add_options(parser, "preprocessing (default: what the weights say)", PreprocessOptions)
    add_options(parser, "reading", LayoutOptions)
    add_options(parser, "drawing", RenderOptions)


def _add_single_files(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("single files")
    group.add_argument("--each", action="store_true", help="a file for each tile, in a folder for each layer")
    group.add_argument(
        "--name", metavar="PATTERN", help="of each file, with {channel} and {suffix} (default {channel}.FORMAT)"
    )
    group.add_argument("--suffix", metavar="TEXT", default="", help="what stands for {suffix} in it")


def run(arguments: argparse.Namespace) -> int:
    """Draw the layers of the pictures."""
    if not arguments.each and (arguments.name or arguments.suffix):
        raise OptionError("name and suffix go with each: sheets are named after picture and layer.")
    _check_format(arguments)
    options = options_of(arguments, RenderOptions)
    layout = options_of(arguments, LayoutOptions)
    preprocess = options_of(arguments, PreprocessOptions)
    backdrop = overlay_of(arguments, arguments.max_pixels)
    folder = output_folder(arguments)

    backends.compile_ahead(options.backend)

    from ..look import list_pictures
    from ..models import load_model

    pictures = list_pictures(arguments.images)
    model = load_model(
        arguments.model, weights=arguments.weights, seed=arguments.seed, device=arguments.device, preprocess=preprocess
    )
    return draw(arguments, model, pictures, folder, Drawing(options, layout, arguments.max_pixels, backdrop))


def _check_format(arguments: argparse.Namespace) -> None:
    """Refuse a name of single files that ends otherwise than --format says."""
    from ..encode.formats import format_of

    if arguments.name and arguments.format != "png":
        wanted, named = format_of(Path(f"x.{arguments.format}")), format_of(Path(arguments.name))
        if wanted != named:
            raise OptionError(
                f"name must end as format {arguments.format!r} does, got {arguments.name!r}. Leave format out."
            )


@dataclasses.dataclass(frozen=True)
class Drawing:
    """How pictures are read and drawn.

    options: how to draw.
    layout: how to read what the layers put out.
    max_pixels: largest picture to read, in px.
    backdrop: of read_overlay.
    """

    options: RenderOptions
    layout: LayoutOptions
    max_pixels: int
    backdrop: Any


def draw(
    arguments: argparse.Namespace, model: LoadedModel, pictures: Sequence[Picture], folder: Path, drawing: Drawing
) -> int:
    """Draw every picture; one that cannot be read or run does not stop the others.

    Args:
        arguments: of the command: layer, format, json, debug.
        model: the record of load_model.
        pictures: of list_pictures.
        folder: where files go.
        drawing: how to draw.

    Returns:
        The exit code.
    """
    from ..file_names import layer_stem, refuse_same_names
    from ..look import look_at, plan_layers
    from ..progress import with_bar

    plan, write = _ways(arguments)
    if drawing.options.backend in ("auto", "numba"):
        backends.missing("numba")  # loads it
    everything_is_loaded()
    said = _Said(arguments.json)
    for picture in with_bar(pictures, "picture"):
        try:
            seen = look_at(model, picture, arguments.layer, drawing.max_pixels, drawing.layout)
            plans = plan_layers(model, seen, drawing.options, drawing.backdrop, plan)
            del seen  # what is drawn is let go of, before the maps of the next picture need memory
        except (ImageError, CaptureError) as error:
            if arguments.debug:
                raise
            said.failed.append({"image": picture.name, "reason": str(error)})
            continue
        if not said.files:
            refuse_same_names([each.stem for each in pictures], plans)
        for layer in list(plans):
            planned = plans.pop(layer)
            said.written(picture, layer, write(planned, folder / layer_stem(picture.stem, layer)))
            said.findings(picture, layer, planned)
    return said.all(len(pictures))


def _ways(arguments: argparse.Namespace) -> tuple[Callable[..., Plan], Write]:
    """Return what plans and what writes: a sheet a layer, or a folder of single files a layer.

    Planning also checks names and formats, so that they are refused before the first layer is written.
    """
    from ..encode.formats import check_size
    from ..plan import plan_sheet
    from ..render import write_sheet
    from ..tiles import plan_tiles, tile_names, write_tiles

    name = getattr(arguments, "name", None) or f"{{channel}}.{arguments.format}"

    def tile_paths(plan: Plan, folder: Path) -> list[Path]:
        return [folder / file for file in tile_names(plan, name, arguments.suffix)]

    def checked_tiles(*given: Any, **ranges: Any) -> Plan:
        plan = plan_tiles(*given, **ranges)
        check_size(tile_paths(plan, Path())[0], plan.layout.tile_h, plan.layout.tile_w)
        return plan

    def checked_sheet(*given: Any, **ranges: Any) -> Plan:
        plan = plan_sheet(*given, **ranges)
        check_size(Path(f"sheet.{arguments.format}"), plan.layout.height, plan.layout.width)
        return plan

    if getattr(arguments, "each", False):
        return checked_tiles, lambda plan, path: write_tiles(plan, tile_paths(plan, path))
    return checked_sheet, lambda plan, path: [write_sheet(plan, path.with_name(f"{path.name}.{arguments.format}"))]


class _Said:
    """What is said of a run: paths at once on stdout, or everything at the end as JSON."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.files: list[dict[str, str]] = []
        self.failed: list[dict[str, str]] = []
        self.reports: list[dict[str, Any]] = []

    def written(self, picture: Picture, layer: str, paths: Sequence[Path]) -> None:
        self.files += [{"image": picture.name, "layer": layer, "path": str(path)} for path in paths]
        if not self.as_json:
            print(*paths, sep="\n", flush=True)

    def findings(self, picture: Picture, layer: str, plan: Plan) -> None:
        if plan.report is None:
            return
        entries = plan.entries or ()
        found = {"image": picture.name, "layer": layer, **dataclasses.asdict(plan.report)}
        strongest = {"strongest": [dataclasses.asdict(entry) for entry in entries]} if entries else {}
        self.reports.append(found | strongest)
        if not self.as_json:
            ranked = [f"{'strongest' if not place else '':<9}  {entry.line}" for place, entry in enumerate(entries)]
            tell([f"{picture.name}, {layer}:", *plan.report.lines(), *ranked])

    def all(self, pictures: int) -> int:
        """Say the rest, and return the exit code."""
        if self.as_json:
            reports = {"reports": self.reports} if self.reports else {}
            print_json({"files": self.files, "failed": self.failed, **reports})
        for failure in self.failed:
            complain(failure["reason"])
        if self.failed and self.files:
            complain(f"{len(self.failed)} of {pictures} pictures failed.")
        return DONE if not self.failed else PARTLY if self.files else FAILED
