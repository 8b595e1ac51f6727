"""List the layers and the operations of a model, from one pass that needs no values where that works."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import CaptureError, advice
from ..models.layers import LayerInfo, has_lazy, layer_list, lazy_copy, meta_copy, takes_hooks
from ..models.loaded import LoadedModel, as_given, calling, example_inputs, root_of
from .passes.forward import Watched, run_pass
from .tensors import tensors_in

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .passes.arguments import Forward, Inputs


def list_layers(
    model: LoadedModel | nn.Module,
    input: torch.Tensor | None = None,
    size: int | tuple[int, ...] | None = None,
    inputs: Inputs = None,
    forward: Forward = None,
) -> list[LayerInfo]:
    """List the layers of a model with their shapes and calls in one pass in eval mode.

    The pass runs on a copy of the model on the meta device, which has shapes but no values and no weights. Where that
    fails (a forward that looks at values, a model that cannot be copied) the model itself runs once. Lazy layers stay
    lazy, and are listed as in a copy that has run.

    Args:
        model: a record of `load_model`, or any module, on any device. It is left as it was.
        input: (N, C, H, W) float, any device. What goes in, of any axes that the model takes; None for one sample as
            the model's own preprocessing makes it, or, where that does not run, as its convolutions take it.
        size: lengths of the sample's axes behind the channels, such as height and width in px, one number for all; None
            leaves them to the preprocessing.
        inputs: what the model takes beside the input; see capture.
        forward: what runs in place of the model's forward; see capture.

    Returns:
        One record for each layer, in the order of `named_modules()`.

    Raises:
        CaptureError: the model cannot run on this input.
    """
    root, (inputs, forward) = root_of(model), calling(model, inputs, forward)
    if input is None:
        loaded = model if isinstance(model, LoadedModel) else as_given(root)
        observer = _first_that_runs(root, example_inputs(loaded, size), inputs, forward)
    else:
        observer = observe(root, input, inputs, forward)
    ran = {name: module for module, name in observer.names.items()}
    return [
        LayerInfo(
            index=index,
            name=name,
            type=type(module).__name__,
            shape=observer.shapes.get(name),
            calls=observer.calls[name],
            parameters=_count(ran.get(name, module)),
        )
        for index, (name, module) in enumerate(layer_list(root))
    ]


def _first_that_runs(root: nn.Module, candidates: Iterator[torch.Tensor], inputs: Inputs, forward: Forward) -> Observer:
    """Observe the first candidate on which the model runs; where none does, raise the error of the first."""
    first: CaptureError | None = None
    for candidate in candidates:
        try:
            return observe(root, candidate, inputs, forward)
        except CaptureError as error:
            first = first or error
    assert first is not None  # there is always a candidate
    if "Give the others" in str(first):
        raise first
    say = f"Say what goes in: {advice('input=torch.zeros(...)', '--input-shape')}."
    raise type(first)(f"{first}. {say}") from first.__cause__


def _count(module: nn.Module) -> int:
    """Count the parameters of a module; a lazy one that has not run yet has none."""
    from torch.nn.parameter import is_lazy

    return sum(parameter.numel() for parameter in module.parameters() if not is_lazy(parameter))


class Observer:
    """Hook that records the calls of every layer, and the output shape of its first call.

    Attributes:
        names: layer -> its first name.
        calls: name -> number of calls.
        shapes: name -> shape of the first output, where it is one tensor.
        operations: names of the operations that put out tensors, in order.
    """

    def __init__(self, model: nn.Module) -> None:
        self.names: dict[nn.Module, str] = {module: name for name, module in layer_list(model)}
        self.calls: collections.Counter[str] = collections.Counter()
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.operations: list[str] = []

    def see_output(self, module: nn.Module, output: Any) -> None:
        """Record a call of a layer."""
        name = self.names.get(module)
        if name is None:  # a copy that shares the table of hooks
            return
        tensors = list(tensors_in(output).values())
        if self.calls[name] == 0 and len(tensors) == 1:
            self.shapes[name] = tuple(tensors[0].shape)
        self.calls[name] += 1

    def see(self, name: str, output: Any) -> None:
        """Record an operation, if it puts out a tensor."""
        if tensors_in(output):
            self.operations.append(name)


def observe(
    model: nn.Module, batch: torch.Tensor, inputs: Inputs, forward: Forward = None, operations: bool = False
) -> Observer:
    """Run one pass with an observer on every layer: of a copy without values where that works.

    Args:
        model: the module to run.
        batch: (N, C, H, W) float, any device. What goes in. Not modified.
        inputs: what the model takes beside the batch; see capture.
        forward: what runs in place of the model's forward; see capture.
        operations: whether to record operations too.

    Returns:
        The observer, with what it recorded.

    Raises:
        CaptureError: the model cannot run on this input.
    """
    try:
        return _observe(meta_copy(model), batch.to("meta"), inputs, forward, operations, any_thread=True)
    except Exception:  # a foreign model may raise anything here; the pass with values decides
        # A model that is lazy stays so: what it would be initialised with here is no business of its user.
        return _observe(lazy_copy(model) if has_lazy(model) else model, batch, inputs, forward, operations)


def _observe(
    model: nn.Module,
    batch: torch.Tensor,
    inputs: Inputs,
    forward: Forward,
    operations: bool,
    any_thread: bool = False,
) -> Observer:
    """Run one pass with an observer; layers that a model runs in other threads count where nobody else runs it."""
    observer = Observer(model)
    modules = list(filter(takes_hooks, observer.names))
    watched = Watched(
        modules, observer.see_output, operation=observer.see if operations else None, any_thread=any_thread
    )
    run_pass(model, batch, watched, inputs, forward)
    return observer
