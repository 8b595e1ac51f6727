"""`cnnviz atlas`: sheets of layers that a run has kept as atlases; no model runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AtlasError, InputError, OptionError
from ..kernels import backends
from ..options.drawing import RenderOptions
from ..options.reading import MAX_PIXELS
from ..options.runs import RunOptions
from .arguments import (
    add_max_pixels,
    add_options,
    add_output,
    add_overlay,
    add_overwrite,
    add_tiles,
    check_colours,
    options_of,
    overlay_of,
)
from .outputs import output_folder
from .parser import CommandParser, add_command
from .results import Results, files_of
from .terminal import everything_is_loaded

if TYPE_CHECKING:
    from ..formats.atlas_files import AtlasFile


def add(commands: Any) -> None:
    """Add the command."""
    add_command(
        commands, "atlas", run, "draw what `cnnviz run --save atlases` kept; no model runs",
        declare=_declare,
        usage="ATLAS... [options]",
        examples=[
            "cnnviz atlas run/layer4/cat.atlas --tile 96 --out sheets/",
            "cnnviz atlas run/layer4/ --topk 12 --label --out sheets/",
            "cnnviz atlas shard-000000.tar --normalize layer --out sheets/",
        ],
    )  # fmt: skip


def _declare(parser: CommandParser) -> None:
    parser.add(
        "job", "atlases", metavar="ATLAS", nargs="+", text="files, and folders and .tar files, such as those of a run"
    )
    add_output(parser, "DIR/LAYER/IMAGE.png, by the layer that an atlas names and its file's name")
    add_overwrite(parser)
    parser.add(
        "range", "--statistics", metavar="RUN", default=argparse.SUPPRESS,
        text="for normalize dataset: the run that kept them",
    )  # fmt: skip
    add_tiles(parser)
    add_options(parser, RenderOptions)
    add_overlay(parser, "lay maps over this image")
    add_max_pixels(parser)


def run(arguments: argparse.Namespace) -> int:
    """Draw a sheet, or single files, of each atlas; one that cannot be read does not stop the others.

    Raises:
        InputError: an option does not suit an atlas.
    """
    _refuse_what_needs_an_image(arguments)
    options = options_of(arguments, RenderOptions)
    check_colours(options)
    statistics = options_of(arguments, RunOptions).statistics
    if options.normalize == "dataset" and statistics is None:
        raise OptionError("normalize 'dataset' needs statistics of the data set. Give them with --statistics RUN.")
    backdrop = overlay_of(arguments, arguments.max_pixels)

    from ..formats.atlas_files import find_atlases

    atlases = find_atlases(arguments.atlases)
    files = files_of(arguments, len(atlases))
    out = output_folder(arguments)

    backends.compile_ahead(options.backend)

    from ..channels.dataset import ranges_of_layer
    from ..channels.dataset_files import ranges_for
    from ..models.load import resolve_device
    from ..runtime.progress import with_bar

    ranges = ranges_for(Path(statistics), options) if statistics else None
    device = resolve_device(arguments.device)
    everything_is_loaded()
    results = Results(arguments.json, "atlases")
    for found, (folder, stem) in zip(with_bar(atlases, "atlas"), _names(atlases), strict=True):
        try:
            atlas = found.read()
        except AtlasError as error:
            if arguments.debug:
                raise
            results.fail({"atlas": found.name}, error)
            continue
        try:
            drawn_on = ranges_of_layer(atlas.provenance.layer, ranges)
            plan = files.plan(atlas.maps.to(device), options, atlas.provenance, backdrop, ranges=drawn_on)
        except InputError as error:
            raise type(error)(f"{Path(found.name).name}: {error}") from error
        shown = {"atlas": found.name, "image": atlas.provenance.image, "layer": atlas.provenance.layer}
        results.add(shown, files.write(plan, out, folder, stem), plan)
    return results.finish(len(atlases), out.path if arguments.open else None)


def _refuse_what_needs_an_image(arguments: argparse.Namespace) -> None:
    """Refuse what would mean nothing here, as an atlas holds maps and no image."""
    if arguments.overlay is True:
        raise OptionError("overlay needs the path of an image here, as an atlas holds none. Give it.")
    if arguments.overlay is None and arguments.max_pixels != MAX_PIXELS:
        raise OptionError("max-pixels goes with overlay here, as an atlas holds no image. Leave it out.")


def _names(atlases: Sequence[AtlasFile]) -> list[tuple[str, str]]:
    """Return the layer's folder below --out and the stem of what shows each atlas, no two the same."""
    from ..formats.names import layer_parts, output_stems

    together: dict[str, list[int]] = {}
    for number, each in enumerate(atlases):
        together.setdefault(each.layer(), []).append(number)
    names = [("", "")] * len(atlases)
    for folder, numbers in zip(layer_parts(list(together)), together.values(), strict=True):
        for number, stem in zip(numbers, output_stems([atlases[number].name for number in numbers]), strict=True):
            names[number] = folder, stem
    return names
