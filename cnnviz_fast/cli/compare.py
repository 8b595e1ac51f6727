"""`cnnviz compare`: two images through one model, or one through two; prints the path of each file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ImageError, LayerNotFoundError, OptionError, ShapeError
from ..kernels import backends
from ..options.drawing import SINGLE_SHEETS, RenderOptions
from ..options.reading import AxesOptions, ImageOptions, PreprocessOptions
from .arguments import (
    add_drawing,
    add_layers,
    add_max_pixels,
    add_options,
    add_output,
    add_overwrite,
    add_weights,
    drawing_options,
    options_of,
)
from .loading import add_calling, add_model, layers_of, load, model_arguments
from .outputs import format_name, output_folder, refuse_several, single_file
from .parser import CommandParser, add_command
from .terminal import DONE, note, print_json, print_path
from .viewer import open_drawn

if TYPE_CHECKING:
    from ..pipeline import Drawing, LayerInput


class _Model(NamedTuple):
    """What `load_model` is called with."""

    spec: str
    weights: str | None
    weights_key: str | None
    strict_weights: bool
    seed: int
    arguments: dict[str, Any]


class _Side(NamedTuple):
    """One of the two sides: what tells it from the other, the stem of its image, and its layers by name."""

    name: str
    stem: str
    layers: dict[str, LayerInput]


def add(commands: Any) -> None:
    """Add the command."""
    add_command(
        commands, "compare", run, "draw layers of two images or models side by side, and what differs",
        declare=_declare,
        usage="MODEL IMAGE [IMAGE] [options]",
        examples=[
            "cnnviz compare resnet50 cat.jpg dog.jpg --layer layer4 --out sheets/",
            "cnnviz compare resnet50 cat.jpg --against resnet101 --layer layer4 --out out/",
            "cnnviz compare net.py:make cat.jpg --against-weights b.pth --layer 3 --out d/",
        ],
    )  # fmt: skip


def _declare(parser: CommandParser) -> None:
    add_model(parser)
    parser.add("job", "images", metavar="IMAGE", nargs="+", text="one image for two models, or two for one model")
    add_layers(parser)
    add_output(parser, "DIR/LAYER/A_B_compare.png and DIR/LAYER/A_B_difference.png")
    add_overwrite(parser)
    add_weights(parser)
    parser.add("second", "--against", metavar="MODEL2", text="the model to compare with")
    parser.add("second", "--against-weights", metavar="W2", text="weights of MODEL2")
    parser.add("second", "--against-key", metavar="K2", text="where in the file W2 the weights lie")
    parser.add("second", "--against-args", metavar="N=V", nargs="*", action="extend", text="arguments of MODEL2")
    parser.add("second", "--against-seed", type=int, metavar="N", text="seed of the random weights of MODEL2")
    add_drawing(parser, without=SINGLE_SHEETS)
    parser.add(
        "range", "--diverging", metavar="NAME", default="coolwarm",
        text="colormap of the difference (default coolwarm)",
    )  # fmt: skip
    add_options(parser, PreprocessOptions)
    add_calling(parser)
    add_options(parser, AxesOptions)
    add_max_pixels(parser)
    add_options(parser, ImageOptions)


def run(arguments: argparse.Namespace) -> int:
    """Compare the layers."""
    options = drawing_options(arguments)
    axes = options_of(arguments, AxesOptions)
    preprocess = options_of(arguments, PreprocessOptions)
    models, images = _what_differs(arguments)
    for image in images:
        if not os.path.lexists(image):
            raise ImageError(f"no file {image!r}.")
    folder, file = output_folder(arguments), single_file(arguments.out)

    backends.compile_ahead(options.backend)

    from ..formats.names import layer_parts
    from ..pipeline import Drawing
    from ..sheets.comparison import compare

    drawing = Drawing(RenderOptions.of({"align": options.align}), axes)
    a, b = _sides(arguments, models, images, drawing, preprocess)
    _check_layers(a, b)
    refuse_several(file, len(a.layers))
    stem = a.stem if a.stem == b.stem else f"{a.stem}_{b.stem}"
    found = []
    for part, (layer, first) in zip(layer_parts(list(a.layers)), a.layers.items(), strict=True):
        second = b.layers[layer]
        comparison = compare(
            first.maps,
            second.maps,
            provenance_a=first.provenance,
            provenance_b=second.provenance,
            diverging=arguments.diverging,
            **vars(options),
        )
        path = file or folder.path_of(part, stem, f".{format_name(arguments)}")
        folder.check(path.with_name(f"{path.stem}_difference{path.suffix}"), comparison.difference.manifest.copy)
        pair, difference = comparison.save(path)
        found.append({"layer": layer, "compare": str(pair), "difference": str(difference), **comparison.manifest})
        if not arguments.json:
            print_path(pair)
            print_path(difference)
            changed = ", ".join(map(str, comparison.manifest["most_changed"]))
            note(f"{layer}: most changed channels: {changed or 'none, both are equal'}")
    if arguments.open:
        open_drawn([Path(layer[kind]) for layer in found for kind in ("compare", "difference")], folder.path)
    if arguments.json:
        print_json({"layers": found})
    return DONE


def _what_differs(arguments: argparse.Namespace) -> tuple[list[_Model], list[str]]:
    """Return the models and the images: two models and one image, or one model and two images."""
    own, other = model_arguments("model-args", arguments.model_args), arguments.against_args
    first = _Model(
        arguments.model, arguments.weights, arguments.weights_key, arguments.strict_weights, arguments.seed, own
    )
    against = {
        "spec": arguments.against,
        "weights": arguments.against_weights,
        "weights_key": arguments.against_key,
        "seed": arguments.against_seed,
        "arguments": other if other is None else model_arguments("against-args", other),
    }
    inherited = first if arguments.against_weights is None else first._replace(weights_key=None)
    second = inherited._replace(**{name: given for name, given in against.items() if given is not None})
    models, images = [first, second] if second != first else [first], list(dict.fromkeys(arguments.images))
    if len(models) * len(images) != 2:
        ways = "two images, or one image and --against, --against-weights, --against-args or --against-seed"
        raise OptionError(
            f"what is compared must be two images or two models, got images: {len(images)}, models: {len(models)}. "
            f"Give {ways}."
        )
    return models, images


def _sides(
    arguments: argparse.Namespace,
    models: list[_Model],
    images: list[str],
    drawing: Drawing,
    preprocess: PreprocessOptions,
) -> list[_Side]:
    """Run each image through each model: two passes in all."""
    from ..pipeline import look_at, name_images

    decoding = options_of(arguments, ImageOptions)
    named = name_images(images)
    if len(named) != len(images):
        raise OptionError(f"each IMAGE must be one image, got {len(named)} from {len(images)}. Name single files.")
    sides = []
    for described in models:
        model = load(arguments, **described._asdict(), device=arguments.device, preprocess=preprocess)
        for image in named:
            name = image.name if len(named) > 1 else f"{model.spec} ({model.weights})"
            try:
                wanted = layers_of(arguments, model)
                found = look_at(model, image, wanted, arguments.max_pixels, drawing, decoding)
            except LayerNotFoundError as error:
                raise LayerNotFoundError(f"{name}: {error}" if len(models) > 1 else str(error)) from error
            sides.append(_Side(name, image.stem, {layer.name: layer for layer in found}))
    return sides


def _check_layers(a: _Side, b: _Side) -> None:
    """Refuse layers that only one has, or that differ in shape, before anything is drawn."""
    for have, lack in ((a, b), (b, a)):
        for layer in have.layers:
            if layer not in lack.layers:
                raise LayerNotFoundError(
                    f"layer {layer!r} must be in both, got it from {have.name} but not from {lack.name}. "
                    f"Name layers that both have."
                )
    for layer, first in a.layers.items():
        shapes = tuple(first.maps.shape), tuple(b.layers[layer].maps.shape)
        if shapes[0] != shapes[1]:
            raise ShapeError(
                f"layer {layer!r} must have the same shape in both, got {shapes[0]} from {a.name} "
                f"and {shapes[1]} from {b.name}. Compare layers of one shape."
            )
