"""Bends: the values that go into the last rectifier of a layer, or into another function that goes flat.

Where a rectifier is at zero, gradients are zero too, and an image that begins with noise never gets anywhere. So a
channel is maximised by what goes into the rectifier that a layer ends with. Nothing has to be a module: the functions
are seen by a mode that torch calls with each of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

FUNCTIONS = (
    "relu", "relu6", "leaky_relu", "rrelu", "hardtanh", "threshold", "elu", "selu", "celu", "gelu", "silu", "mish",
    "hardswish", "hardsigmoid", "softplus", "sigmoid", "tanh", "softmax", "log_softmax", "logsigmoid",
)  # fmt: skip
"""Of torch, by name; those that work in place have an underscore behind it."""


class Bends(TorchFunctionMode):
    """Notes what went into the last of such functions, while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self._output: torch.Tensor | None = None
        self._input: torch.Tensor | None = None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, and note what went into it."""
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name.removesuffix("_") not in FUNCTIONS or not args:
            return function(*args, **kwargs)
        in_place = name.endswith("_") or kwargs.get("inplace") or any(each is True for each in args[1:])
        self._input = args[0].clone() if in_place else args[0]
        self._output = function(*args, **kwargs)
        return self._output

    def before(self, output: torch.Tensor) -> torch.Tensor:
        """Return what went into the function that an output came from; the output itself, if from no such function.

        Args:
            output: (any shape) real dtype. Of a layer.
        """
        if output is self._output and self._input is not None:
            return self._input
        return output
