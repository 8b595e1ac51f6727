"""`cnnviz render`: sheets of layers for images that are named one by one; prints the path of each file."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ImageError, OptionError
from ..kernels import backends
from ..options.reading import AxesOptions, ImageOptions, PreprocessOptions
from .arguments import (
    add_drawing,
    add_input,
    add_layers,
    add_max_pixels,
    add_options,
    add_output,
    add_overlay,
    add_overwrite,
    add_tiles,
    add_weights,
    drawing_options,
    options_of,
    overlay_of,
)
from .loading import add_calling, add_model, layers_of, load
from .outputs import output_folder
from .parser import CommandParser, add_command
from .results import Results, files_of
from .terminal import everything_is_loaded

if TYPE_CHECKING:
    from ..formats.output_folders import OutputFolder
    from ..models.loaded import LoadedModel
    from ..pipeline import Drawing, NamedImage
    from .results import SheetFiles, TileFiles


def add(commands: Any) -> None:
    """Add the command."""
    add_command(
        commands, "render", run, "draw sheets of layers for images; prints the path of each file",
        declare=_declare,
        usage="MODEL IMAGE... [options]",
        examples=[
            "cnnviz render resnet50 cat.jpg --layer layer4 --out sheets/",
            "cnnviz render resnet50 cat.jpg --layer layer1 --topk 12 --label --out sheets/",
            "cnnviz render net.py:make cat.jpg --layer type:Conv2d --each --out tiles/",
        ],
    )  # fmt: skip


def _declare(parser: CommandParser) -> None:
    add_model(parser)
    parser.add("job", "images", metavar="IMAGE", nargs="+", text="image files; folders, lists and tars: see cnnviz run")
    add_layers(parser)
    add_output(parser, "DIR/LAYER/IMAGE.png")
    add_overwrite(parser)
    add_weights(parser)
    add_tiles(parser)
    add_drawing(parser)
    add_overlay(parser)
    add_input(parser)
    add_options(parser, PreprocessOptions)
    add_calling(parser)
    add_options(parser, AxesOptions)
    add_max_pixels(parser)
    add_options(parser, ImageOptions)


def run(arguments: argparse.Namespace) -> int:
    """Draw the layers of the images."""
    _refuse_sets(arguments)
    _refuse_what_is_missing(arguments.model, arguments.images)
    files = files_of(arguments, len(arguments.images))
    options = drawing_options(arguments)
    axes = options_of(arguments, AxesOptions)
    preprocess = options_of(arguments, PreprocessOptions)
    backdrop = overlay_of(arguments, arguments.max_pixels)
    folder = output_folder(arguments)

    backends.compile_ahead(options.backend)

    from ..pipeline import Drawing, name_images

    images = name_images(arguments.images)
    model = load(
        arguments, weights=arguments.weights, seed=arguments.seed, device=arguments.device, preprocess=preprocess
    )
    return draw(arguments, files, model, images, folder, Drawing(options, axes, backdrop))


def draw(
    arguments: argparse.Namespace,
    files: SheetFiles | TileFiles,
    model: LoadedModel,
    images: Sequence[NamedImage],
    folder: OutputFolder,
    drawing: Drawing,
) -> int:
    """Draw every image; one that cannot be read or run does not stop the others.

    Args:
        arguments: of the command: layer, json, debug, max_pixels.
        files: which files to write.
        model: to run.
        images: to draw.
        folder: where files go.
        drawing: how to draw.

    Returns:
        The exit code.
    """
    from ..pipeline import planned_layers

    backends.load(drawing.options.backend)
    everything_is_loaded()
    results = Results(arguments.json, "images")

    def failed(image: NamedImage, error: Exception) -> None:
        results.fail({"image": image.name}, error)

    planned = planned_layers(
        model,
        images,
        layers_of(arguments, model),
        arguments.max_pixels,
        drawing,
        files.plan,
        None if arguments.debug else failed,
        options_of(arguments, ImageOptions),
    )
    for layer in planned:
        paths = files.write(layer.plan, folder, layer.folder, layer.image.stem)
        results.add({"image": layer.image.name, "layer": layer.name}, paths, layer.plan)
    return results.finish(len(images), folder.path if arguments.open else None)


def _refuse_what_is_missing(model: str, images: Sequence[str]) -> None:
    """Refuse images of which none is there, before a model is loaded; of several, those that are there are drawn."""
    if not any(os.path.lexists(image) for image in images):
        from ..models.specs import split_spec

        split_spec(model)  # which refuses an image that was named first
        raise ImageError(f"no file {images[0]!r}.")


def _refuse_sets(arguments: argparse.Namespace) -> None:
    """Refuse what stands for any number of images, and show the command for it."""
    for image in arguments.images:
        if kind := _kind_of_set(image):
            from ..inputs.sets import unpacked_name

            plain = unpacked_name(image) if os.path.isfile(image) else image
            command = [plain if part == image else part for part in _as_run(arguments.argv)]
            advice = "Unpack it once. Then draw" if plain != image else "Draw"
            raise OptionError(f"{image!r} is {kind}. {advice} data sets with: {shlex.join(command)}")


def _as_run(argv: Sequence[str]) -> list[str]:
    """Return the command for a data set that does what a `render` asks for."""
    verb = argv.index("render")
    command, given = ["cnnviz", *argv[:verb], "run"], iter(argv[verb + 1 :])
    for part in given:
        if part == "--":
            command += [part, *given]
        elif part == "--each":
            command += ["--save", "tiles"]
        elif part in ("--name", "--suffix"):
            next(given)
        elif not part.startswith(("--name=", "--suffix=")):
            command.append(part)
    return command


def _kind_of_set(image: str) -> str | None:
    """Return what an argument is that stands for any number of images; None for one image."""
    if image == "-":
        return "a list on standard input"
    if os.path.isdir(image):
        return "a folder of images"
    if not os.path.isfile(image):
        return "a pattern for images" if re.search(r"[*?[]", image) else None
    from ..inputs.sets import kind_of_set

    return kind_of_set(image)
