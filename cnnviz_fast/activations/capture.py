"""Stage 3 of 7, second part: capture targets -> activations.

Forward hooks are hung on exactly the modules asked for, one pass is run (forward.py), and of what the layers put out
(outputs.py) copies are kept or handed to a consumer while the pass runs.
"""

from __future__ import annotations

import collections
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import CaptureError, InputError, LayerNotFoundError
from ..models.layers import LayerInfo, layer_list, meta_copy, takes_hooks, uncompiled
from ..models.load import LoadedModel, as_given, example_input, module_of
from .forward import Enough, run_pass
from .patterns import Target, resolve
from .tensors import Kept, only_tensor, part_of, tensors_in

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .forward import Inputs

    Layers = str | int | nn.Module | Sequence[str | int | nn.Module]
    Consumer = Callable[[str, torch.Tensor], object]

# What operations a model has takes a pass to know. Only whoever asks for one comes here, and a name that is not
# listed has the list made again; one that is but does not run is an error.
_operations: weakref.WeakKeyDictionary[nn.Module, list[str]] = weakref.WeakKeyDictionary()


def capture(
    model: LoadedModel | nn.Module,
    batch: torch.Tensor,
    layers: Layers,
    *,
    inputs: Inputs = None,
    keep: str = "device",
    channels: Any = None,
    reduce: str | None = None,
) -> dict[str, torch.Tensor]:
    """Capture what layers put out in one pass, in eval mode and without gradients.

    Where every pattern names its call, as `layer2:0` does, the pass ends with the last of them.

    Args:
        model: a record of `load_model`, or any module. It comes back as it was. What torch.compile made of it, or of
            parts of it, runs as it was written; DataParallel runs on one device.
        batch: (N, C, H, W) float, any device. Brought to the device and dtype of the model's weights. Not modified.
        layers: one layer pattern or several; `cnnviz_fast.patterns` says what a pattern may be.
        inputs: what the model takes beside the batch: a mapping of named arguments or a sequence of positional ones;
            or a function of the batch that returns all arguments, as a tensor, a sequence or a mapping.
        keep: "device" leaves the copies where the layer is, "cpu" brings each to the CPU's memory at once.
        channels: keep these indices of the second axis only, such as "0-63,128"; None for all.
        reduce: keep only the sum, mean or max over the channels, as one channel.

    Returns:
        Layer name -> (N, C, H, W), or whatever else the layer put out, in the order asked for. Copies that no later
        operation of the model overwrites, on the device of the layer, detached. A key is `name:k` where call k was
        asked for or the module ran several times. Of the modules that one pattern names, those that never ran are
        left out with a warning.

    Raises:
        InputError: `batch` is not a tensor, or `layers` or an option holds what it cannot.
        LayerNotFoundError: a pattern matches nothing.
        CaptureError: the model fails, nothing that a pattern names ran, or an output is not one tensor with values.
    """
    root = _root(model)
    keeper = _Keeper(_targets(root, batch, layers, inputs), Kept(keep=keep, channels=channels, reduce=reduce))
    keeper.run(root, batch, inputs)
    return _by_name(keeper)


def capture_stream(
    model: LoadedModel | nn.Module,
    batch: torch.Tensor,
    layers: Layers,
    consumer: Consumer,
    *,
    inputs: Inputs = None,
    keep: str = "device",
    channels: Any = None,
    reduce: str | None = None,
) -> list[str]:
    """Hand what layers put out to a consumer while the pass runs, so that only one of them takes memory at a time.

    Args:
        model: see capture.
        batch: (N, C, H, W) float, any device. See capture.
        layers: see capture.
        consumer: called with layer name and activations in the order in which layers run. The activations are its own,
            and memory is used again once it lets go of them. When it returns False the pass ends; an error of its
            own ends the pass too and comes out as it is. That a module runs again is not known at its first
            call, so that has the plain name, and the second is `name:1`.
        inputs: see capture.
        keep: see capture.
        channels: see capture.
        reduce: see capture.

    Returns:
        The names in the order in which the consumer got them.

    Raises:
        CnnvizError: as capture.
    """
    root = _root(model)
    kept = Kept(keep=keep, channels=channels, reduce=reduce)
    keeper = _Keeper(_targets(root, batch, layers, inputs), kept, consumer)
    keeper.run(root, batch, inputs)
    if not keeper.stopped:
        _check_ran(keeper)
    return keeper.delivered


def list_layers(
    model: LoadedModel | nn.Module,
    input: torch.Tensor | None = None,
    size: int | tuple[int, int] | None = None,
    inputs: Inputs = None,
) -> list[LayerInfo]:
    """List the layers of a model with what one pass in eval mode makes of them.

    The pass runs on a twin of the model on the meta device, which has shapes but no values and no weights. Only where
    that cannot be done (a forward that looks at values, a model that cannot be copied) the model itself runs once.

    Args:
        model: a record of `load_model`, or any module, on any device. It comes back as it was.
        input: (N, C, H, W) float, any device. What goes in; by default one sample as the model's preprocessing makes
            it (ImageNet's for a module), with the channels of its first convolution.
        size: height and width of that sample instead, px; one number for both.
        inputs: what the model takes beside the input; see capture.

    Returns:
        One record a layer, in the order of `named_modules()`.

    Raises:
        CaptureError: the model cannot run on this input.
    """
    root = _root(model)
    if input is None:
        input = example_input(model if isinstance(model, LoadedModel) else as_given(root), size)
    observer = _observe_cheaply(root, input, inputs)
    return [
        LayerInfo(
            index=index,
            name=name,
            type=type(module).__name__,
            shape=observer.shapes.get(name),
            calls=observer.calls[name],
            parameters=sum(parameter.numel() for parameter in module.parameters()),
        )
        for index, (name, module) in enumerate(layer_list(root))
    ]


def _root(model: LoadedModel | nn.Module) -> nn.Module:
    """Take the module to run out of whatever stands for a model."""
    if type(model).__name__ == "ExportedProgram":
        raise InputError("model must be a module, got an exported program. Pass torch.export.unflatten(program).")
    return uncompiled(module_of(model))


def _targets(model: nn.Module, batch: torch.Tensor, layers: Any, inputs: Inputs) -> list[Target]:
    def operations() -> list[str]:
        try:
            _operations[model] = _observe_cheaply(model, batch, inputs, operations=True).operations
        except (CaptureError, InputError):  # that no layer has the name is the better message
            return []
        return _operations[model]

    try:
        targets = resolve(model, layers, lambda: _operations.get(model, ()))
    except LayerNotFoundError:
        targets = resolve(model, layers, operations)
    for target in targets:
        if target.module is not None and not takes_hooks(target.module):
            raise CaptureError(
                f"layer {target.name!r} is TorchScript, which takes no hooks. Capture from what was scripted."
            )
    return targets


class _Keeper:
    """Hook that keeps a copy of what the wanted calls of the wanted modules put out, or hands it to a consumer."""

    def __init__(self, targets: Sequence[Target], kept: Kept, consumer: Consumer | None = None) -> None:
        self.targets = targets
        self.kept = kept
        self.consumer = consumer
        self.modules: dict[nn.Module, list[Target]] = {}
        self.operations: dict[str, list[Target]] = {}
        self.calls: collections.Counter[nn.Module | str] = collections.Counter()
        self.maps: dict[tuple[nn.Module | str, int, tuple[str, ...]], torch.Tensor] = {}
        self.delivered: list[str] = []
        self.stopped = False
        for target in targets:
            if target.module is None:
                self.operations.setdefault(target.name, []).append(target)
            else:
                self.modules.setdefault(target.module, []).append(target)
        # Whether a module will run again cannot be known, so only who names calls can have the pass end with the last.
        self.awaited = {(_what(t), t.call) for t in targets} if all(_has_one_call(t) for t in targets) else None

    def run(self, model: nn.Module, batch: torch.Tensor, inputs: Inputs) -> None:
        """Run the pass."""
        run_pass(model, batch, self.modules, self, inputs, self.see if self.operations else None)

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self._take(module, self.modules[module], output)

    def see(self, name: str, output: Any) -> None:
        """Take what an operation put out."""
        if name in self.operations:
            self._take(name, self.operations[name], output)

    def _take(self, what: nn.Module | str, targets: Iterable[Target], output: Any) -> None:
        call = self.calls[what]
        self.calls[what] += 1
        for target in targets:
            if target.call in (None, call):
                self._take_part(what, call, target, output)
        if self.awaited is not None:
            self.awaited -= {(what, call), (what, None)}
            if not self.awaited:
                raise Enough

    def _take_part(self, what: nn.Module | str, call: int, target: Target, output: Any) -> None:
        import torch

        part = (what, call, target.path)
        if part in self.maps:
            return
        name = target.key(None)
        # Outside inference mode, which a model may enter by itself: the caller shall be able to go on with the maps.
        with torch.inference_mode(False):
            maps = self.kept.copy(only_tensor(part_of(output, target.path, target.name), name), name)
        if self.consumer is None:
            self.maps[part] = maps
            return
        key = target.key(call if target.call is not None or call else None)
        self.delivered.append(key)
        if self.consumer(key, maps) is False:
            self.stopped = True
            raise Enough


def _what(target: Target) -> nn.Module | str:
    """Return what a target is counted by: its module, or the name of its operation."""
    return target.name if target.module is None else target.module


def _has_one_call(target: Target) -> bool:
    return target.module is None or target.call is not None


def _by_name(keeper: _Keeper) -> dict[str, torch.Tensor]:
    """Name the captured maps in the order asked for; every pattern must have given at least one."""
    maps: dict[str, torch.Tensor] = {}
    for target in keeper.targets:
        what = _what(target)
        for call in _calls_of(target, keeper):
            plain = target.call is None and keeper.calls[what] == 1
            maps[target.key(None if plain else call)] = keeper.maps[what, call, target.path]
    _check_ran(keeper, stacklevel=4)
    return maps


def _calls_of(target: Target, keeper: _Keeper) -> range:
    calls = keeper.calls[_what(target)]
    return range(calls) if target.call is None else range(target.call, min(target.call + 1, calls))


def _check_ran(keeper: _Keeper, stacklevel: int = 3) -> None:
    """Refuse patterns nothing of which ran, and warn of single layers that never did."""
    absent = [target for target in keeper.targets if not _calls_of(target, keeper)]
    answered = {pattern for t in keeper.targets if _calls_of(t, keeper) for pattern in t.patterns}
    for target in absent:
        calls = keeper.calls[_what(target)]
        if answered.issuperset(target.patterns):
            continue
        if calls:
            raise CaptureError(f"layer {target.name!r} has no call {target.call}: it ran {calls} x, counted from 0.")
        raise CaptureError(f"layer {target.name!r} never ran in this pass, or its forward() was called directly.")
    never_ran = [repr(target.name) for target in absent if not keeper.calls[_what(target)]]
    if never_ran:
        warnings.warn(f"left out {len(never_ran)} layers that never ran: {', '.join(never_ran)}", stacklevel=stacklevel)


class _Observer:
    """Hook that notes the calls of every layer and the output shape of the first call of each."""

    def __init__(self, model: nn.Module) -> None:
        self.names: dict[nn.Module, str] = {module: name for name, module in layer_list(model)}
        self.calls: collections.Counter[str] = collections.Counter()
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.operations: list[str] = []

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        name = self.names[module]
        tensors = list(tensors_in(output).values())
        if self.calls[name] == 0 and len(tensors) == 1:
            self.shapes[name] = tuple(tensors[0].shape)
        self.calls[name] += 1

    def see(self, name: str, output: Any) -> None:
        """Note an operation that puts out a tensor."""
        if tensors_in(output):
            self.operations.append(name)


def _observe_cheaply(model: nn.Module, batch: torch.Tensor, inputs: Inputs, operations: bool = False) -> _Observer:
    """Run one pass with an observer on every layer: of a twin without values where that works."""
    try:
        return _observe(meta_copy(model), batch.to("meta"), inputs, operations)
    except Exception:  # copying or running somebody else's model without values may raise anything; the real pass tells
        return _observe(model, batch, inputs, operations)


def _observe(model: nn.Module, batch: torch.Tensor, inputs: Inputs, operations: bool = False) -> _Observer:
    observer = _Observer(model)
    modules = filter(takes_hooks, observer.names)
    run_pass(model, batch, modules, observer, inputs, observer.see if operations else None)
    return observer
