"""Models that take no images: latent vectors, ids of tokens. What they take instead, for messages."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import DTypeError, ImageError, ShapeError, advice
from .expected import IMAGE, zeros
from .layers import meta_copy

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .expected import ExpectedInput

_found: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()


class _Begun(Exception):
    """Raised when the first layer with weights is about to run."""


@contextlib.contextmanager
def words_for(module: nn.Module, images: Any) -> Iterator[None]:
    """Replace errors of shape and dtype in the block by what the model takes, where that is no images.

    Args:
        module: of the model.
        images: what was handed in.

    Raises:
        ShapeError: in place of one that would tell how an image must look.
    """
    try:
        yield
    except (ShapeError, DTypeError, ImageError) as error:
        of_shape = any(isinstance(each, ShapeError | DTypeError) for each in (error, error.__cause__))
        if not of_shape or not (said := taken_instead(module)):
            raise
        flag = advice("inputs=function", "--inputs file.py:function")
        shape = getattr(images, "shape", None)
        got = type(images).__name__ if shape is None else f"{str(images.dtype).removeprefix('torch.')} {tuple(shape)}"
        raise ShapeError(
            f"this model takes {said}, which are no images, got {got}. In Python capture(model, batch, layers) takes a "
            f"batch of those, and render_batch draws what it returns; with any image, {flag} makes them."
        ) from error


def taken_instead(module: nn.Module, expected: ExpectedInput = IMAGE) -> str:
    """Return what a module takes where it takes no images, as its first layer with weights says.

    Args:
        module: any module. It is left as it was.
        expected: the channels and axes on which it is tried first.

    Returns:
        Such as "vectors of 64 numbers" or "ids from 0 to 30521"; "" where what goes in goes into other layers first.
    """
    import torch

    if module not in _found:
        said = _said_by_first(module, zeros(expected))
        _found[module] = (_said_by_first(module, torch.zeros(1, 8)) if said is None else said) or ""
    return _found[module]


def _said_by_first(module: nn.Module, batch: torch.Tensor) -> str | None:
    """Return what the first layer takes where it gets the batch itself; None where no layer comes to run."""
    import torch

    first: list[tuple[nn.Module, tuple[Any, ...]]] = []

    def begins(layer: nn.Module, given: tuple[Any, ...]) -> None:
        first.append((layer, given))
        raise _Begun

    try:
        twin = meta_copy(module).eval()
        for layer in twin.modules():
            if any(True for _ in layer.parameters(recurse=False)) and not any(True for _ in layer.children()):
                layer.register_forward_pre_hook(begins)
        with torch.no_grad():
            twin(batch.to("meta"))
    except Exception:  # a user's module may raise anything at what it does not take
        pass
    if not first:
        return None
    layer, given = first[0]
    return _words_for(layer) if given and getattr(given[0], "shape", None) == batch.shape else ""


def _words_for(layer: nn.Module) -> str:
    from torch import nn

    if isinstance(layer, nn.Embedding):
        return f"ids from 0 to {layer.num_embeddings - 1}"
    return f"vectors of {layer.in_features} numbers" if isinstance(layer, nn.Linear) else ""
