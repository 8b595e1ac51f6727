"""Receptive fields that are looked up again and again: found once for each layer of a model and size of input."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from ...errors import CnnvizError
from ...models.layers import every_module
from .find import receptive_field
from .record import ReceptiveField

if TYPE_CHECKING:
    from ...models.loaded import LoadedModel

_lock = threading.Lock()
_known: weakref.WeakKeyDictionary[Any, dict[Any, ReceptiveField | None]] = weakref.WeakKeyDictionary()


def known_field(model: LoadedModel, layer: str, shape: tuple[int, ...]) -> ReceptiveField | None:
    """Return the receptive field of a captured output.

    Args:
        model: the model that ran. It is left as it was.
        layer: name of the output, as capture gives it.
        shape: of the batch that went in.

    Returns:
        The field; None where the model cannot be followed on such an input.
    """
    import torch

    with _lock:
        fields = _known.setdefault(model.module, {})
        # A model that got other layers meanwhile is another model.
        key = (
            layer,
            shape[1:],
            id(model.inputs),
            id(model.forward),
            tuple(map(id, every_module(model.module).values())),
        )
        if key not in fields:
            try:
                found = receptive_field(model, layer, images=torch.zeros(()).expand(1, *shape[1:]))
            except CnnvizError:
                found = None
            fields[key] = found if isinstance(found, ReceptiveField) else None
        return fields[key]
