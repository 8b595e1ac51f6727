"""`cnnviz render`: the main job; prints the path of each file it wrote."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CaptureError, ImageError, OptionError
from ..kernels import backends
from ..options.drawing import RenderOptions
from ..options.reading import AxesOptions, PreprocessOptions
from ..options.runs import RunOptions
from . import atlas
from . import run as many
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
from .results import Said, ways_of
from .terminal import everything_is_loaded

if TYPE_CHECKING:
    from ..models.loaded import LoadedModel
    from ..pipeline import Drawing, NamedImage


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(commands, "render", run, "draw sheets of layers for pictures; prints the path of each file")
    model = parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    images = parser.add_argument(
        "images", metavar="IMAGE", nargs="+",
        help="files; or for any number of pictures folders, globs, lists (.txt, .lst, - for stdin), .tar or .parquet",
    )  # fmt: skip
    layer = parser.add_argument(
        "--layer", metavar="L", nargs="+", action="extend", required=True,
        help="names, wildcards, type:Conv2d, type:Conv2d#0,6 for some of them, numbers from `cnnviz layers`, or name:2 "
        "for the third call",
    )  # fmt: skip
    atlas.add_from_atlas(parser, instead_of=(model, images, layer))
    add_weights(parser)
    add_output(parser)
    _add_single_files(parser)
    add_max_pixels(parser)
    add_overlay(parser)
    add_options(parser, "preprocessing (default: what the weights say)", PreprocessOptions)
    add_options(parser, "reading", AxesOptions)
    add_options(parser, "drawing", RenderOptions)
    add_options(parser, "any number of pictures", RunOptions)


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
    if arguments.from_atlas is not None:
        return atlas.draw_atlases(arguments)
    if many.is_run(arguments):
        return many.run_over(arguments)
    options = options_of(arguments, RenderOptions)
    axes = options_of(arguments, AxesOptions)
    preprocess = options_of(arguments, PreprocessOptions)
    backdrop = overlay_of(arguments, arguments.max_pixels)
    folder = output_folder(arguments)

    backends.compile_ahead(options.backend)

    from ..models.load import load_model
    from ..pipeline import Drawing, name_images

    images = name_images(arguments.images)
    model = load_model(
        arguments.model, weights=arguments.weights, seed=arguments.seed, device=arguments.device, preprocess=preprocess
    )
    return draw(arguments, model, images, folder, Drawing(options, axes, backdrop), arguments.max_pixels)


def _check_format(arguments: argparse.Namespace) -> None:
    """Refuse a name of single files that ends otherwise than --format says."""
    from ..formats.picture import format_of

    if arguments.name and arguments.format != "png":
        wanted, named = format_of(Path(f"x.{arguments.format}")), format_of(Path(arguments.name))
        if wanted != named:
            raise OptionError(
                f"name must end as format {arguments.format!r} does, got {arguments.name!r}. Leave format out."
            )


def draw(
    arguments: argparse.Namespace,
    model: LoadedModel,
    images: Sequence[NamedImage],
    folder: Path,
    drawing: Drawing,
    max_pixels: int,
) -> int:
    """Draw every image; one that cannot be read or run does not stop the others.

    Args:
        arguments: of the command: layer, format, json, debug.
        model: the record of load_model.
        images: of name_images.
        folder: where files go.
        drawing: how to draw.
        max_pixels: largest image to read, in px.

    Returns:
        The exit code.
    """
    from ..formats.names import layer_parts
    from ..pipeline import look_at, plan_layers
    from ..runtime.files import make_folder
    from ..runtime.progress import with_bar

    plan, write = ways_of(arguments)
    if drawing.options.backend in ("auto", "numba"):
        backends.missing("numba")  # loads it
    everything_is_loaded()
    said = Said(arguments.json, "images")
    for image in with_bar(images, "image"):
        try:
            plans = plan_layers(look_at(model, image, arguments.layer, max_pixels, drawing), plan)
        except (ImageError, CaptureError) as error:
            if arguments.debug:
                raise
            said.failed({"image": image.name}, error)
            continue
        for layer, part in zip(list(plans), layer_parts(list(plans)), strict=True):
            planned = plans.pop(layer)
            make_folder(folder / part)
            paths = write(planned, folder / part / image.stem)
            said.written({"image": image.name, "layer": layer}, paths, planned)
    return said.all(len(images))
