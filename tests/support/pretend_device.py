"""A device that is not there: tensors on the CPU say that they lie on MPS, and are refused what MPS refuses.

That is float64, operations on tensors that do not lie together, and numpy's access to memory. Inside `Pretending` torch
makes such tensors where the device is asked for, so that code under test runs as it stands. It has a hold on its own
thread only; so tests draw with one worker.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from cnnviz_fast import operators

CPU, MPS = torch.device("cpu"), torch.device("mps", 0)

MOVES = ("to", "copy_")
"""The methods whose tensors may lie on two devices."""

OWN_OPERATORS = {
    "cnnviz_fast::channel_range": operators.channel_range._init_fn,
    "cnnviz_fast::render_index": operators.draw_index._init_fn,
}


class There(torch.Tensor):
    """A tensor that says it lies on the device."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, operands = getattr(function, "__name__", ""), tree_leaves((args, kwargs))
        if function == torch.Tensor.device.__get__:
            return MPS
        if name == "numpy":
            raise TypeError("can't convert mps:0 device type tensor to numpy. Use Tensor.cpu() first.")
        if name not in MOVES and any(type(operand) is torch.Tensor and operand.ndim for operand in operands):
            raise RuntimeError(f"Expected all tensors to be on the same device, in {name}")
        goes_to_cpu = name == "cpu" or any(isinstance(operand, torch.device) and operand == CPU for operand in operands)
        args, kwargs = tree_map(_as_held, (args, kwargs or {}))
        made = function(*args, **kwargs)
        return made if goes_to_cpu else tree_map(sent, made)


class Pretending(TorchFunctionMode):
    """Makes what is made on the device, or sent there, a tensor that says so."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if own := OWN_OPERATORS.get(getattr(function, "_qualified_op_name", "")):
            with self:
                return own(*args, **kwargs)
        if any(isinstance(operand, torch.device) and operand == MPS for operand in tree_leaves((args, kwargs))):
            return There.__torch_function__(function, types, args, kwargs)
        return function(*args, **kwargs)


def sent(part: Any) -> Any:
    """Put a tensor on the device; what is no tensor stays what it is."""
    if not isinstance(part, torch.Tensor):
        return part
    if part.dtype == torch.float64:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
    return part.as_subclass(There)


def _as_held(part: Any) -> Any:
    """Return what the CPU computes with in place of a tensor, or of the device."""
    if isinstance(part, There):
        with torch._C.DisableTorchFunctionSubclass():
            return part.as_subclass(torch.Tensor)
    return CPU if isinstance(part, torch.device) else part
