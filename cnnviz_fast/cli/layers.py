"""`cnnviz layers`: the layers that can be drawn, with their shapes; no weights are loaded, nothing is computed."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
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

    from ..activations.fields.record import ReceptiveField
    from ..models.layers import LayerInfo
    from ..models.loaded import LoadedModel


def add(commands: Any) -> None:
    """Add the command."""
    add_command(
        commands, "layers", run, "list the layers that can be drawn, with their shapes",
        declare=_declare,
        usage="MODEL [options]",
        examples=[
            "cnnviz layers resnet50",
            "cnnviz layers resnet50 --match type:Conv2d --size 384",
            "cnnviz layers resnet50 --receptive-field",
        ],
    )  # fmt: skip


def _declare(parser: CommandParser) -> None:
    add_model(parser)
    parser.add("job", "--match", metavar="PATTERN", text="only layers that match, such as type:Conv2d; as for --layer")
    parser.add(
        "job", "--receptive-field", action="store_true",
        text="which pixels of the input a unit depends on, in px: stride, offset and size",
    )  # fmt: skip
    parser.add("reading", "--size", metavar="PX", text="size of the input, N or HxW px (default: the model's own)")
    parser.add("reading", "--input-shape", metavar="CxHxW", text="shape of one sample, of any axes, such as 1x28x28")
    parser.add("reading", "--inputs", metavar="F", text="file.py:FUNCTION: batch -> all arguments of the model")
    parser.add("reading", "--forward", metavar="NAME", text="method to run instead of forward, such as encode_image")
    add_json(parser)


def _zeros(shape: int | tuple[int, ...]) -> torch.Tensor:
    """Return a batch of one sample of zeros of a shape."""
    import torch

    return torch.zeros(()).expand(1, *((shape,) if isinstance(shape, int) else shape))


def run(arguments: argparse.Namespace) -> int:
    """List the layers."""
    reading = PreprocessOptions(size=arguments.size)
    shape = None if arguments.input_shape is None else lengths("input-shape", arguments.input_shape)
    if shape is not None and reading.size is not None:
        raise OptionError("input-shape must not be given beside size, which it holds.")
    given: dict[str, Any] = {"size": reading.size} if shape is None else {"input": _zeros(shape)}
    model = load(arguments, weights="none", device="meta", preprocess=reading)
    try:
        found, fields = _look(model, arguments, given)
    except CaptureError:  # a forward that looks at values, which a model on the meta device does not have
        model = load(arguments, weights="none", device="cpu", preprocess=reading)
        found, fields = _look(model, arguments, given)
    if arguments.json:
        print_json(
            [
                dataclasses.asdict(layer)
                | ({} if fields is None else {"receptive_field": fields[layer.name] and fields[layer.name].to_json()})
                for layer in found
            ]
        )
    elif fields is None:
        print_table(["", "name", "type", "calls", "output", "parameters"], [
            [*_named(layer), str(layer.calls), _output(layer), f"{layer.parameters:,}"] for layer in found
        ])  # fmt: skip
    else:
        print_table(["", "name", "type", "output", "stride", "offset", "field"], [
            [*_named(layer), _output(layer), *_in_words(fields[layer.name])] for layer in found
        ], fit=True)  # fmt: skip
    return DONE


def _look(
    model: LoadedModel, arguments: argparse.Namespace, given: dict[str, Any]
) -> tuple[list[LayerInfo], dict[str, Any] | None]:
    """List the layers that match, and find their fields by name, if asked for: None where there is none."""
    from ..activations.listing import list_layers
    from ..activations.patterns import resolve

    found = list_layers(model, **given)
    if arguments.match:
        matching = {target.module for target in resolve(model.module, arguments.match)}
        found = [layer for layer in found if model.module.get_submodule(layer.name) in matching]
    return found, _fields(model, found, given) if arguments.receptive_field else None


def _fields(model: LoadedModel, layers: Sequence[LayerInfo], given: dict[str, Any]) -> dict[str, ReceptiveField | None]:
    """Find the field of the first call of each layer; None for one that has no output of one tensor."""
    from ..activations.fields.find import receptive_field

    names = [layer.name for layer in layers if layer.shape is not None]
    if not names:
        return dict.fromkeys(layer.name for layer in layers)
    found = receptive_field(model, names, given.get("size"), images=given.get("input"))
    assert isinstance(found, dict)  # a list was asked for
    return {layer.name: found.get(layer.name) or found.get(f"{layer.name}:0") for layer in layers}


def _named(layer: LayerInfo) -> list[str]:
    return [str(layer.index), layer.name, layer.type]


def _output(layer: LayerInfo) -> str:
    return "x".join(map(str, layer.shape)) if layer.shape else "-"


def _in_words(field: ReceptiveField | None) -> list[str]:
    """Return stride, offset and size of a field."""
    if field is None:
        return ["-", "-", "-"]
    if field.whole:
        return ["-", "-", f"whole image ({'; '.join(field.reasons)})"]
    size = f"{_both(field.size)} px"
    return [_both(field.stride), _both(field.offset), f"{size}, at most" if field.uneven else size]


def _both(pair: tuple[float, float]) -> str:
    """Return a number for rows and one for columns, or the one that is both."""
    return "x".join(f"{number:g}" for number in dict.fromkeys(pair))
