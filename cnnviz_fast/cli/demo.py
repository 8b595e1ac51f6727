"""`cnnviz demo`: what there is to see in a network: the viewer with every channel, and a page of sheets beside it.

The network and the photos come with the package.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, reason_of
from ..kernels import backends
from .arguments import add_device, add_json, add_layers
from .loading import layers_of
from .parser import CommandParser, add_command
from .terminal import DONE, note, print_json, print_path
from .viewer import open_path

if TYPE_CHECKING:
    from ..models.loaded import LoadedModel

MODEL = "cnnviz:small"
PAGE = "index.html"
SHEETS = "sheets.html"
LAYERS = ("stage1", "stage3", "stage5")
"""The layers of MODEL that are drawn."""


def add(commands: Any) -> None:
    """Add the command."""
    add_command(
        commands, "demo", run, "draw what a trained network sees in a test chart and two photos; works offline",
        declare=_declare,
        usage="[options]",
        examples=["cnnviz demo --open", "cnnviz demo --model resnet18 --layer layer1 layer4 --out resnet18_demo/"],
    )  # fmt: skip


def _declare(parser: CommandParser) -> None:
    parser.add("job", "--model", default=MODEL, metavar="MODEL", text=f"another model (default {MODEL})")
    add_layers(parser, "three stages")
    parser.add(
        "job", "-o", "--out", default="cnnviz_demo", metavar="DIR", text="folder of the page (default cnnviz_demo)"
    )
    parser.add("job", "--open", action="store_true", text="show the page in the browser")
    add_device(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Draw the demo and write its page."""
    from ..diagnostics.demo_page import refuse_other_page, write_page
    from ..formats.output_folders import output_folder
    from ..viewer.page import refuse_other_file

    folder = output_folder(arguments.out, overwrite=True)
    refuse_other_file(folder.path / PAGE)
    refuse_other_page(folder.path / SHEETS)
    backends.compile_ahead("auto")

    from ..diagnostics.demo import make_demo, write_viewer

    model = _load(arguments.model, arguments.device)
    note(f"{model.spec} with weights: {model.weights}")
    if arguments.model == MODEL and not arguments.layer:
        arguments.layer = LAYERS
    made, layers = [], layers_of(arguments, model)
    for each in make_demo(model, layers, folder):
        made.append(each)
        if not arguments.json:
            print_path(each.path)
    sheets = write_page(
        folder.path / SHEETS,
        f"What {model.spec} sees",
        f"{model.spec}, weights {model.weights}: a test chart, which shows what a channel prefers, and two photos. "
        f"Click a picture for its full size; the JSON beside it says which tile is which channel.",
        [(each.section, each.figure) for each in made],
        _next(arguments.model),
    )
    page = write_viewer(model, layers, folder.path / PAGE)
    if arguments.json:
        print_json({"page": str(page), "files": [str(path) for path in (*(each.path for each in made), sheets)]})
    else:
        print_path(sheets)
        print_path(page)
    for line in (f"open {page} in a browser; then try your own:", *_next(arguments.model)):
        note(line)
    if arguments.open:
        open_path(page)
    return DONE


def _load(spec: str, device: str) -> LoadedModel:
    """Load the model, with random weights where trained ones cannot be had, as without a network."""
    from ..models.load import load_model

    try:
        return load_model(spec, device=device)
    except ModelError as error:
        model = load_model(spec, weights="none", device=device)
        note(f"trained weights cannot be had: {reason_of(error.__cause__ or error)}")
        return model


def _next(model: str) -> list[str]:
    """Return commands to go on with."""
    return [
        f"cnnviz layers {model}",
        f"cnnviz render {model} YOUR_PHOTO.jpg --input --out sheets/",
        f"cnnviz page {model} YOUR_PHOTO.jpg --open",
        "cnnviz render resnet50 YOUR_PHOTO.jpg --layer layer4 --report --out sheets/",
        "cnnviz render YOUR_MODEL.py:FUNCTION YOUR_PHOTO.jpg --weights YOUR_CHECKPOINT.pth --out sheets/",
    ]
