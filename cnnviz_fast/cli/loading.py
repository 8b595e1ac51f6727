"""The model of a command: the arguments that name it, and the call that loads it, with functions of the user's own."""

from __future__ import annotations

import argparse
import ast
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from ..options.parsers import refuse
from ..options.reading import PreprocessOptions
from ..runtime.workers import default_threads
from .parser import CommandParser
from .terminal import note, say_with_results

if TYPE_CHECKING:
    from ..models.loaded import LoadedModel


def add_model(parser: CommandParser) -> None:
    """Add the model."""
    parser.add(
        "job", "model", metavar="MODEL",
        text="resnet50, timm:NAME, hf:NAME, cnnviz:small, file.py:MAKE",
    )  # fmt: skip
    add_model_arguments(parser)


def add_model_arguments(parser: CommandParser) -> None:
    """Add the arguments of what builds a model."""
    parser.add(
        "job", "--model-args", metavar="N=V", nargs="+", action="extend", default=[],
        text="arguments that build the model, such as num_classes=10",
    )  # fmt: skip


def add_calling(parser: CommandParser) -> None:
    """Add how images become the model's input, and how it is called, where the user's own code does that."""
    parser.add("reading", "--preprocess", metavar="F", text="your own preprocessing: file.py:FUNCTION, or a transform")
    parser.add("job", "--inputs", metavar="F", text="file.py:FUNCTION: batch -> all arguments of the model")
    parser.add("job", "--forward", metavar="NAME", text="method to run instead of forward, such as encode_image")


def load(arguments: argparse.Namespace, /, **settings: Any) -> LoadedModel:
    """Load the model that the arguments name; what loading has to say goes to stderr.

    Args:
        arguments: of the command.
        settings: for `load_model`; `spec` and `arguments` replace those of the command line.

    Returns:
        The model.

    Raises:
        OptionError: an argument of the model is not NAME=VALUE.
        ModelError: the model cannot be loaded.
    """
    from ..models.factories import find_function
    from ..models.load import load_model
    from ..models.loaded import called_with, untrained

    chosen = vars(arguments)
    if chosen.get("preprocess"):
        replaced = vars(settings.get("preprocess") or PreprocessOptions())
        if named := ", ".join(f"--{name.replace('_', '-')}" for name, value in replaced.items() if value is not None):
            raise OptionError(
                f"{named} must not be given beside preprocess, which makes the whole input. Do that in "
                f"{chosen['preprocess']}."
            )
        settings["preprocess"] = find_function("preprocess", chosen["preprocess"])
    inputs = find_function("inputs", chosen["inputs"]) if chosen.get("inputs") else None
    spec = settings.pop("spec", chosen.get("model"))
    given = settings.pop("arguments", None)
    given = model_arguments("model-args", arguments.model_args) if given is None else given
    for name in ("weights_key", "strict_weights", "trust_checkpoint"):
        if name in chosen:
            settings.setdefault(name, chosen[name])
    _keep_within_allowed_cores()
    model = load_model(spec, arguments=given, **settings)
    if said := untrained(model):
        say_with_results(f"{spec}, {said}")
    return called_with(model, inputs, chosen.get("forward"))


def _keep_within_allowed_cores() -> None:
    """Have torch start no more threads than a container allows cores, at which it does not look itself."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > default_threads():
        torch.set_num_threads(default_threads())


def layers_of(arguments: argparse.Namespace, model: LoadedModel) -> list[str]:
    """Return the layers that are asked for; without any the stages of the model, which is said."""
    if arguments.layer:
        return list(arguments.layer)
    from ..activations.stages import default_layers

    arguments.layer = default_layers(model)
    note(f"no --layer given: drawing the stages {', '.join(arguments.layer)}")
    return list(arguments.layer)


def model_arguments(option: str, given: Sequence[str]) -> dict[str, Any]:
    """Read the arguments of a model.

    Args:
        option: how messages call them.
        given: each NAME=VALUE. A value is what Python would make of it, true, false or none in any letters, or text.

    Returns:
        Name -> value.

    Raises:
        OptionError: one has no name.
    """
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise refuse(option, "NAME=VALUE", text, "Put images before it, and text with spaces in quotes.")
        found[name] = _value_of(value)
    return found


def _value_of(text: str) -> Any:
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text
