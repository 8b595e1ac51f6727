"""`cnnviz maximize`: images that excite channels or classes most, as a sheet; prints the path of each file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from ..kernels import backends
from ..options.optimize import MaximizeOptions
from ..options.reading import AxesOptions, PreprocessOptions
from .arguments import (
    RGB_FORMATS,
    add_max_pixels,
    add_options,
    add_output,
    add_overwrite,
    add_rgb_drawing,
    add_weights,
    given_options,
    options_of,
    rgb_options,
)
from .loading import add_calling, add_model, load
from .outputs import format_name, output_folder, refuse_several, single_file
from .parser import CommandParser, add_command
from .terminal import DONE, print_json, print_path
from .viewer import open_drawn

if TYPE_CHECKING:
    from ..attribution.maximization import Maximized

STEM = "maximized"


def add(commands: Any) -> None:
    """Add the command."""
    add_command(
        commands, "maximize", run, "draw images that excite channels or classes most",
        declare=_declare,
        usage="MODEL --layer L [--channels LIST] [options]",
        examples=[
            "cnnviz maximize vgg16 --layer features.21 --channels 0-63 --out max/",
            "cnnviz maximize resnet50 --classes tabby,281-285 --steps 256 --out max/",
            "cnnviz maximize resnet50 --layer layer3 --channels 7 --at center --out max/",
        ],
    )  # fmt: skip


def _declare(parser: CommandParser) -> None:
    add_model(parser)
    parser.add("job", "-l", "--layer", metavar="L", nargs="+", action="extend", text="name, number, type:Conv2d#0,6")
    parser.add("job", "--channels", metavar="LIST", text="channels of the layer, such as 0-63,128 (default: all)")
    parser.add("job", "--classes", metavar="LIST", text="classes in place of a layer, such as tabby,281-285")
    add_output(parser, f"DIR/LAYER/{STEM}.png", formats=RGB_FORMATS)
    add_overwrite(parser)
    add_weights(parser, "seed of the noise that images begin with, and of random weights")
    add_options(parser, MaximizeOptions)
    add_rgb_drawing(parser)
    add_options(parser, PreprocessOptions, without=("size", "interpolation"))
    add_calling(parser)
    add_options(parser, AxesOptions, without=("planes",))
    add_max_pixels(parser)


def run(arguments: argparse.Namespace) -> int:
    """Find the images of each layer, or of classes, and draw them."""
    options = given_options(arguments, MaximizeOptions)
    options_of(arguments, MaximizeOptions)  # what is wrong with them shows before a model is loaded
    reading = {name: value for name, value in given_options(arguments, PreprocessOptions).items() if name != "size"}
    preprocess = PreprocessOptions(**reading)
    look = rgb_options(arguments)
    if (arguments.layer is None) == (arguments.classes is None):
        raise OptionError("what is maximised must be given: --layer L with --channels, or --classes.")
    folder, file, ending = output_folder(arguments), single_file(arguments.out), f".{format_name(arguments)}"
    if ending == ".npy":
        raise OptionError("format must be png, jpg or webp for sheets in colour, got 'npy'. Take png.")
    backends.compile_ahead("auto")

    from ..attribution.maximization import maximize
    from ..formats.names import layer_parts
    from ..inputs.images import load_images

    model = load(
        arguments, weights=arguments.weights, seed=arguments.seed, device=arguments.device, preprocess=preprocess
    )
    like = load_images(arguments.like, model, max_pixels=arguments.max_pixels) if arguments.like else None
    axes = options_of(arguments, AxesOptions).axes
    found: list[dict[str, Any]] = []
    layers = arguments.layer or [None]
    refuse_several(file, len(layers))
    for layer in layers:
        result = maximize(
            model, layer, arguments.channels, classes=arguments.classes, seed=arguments.seed, like=like, axes=axes,
            **options,
        )  # fmt: skip
        sheet = result.sheet(**look)
        named = list(dict.fromkeys([*(entry["layer"] for entry in found), result.layer]))
        part = layer_parts(named)[named.index(result.layer)]  # with digits if one before differs in case alone
        path = file or folder.path_of(part, STEM, ending)
        folder.check(path, lambda sheet=sheet: sheet.manifest)  # type: ignore[misc]
        sheet.save(path)
        found.append({"layer": result.layer, "path": str(path), **_told(result)})
        if not arguments.json:
            print_path(path)
    if arguments.open:
        open_drawn([Path(entry["path"]) for entry in found], folder.path)
    if arguments.json:
        print_json({"layers": found})
    return DONE


def _told(result: Maximized) -> dict[str, Any]:
    return {
        "channels": list(result.channels),
        "responses": result.responses[-1].tolist(),
        "digests": result.digests(),
    }
