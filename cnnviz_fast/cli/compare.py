"""`cnnviz compare`: two pictures through one model, or one through two; prints the path of each file it wrote."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

from ..errors import LayerNotFoundError, OptionError, ShapeError
from ..kernels import backends
from ..options.drawing import SINGLE_SHEETS, RenderOptions
from ..options.reading import AxesOptions, PreprocessOptions
from .arguments import (
    MODEL_HELP,
    add_command,
    add_max_pixels,
    add_options,
    add_output,
    add_weights,
    options_of,
    output_folder,
)
from .exit_codes import DONE
from .terminal import complain, print_json


class _Model(NamedTuple):
    """What load_model makes a model of."""

    spec: str
    weights: str | None
    seed: int


class _Side(NamedTuple):
    """One of the two: what tells it from the other, the stem of its picture, and its maps as look_at gives them."""

    name: str
    stem: str
    layers: dict[str, tuple[Any, Any]]


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "compare", run, "draw layers of two pictures, models or checkpoints side by side, and what differs"
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="one picture for two models, or two for one model")
    parser.add_argument("--layer", metavar="L", nargs="+", action="extend", required=True, help="as for render")
    add_weights(parser)
    second = parser.add_argument_group("second model (what is not given is as for the first)")
    second.add_argument("--against", metavar="MODEL2", help="the model to compare with")
    second.add_argument("--against-weights", metavar="W2", help="its weights")
    second.add_argument("--against-seed", type=int, metavar="N", help="of its random weights")
    add_output(parser)
    add_max_pixels(parser)
    parser.add_argument(
        "--diverging", metavar="NAME", default="coolwarm", help="colormap of the difference (default coolwarm)"
    )
    add_options(parser, "preprocessing (default: what the weights say)", PreprocessOptions)
    add_options(parser, "reading", AxesOptions)
    add_options(parser, "drawing", RenderOptions, without=SINGLE_SHEETS)


def run(arguments: argparse.Namespace) -> int:
    """Compare the layers."""
    options = options_of(arguments, RenderOptions)
    axes = options_of(arguments, AxesOptions)
    preprocess = options_of(arguments, PreprocessOptions)
    models, images = _what_differs(arguments)
    folder = output_folder(arguments)

    backends.compile_ahead(options.backend)

    from ..formats.names import layer_parts
    from ..runtime.files import make_folder
    from ..sheets.comparison import compare

    a, b = _sides(arguments, models, images, axes, preprocess)
    _check_layers(a, b)
    stem = a.stem if a.stem == b.stem else f"{a.stem}_{b.stem}"
    found = []
    for part, (layer, (maps, provenance)) in zip(layer_parts(list(a.layers)), a.layers.items(), strict=True):
        other, other_source = b.layers[layer]
        comparison = compare(
            maps,
            other,
            provenance_a=provenance,
            provenance_b=other_source,
            diverging=arguments.diverging,
            **vars(options),
        )
        make_folder(folder / part)
        pair, difference = comparison.save(folder / part / f"{stem}.{arguments.format}")
        found.append({"layer": layer, "compare": str(pair), "difference": str(difference), **comparison.manifest})
        if not arguments.json:
            print(pair, difference, sep="\n", flush=True)
            changed = ", ".join(map(str, comparison.manifest["most_changed"]))
            complain(f"{layer}: most changed channels: {changed or 'none, both are equal'}")
    if arguments.json:
        print_json({"layers": found})
    return DONE


def _what_differs(arguments: argparse.Namespace) -> tuple[list[_Model], list[str]]:
    """Return the models and the pictures: one of the one, two of the other."""
    first = _Model(arguments.model, arguments.weights, arguments.seed)
    against = {"spec": arguments.against, "weights": arguments.against_weights, "seed": arguments.against_seed}
    second = first._replace(**{name: given for name, given in against.items() if given is not None})
    models, images = list(dict.fromkeys((first, second))), list(dict.fromkeys(arguments.images))
    if len(models) * len(images) != 2:
        ways = "two pictures, or one picture and --against, --against-weights or --against-seed"
        raise OptionError(
            f"what is compared must be two pictures or two models, got {len(images)} and {len(models)}. Give {ways}."
        )
    return models, images


def _sides(
    arguments: argparse.Namespace,
    models: list[_Model],
    images: list[str],
    axes: AxesOptions,
    preprocess: PreprocessOptions,
) -> list[_Side]:
    """Run each picture through each model, which makes two runs."""
    from ..models.load import load_model
    from ..pipeline import Drawing, look_at, name_images

    drawing = Drawing(RenderOptions(), axes)
    pictures = name_images(images)
    if len(pictures) != len(images):
        raise OptionError(f"each IMAGE must be one picture, got {len(pictures)} from {len(images)}. Name single files.")
    sides = []
    for spec, weights, seed in models:
        model = load_model(spec, weights=weights, seed=seed, device=arguments.device, preprocess=preprocess)
        for picture in pictures:
            name = picture.name if len(pictures) > 1 else f"{model.spec} ({model.weights})"
            try:
                seen = look_at(model, picture, arguments.layer, arguments.max_pixels, drawing)
            except LayerNotFoundError as error:
                raise LayerNotFoundError(f"{name}: {error}" if len(models) > 1 else str(error)) from error
            sides.append(_Side(name, picture.stem, {layer.name: (layer.maps, layer.provenance) for layer in seen}))
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
    for layer, (maps, _) in a.layers.items():
        shapes = tuple(maps.shape), tuple(b.layers[layer][0].shape)
        if shapes[0] != shapes[1]:
            raise ShapeError(
                f"layer {layer!r} must have the same shape in both, got {shapes[0]} from {a.name} "
                f"and {shapes[1]} from {b.name}. Compare layers of one shape."
            )
