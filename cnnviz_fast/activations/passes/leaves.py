"""The tensors and arrays in the arguments of a model, in tuples, lists and mappings of any depth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def is_leaf(value: Any) -> bool:
    """Check for a tensor or an array."""
    import numpy as np
    import torch

    return isinstance(value, torch.Tensor | np.ndarray)


def leaves_in(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """List tensors and arrays.

    Args:
        value: a tensor, an array, or anything that may hold some in tuples, lists and mappings.
        path: of the value, in what holds it.

    Yields:
        Their paths, such as "cond.mask" or "0", and they themselves.
    """
    if is_leaf(value):
        yield path, value
        return
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, part in parts:
        yield from leaves_in(part, f"{path}.{key}" if path else str(key))


def changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return a value in which each tensor and array is another one.

    Args:
        value: a tensor, an array, or anything that may hold some in tuples, lists and mappings. Not modified.
        change: called with each of them.

    Returns:
        The value, of the same types; what is neither stays as it is.
    """
    if is_leaf(value):
        return change(value)
    if isinstance(value, Mapping):
        parts = {key: changed(part, change) for key, part in value.items()}
        try:
            return type(value)(parts)  # type: ignore[call-arg]
        except Exception:  # a mapping that is made in another way
            return parts
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(changed(part, change) for part in value))
    if isinstance(value, (list, tuple)):
        return type(value)([changed(part, change) for part in value])
    return value
