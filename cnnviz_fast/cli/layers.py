"""`cnnviz layers`: the layers that can be drawn, with their shapes; no weights are loaded, nothing is computed."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from ..errors import CaptureError
from ..options.reading import PreprocessOptions
from .arguments import add_json, add_model
from .parser import CommandParser, add_command
from .terminal import DONE, print_json, print_table


def add(commands: Any) -> None:
    """Add the command."""
    add_command(
        commands, "layers", run, "list the layers that can be drawn, with their shapes",
        declare=_declare,
        usage="MODEL [options]",
        examples=["cnnviz layers resnet50", "cnnviz layers resnet50 --match type:Conv2d --size 384"],
    )  # fmt: skip


def _declare(parser: CommandParser) -> None:
    add_model(parser)
    parser.add("job", "--match", metavar="PATTERN", text="only layers that match, such as type:Conv2d; as for --layer")
    parser.add("reading", "--size", metavar="PX", text="size of the input, N or HxW px (default: the model's own)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """List the layers."""
    from ..activations.listing import list_layers
    from ..activations.patterns import resolve
    from ..models.load import load_model

    reading = PreprocessOptions(size=arguments.size)
    model = load_model(arguments.model, weights="none", device="meta", preprocess=reading)
    try:
        found = list_layers(model, size=reading.size)
    except CaptureError:  # a forward that looks at values, which a model on the meta device does not have
        model = load_model(arguments.model, weights="none", device="cpu", preprocess=reading)
        found = list_layers(model, size=reading.size)
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
