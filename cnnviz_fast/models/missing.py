"""Weights that a checkpoint did not have: a module remembers them, and a pass that uses one is noticed.

Until then the module is as good as any: a ResNet without its classifier draws what lies before it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .layers import every_module

if TYPE_CHECKING:
    import torch
    from torch import nn

_REMEMBERED = "_cnnviz_missing_weights"

# What asks for the shape and the kind of a tensor, and not for its values. Attributes such as x.shape are __get__.
_OF_SHAPES = {
    "size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset", "element_size", "is_contiguous",
    "is_floating_point", "is_complex", "get_device", "type", "data_ptr", "__len__",
}  # fmt: skip


@dataclass
class Missing:
    """What a module remembers.

    Attributes:
        label: what to call the checkpoint in messages.
        weights: name -> parameter or buffer without values of the checkpoint.
    """

    label: str
    weights: dict[str, Any]


def remember_missing(module: nn.Module, names: Iterable[str], label: str) -> None:
    """Note on a module which of its weights have no values, until it is given some.

    Args:
        module: that was filled with what was there.
        names: of parameters and buffers.
        label: what to call the checkpoint in messages.
    """
    held = _held(module)
    missing = {name: held[name] for name in names if name in held}
    if missing:
        vars(module)[_REMEMBERED] = Missing(label, missing)
        module.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]


def missing_in(module: nn.Module) -> dict[int, str]:
    """Return which weights of a module have no values: identity of the tensor -> its name and checkpoint.

    Args:
        module: any module; what its parts remember counts.
    """
    found: dict[int, str] = {}
    for part in every_module(module).values():
        remembered = vars(part).get(_REMEMBERED)
        if remembered is None:
            continue
        held = _held(part)
        for name, tensor in remembered.weights.items():
            # Moving a module replaces its buffers. A parameter is another one only where somebody has set it.
            if name in held and (held[name] is tensor or name in dict(part.named_buffers())):
                found[id(held[name])] = f"{name} of {remembered.label}"
    return found


@contextlib.contextmanager
def noticing_use(missing: dict[int, str], report: Callable[[str], None]) -> Iterator[None]:
    """Report the use of weights without values in the block, in this thread.

    Args:
        missing: from `missing_in`.
        report: called with the name before the value is used.
    """
    from torch.overrides import TorchFunctionMode

    class Notice(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = function(*args, **(kwargs or {}))
            used = [missing[id(one)] for one in _flat((args, kwargs or {})) if id(one) in missing]
            if used and _takes_values(function, output):
                report(used[0])
            return output

    with Notice():
        yield


def _takes_values(function: Any, output: Any) -> bool:
    import torch

    name = getattr(function, "__name__", "")
    return isinstance(output, torch.Tensor) if name == "__get__" else name not in _OF_SHAPES


def _flat(value: Any) -> Iterator[Any]:
    """List what is in arguments."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from _flat(each)
    else:
        yield value


def _held(module: nn.Module) -> dict[str, torch.Tensor]:
    return dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))


def _forget(module: nn.Module, incompatible: Any) -> None:
    """Forget what the module has been given; torch calls this after each load_state_dict."""
    remembered = vars(module).get(_REMEMBERED)
    if remembered is not None:
        still = [name for name in remembered.weights if any(f".{key}".endswith(f".{name}") for key in incompatible[0])]
        remembered.weights = {name: remembered.weights[name] for name in still}
