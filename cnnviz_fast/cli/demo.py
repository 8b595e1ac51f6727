"""`cnnviz demo`: the main job with nothing to prepare, offline too."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import ModelError
from ..kernels import backends
from ..options.drawing import RenderOptions
from ..options.reading import MAX_PIXELS
from .arguments import add_command, add_options, add_output, add_overlay, options_of, output_folder, overlay_of
from .render import draw
from .terminal import complain

LAYERS = ("conv1", "layer1", "layer2", "layer3", "layer4")


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "demo", run, "draw the test chart's way through ResNet-50; needs nothing, offline too"
    )
    parser.add_argument("--layer", metavar="L", nargs="+", default=list(LAYERS), help="as for render")
    add_output(parser, out="cnnviz_demo")
    add_overlay(parser)
    add_options(parser, "drawing", RenderOptions)


def run(arguments: argparse.Namespace) -> int:
    """Draw the layers of the test chart."""
    options = options_of(arguments, RenderOptions)
    backdrop = overlay_of(arguments, MAX_PIXELS)
    folder = output_folder(arguments)

    backends.compile_ahead(options.backend)

    from ..diagnostics.demo_chart import draw_chart
    from ..models.load import load_model
    from ..pipeline import Drawing, NamedImage

    try:
        model = load_model("resnet50", weights="DEFAULT", device=arguments.device)
    except ModelError:
        model = load_model("resnet50", weights="none", seed=0, device=arguments.device)
    complain(f"resnet50 with weights: {model.weights}")
    chart = NamedImage(draw_chart(), "test chart", "chart")
    return draw(arguments, model, [chart], folder, Drawing(options, backdrop=backdrop), MAX_PIXELS)
