"""Rules for the way back through rectifiers: guided backpropagation and deconvolution.

Autograd calls one operation for each rectifier on its way back, in whatever form the network wrote that: as a module,
a function, in place, or one module in many places. A mode around `torch.autograd.grad` sees these operations, in the
threads of autograd too, and changes what they return; the model, which has run already, is not touched. With g, what
comes back to a rectifier:

    guided         relu(gradient of the rectifier)    Springenberg et al., arXiv 1412.6806
    deconvolution  relu(g)                            Zeiler and Fergus, arXiv 1311.2901

Rectifiers are ReLU, ReLU6, Hardtanh, LeakyReLU, RReLU, PReLU, threshold and a clamp at 0. A rectifier that is written
as arithmetic, such as x * (x > 0) or maximum(x, 0), cannot be told from other arithmetic.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten

_RECTIFIERS = {
    _aten.threshold_backward,
    _aten.hardtanh_backward,
    _aten.leaky_relu_backward,
    _aten.rrelu_with_noise_backward,
    _aten._prelu_kernel_backward,  # returns the gradient of its weight too
}
"""What autograd calls for rectifiers; what comes back to each is its first argument."""

_NOT_COVERED = {
    _aten.gelu_backward: "GELU",
    _aten.silu_backward: "SiLU",
    _aten.hardswish_backward: "Hardswish",
    _aten.mish_backward: "Mish",
    _aten.elu_backward: "ELU",
    _aten.softplus_backward: "Softplus",
}
"""The same for activations that are no rectifiers: their gradients stay as they are."""

_CLAMPS = ("ClampBackward1", "ClampMinBackward0")


class Rectifying(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Changes what comes back from rectifiers, and counts them.

    Args:
        rule: "guided" or "deconvolution".

    Attributes:
        caught: number of rectifiers on the way back from one target.
        not_covered: name of an activation that is no rectifier -> how many there were.
    """

    def __init__(self, rule: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rule = rule
        self.caught = 0
        self.not_covered: collections.Counter[str] = collections.Counter()

    def grad(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor | None, ...]:
        """Call `torch.autograd.grad`, under the rule."""
        self.caught = 0
        self.not_covered.clear()
        with self:
            gradients: tuple[torch.Tensor | None, ...] = torch.autograd.grad(*args, **kwargs)
        return gradients

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation of the way back; change what it returns where it is that of a rectifier."""
        operation = func.overloadpacket
        if operation in _NOT_COVERED:
            self.not_covered[_NOT_COVERED[operation]] += 1
        if operation in _RECTIFIERS:
            return self._changed(args[0], func(*args, **(kwargs or {})))
        if operation is _aten.where and _clamps_at_zero():
            return self._changed(args[1], func(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))

    def _changed(self, came: torch.Tensor, returned: Any) -> Any:
        self.caught += 1
        gradient, *others = returned if isinstance(returned, tuple) else (returned,)
        changed = gradient.clamp_(min=0) if self.rule == "guided" else came.clamp(min=0)
        return (changed, *others) if others else changed


def _clamps_at_zero() -> bool:
    """Return whether autograd is on its way back through a clamp that has 0 as its lower bound."""
    # Its way back is an ordinary `where`. A name that torch keeps to itself; without it clamps are not covered.
    current: Callable[[], Any] = getattr(torch._C, "_current_autograd_node", lambda: None)
    node = current()
    return node is not None and node.name() in _CLAMPS and node._saved_min == 0
