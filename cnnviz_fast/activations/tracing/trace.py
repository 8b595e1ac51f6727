"""Follow the axes of an image through a model: what each axis of each layer's output holds.

One pass of a copy without values is watched, operation by operation, for two images. What an axis holds is followed
from the input on, so it is known and not guessed: no name of a class and no coincidence of numbers plays a part.
Where a forward looks at values, one pass of the model itself shows the layers behind that.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...models.layers import every_module, layer_names, meta_copy, takes_hooks, uncompiled
from ..passes.forward import Watched, run_pass
from ..tensors import tensors_in
from .functions import following_functions
from .moves import roles_of, set_roles
from .roles import BATCH, CHANNELS, COLUMNS, LENGTH, ROWS, TIME, Axis, Part, Roles, whole
from .rules import follow

if TYPE_CHECKING:
    import torch
    from torch import nn

Called = tuple[Any, Any]
"""What a model takes beside the batch, and what runs instead of its forward; see capture."""
ModuleIds = tuple[int, ...] | None
"""Ids of all modules of a model, which tell whether it is still the same; None to look them up."""

_IMAGES = 2
"""Images in the batch: with one its axis could not be told from others of length 1. A model that takes only as many as
it was given, one for which a forward was written, say, is followed with those."""
_INPUTS = {2: (LENGTH,), 3: (CHANNELS, LENGTH), 4: (CHANNELS, ROWS, COLUMNS), 5: (CHANNELS, TIME, ROWS, COLUMNS)}
"""Number of axes of an input -> what those behind the images hold."""
_MOST_SIZES = 8
"""Sizes of input of which the traces of a model are kept."""
_NAME = re.compile(r"(?P<layer>.*?)(:(?P<call>\d+))?(?P<path>(\[[^\[\]]+\])*)")


@dataclass
class Trace:
    """What a pass showed.

    Attributes:
        outputs: first name of a layer, or name of an operation -> for each call, path of each tensor in its output ->
            the roles of its axes; None for a tensor that came from no input. What goes into a layer is listed as
            `input:NAME`, what the model puts out as `output`.
        first: every name of every layer -> its first name.
        failed: whether the pass ended before the model did.
        called: what the model took beside the batch, and what ran.
        images: how many went in.
    """

    outputs: dict[str, list[dict[str, Roles | None]]] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    failed: bool = False
    called: Called = (None, None)
    images: int = _IMAGES

    def note(self, name: str, output: Any) -> None:
        """Note the roles of every tensor in an output."""
        found = {path: roles_of(tensor) for path, tensor in tensors_in(output).items()}
        if self.images == 1:
            found = {path: None if roles is None else _with_images(roles) for path, roles in found.items()}
        self.outputs.setdefault(name, []).append(found)

    def saw(self, layer: str) -> bool:
        """Check whether the pass came to a layer."""
        return bool(self._calls(layer))

    def roles(self, layer: str, shape: tuple[int, ...], images: int) -> Roles | None:
        """Return what the axes of an output hold.

        Args:
            layer: name of a captured output, with call and path where it has them.
            shape: its shape.
            images: number of images that went in.

        Returns:
            The roles; None where the pass did not come that far or showed another shape.
        """
        path = _parts(layer)[2]
        found = {
            roles
            for call in self._calls(layer)
            for at, roles in call.items()
            if at == path or (not path and len(call) == 1)
            if roles is not None and _shape(roles, images, self.images) == shape
        }
        return found.pop() if len(found) == 1 else None

    def lost(self, layer: str) -> bool:
        """Check whether the pass came to a layer and saw nothing in its output that came from the input."""
        path = _parts(layer)[2]
        found = [roles for call in self._calls(layer) for at, roles in call.items() if at == path or not path]
        return bool(found) and not any(found)

    @functools.cached_property
    def grids(self) -> frozenset[tuple[int, int]]:
        """Return rows and columns of all maps that were put out, wherever their channels are, once the pass is over."""
        put_out = [calls for name, calls in self.outputs.items() if not name.startswith("input:")]
        known = [roles for calls in put_out for call in calls for roles in call.values() if roles]
        pairs = [pair for roles in known for pair in itertools.pairwise(roles) if all(map(_is_whole, pair))]
        return frozenset((a[0].size, b[0].size) for a, b in pairs if (a[0].kind, b[0].kind) == (ROWS, COLUMNS))

    def _calls(self, layer: str) -> list[dict[str, Roles | None]]:
        """Return the outputs of a layer's calls, or of the one that its name says."""
        for name, call in ((layer, None), _parts(layer)[:2]):
            if calls := self.outputs.get(self.first.get(name, name)):
                return calls if call is None else calls[int(call) : int(call) + 1]
        return []


def _with_images(roles: Roles) -> Roles:
    """Return roles of which the first axis of length 1, which has no parts, holds the one image."""
    at = next((at for at, axis in enumerate(roles) if not axis), None)
    return roles if at is None else (*roles[:at], (Part(BATCH, 1),), *roles[at + 1 :])


def _is_whole(axis: Axis) -> bool:
    return len(axis) == 1 and axis[0].covers


def _parts(layer: str) -> tuple[str, str | None, str]:
    """Cut the name of a captured output into layer, call and path."""
    found = _NAME.fullmatch(layer)
    return (found["layer"], found["call"], found["path"]) if found else (layer, None, "")


def _shape(roles: Roles, images: int, seen: int) -> tuple[int, ...]:
    """Return the shape of a tensor with these roles, which a pass over `seen` images showed, of another batch."""
    sizes = []
    for axis in roles:
        size = 1
        for part in axis:
            size = size * (part.size * images // seen if part.kind == BATCH else part.size)
        sizes.append(size)
    return tuple(sizes)


_lock = threading.Lock()
_traces: weakref.WeakKeyDictionary[nn.Module, dict[Any, Trace]] = weakref.WeakKeyDictionary()


def traced_roles(
    model: nn.Module,
    layer: str,
    shape: tuple[int, ...],
    input_shape: tuple[int, ...],
    values: bool = True,
    called: Called = (None, None),
    layers: ModuleIds = None,
) -> Roles | None:
    """Return what the axes of an output hold, from a pass that is run once for each model and size of input.

    Args:
        model: any module. It is left as it was.
        layer: name of a captured output.
        shape: its shape.
        input_shape: shape of the batch, (N, C, H, W), (N, C, T, H, W), (N, H, W), (N, C, L) or (N, L).
        values: whether the model itself may run, once, where a pass without values does not come to this layer.
        called: `inputs` and `forward` of the capture.
        layers: ids of all its modules, None to look them up.

    Returns:
        The roles; None where no pass came to this layer or showed this shape.
    """
    return _trace_to(layer, model, input_shape, called, values, layers).roles(layer, shape, input_shape[0])


def lost_sight(
    model: nn.Module,
    layer: str,
    input_shape: tuple[int, ...],
    called: Called = (None, None),
    layers: ModuleIds = None,
) -> bool:
    """Check whether a pass, of the model itself if need be, saw nothing in an output that came from the input.

    Args:
        model: any module. It is left as it was.
        layer: name of a captured output.
        input_shape: shape of the batch.
        called: `inputs` and `forward` of the capture.
        layers: ids of all its modules, None to look them up.

    Returns:
        True for what went through numpy, for example.
    """
    return _trace_to(layer, model, input_shape, called, True, layers).lost(layer)


def traced_grids(
    model: nn.Module, input_shape: tuple[int, ...], called: Called = (None, None), layers: ModuleIds = None
) -> frozenset[tuple[int, int]]:
    """Return rows and columns of all maps that a pass without values shows.

    Args:
        model: any module. It is left as it was.
        input_shape: shape of the batch.
        called: `inputs` and `forward` of the capture.
        layers: ids of all its modules, None to look them up.
    """
    return _trace_to("output", model, input_shape, called, False, layers).grids


def _trace_to(
    layer: str, model: nn.Module, input_shape: tuple[int, ...], called: Called, values: bool, layers: ModuleIds
) -> Trace:
    """Return the trace of a pass without values; where it does not come to a layer, that of the model itself.

    Each is tried with images of our own number and then, if the model does not take these, with as many as went in.
    """
    model = uncompiled(model)
    if layers is None:
        layers = tuple(map(id, every_module(model).values()))
    counts = dict.fromkeys((_IMAGES, input_shape[0]))
    for with_values, images in itertools.product((False, True) if values else (False,), counts):
        trace = _known_trace(model, (images, *input_shape[1:]), called, with_values, layers)
        if not trace.failed or trace.saw(layer):
            break
    return trace


def _takes_depth(model: nn.Module, axes: int) -> bool:
    """Check whether an input of three axes is a depth map, (N, H, W), which convolutions over two axes work on."""
    from torch.nn.modules.conv import _ConvNd

    kernels = [module.weight.ndim for module in model.modules() if isinstance(module, _ConvNd)]
    return axes == 3 and kernels[:1] == [4]


def _known_trace(
    model: nn.Module, input_shape: tuple[int, ...], called: Called, values: bool, layers: tuple[int, ...]
) -> Trace:
    # A model that got other layers meanwhile is another model.
    key = (values, input_shape, layers, *map(id, called))
    with _lock:
        known = _traces.setdefault(model, {})
        if key not in known:
            if len(known) == _MOST_SIZES:
                known.clear()
            known[key] = _trace(model, input_shape, values, called)
            known[key].called = called  # kept alive, so that their ids in the key stand for nothing else
        return known[key]


def _trace(
    model: nn.Module, input_shape: tuple[int, ...], values: bool = False, called: Called = (None, None)
) -> Trace:
    """Run a pass of a copy without values, or of the model itself, over a batch of this shape."""
    import torch

    trace = Trace(images=input_shape[0])
    if len(input_shape) not in _INPUTS:
        return trace
    try:
        runs = model if values else meta_copy(model)
        names: dict[nn.Module, str] = {runs: ""}
        for name, module in layer_names(runs).items():
            trace.first[name] = names.setdefault(module, name)

        def see_input(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            trace.note(f"input:{names[module]}", inputs[0] if len(inputs) == 1 and not named else inputs)

        hooked = [module for module in names if module is not runs and takes_hooks(module)]
        watched = Watched(
            outputs_of=hooked,
            output=lambda module, output: trace.note(names[module], output),
            inputs_of=hooked,
            input=see_input,
            operation=trace.note,
            result=lambda output: trace.note("output", output),
        )
        batch = torch.zeros(input_shape, device=None if values else "meta")
        kinds = (BATCH, *((ROWS, COLUMNS) if _takes_depth(runs, batch.ndim) else _INPUTS[batch.ndim]))
        set_roles(batch, tuple(whole(kind, size) for kind, size in zip(kinds, batch.shape, strict=True)))
        with following():
            run_pass(runs, batch, watched, *called)
    except Exception:  # a foreign model may raise anything here; what was seen so far counts
        trace.failed = True
    return trace


@contextlib.contextmanager
def following() -> Iterator[None]:
    """Note the roles of every tensor that is made in the block out of one that has roles."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Follow(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = run_operation(function, args, kwargs or {})
            follow(function._schema.name.rpartition("::")[2], args, list(tensors_in(output).values()))
            return output

    with following_functions(), Follow():  # type: ignore[no-untyped-call]
        yield


def run_operation(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation; tensors that the model made in memory lose their values where others have none."""
    import torch
    from torch.utils._pytree import tree_leaves, tree_map_only

    try:
        return function(*args, **kwargs)
    except RuntimeError:
        if not any(isinstance(leaf, torch.Tensor) and leaf.is_meta for leaf in tree_leaves((args, kwargs))):
            raise
    args, kwargs = tree_map_only(torch.Tensor, _without_values, (args, kwargs))
    return function(*args, **kwargs)


def _without_values(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor without values, with the same roles."""
    empty = tensor if tensor.is_meta else tensor.to("meta")
    set_roles(empty, roles_of(tensor))
    return empty
