"""Receptive fields that are looked up again and again: found once for each model and size of input."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...errors import CnnvizError
from ...models.layers import every_module
from .find import receptive_field
from .record import ReceptiveField

if TYPE_CHECKING:
    from ...models.loaded import LoadedModel

_lock = threading.Lock()
_known: weakref.WeakKeyDictionary[Any, dict[Any, dict[str, ReceptiveField | None]]] = weakref.WeakKeyDictionary()


def known_field(
    model: LoadedModel, layer: str, shape: tuple[int, ...], layers: Sequence[str] = ()
) -> ReceptiveField | None:
    """Return the receptive field of a captured output.

    Args:
        model: the model that ran. It is left as it was.
        layer: name of the output, as capture gives it.
        shape: of the batch that went in.
        layers: of outputs whose fields will be asked for too: one pass finds them all.

    Returns:
        The field; None where the model cannot be followed on such an input.
    """
    with _lock:
        # A model that got other layers meanwhile is another model.
        modules = tuple(map(id, every_module(model.module).values()))
        key = (shape[1:], id(model.inputs), id(model.forward), modules)
        fields = _known.setdefault(model.module, {}).setdefault(key, {})
        if layer not in fields:
            names = list(dict.fromkeys([layer, *layers]))
            found = _found(model, names, shape)
            if not found and len(names) > 1:  # one of them has none, which costs the others nothing
                for name in names:
                    found |= _found(model, [name], shape)
            fields.update({name: found.get(name) for name in names})
        return fields[layer]


def _found(model: LoadedModel, layers: list[str], shape: tuple[int, ...]) -> dict[str, ReceptiveField]:
    """Return the receptive fields of outputs; none where one of them cannot be followed."""
    import torch

    try:
        found = receptive_field(model, layers, images=torch.zeros(()).expand(1, *shape[1:]))
    except CnnvizError:
        return {}
    assert isinstance(found, dict)  # as for any list
    return found
