"""Completion in the shell, by argcomplete (extra `completion`): commands, options, their choices and models.

Nothing heavy is loaded for it: the names of torchvision's and timm's models are read out of their sources.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..models.cnnviz_zoo import NAMES
from ..options.drawing import ALIGNMENTS, BACKENDS, NORMALIZATIONS, RANKS, REDUCTIONS, UPSAMPLINGS
from ..options.reading import AXES, RESIZE_FILTERS
from ..options.runs import ENGINES, PROGRESS, SAVES, TOP_BY
from ..options.weights import KERNEL_SHEETS

CHOICES = {
    "--normalize": NORMALIZATIONS, "--align": ALIGNMENTS, "--upsampling": UPSAMPLINGS, "--rank": RANKS,
    "--reduce": REDUCTIONS, "--backend": BACKENDS, "--axes": AXES, "--interpolation": RESIZE_FILTERS, "--save": SAVES,
    "--progress": PROGRESS, "--engine": ENGINES, "--top-by": TOP_BY, "--kernels": KERNEL_SHEETS,
    "--format": ("png", "jpg", "webp", "npy"), "--device": ("auto", "cpu", "cuda", "cuda:0", "cuda:1", "mps"),
    "--colormap": ("viridis", "gray", "magma", "inferno", "plasma", "cividis", "turbo", "coolwarm", "hot"),
}  # fmt: skip
"""Option -> values that are offered for it. It may take others."""

_REGISTERED = re.compile(r"^@register_model\b.*?^def (\w+)\(", re.MULTILINE | re.DOTALL)
_LIBRARIES = {"timm:": "timm", "torchvision:": "torchvision", "": "torchvision"}


def is_completing() -> bool:
    """Check whether a shell asks what could follow, and not for a command to run."""
    return "_ARGCOMPLETE" in os.environ


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks what could follow, and end the process; return at once if none asks."""
    if is_completing() and importlib.util.find_spec("argcomplete") is not None:
        import argcomplete

        for action in parser._actions:
            if isinstance(action.choices, dict):  # argcomplete looks at options before the parser of a command runs
                for command in action.choices.values():
                    command.options()
        argcomplete.autocomplete(parser, always_complete_options=False)


def add_completer(action: argparse.Action) -> None:
    """Attach what is offered for an argument where argcomplete looks for it."""
    values = next((CHOICES[name] for name in action.option_strings if name in CHOICES), None)
    if values is not None:
        action.completer = lambda **_: values  # type: ignore[attr-defined]
    elif action.dest in ("model", "against"):
        action.completer = models  # type: ignore[attr-defined]


def models(prefix: str, **_: Any) -> Iterable[str]:
    """Return models that begin with a prefix, and files that may hold one."""
    source = next(source for source in _LIBRARIES if prefix.startswith(source))
    found = [f"{source}{name}" for name in registered(_LIBRARIES[source])]
    files = [str(path) for path in Path().glob("*.py")]
    others = () if source else ("timm:", "hf:", *(f"cnnviz:{name}" for name in NAMES))
    return [name for name in (*found, *files, *others) if name.startswith(prefix)]


def registered(library: str) -> list[str]:
    """Return the names of the models that a library registers, without importing it; none if it is not there."""
    found = importlib.util.find_spec(library)
    if found is None or found.origin is None:
        return []
    sources = sorted((Path(found.origin).parent / "models").rglob("*.py"))
    return sorted({name for source in sources for name in _REGISTERED.findall(source.read_text("utf-8"))})
