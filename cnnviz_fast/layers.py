"""Stage 3 of the main path, first half: the layers of a model, and layer patterns -> capture targets.

The layers of a model are everything that `named_modules()` lists except the model itself, in that order, each module
once under its first name. `cnnviz layers` prints this list, and an integer is an index into it. What a pattern may be,
in the order in which the meanings are tried, so that a real name always wins:

    layer1.0.conv2    a dotted path; any name of a module that has several
    type:Conv2d       every module of a class of this name, or of a subclass of one
    12, -1            the index in the list, negative from the end; also as text, for the command line
    layer1.*.conv2    `*` stands for any text, dots included: `layer1.*` is everything below layer1
    PATTERN:2         only the third call of each module in one pass

Within one pattern a module counts once, under the first of its names that matches.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import LayerNotFoundError, OptionError, closest

if TYPE_CHECKING:
    from torch import nn

_LIST_THEM = "List them with: cnnviz layers MODEL"
_TYPE = "type:"
_CALL = re.compile(r"(.+):(\d+)", re.DOTALL)
_INTEGER = re.compile(r"-?\d+")


@dataclasses.dataclass(frozen=True)
class LayerInfo:
    """What one line of `cnnviz layers` says; every field is a JSON type.

    Attributes:
        index: place in the list.
        name: first dotted name in `named_modules()`.
        type: class name.
        shape: output shape of the first call, or None where it never ran or its output is not one tensor.
        calls: how often one pass runs it.
        parameters: number of parameters, those of its children included.
    """

    index: int
    name: str
    type: str
    shape: tuple[int, ...] | None
    calls: int
    parameters: int


@dataclasses.dataclass(frozen=True)
class Target:
    """A module to be captured.

    Attributes:
        name: the dotted name it was asked for by, or its first name where a pattern found it.
        module: the module.
        call: which of its calls in one pass, from 0, or None for all of them.
        patterns: the patterns that found it.
    """

    name: str
    module: nn.Module
    call: int | None
    patterns: tuple[str, ...]


def layer_list(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """List the layers of a model: what integers index and what `cnnviz layers` prints.

    Args:
        model: any module.

    Returns:
        First name and module of everything in `named_modules()` but the model itself.
    """
    return [(name, module) for name, module in model.named_modules() if module is not model]


def resolve(model: nn.Module, patterns: str | int | Sequence[str | int]) -> list[Target]:
    """Find the modules that patterns name.

    Args:
        model: any module.
        patterns: one pattern or several; the head of this file says what a pattern may be.

    Returns:
        The targets in the order asked for. What an earlier pattern has found already keeps its place.

    Raises:
        LayerNotFoundError: a pattern matches nothing, or an index is out of range.
        OptionError: `patterns` holds no pattern, or something that cannot be one.
    """
    names = {name: module for name, module in model.named_modules(remove_duplicate=False) if module is not model}
    found: dict[tuple[str, int | None], Target] = {}
    for pattern in _as_list(patterns):
        text, call, matches = _match(names, pattern)
        for name, module in matches:
            earlier = found.get((name, call))
            patterns_so_far = earlier.patterns if earlier else ()
            found[name, call] = Target(name, module, call, (*patterns_so_far, text))
    return list(found.values())


def meta_copy(model: nn.Module) -> nn.Module:
    """Copy a model to the meta device: its structure and code, without its values and without anybody's hooks.

    Args:
        model: any module whose other attributes can be copied. Hooks that act on a pass are left out unseen, so that
            what they hold is not copied either.

    Returns:
        The copy. It takes no memory for parameters, buffers and tensors kept as plain attributes.
    """
    import torch

    hook_tables = [name for name in vars(torch.nn.Module()) if name.endswith("_hooks") and "ward_" in name]
    # deepcopy takes what its memo holds for an id instead of copying the object.
    memo: dict[int, Any] = {}
    for module in model.modules():
        memo.update((id(getattr(module, name)), collections.OrderedDict()) for name in hook_tables)
        for tensor in (*vars(module).values(), *module.buffers(recurse=False)):
            if isinstance(tensor, torch.Tensor):
                memo[id(tensor)] = torch.empty_like(tensor, device="meta")
        for parameter in module.parameters(recurse=False):
            twin = torch.empty_like(parameter, device="meta")
            memo[id(parameter)] = torch.nn.Parameter(twin, requires_grad=parameter.requires_grad)
    return copy.deepcopy(model, memo)


def _as_list(patterns: Any) -> list[str | int]:
    """Take one pattern or several as a list of text and integers."""
    several = isinstance(patterns, Iterable) and not isinstance(patterns, str)
    asked = [_checked(pattern) for pattern in (patterns if several else [patterns])]
    if not asked:
        raise OptionError(f"layers must name at least one layer, got none. {_LIST_THEM}")
    return asked


def _checked(pattern: Any) -> str | int:
    """Return a pattern that is text or an integer of any kind."""
    if isinstance(pattern, str):
        return pattern
    try:
        return operator.index(pattern)
    except TypeError:
        kind = type(pattern).__name__
        raise OptionError(
            f"layers must be names, patterns or indices, got an object of type {kind}. {_LIST_THEM}"
        ) from None


def _match(names: Mapping[str, nn.Module], pattern: str | int) -> tuple[str, int | None, list[tuple[str, nn.Module]]]:
    """Return a pattern as text, the call it asks for, and what it matches."""
    if isinstance(pattern, int):
        return str(pattern), None, [_at_index(names, pattern)]
    base, call = pattern, None
    if pattern not in names and (parts := _CALL.fullmatch(pattern)):
        base, call = parts[1], int(parts[2])
    matches = _match_base(names, base)
    if not matches:
        known = {_TYPE + kind for module in names.values() for kind in _class_names(module)}
        near = closest(base, known if base.startswith(_TYPE) else names, count=2)
        raise LayerNotFoundError(f"no layer {pattern!r} in the model.{near} {_LIST_THEM}")
    return pattern, call, matches


def _match_base(names: Mapping[str, nn.Module], base: str) -> list[tuple[str, nn.Module]]:
    """Match a pattern that has lost its `:k`; a real name is tried before the meanings it could have otherwise."""
    if base in names:
        return [(base, names[base])]
    if base.startswith(_TYPE):
        kind = base.removeprefix(_TYPE)
        return _once_each((name, module) for name, module in names.items() if kind in _class_names(module))
    if _INTEGER.fullmatch(base):
        return [_at_index(names, int(base))]
    # Not fnmatch: its brackets would be in the way of names that hold some.
    glob = re.compile(".*".join(re.escape(part) for part in base.split("*")), re.DOTALL)
    return _once_each((name, module) for name, module in names.items() if glob.fullmatch(name))


def _at_index(names: Mapping[str, nn.Module], index: int) -> tuple[str, nn.Module]:
    """Return the layer at an index of the list, negative from the end."""
    layers = _once_each(names.items())
    if not layers:
        raise LayerNotFoundError(f"no layer {index} in the model: it is a single module without children.")
    if not -len(layers) <= index < len(layers):
        raise LayerNotFoundError(
            f"layer index must be {-len(layers)} to {len(layers) - 1} for this model, got {index}. {_LIST_THEM}"
        )
    return layers[index]


def _once_each(named: Iterable[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """Keep the first name of each module."""
    first: dict[nn.Module, str] = {}
    for name, module in named:
        first.setdefault(module, name)
    return [(name, module) for module, name in first.items()]


def _class_names(module: nn.Module) -> list[str]:
    """Name the class of a module and the classes that it is derived from."""
    return [kind.__name__ for kind in type(module).__mro__]
