"""`cnnviz demo`: what `cnnviz render` does, for an image and a model that need no preparation, offline too."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import ModelError
from ..kernels import backends
from ..options.reading import MAX_PIXELS
from .arguments import add_drawing, add_input, add_layers, add_output, add_overlay, drawing_options, overlay_of
from .outputs import output_folder
from .parser import CommandParser, add_command
from .render import draw
from .results import files_of
from .terminal import note

LAYERS = ("conv1", "layer1", "layer2", "layer3", "layer4")


def add(commands: Any) -> None:
    """Add the command."""
    add_command(
        commands, "demo", run, "draw a test chart's way through ResNet-50; works offline",
        declare=_declare,
        usage="[options]",
        examples=["cnnviz demo", "cnnviz demo --layer layer4 --tile 56 --out demo/", "cnnviz demo --overlay"],
    )  # fmt: skip


def _declare(parser: CommandParser) -> None:
    add_layers(parser, " ".join(LAYERS))
    add_output(parser, "DIR/LAYER/chart.png", out="cnnviz_demo")
    add_drawing(parser)
    add_overlay(parser)
    add_input(parser)
    parser.set_defaults(max_pixels=MAX_PIXELS)


def run(arguments: argparse.Namespace) -> int:
    """Draw the layers of the test chart."""
    arguments.layer = arguments.layer or LAYERS
    files = files_of(arguments)
    options = drawing_options(arguments)
    backdrop = overlay_of(arguments, arguments.max_pixels)
    folder = output_folder(arguments)

    backends.compile_ahead(options.backend)

    from ..diagnostics.demo_chart import draw_chart
    from ..models.load import load_model
    from ..pipeline import Drawing, NamedImage

    try:
        model = load_model("resnet50", weights="DEFAULT", device=arguments.device)
    except ModelError:
        model = load_model("resnet50", weights="none", seed=0, device=arguments.device)
    note(f"resnet50 with weights: {model.weights}")
    chart = NamedImage(draw_chart(), "test chart", "chart")
    return draw(arguments, files, model, [chart], folder, Drawing(options, backdrop=backdrop))
