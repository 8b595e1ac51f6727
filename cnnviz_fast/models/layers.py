"""The layers of a model: everything that `named_modules()` lists except the model itself, in that order.

Each module counts once, under its first name. The wrappers that `torch.compile` puts around modules are skipped, so no
name holds `_orig_mod`. `cnnviz layers` prints this list, and an integer in a pattern is an index into it.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import itertools
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclasses.dataclass(frozen=True)
class LayerInfo:
    """One line of `cnnviz layers`; every field is a JSON type.

    Attributes:
        index: position in the list.
        name: first dotted name in `named_modules()`.
        type: class name.
        shape: output shape of the first call, or None if it never ran or its output is not one tensor.
        calls: number of times that one pass runs it.
        parameters: number of parameters, with those of its children.
    """

    index: int
    name: str
    type: str
    shape: tuple[int, ...] | None
    calls: int
    parameters: int


def layer_list(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """List the layers of a model: what integers index and what `cnnviz layers` prints.

    Args:
        model: any module.

    Returns:
        First name and module of everything in `named_modules()` except the model itself.
    """
    return once_each(layer_names(model).items())


def layer_names(model: nn.Module) -> dict[str, nn.Module]:
    """Map every name of every layer to its module, in the order of `named_modules()`.

    Args:
        model: any module.

    Returns:
        Name -> module. A module with several names is listed under each.
    """
    root, compiled = uncompiled(model), _compiled_class()
    named = every_module(root)
    wrappers = [name for name, module in named.items() if isinstance(module, compiled)]
    for wrapper in reversed(wrappers):  # the innermost first, so that the names of outer wrappers are still prefixes
        inside = f"{wrapper}._orig_mod"
        named = {
            wrapper + name.removeprefix(inside) if name == inside or name.startswith(f"{inside}.") else name: module
            for name, module in named.items()
            if name != wrapper
        }
    return {name: module for name, module in named.items() if module is not root}


def once_each(named: Iterable[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """Keep the first name of each module.

    Args:
        named: names and modules.

    Returns:
        First name and module, in order.
    """
    first: dict[nn.Module, str] = {}
    for name, module in named:
        first.setdefault(module, name)
    return [(name, module) for module, name in first.items()]


def every_module(model: nn.Module) -> dict[str, nn.Module]:
    """Return what `named_modules(remove_duplicate=False)` does, in half the time: each capture needs it twice.

    Args:
        model: any module.

    Returns:
        Every name of every module in it, "" for the model itself -> the module.
    """
    found: dict[str, nn.Module] = {}

    def walk(module: nn.Module, name: str) -> None:
        found[name] = module
        for child, part in module._modules.items():
            if part is not None:
                walk(part, f"{name}.{child}" if name else child)

    walk(model, "")
    return found


def uncompiled(model: nn.Module) -> nn.Module:
    """Return a module without the wrapper that `torch.compile` puts around it.

    Args:
        model: any module.

    Returns:
        The module that was compiled, or the module itself.
    """
    while isinstance(model, _compiled_class()):
        model = model._orig_mod
    return model


def takes_hooks(module: nn.Module) -> bool:
    """Check whether hooks can be hung on a module; TorchScript refuses them."""
    import torch

    return not isinstance(module, torch.jit.ScriptModule)


def meta_copy(model: nn.Module) -> nn.Module:
    """Copy a model to the meta device: its structure and code, without its values and hooks.

    Args:
        model: any module whose other attributes can be copied. Hooks that act on a pass are left out, and what they
            hold is not copied either.

    Returns:
        The copy. It takes no memory for parameters, buffers and tensors kept as plain attributes.
    """
    import torch

    hook_tables = [name for name in vars(torch.nn.Module()) if name.endswith("_hooks") and "ward_" in name]
    # Where its memo has an entry for an id, deepcopy takes that instead of copying the object.
    memo: dict[int, Any] = {}
    for module in model.modules():
        memo.update((id(getattr(module, name)), collections.OrderedDict()) for name in hook_tables)
        for tensor in (*vars(module).values(), *module.buffers(recurse=False), *module.parameters(recurse=False)):
            if isinstance(tensor, torch.Tensor):
                memo[id(tensor)] = _meta_twin(tensor)
    twin = copy.deepcopy(model, memo)
    for module in twin.modules():
        if hasattr(module, "_initialize_hook"):
            hang_lazy_hook(module)
    return twin


def hang_lazy_hook(module: Any) -> None:
    """Hang the hook on a lazy module that gives it its shapes in its first pass."""
    module._initialize_hook = module.register_forward_pre_hook(module._infer_parameters, with_kwargs=True)


def _meta_twin(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor like this one on the meta device; a lazy one stays lazy."""
    import torch

    if torch.nn.parameter.is_lazy(tensor):
        lazy: torch.Tensor = lazy_twin(tensor, "meta")
        return lazy
    twin = torch.empty_like(tensor, device="meta")
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(twin, requires_grad=tensor.requires_grad)
    return twin


def lazy_twin(tensor: Any, device: Any) -> Any:
    """Make a lazy parameter or buffer like another one.

    Args:
        tensor: the other one.
        device: where its values will be.
    """
    return type(tensor)(tensor.requires_grad, device=device, dtype=tensor.dtype)


def lazy_copy(model: nn.Module) -> nn.Module:
    """Copy a model that is lazy, with its values and hooks; `copy.deepcopy` fails on lazy buffers in torch 2.14.

    Args:
        model: any module that can be copied.

    Returns:
        The copy, which is lazy where the model is.
    """
    from torch.nn.parameter import is_lazy

    return copy.deepcopy(model, {id(one): lazy_twin(one, one.device) for one in model.buffers() if is_lazy(one)})


def has_lazy(module: nn.Module) -> bool:
    """Check whether a module holds parameters or buffers that get their shapes in its first pass."""
    from torch.nn.parameter import is_lazy

    return any(map(is_lazy, itertools.chain(module.parameters(), module.buffers())))


def _compiled_class() -> type[Any] | tuple[()]:
    """Return the class of torch.compile's wrappers, without loading torch._dynamo, which may take seconds."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return () if dynamo is None else dynamo.OptimizedModule
