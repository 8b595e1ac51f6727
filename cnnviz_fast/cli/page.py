"""`cnnviz page`: a page that shows every channel in a browser, of a model's layers or of what a run has kept."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CaptureError, ImageError, OptionError
from ..options.attribution import METHOD_NAMES
from ..options.reading import MAX_PIXELS, AxesOptions, ImageOptions, PreprocessOptions
from .arguments import add_device, add_json, add_layers, add_max_pixels, add_options, add_weights, options_of
from .loading import add_calling, add_model_arguments, layers_of, load
from .parser import CommandParser, add_command
from .terminal import DONE, PARTLY, complain, everything_is_loaded, print_json, print_path
from .viewer import open_path

if TYPE_CHECKING:
    from ..models.loaded import LoadedModel
    from ..viewer.collection import Collection
    from ..viewer.commands import Recipe

OUT = "page.html"

_OF_MODELS = (
    "layer", "weights", "weights_key", "strict_weights", "trust_checkpoint", "seed", "model_args", "device",
    "preprocess", "inputs", "forward", "attribute", "target",
)  # fmt: skip
"""Arguments that mean something where a model runs, beside those of option records."""

_OF_WEIGHTS = ("weights", "seed", "weights_key", "strict_weights", "trust_checkpoint")


def add(commands: Any) -> None:
    """Add the command."""
    add_command(
        commands, "page", run, "every channel in the browser: a file that needs nothing else, or a folder",
        declare=_declare,
        usage="MODEL IMAGE... | RUN|ATLAS... [options]",
        examples=[
            "cnnviz page resnet50 cat.jpg --layer layer3 layer4 --out page.html",
            "cnnviz page run/ --photos photos/ --out folder/",
            "cnnviz page cat_layer4.atlas --out page.html",
        ],
    )  # fmt: skip


def _declare(parser: CommandParser) -> None:
    parser.add(
        "job", "model", metavar="MODEL", text="resnet50, timm:NAME, file.py:MAKE; or folder of a run, atlas, tar"
    )
    add_model_arguments(parser)
    parser.add("job", "images", metavar="IMAGE", nargs="*", text="image files; or further runs and atlases")
    add_layers(parser)
    parser.add("job", "-o", "--out", metavar="PATH", default=OUT, text=f"file .html, or a folder (default {OUT})")
    parser.add("job", "--photos", metavar="DIR", text="where the photos of a run lie now")
    parser.add("job", "--name", dest="title", metavar="TEXT", text="of the page (default: name of the model or run)")
    parser.add("job", "--open", action="store_true", text="show the page in the browser")
    add_weights(parser)
    parser.add("attribution", "--attribute", metavar="METHOD", text=f"add heat maps: {', '.join(METHOD_NAMES)}")
    parser.add("attribution", "--target", metavar="T", nargs="+", action="extend", text="see cnnviz attribute --help")
    parser.add("channels", "--similarity", action="store_true", text="offer an order of channels by similarity")
    parser.add("channels", "--patches", action="store_true", text="add the strongest patches of a run with --save top")
    add_options(parser, PreprocessOptions)
    add_calling(parser)
    add_options(parser, AxesOptions)
    add_max_pixels(parser)
    add_options(parser, ImageOptions)
    add_device(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the page; what cannot be read or run is named at the end, and the rest is shown."""
    from ..viewer.opening import is_shown
    from ..viewer.page import SUFFIXES, refuse_other_file, write_page

    out = Path(arguments.out)
    if out.suffix.lower() in SUFFIXES:
        refuse_other_file(out)  # before anything slow
    shown = _of_files(arguments) if is_shown(arguments.model) else _of_model(arguments)
    shown.title = arguments.title or shown.title
    everything_is_loaded()
    path = write_page(shown, out, arguments.similarity, arguments.patches)
    if arguments.json:
        print_json({"page": str(path), "failed": shown.notes})
    else:
        print_path(path)
    for reason in shown.notes:
        complain(reason)
    if arguments.open:
        open_path(path)
    return PARTLY if shown.notes else DONE


def _of_files(arguments: argparse.Namespace) -> Collection:
    """Return what runs and atlases hold; refuse what belongs to a model, as none runs."""
    from ..viewer.opening import open_collection
    from ..viewer.page import CUT_AT_ONCE
    from ..viewer.photos import Photos

    if arguments.patches and arguments.photos is None:
        raise OptionError("patches are cut from the photos of a run. Say where they lie: --photos DIR.")
    refuse_of_models(arguments)
    photos = None if arguments.photos is None else Photos(Path(arguments.photos), arguments.max_pixels)
    return open_collection([arguments.model, *arguments.images], photos, CUT_AT_ONCE)


def refuse_of_models(arguments: argparse.Namespace) -> None:
    """Raise OptionError where an argument is given that means something only where a model runs."""
    given = vars(arguments)
    usual = {"device": "auto", "seed": 0}
    records = [vars(options_of(arguments, record)) for record in (PreprocessOptions, AxesOptions, ImageOptions)]
    plain = [vars(record()) for record in (PreprocessOptions, AxesOptions, ImageOptions)]
    named = [name for name in _OF_MODELS if given.get(name) and given[name] != usual.get(name)]
    named += [name for got, none in zip(records, plain, strict=True) for name in got if got[name] != none[name]]
    if named:
        shown = ", ".join(name.replace("_", "-") for name in named)
        raise OptionError(f"{shown} must go with a model, and none runs here. Leave it out.")


def _of_model(arguments: argparse.Namespace) -> Collection:
    """Return what the layers of a model hold; images that cannot be read or run are noted."""
    if not arguments.images:
        raise ImageError(
            f"no image for model {arguments.model!r}, and no run or atlas of that name. Name an image, the folder of a "
            f"run, or an atlas."
        )
    if not any(map(os.path.lexists, arguments.images)):
        raise ImageError(f"no file {arguments.images[0]!r}.")
    if arguments.photos is not None or arguments.patches:
        raise OptionError("photos and patches go with a run. The page of a model shows what the model saw.")
    if arguments.target and not arguments.attribute:
        raise OptionError("target must go with attribute: say which method.")
    from ..activations.passes.rows import with_rows
    from ..pipeline import name_images
    from ..runtime.progress import with_bar
    from ..viewer.collection import Collection
    from ..viewer.looking import kernels_of, look
    from ..viewer.memory import MemoryRun
    from ..viewer.told import told

    axes, decoding = options_of(arguments, AxesOptions), options_of(arguments, ImageOptions)
    images = [replace(image, name=told(image.name)) for image in name_images(arguments.images)]
    model = load(
        arguments, weights=arguments.weights, seed=arguments.seed, device=arguments.device,
        preprocess=options_of(arguments, PreprocessOptions),
    )  # fmt: skip
    layers, notes, looked = layers_of(arguments, model), list[str](), []
    model = with_rows(model, len(images))
    for position, image in enumerate(with_bar(images, "image")):
        try:
            looked.append(
                look(
                    model, image, layers, arguments.max_pixels, axes=axes, decoding=decoding,
                    method=arguments.attribute, target=arguments.target, position=position,
                )
            )  # fmt: skip
        except (ImageError, CaptureError) as error:
            if arguments.debug or len(images) == 1:
                raise
            notes.append(str(error))
    if not looked:
        raise ImageError(notes[0])
    shown = MemoryRun.of(looked)
    shown = MemoryRun.of(looked, kernels_of(model, [layer.name for layer in shown.layers]))
    shown.recipe = recipe_of_arguments(arguments, model)
    return Collection(model.spec, [shown], notes)


def recipe_of_arguments(arguments: argparse.Namespace, model: LoadedModel) -> Recipe | None:
    """Return how the arguments have the model loaded and called, for the lines that draw its sheets."""
    from ..provenance import Provenance
    from ..viewer.commands import calling_of, recipe_of

    recipe = recipe_of(Provenance(model=model.spec, weights=model.weights))
    if recipe is None:
        return None
    axes, decoding = options_of(arguments, AxesOptions), options_of(arguments, ImageOptions)
    named = {name: vars(arguments)[name] for name in _OF_WEIGHTS if vars(arguments)[name]}
    called = {"forward": arguments.forward} if arguments.forward else {}
    limit = {} if arguments.max_pixels == MAX_PIXELS else {"max_pixels": arguments.max_pixels}
    return replace(
        recipe, loading={**recipe.loading, **named},
        preprocess=arguments.preprocess or options_of(arguments, PreprocessOptions),
        calling=calling_of(axes, decoding) | called | limit, inputs=arguments.inputs,
    )  # fmt: skip
