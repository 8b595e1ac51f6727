"""The command and the line of Python that draw a shown layer again, with every option that decides on its pixels."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from shlex import quote
from typing import Any

from ..errors import OptionError
from ..models.preprocess import options_in
from ..options.reading import AS_USUAL, AxesOptions, ImageOptions, PreprocessOptions
from ..provenance import Provenance
from .told import told, told_model

_JOINED = {"size": "x", "input_range": ":"}
"""Between the numbers of an option on the command line; others have commas."""


@dataclass(frozen=True)
class Recipe:
    """How a model was loaded and called.

    model: its spec, without arguments.
    arguments: of what builds it.
    loading: further arguments of load_model, as the command has them too.
    preprocess: steps that were replaced; or the user's own, as the command names it.
    calling: arguments of visualize, as the command has them too.
    inputs: what the model takes beside images, as the command names it.
    """

    model: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    loading: Mapping[str, Any] = field(default_factory=dict)
    preprocess: PreprocessOptions | str = field(default_factory=PreprocessOptions)
    calling: Mapping[str, Any] = field(default_factory=dict)
    inputs: str | None = None

    def told(self) -> Recipe:
        """Return it without the folders of this machine, for a page that goes to others."""
        loading = {name: told(value) if name == "weights" else value for name, value in self.loading.items()}
        return replace(self, model=told_model(self.model), loading=loading)

    def lines(self) -> dict[str, str | None] | None:
        """Return both lines, in which the page fills in {image}, {layer} and {options}.

        Returns:
            "shell", and "python", which is None where the command names a file of the user's code; None where a value
            looks like what the page fills in.
        """
        steps = {} if isinstance(self.preprocess, str) else _given(vars(self.preprocess))
        own = {"preprocess": self.preprocess if isinstance(self.preprocess, str) else None, "inputs": self.inputs}
        named = (self.arguments, self.loading, own, self.calling)
        if re.search("[{}]", repr([self.model, *(part for each in named for part in each.items())])):
            return None
        flags = "".join(_flag(*each) for each in {**self.loading, **steps, **_given(own), **self.calling}.items())
        if self.arguments:
            given = " ".join(quote(f"{name}={value!r}") for name, value in self.arguments.items())
            flags += f" --model-args {given}"
        loading = _keywords(self.loading)
        if self.arguments:
            loading += f", arguments=dict({_keywords(self.arguments)[2:]})"
        if steps:
            loading += f", preprocess=cf.PreprocessOptions({_keywords(steps)[2:]})"
        loaded = f"cf.load_model({self.model!r}{loading})"
        drawn = f"cf.visualize({loaded}, {{image}}, {{layer}}{_keywords(self.calling)}{{options}})"
        return {
            "shell": f"cnnviz render {quote(self.model)} {{image}} --layer {{layer}}{flags}{{options}}",
            "python": None if any(own.values()) else drawn,
        }


def recipe_of(origin: Provenance) -> Recipe | None:
    """Return how the maps of an atlas were made, with the model's own preprocessing, as atlases do not tell another.

    Args:
        origin: of the atlas.

    Returns:
        The recipe; None where the model has no name by which it can be loaded.
    """
    weights = origin.weights or ""
    found = _arguments_in(origin.model or "")
    if found is None or weights == "as given":
        return None
    model, arguments = found
    kind, _, seed = weights.partition(", seed ")
    loading: dict[str, Any] = {}
    if seed.isdigit():
        loading = ({"weights": "none"} if kind == "random" else {}) | ({"seed": int(seed)} if int(seed) else {})
    elif weights:
        loading = {"weights": weights}
    return Recipe(model, arguments, loading)


def recipe_in(facts: Mapping[str, Any], origin: Provenance) -> Recipe | None:
    """Return how the maps of a run were made.

    Args:
        facts: its fingerprint, which may be anybody's.
        origin: of one of its atlases.

    Returns:
        The recipe; None where the run had a preprocessing, inputs or a pass that only its own program has.
    """
    recipe, forward = recipe_of(origin), facts.get("forward")
    if recipe is None or facts.get("inputs") is not None or not isinstance(forward, str | None):
        return None
    with suppress(OptionError, LookupError, TypeError, ValueError, AttributeError):  # no text of a run
        axes = AxesOptions(axes=facts.get("axes", "auto"))
        decoding = {name: facts[name] for name in vars(AS_USUAL) if name in facts}
        return replace(
            recipe, preprocess=options_in(facts.get("preprocess")),
            calling=calling_of(axes, ImageOptions(**decoding)) | _given({"forward": forward}),
        )  # fmt: skip
    return None


def calling_of(axes: AxesOptions, decoding: ImageOptions) -> dict[str, Any]:
    """Return the arguments of visualize that options stand for, without what is so anyway.

    Planes are not among them: the layers of a page are single planes, whose names say which.
    """
    given = {name: value for name, value in vars(decoding).items() if value != vars(AS_USUAL)[name]}
    return given if axes.axes == "auto" else {"axes": axes.axes, **given}


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _arguments_in(spec: str) -> tuple[str, dict[str, Any]] | None:
    """Return a spec and the arguments that `spec_with` has put behind it; None where they cannot be read."""
    found = re.fullmatch(r"(.+?)(?:\((.*)\))?", spec, re.DOTALL)
    if found is None or found[2] is None:
        return None if found is None else (spec, {})
    with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
        call = ast.parse(f"call({found[2]})", mode="eval").body
        if isinstance(call, ast.Call) and not call.args and all(keyword.arg for keyword in call.keywords):
            return found[1], {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    return None


def _flag(name: str, value: Any) -> str:
    option = f" --{name.replace('_', '-')}"
    if value is True:
        return option
    text = _JOINED.get(name, ",").join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"{option}{'=' if text.startswith('-') else ' '}{quote(text)}"


def _keywords(arguments: Mapping[str, Any]) -> str:
    return "".join(f", {name}={value!r}" for name, value in arguments.items())
