"""How the axes of kernels lie in a file of another library, and kernels with the axes of torch.

Keras and TensorFlow keep kernels as (H, W, I, O) and dense layers as (I, O); torch and Caffe as (O, I, H, W) and
(O, I); Keras on Theano as (O, I, H, W) and (I, O). One of the three holds for a whole file. With channels last, the
first dense layer behind the convolutions has its inputs in another order too: (H, W, C) in place of (C, H, W).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .expected import expected_of, zeros
from .layers import meta_copy
from .stored_tensors import StoredTensor

if TYPE_CHECKING:
    import torch
    from torch import nn


class FileAxes(NamedTuple):
    """How axes lie in a file: whether the channels of convolutions and the outputs of dense layers are last."""

    convolutions_last: bool
    dense_last: bool


TORCH = FileAxes(False, False)
AXES = (TORCH, FileAxes(True, True), FileAxes(False, True))
"""Those that are known."""


class Kernel(NamedTuple):
    """A kernel of a module: the name of what it belongs to, its shape, the number of groups of a convolution."""

    layer: str
    shape: tuple[int, ...]
    groups: int

    @property
    def is_dense(self) -> bool:
        """Whether it is that of a dense layer."""
        return len(self.shape) == 2

    @property
    def weight(self) -> str:
        """Its name in a state dict."""
        return f"{self.layer}.weight".lstrip(".")

    @property
    def bias(self) -> str:
        """The name of its bias there."""
        return f"{self.layer}.bias".lstrip(".")


def permutation(shape: Sequence[int] | None, kernel: Kernel, axes: FileAxes) -> tuple[int, ...] | None:
    """Return how the axes of an array change places to become those of a kernel of torch; None if it does not fit.

    Args:
        shape: of the array; None if it has none.
        kernel: what it is to become.
        axes: of the file.
    """
    rank = len(kernel.shape)
    if shape is None or len(shape) != rank:
        return None
    found = [tuple(range(rank))]
    if rank == 2 and axes.dense_last:
        found = [(1, 0)]
    elif rank > 2 and axes.convolutions_last:
        found = [(rank - 1, rank - 2, *range(rank - 2))]
        if kernel.groups > 1:  # of a depthwise convolution Keras keeps (H, W, I, 1)
            found.append((rank - 2, rank - 1, *range(rank - 2)))
    return next((each for each in found if tuple(shape[axis] for axis in each) == kernel.shape), None)


def permuted(array: StoredTensor, axes: tuple[int, ...], channels: int = 0) -> StoredTensor:
    """Return an array with its axes in the order of torch.

    Args:
        array: of a file.
        axes: from `permutation`.
        channels: of the maps that the inputs of a dense layer are, which lie channel by channel then; 0 to leave the
            inputs as they are.
    """
    shape = None if array.shape is None else tuple(array.shape[axis] for axis in axes)

    def read() -> torch.Tensor:
        values = array.read().permute(axes)
        if channels:
            values = values.reshape(len(values), -1, channels).transpose(1, 2).reshape(values.shape)
        return values.contiguous()

    return StoredTensor(shape, array.dtype, array.fault, read)


def kernels_of(module: nn.Module, shapes: dict[str, Any]) -> list[Kernel]:
    """List the kernels of the convolutions and dense layers of a module, in the order of the modules.

    Args:
        module: any module.
        shapes: name -> shape of what it holds, None where any will do.
    """
    from torch import nn

    return [
        Kernel(name, tuple(shape), getattr(part, "groups", 1))
        for name, part in module.named_modules()
        if isinstance(part, nn.Linear | nn.modules.conv._ConvNd)
        and (shape := shapes.get(f"{name}.weight".lstrip("."))) is not None
    ]


def flattened_maps(module: nn.Module) -> dict[str, int]:
    """Find which dense layers take maps that were flattened, by a pass without values.

    Args:
        module: any module. It is left as it was.

    Returns:
        Name of each dense layer that was reached -> channels of the maps that it takes all values of; 0 for none.
    """
    import torch
    from torch import nn
    from torch.overrides import TorchFunctionMode

    found: dict[str, int] = {}
    batch = zeros(expected_of(module)).to("meta")
    maps = [tuple(batch.shape)]

    class Watch(TorchFunctionMode):
        """Keeps the shape of the last maps, whether a module made them or a function."""

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = function(*args, **(kwargs or {}))
            if isinstance(output, torch.Tensor) and output.ndim > 2:
                maps[:] = [tuple(output.shape)]
            return output

    def entering(name: str) -> Callable[[nn.Module, Any], None]:
        def enter(part: nn.Module, inputs: Any) -> None:
            _, channels, *sides = maps[0]
            are_all = inputs[0].ndim == 2 and inputs[0].numel() == math.prod(maps[0]) and math.prod(sides) > 1
            found[name] = channels if are_all else 0

        return enter

    twin = meta_copy(module).eval()
    for name, part in twin.named_modules():
        if isinstance(part, nn.Linear):
            part.register_forward_pre_hook(entering(name))
    # A user's module may raise anything, also where its dense layers take another size of image.
    with contextlib.suppress(Exception), torch.no_grad(), Watch():
        twin(batch)
    return found
