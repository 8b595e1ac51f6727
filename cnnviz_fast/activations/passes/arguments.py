"""What a model is called with: which of its functions, and the batch and other inputs on its device."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import InputError, OptionError, closest
from ...models.layers import every_module
from ..buffers import pool
from .leaves import changed
from .rows import InputRows

if TYPE_CHECKING:
    import torch
    from torch import nn

Inputs = Callable[["torch.Tensor"], Any] | Mapping[str, Any] | Sequence[Any] | InputRows | None
"""What a model takes beside the batch, or a function that makes everything it takes from the batch."""

Forward = str | Callable[..., Any] | None
"""What is run: the name of a method of the model, or a function of the model and its arguments; None for the model."""


def arguments(batch: torch.Tensor, inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Make the arguments of a model.

    Args:
        batch: (N, C, H, W) float. The first argument, unless `inputs` is a function.
        inputs: a mapping of keyword arguments or a sequence of positional ones that follow the batch; or a function
            of the batch that returns all arguments: a tensor, a sequence of positional ones, or a mapping.

    Returns:
        Positional and keyword arguments.

    Raises:
        InputError: `inputs` is, or returns, something else.
    """
    import torch

    if isinstance(inputs, InputRows):
        inputs = inputs.for_any(len(batch))
    if callable(inputs):
        made = inputs(batch)
        before: tuple[Any, ...] = ()
    else:
        made, before = inputs, (batch,)
    if made is None and not callable(inputs):
        return before, {}
    if isinstance(made, torch.Tensor):
        made = (made,)
    if isinstance(made, Mapping):
        return before, dict(made)
    if isinstance(made, Sequence) and not isinstance(made, str):
        return (*before, *made), {}
    kind = type(made).__name__
    what = "return" if callable(inputs) else "be"
    raise InputError(f"inputs must {what} a tensor, a sequence of arguments or a mapping of named ones, got {kind}.")


def callable_of(model: nn.Module, forward: Forward) -> Callable[..., Any]:
    """Find what is run.

    Args:
        model: any module.
        forward: the name of a method of it; a function, called with the model as its first argument; or None for the
            model itself.

    Returns:
        A function of the model's arguments.

    Raises:
        OptionError: `forward` is something else.
    """
    if forward is None:
        return model
    if not isinstance(forward, str):
        if not callable(forward):
            kind = type(forward).__name__
            raise OptionError(
                f"forward must be the name of a method or a function, got {kind}. Leave it out to run it."
            )
        return functools.partial(forward, model)
    method = getattr(model, forward, None)
    if not callable(method):
        there = [name for name in dir(type(model)) if not name.startswith("_") and callable(getattr(model, name, None))]
        kind = type(model).__name__
        raise OptionError(f"forward must be a method of the {kind}, got {forward!r}.{closest(forward, there)}")
    run: Callable[..., Any] = method
    return run


def weight_of(model: nn.Module, default: torch.Tensor) -> torch.Tensor:
    """Return the weight whose device a model's inputs get: the first of an ordinary float dtype.

    Args:
        model: any module.
        default: (any shape) real dtype. Returned if the model has no such weight.

    Returns:
        The weight.
    """
    weights = itertools.chain(model.parameters(), model.buffers())
    return next((weight for weight in weights if weight.dtype in _ordinary()), default)


@functools.cache
def _ordinary() -> tuple[torch.dtype, ...]:
    """List the dtypes that inputs may have; so the 8-bit floats of quantised weights do not count."""
    import torch

    return torch.float32, torch.float16, torch.bfloat16, torch.float64


def dtypes_for(model: nn.Module, batch: torch.Tensor) -> list[torch.dtype]:
    """List the dtypes in which a batch may go into a model, the one to try first at the front.

    Args:
        model: any module.
        batch: (any shape) real dtype.

    Returns:
        The batch's own dtype where a weight has it or it is no float, and the dtypes of other weights.
    """
    own = batch.dtype
    if not batch.is_floating_point():
        return [own]
    registered = (module._parameters.values() for module in every_module(model).values())
    # Registered are nearly always all of parameters(), which takes four times as long to go through.
    for weights in (itertools.chain.from_iterable(registered), model.parameters(), model.buffers()):
        dtypes = dict.fromkeys(weight.dtype for weight in weights if weight is not None)
        if found := [dtype for dtype in dtypes if dtype in _ordinary()]:
            return sorted(found, key=lambda dtype: dtype != own)
    return [own]


def placed(value: Any, device: torch.device, *, linked: bool = False) -> Any:
    """Copy the tensors in a value to a device; their dtype stays.

    They are copied even where nothing changes, so that no in-place layer writes into the caller's tensors.

    Args:
        value: a tensor, or anything that may hold some in tuples, lists and mappings.
        device: where the copies go.
        linked: whether tensors that gradients go back from stay linked to what they were made of.

    Returns:
        The value, of the same types.
    """
    import torch

    def copied(tensor: Any) -> Any:
        if not isinstance(tensor, torch.Tensor):
            return tensor
        if linked and tensor.requires_grad:
            return tensor.to(device)
        mine = tensor.detach()
        moved = mine.to(device)
        return pool.copy(moved) if moved is mine else moved

    return changed(value, copied)
