"""`cnnviz layers`: what can be looked at, with shapes; no weights, no real compute."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from ..errors import CaptureError
from ..options.reading import PreprocessOptions
from .arguments import MODEL_HELP, add_command
from .exit_codes import DONE
from .terminal import print_json, print_table


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(commands, "layers", run, "list the layers that can be looked at, with their shapes")
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--match", metavar="PATTERN", help="only layers that this pattern names, such as type:Conv2d")
    parser.add_argument("--size", metavar="PX", help="input, N or HxW px (default: the model's own)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """List the layers."""
    from ..activations.listing import list_layers
    from ..activations.patterns import resolve
    from ..models.load import load_model

    size = PreprocessOptions(size=arguments.size).size
    model = load_model(arguments.model, weights="none", device="meta")
    try:
        found = list_layers(model, size=size)
    except CaptureError:  # a forward that looks at values, which a model on the meta device does not have
        model = load_model(arguments.model, weights="none", device="cpu")
        found = list_layers(model, size=size)
    if arguments.match:
        matching = {target.module for target in resolve(model.module, arguments.match)}
        found = [layer for layer in found if model.module.get_submodule(layer.name) in matching]
    if arguments.json:
        print_json([dataclasses.asdict(layer) for layer in found])
    else:
        print_table(
            ["", "name", "type", "calls", "output", "parameters"],
            [
                [
                    str(layer.index),
                    layer.name,
                    layer.type,
                    str(layer.calls),
                    "x".join(map(str, layer.shape)) if layer.shape else "-",
                    f"{layer.parameters:,}",
                ]
                for layer in found
            ],
        )
    return DONE
