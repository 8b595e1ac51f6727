"""`cnnviz layers`: the layers that can be drawn, with their shapes; no weights are loaded, nothing is computed."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from ..errors import CaptureError, OptionError
from ..options.parsers import lengths
from ..options.reading import PreprocessOptions
from .arguments import add_json
from .loading import add_model, load
from .parser import CommandParser, add_command
from .terminal import DONE, print_json, print_table

if TYPE_CHECKING:
    import torch


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
    parser.add(
        "reading", "--input-shape", metavar="CxHxW", text="of one sample, of any number of axes, such as 1x28x28"
    )
    parser.add("reading", "--inputs", metavar="F", text="file.py:FUNCTION of the batch that returns all arguments")
    parser.add("reading", "--forward", metavar="NAME", text="method to run instead of forward, such as encode_image")
    add_json(parser)


def _zeros(shape: int | tuple[int, ...]) -> torch.Tensor:
    """Return a batch of one sample of zeros of a shape."""
    import torch

    return torch.zeros(()).expand(1, *((shape,) if isinstance(shape, int) else shape))


def run(arguments: argparse.Namespace) -> int:
    """List the layers."""
    from ..activations.listing import list_layers
    from ..activations.patterns import resolve

    reading = PreprocessOptions(size=arguments.size)
    shape = None if arguments.input_shape is None else lengths("input-shape", arguments.input_shape)
    if shape is not None and reading.size is not None:
        raise OptionError("input-shape must not be given beside size, which it holds.")
    given: dict[str, Any] = {"size": reading.size} if shape is None else {"input": _zeros(shape)}
    model = load(arguments, weights="none", device="meta", preprocess=reading)
    try:
        found = list_layers(model, **given)
    except CaptureError:  # a forward that looks at values, which a model on the meta device does not have
        model = load(arguments, weights="none", device="cpu", preprocess=reading)
        found = list_layers(model, **given)
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
