"""`cnnviz attribute`: heat maps of what a score of a model depends on; prints the path of each file."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from ..errors import ImageError
from ..kernels import backends
from ..options.attribution import METHOD_NAMES, AttributionOptions
from ..options.drawing import SINGLE_SHEETS, WITHOUT_STATISTICS, RenderOptions
from ..options.reading import AxesOptions, ImageOptions, PreprocessOptions
from .arguments import (
    add_attribution,
    add_input,
    add_layers,
    add_max_pixels,
    add_options,
    add_output,
    add_overlay,
    add_overwrite,
    add_weights,
    attribution_options,
    drawing_options,
    given_options,
    options_of,
    overlay_of,
)
from .loading import add_calling, add_model, load
from .outputs import output_folder
from .parser import CommandParser, add_command
from .results import Results, files_of

if TYPE_CHECKING:
    from ..pipeline import NamedImage


_NOT_TAKEN = (*SINGLE_SHEETS, "channels", "colorbar", "marks")
"""Options of drawing that heat maps do not take: each target is a tile, and the colour bar is always there."""

_TEXTS = {**WITHOUT_STATISTICS, "colormap": "name (default inferno; with both signs coolwarm, about 0)"}


def add(commands: Any) -> None:
    """Add the command."""
    add_command(
        commands, "attribute", run, "draw what a class, a channel or a unit depends on, over the image",
        declare=_declare,
        usage="MODEL IMAGE... [options]",
        examples=[
            "cnnviz attribute resnet50 cat.jpg --layer layer4 --target top3 --out heat/",
            "cnnviz attribute resnet50 cat.jpg --method guided --target layer3@0-63,max",
            "cnnviz attribute vit_b_16 cat.jpg --method rollout --target tabby",
        ],
    )  # fmt: skip


def _declare(parser: CommandParser) -> None:
    add_model(parser)
    parser.add("job", "images", metavar="IMAGE", nargs="+", text="image files")
    add_attribution(
        parser,
        f"{METHOD_NAMES[0]} (default), {', '.join(METHOD_NAMES[1:])}",
        "top (default), top5, a class's number or name, LAYER@CHANNEL[,Y,X], LAYER@0-63,max; none for eigencam; "
        "attention and rollout are weighted with its gradient",
    )
    add_layers(parser, default="the last stage; attention: last, rollout: all")
    add_output(parser, "DIR/METHOD/LAYER/IMAGE.png")
    add_overwrite(parser)
    add_weights(parser, "seed of random weights and smoothgrad")
    add_options(parser, RenderOptions, _NOT_TAKEN, _TEXTS)
    add_overlay(parser, "lay maps over IMAGE (default: over what the model saw)")
    add_input(parser)
    add_options(parser, PreprocessOptions)
    add_calling(parser)
    add_options(parser, AxesOptions, without=("planes",))
    add_max_pixels(parser)
    add_options(parser, ImageOptions)


def run(arguments: argparse.Namespace) -> int:
    """Draw the heat maps of the images; one that cannot be read or run does not stop the others."""
    if not any(map(os.path.lexists, arguments.images)):
        raise ImageError(f"no file {arguments.images[0]!r}.")
    from ..attribution.api import method_of

    method = arguments.method or METHOD_NAMES[0]
    files = files_of(arguments, len(arguments.images))
    drawing_options(arguments)  # what is wrong with them shows before a model is loaded
    if arguments.overlay is None and not method_of(method).of_pixels:
        arguments.overlay = True
    backdrop = overlay_of(arguments, arguments.max_pixels)
    preprocess, axes = options_of(arguments, PreprocessOptions), options_of(arguments, AxesOptions)
    options = attribution_options(arguments, method_of(method).options)
    folder = output_folder(arguments)
    backends.compile_ahead("auto")

    from ..attribution.drawing import HeatMaps, planned_heat_maps
    from ..pipeline import name_images

    look = given_options(arguments, RenderOptions)
    of_method = AttributionOptions(**options)
    asked = HeatMaps(method, arguments.layer, arguments.target, of_method, axes, look, backdrop)
    images = name_images(arguments.images)
    model = load(
        arguments, weights=arguments.weights, seed=arguments.seed, device=arguments.device, preprocess=preprocess
    )
    results = Results(arguments.json, "images")

    def failed(image: NamedImage, error: Exception) -> None:
        results.fail({"image": image.name}, error)

    stopping = None if arguments.debug else failed
    decoding = options_of(arguments, ImageOptions)
    for layer in planned_heat_maps(model, images, asked, arguments.max_pixels, files.plan, stopping, decoding):
        paths = files.write(layer.plan, folder, layer.folder, layer.image.stem)
        results.add({"image": layer.image.name, "layer": layer.name}, paths, layer.plan)
    return results.finish(len(images), folder.path if arguments.open else None)
