"""Tensors that hold their values as plain numbers; what other kinds of tensors become, or why they are refused."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import DTypeError

if TYPE_CHECKING:
    import torch

_PACKED = re.compile(r"torch\.(bits|bit$|u?int[1-7]\b|float4)")
"""Dtypes that torch stores and converts to no other."""


def plain(tensor: torch.Tensor, name: str = "maps", *, opened: bool = True) -> torch.Tensor:
    """Return a tensor of any kind as one that holds its values as plain numbers.

    Args:
        tensor: (...) real dtype, of any layout and class. Not modified.
        name: what it is called in messages.
        opened: whether quantised values may become what they stand for.

    Returns:
        (...) real dtype: `tensor` itself, or dequantised; one of torch.masked with NaN where it is masked.

    Raises:
        DTypeError: it has no values, or they cannot be read: it is a fake or a lazy one, from inside of a transform of
            torch.func, of packed bits; or `dense` refuses it.
    """
    import torch

    tensor = without_mask(tensor)
    got = advice = ""
    if torch.nn.parameter.is_lazy(tensor):
        got, advice = "a lazy parameter without a shape", "Run its model once."
    elif is_fake(tensor):
        got, advice = "a fake tensor, which has none", "Pass one that was made outside of FakeTensorMode."
    elif torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        got, advice = "a tensor inside vmap, grad or jvp", "Return it from the transform, and pass the result."
    elif _PACKED.match(str(tensor.dtype)):
        got, advice = f"{tensor.dtype}, which converts to no other dtype", f"Unpack it, from {name}.view(torch.uint8)."
    if got:
        raise DTypeError(f"{name} must hold values that can be read, got {got}. {advice}")
    return dense(tensor, name, opened=opened)


def dense(tensor: torch.Tensor, name: str = "maps", *, opened: bool = True) -> torch.Tensor:
    """Return a tensor that holds its values as plain numbers, also in compiled code.

    Args:
        tensor: (...) real dtype, of any layout, or one that is refused. Not modified.
        name: what it is called in messages.
        opened: whether quantised values may become what they stand for.

    Returns:
        (...) real dtype: `tensor` itself, or dequantised.

    Raises:
        DTypeError: it is complex, sparse, nested or on the meta device; or quantised, and not to be opened.
    """
    import torch

    if tensor.is_nested:
        raise DTypeError(
            f"{name} must be one tensor of one size, got a nested tensor. Pass its parts: {name}.unbind()."
        )
    if tensor.is_complex():
        raise DTypeError(f"{name} must be of a real dtype, got {tensor.dtype}. Pass {name}.abs() or {name}.real.")
    if tensor.layout != torch.strided or tensor.is_meta:
        kind = "the meta device" if tensor.is_meta else str(tensor.layout)
        raise DTypeError(f"{name} must hold their values densely, got {kind}. Pass {name}.to_dense() or a real tensor.")
    if tensor.is_quantized:
        if not opened:
            raise DTypeError(f"{name} must hold plain numbers, got {tensor.dtype}. Pass {name}.dequantize().")
        return tensor.dequantize()
    return tensor


def without_mask(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor, and of one of torch.masked its values.

    Args:
        tensor: (...) real dtype or complex. Not modified.

    Returns:
        (...) the tensor itself; or its values, NaN where they are masked, as float32 where they are no floats.
    """
    if type(tensor).__name__ != "MaskedTensor" or not type(tensor).__module__.startswith("torch.masked"):
        return tensor
    values, mask = tensor.get_data(), tensor.get_mask()  # type: ignore[attr-defined]
    wide: torch.Tensor = values if values.is_floating_point() else values.float()
    return wide.masked_fill(~mask, float("nan"))


def is_fake(tensor: torch.Tensor) -> bool:
    """Return whether a tensor has a shape and no values, as torch.export and FakeTensorMode make them."""
    return type(tensor).__name__ == "FakeTensor"
