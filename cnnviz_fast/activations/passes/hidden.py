"""Copies of its layers that a model keeps outside its list of modules, and runs in their place.

A list that holds a fused copy, a predictor with a model of its own: their modules are not in `named_modules()`, so a
layer asked for never runs itself. What to capture from instead is found by following attributes and containers.
"""

from __future__ import annotations

import collections
import functools
import itertools
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

from ...models.layers import every_module, layer_names

if TYPE_CHECKING:
    from torch import nn

_MOST_OBJECTS = 20_000
"""Objects that are looked at: half a second at most, spent where there is an error to explain."""

_LEAVES = (type(None), bool, int, float, complex, str, bytes, type, ModuleType, FunctionType, BuiltinFunctionType)


def copy_of(model: nn.Module, layer: str, module: nn.Module) -> tuple[str, str] | None:
    """Find a copy of a layer that a model keeps outside its list of modules.

    Args:
        model: the model.
        layer: name of the layer.
        module: the layer itself.

    Returns:
        Where the model keeps it, such as `model.predictor.net`, and the name of the layer in what is kept there:
        "output" where that is the copy itself. None where there is none.
    """
    for path, hidden in _hidden_modules(model):
        alike = [name for name, part in layer_names(hidden).items() if _is_alike(part, module)]
        common = {name: _common_end(name, layer) for name in alike}
        best = [name for name in alike if common[name] == max(common.values()) > 0]
        if len(best) == 1:
            return path, best[0]
        if _is_alike(hidden, module) and _shapes(hidden).keys() == _shapes(module).keys():
            return path, "output"
    return None


def _common_end(name: str, other: str) -> int:
    """Return how many parts two dotted names have in common, counted from their ends."""
    pairs = zip(reversed(name.split(".")), reversed(other.split(".")), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _hidden_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that can be reached from a model but are not listed by it, with their paths, nearest first."""
    from torch import Tensor, nn

    listed = every_module(model)
    seen = {id(module) for module in listed.values()}
    pending: collections.deque[tuple[str, Any]] = collections.deque()
    for name, module in listed.items():
        pending.extend(_parts(f"model.{name}" if name else "model", module))
    for _ in range(_MOST_OBJECTS):
        if not pending:
            return
        path, value = pending.popleft()
        if id(value) in seen or isinstance(value, (*_LEAVES, Tensor)):
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module):
            yield path, value
            seen.update(id(module) for module in every_module(value).values())
        else:
            pending.extend(_parts(path, value))


def _parts(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a value holds: parts of a container, attributes of an object, with the paths that lead there."""
    if isinstance(value, Mapping):
        yield from ((f"{path}[{key!r}]", part) for key, part in list(value.items()))
    elif isinstance(value, (list, tuple, collections.deque)):
        yield from ((f"{path}[{index}]", part) for index, part in enumerate(value))
    elif isinstance(value, MethodType):
        yield f"{path}.__self__", value.__self__
    elif isinstance(value, functools.partial):
        yield f"{path}.func", value.func
        yield from _parts(f"{path}.args", value.args)
    elif isinstance(getattr(value, "__dict__", None), dict):
        # Not the tables of a module, which hold what is listed anyway.
        yield from ((f"{path}.{name}", part) for name, part in list(vars(value).items()) if name not in _tables())


@functools.cache
def _tables() -> frozenset[str]:
    from torch import nn

    return frozenset(vars(nn.Module()))


def _is_alike(part: nn.Module, module: nn.Module) -> bool:
    """Check whether a module may be a copy of another: of one class, with the same shapes of what both of them hold."""
    ours, theirs = _shapes(module), _shapes(part)
    return type(part) is type(module) and all(theirs.get(name, shape) == shape for name, shape in ours.items())


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
