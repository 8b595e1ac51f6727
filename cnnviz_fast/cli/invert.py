"""`cnnviz invert`: images made of the maps of layers, side by side; prints the path of each file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..kernels import backends
from ..options.optimize import InvertOptions
from ..options.reading import ImageOptions, PreprocessOptions
from .arguments import (
    RGB_FORMATS,
    add_layers,
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
from .loading import add_calling, add_model, layers_of, load
from .outputs import format_name, output_folder, refuse_several, single_file
from .parser import CommandParser, add_command
from .terminal import DONE, print_json, print_path
from .viewer import open_drawn


def add(commands: Any) -> None:
    """Add the command."""
    add_command(
        commands, "invert", run, "draw what of an image is left in each layer, as an image",
        declare=_declare,
        usage="MODEL IMAGE... [options]",
        examples=[
            "cnnviz invert resnet50 cat.jpg --layer conv1 layer1 layer2 --out inverted/",
            "cnnviz invert resnet50 cat.jpg --layer layer3 --steps 400 --out inverted/",
            "cnnviz invert net.py:make cat.jpg --steps 0 --out quick/",
        ],
    )  # fmt: skip


def _declare(parser: CommandParser) -> None:
    add_model(parser)
    parser.add("job", "images", metavar="IMAGE", nargs="+", text="image files")
    add_layers(parser)
    add_output(parser, "DIR/IMAGE_inverted.png", formats=RGB_FORMATS)
    add_overwrite(parser)
    add_weights(parser)
    add_options(parser, InvertOptions)
    add_rgb_drawing(parser)
    add_options(parser, PreprocessOptions)
    add_calling(parser)
    add_max_pixels(parser)
    add_options(parser, ImageOptions)


def run(arguments: argparse.Namespace) -> int:
    """Invert the layers for each image, and draw them side by side."""
    options, preprocess = given_options(arguments, InvertOptions), options_of(arguments, PreprocessOptions)
    options_of(arguments, InvertOptions)  # what is wrong with them shows before a model is loaded
    look = rgb_options(arguments)
    decoding = options_of(arguments, ImageOptions)
    folder, file, ending = output_folder(arguments), single_file(arguments.out), f".{format_name(arguments)}"
    if ending == ".npy":
        raise OptionError("format must be png, jpg or webp for sheets in colour, got 'npy'. Take png.")
    backends.compile_ahead("auto")

    from ..attribution.inversion import invert
    from ..inputs.images import load_images
    from ..pipeline import name_images

    images = name_images(arguments.images)
    refuse_several(file, len(images))
    model = load(
        arguments, weights=arguments.weights, seed=arguments.seed, device=arguments.device, preprocess=preprocess
    )
    limit = arguments.max_pixels
    like = load_images(arguments.like, model, max_pixels=limit) if arguments.like else None
    layers = layers_of(arguments, model)
    found: list[dict[str, Any]] = []
    for image in images:
        batch = load_images(image.origin, model, max_pixels=limit, **vars(decoding))
        result = invert(model, batch, layers, like=like, **options)
        sheet = result.sheet(name=image.name, **look)
        path = file or folder.path_of("", f"{image.stem}_inverted", ending)
        folder.check(path, lambda sheet=sheet: sheet.manifest)  # type: ignore[misc]
        sheet.save(path)
        measured = {layer: course[-1, 0].item() for layer, course in result.psnr.items()}
        found.append({"image": image.name, "path": str(path), "psnr": measured})
        if not arguments.json:
            print_path(path)
    if arguments.open:
        open_drawn([Path(entry["path"]) for entry in found], folder.path)
    if arguments.json:
        print_json({"images": found})
    return DONE
