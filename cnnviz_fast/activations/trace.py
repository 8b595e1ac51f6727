"""Follow the axes of an image through a model: what each axis of each layer's output holds.

One pass of a copy without values is watched, operation by operation, for two images. What an axis holds is followed
from the input on, so it is known and not guessed: no name of a class and no coincidence of numbers plays a part.
"""

from __future__ import annotations

import contextlib
import re
import threading
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..models.layers import every_module, layer_list, meta_copy, takes_hooks
from .forward import run_pass
from .moves import roles_of, set_roles
from .roles import BATCH, CHANNELS, COLUMNS, ROWS, TIME, Roles, whole
from .rules import follow
from .tensors import tensors_in

if TYPE_CHECKING:
    from torch import nn

_IMAGES = 2
"""Images in the batch: with one its axis could not be told from others of length 1."""
_INPUTS = {4: (CHANNELS, ROWS, COLUMNS), 5: (CHANNELS, TIME, ROWS, COLUMNS)}
_NAME = re.compile(r"(?P<layer>.*?)(:(?P<call>\d+))?(?P<path>(\[[^\[\]]+\])*)")


@dataclass
class Trace:
    """What a pass showed.

    Attributes:
        outputs: layer or operation -> for each call, path of each tensor in its output -> the roles of its axes.
    """

    outputs: dict[str, list[dict[str, Roles | None]]] = field(default_factory=dict)

    def roles(self, layer: str, shape: tuple[int, ...], images: int) -> Roles | None:
        """Return what the axes of an output hold.

        Args:
            layer: name of a captured output, with call and path where it has them.
            shape: its shape.
            images: number of images that went in.

        Returns:
            The roles; None where the pass did not come that far or showed another shape.
        """
        parts = _NAME.fullmatch(layer)
        calls = self.outputs.get(layer) or (self.outputs.get(parts["layer"]) if parts else None)
        if not calls or parts is None:
            return None
        wanted = calls if parts["call"] is None else calls[int(parts["call"]) : int(parts["call"]) + 1]
        found = {
            roles
            for call in wanted
            for path, roles in call.items()
            if path == parts["path"] or (not parts["path"] and len(call) == 1)
            if roles is not None and _shape(roles, images) == shape
        }
        return found.pop() if len(found) == 1 else None


def _shape(roles: Roles, images: int) -> tuple[int, ...]:
    """Return the shape of a tensor with these roles, of a batch of another size."""
    sizes = []
    for axis in roles:
        size = 1
        for part in axis:
            size = size * (part.size * images // _IMAGES if part.kind == BATCH else part.size)
        sizes.append(size)
    return tuple(sizes)


_lock = threading.Lock()
_traces: weakref.WeakKeyDictionary[nn.Module, dict[Any, Trace]] = weakref.WeakKeyDictionary()


def trace_of(model: nn.Module, input_shape: tuple[int, ...]) -> Trace:
    """Return what a pass of a model shows; it is run once for each model and size of input.

    Args:
        model: any module. It is left as it was.
        input_shape: (N, C, H, W) or (N, C, T, H, W).

    Returns:
        What was seen, up to where the pass failed: a forward may look at values, which this one has not.
    """
    # A model that got other layers meanwhile is another model.
    key = (input_shape[1:], tuple(map(id, every_module(model).values())))
    with _lock:
        known = _traces.setdefault(model, {})
        if key not in known:
            known.clear()
            known[key] = _trace(model, input_shape)
        return known[key]


def _trace(model: nn.Module, input_shape: tuple[int, ...]) -> Trace:
    import torch

    trace = Trace()
    if len(input_shape) not in _INPUTS:
        return trace
    with contextlib.suppress(Exception):  # a foreign model may raise anything here; what was seen so far counts
        copy = meta_copy(model)
        names = {module: name for name, module in layer_list(copy)}

        def see(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            note(names[module], output)

        def note(name: str, output: Any) -> None:
            trace.outputs.setdefault(name, []).append({p: roles_of(t) for p, t in tensors_in(output).items()})

        batch = torch.empty((_IMAGES, *input_shape[1:]), device="meta")
        kinds = (BATCH, *_INPUTS[batch.ndim])
        set_roles(batch, tuple(whole(kind, size) for kind, size in zip(kinds, batch.shape, strict=True)))
        with _following():
            run_pass(copy, batch, filter(takes_hooks, names), see, on_operation=note)
    return trace


def _following() -> contextlib.AbstractContextManager[Any]:
    """Note the roles of every tensor that is made in the block out of one that has roles."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Follow(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = function(*args, **(kwargs or {}))
            name = function._schema.name.rpartition("::")[2]
            follow(name.rstrip("_"), args, list(tensors_in(output).values()))
            return output

    return Follow()
