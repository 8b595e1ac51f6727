"""Capture activations: layer patterns in, what those layers put out in one pass out.

Forward hooks are hung on exactly the modules asked for, one pass runs (passes/forward.py), and copies of what the
layers put out (tensors.py) are kept, or handed to a consumer while the pass runs.
"""

from __future__ import annotations

import collections
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import CaptureError, InputError, LayerNotFoundError
from ..models.layers import takes_hooks
from ..models.loaded import LoadedModel, calling, root_of
from ..runtime.caller import warn_caller
from .listing import observe
from .passes.absent import why_absent
from .passes.forward import Enough, Watched, run_pass
from .patterns import Target, resolve
from .tensors import Kept, only_tensor, part_of, replaced

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .passes.arguments import Forward, Inputs
    from .patterns import Layers

    Consumer = Callable[[str, torch.Tensor], object]
    Keep = Callable[[torch.Tensor, str], tuple[Any, torch.Tensor | None]]
    What = tuple[str, nn.Module | str]

# It takes a pass to know the operations of a model. Only a capture that asks for one needs them. A name that is not
# listed has the list made again; one that is listed but does not run is an error.
_operations: weakref.WeakKeyDictionary[nn.Module, list[str]] = weakref.WeakKeyDictionary()


def capture(
    model: LoadedModel | nn.Module,
    batch: torch.Tensor,
    layers: Layers,
    *,
    inputs: Inputs = None,
    forward: Forward = None,
    keep: str = "device",
    channels: Any = None,
    reduce: str | None = None,
) -> dict[str, torch.Tensor]:
    """Capture what layers put out in one pass, in eval mode and without gradients.

    If every pattern names its call, as `layer2:0` does, the pass ends with the last of those calls.

    Args:
        model: a record of `load_model`, or any module. It is left as it was: buffers and counters that its forward
            writes are restored, and a warning names trained weights that it changed. What torch.compile made of it, or
            of parts of it, runs as it was written; DataParallel runs on one device.
        batch: (N, C, H, W) float, any device. Copied to the device of the model's weights, and to their dtype if none
            has the batch's own. Not modified.
        layers: one layer pattern or several; `cnnviz_fast.activations.patterns` lists what a pattern may be.
        inputs: what the model takes beside the batch: a mapping of named arguments or a sequence of positional ones;
            or a function of the batch that returns all arguments, as a tensor, a sequence or a mapping. Its tensors are
            copied to the device of the model; their dtypes stay.
        forward: what runs in place of the model's forward: the name of a method, such as "encode_image", or a function
            that is called with the module before those arguments. `output` is what that returns.
        keep: "device" leaves the copies on the device of the layer, "cpu" moves each to the CPU's memory at once.
        channels: indices on the second axis to keep, such as "0-63,128"; None for all.
        reduce: sum, mean or max, to keep only that over the channels, as one channel; None for all channels.

    Returns:
        Layer name -> (N, C, H, W), or the shape that the layer put out, in the order asked for. Detached copies that
        no later operation of the model overwrites. A key is `name:k` if call k was asked for or the module ran several
        times. If a pattern names several modules, those that never ran are left out with a warning.

    Raises:
        InputError: `batch` is not a tensor, or `layers` or an option has a value that it cannot have.
        LayerNotFoundError: a pattern matches nothing.
        CaptureError: the model fails, nothing that a pattern names ran, or a layer did not put out one tensor with
            values.
    """
    root, (inputs, forward) = root_of(model), calling(model, inputs, forward)
    kept = Kept(keep=keep, channels=channels, reduce=reduce)
    keeper = Keeper(find_targets(root, batch, layers, inputs, forward), kept.of)
    keeper.run(root, batch, inputs, forward)
    return by_name(keeper, root)


def capture_stream(
    model: LoadedModel | nn.Module,
    batch: torch.Tensor,
    layers: Layers,
    consumer: Consumer,
    *,
    inputs: Inputs = None,
    forward: Forward = None,
    keep: str = "device",
    channels: Any = None,
    reduce: str | None = None,
) -> list[str]:
    """Pass activations to a consumer while the model runs, so that only those of one layer take memory at a time.

    Args:
        model: see capture.
        batch: (N, C, H, W) float, any device. See capture.
        layers: see capture.
        consumer: called with layer name and activations, in the order in which layers run. It owns the activations;
            their memory is used again once it drops them. If it returns False the pass ends; if it raises, the pass
            ends and the error is raised unchanged. The first call of a module has its plain name, since it is not
            known yet whether it runs again; the second is `name:1`.
        inputs: see capture.
        forward: see capture.
        keep: see capture.
        channels: see capture.
        reduce: see capture.

    Returns:
        The names in the order in which the consumer got them.

    Raises:
        CnnvizError: as capture.
    """
    root, (inputs, forward) = root_of(model), calling(model, inputs, forward)
    kept = Kept(keep=keep, channels=channels, reduce=reduce)
    keeper = Keeper(find_targets(root, batch, layers, inputs, forward), kept.of, consumer)
    keeper.run(root, batch, inputs, forward)
    if not keeper.stopped:
        _check_ran(keeper, root)
    return keeper.delivered


def find_targets(
    model: nn.Module, batch: torch.Tensor, layers: Any, inputs: Inputs = None, forward: Forward = None
) -> list[Target]:
    """Find what layer patterns name, and refuse layers that take no hooks.

    Args:
        model: the module that runs.
        batch: (N, C, H, W) float, for the pass that it takes to know the operations of a model.
        layers: see capture.
        inputs: see capture.
        forward: see capture.

    Returns:
        The targets, in the order asked for.

    Raises:
        LayerNotFoundError: a pattern matches nothing.
        CaptureError: a layer takes no hooks.
    """

    def operations() -> list[str]:
        try:
            _operations[model] = observe(model, batch, inputs, forward, operations=True).operations
        except (CaptureError, InputError):  # the message that no layer has this name is the better one
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


class Keeper:
    """Looks at a pass and keeps what the wanted calls put out or took in, or passes it to a consumer.

    Args:
        targets: what is wanted.
        keep: called with a tensor and its name; returns what is kept of it, and what the model goes on with in its
            place, or None for the tensor itself.
        consumer: see capture_stream.
        until: targets that name their calls, with the last of which the pass ends. Whether a module will run again
            cannot be known, so without these it ends there only if every target names its call.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        keep: Keep,
        consumer: Consumer | None = None,
        until: Sequence[Target] | None = None,
    ) -> None:
        self.targets = targets
        self.keep = keep
        self.consumer = consumer
        self.wanted: dict[What, list[Target]] = {}
        self.calls: collections.Counter[What] = collections.Counter()
        self.activations: dict[tuple[What, int, tuple[str, ...]], torch.Tensor] = {}
        self.delivered: list[str] = []
        self.stopped = False
        self.elsewhere: set[nn.Module] = set()
        self.copied: dict[nn.Module, nn.Module] = {}  # copy -> what it is a copy of
        self.missing: str | None = None  # the first weight used that the checkpoint did not have
        for target in targets:
            self.wanted.setdefault(_what(target), []).append(target)
        if until is None:
            until = targets if all(_has_one_call(target) for target in targets) else ()
        self.awaited = {(_what(target), target.call) for target in until} or None

    def run(self, model: nn.Module, batch: torch.Tensor, inputs: Inputs, forward: Forward) -> None:
        """Run the pass.

        Args:
            model: the module that runs.
            batch: (N, C, H, W) float. See capture.
            inputs: see capture.
            forward: see capture.
        """
        self.copied = run_pass(model, batch, self.watched(model), inputs, forward)

    def watched(self, model: nn.Module) -> Watched:
        """Return what is looked at in a pass of a model."""
        of: dict[str, list[Any]] = collections.defaultdict(list)
        for side, it in self.wanted:
            of[side].append(it)
        return Watched(
            outputs_of=of["output"],
            output=lambda module, output: self._take(("output", module), output),
            inputs_of=of["input"],
            input=self._take_input,
            operation=(lambda name, output: self._take(("operation", name), output)) if of["operation"] else None,
            result=(lambda output: self._take(("result", model), output)) if of["result"] else None,
            elsewhere=self.elsewhere.add,
            missing=self._note_missing,
        )

    def _note_missing(self, name: str) -> None:
        self.missing = self.missing or name

    def _take_input(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Take positional and named arguments in one: `input:NAME[0]` and `input:NAME[mask]` are parts of it."""
        other = self._take(("input", module), {**dict(enumerate(given)), **named} if named else given)
        if other is None or not named:
            return None if other is None else (other, {})
        return tuple(other[at] for at in range(len(given))), {name: other[name] for name in named}

    def _take(self, what: What, seen: Any) -> Any:
        """Count a call, keep what its targets want, and end the pass after the last call that is awaited.

        Returns:
            What the model goes on with in place of what was seen; None for that itself.
        """
        targets = self.wanted.get(what)
        if targets is None:
            return None
        call = self.calls[what]
        self.calls[what] += 1
        if self.missing is not None:
            raise CaptureError(
                f"layer {targets[0].key(None)!r} must come before weights that are missing, got a pass that uses "
                f"{self.missing} first. Load a checkpoint that has them."
            )
        other = seen
        for target in targets:
            if target.call in (None, call):
                other = self._take_part(what, call, target, other)
        if self.awaited is not None:
            self.awaited -= {(what, call), (what, None)}
            if not self.awaited:
                raise Enough
        return None if other is seen else other

    def tensor_in(self, seen: Any, name: str, *, taken_in: bool) -> torch.Tensor:
        """Return the tensor of what was seen; see only_tensor."""
        return only_tensor(seen, name, taken_in=taken_in)

    def _take_part(self, what: What, call: int, target: Target, seen: Any) -> Any:
        """Keep the part of what was seen that a target wants; return what the model goes on with."""
        import torch

        part = (what, call, target.path)
        if part in self.activations:
            return seen
        name = target.key(None)
        # Outside inference mode, which a model may enter by itself: the caller may want gradients of what it computes.
        with torch.inference_mode(False):
            tensor = self.tensor_in(part_of(seen, target.path, target.name), name, taken_in=target.side == "input")
            activations, other = self.keep(tensor, name)
        if self.consumer is None:
            self.activations[part] = activations
            return seen if other is None else replaced(seen, tensor, other, name)
        key = target.key(call if target.call is not None or call else None)
        self.delivered.append(key)
        if self.consumer(key, activations) is False:
            self.stopped = True
            raise Enough
        return seen


def _what(target: Target) -> What:
    """Return what the calls of a target are counted by: its side, and its module or the name of its operation."""
    return target.side, target.name if target.module is None else target.module


def _has_one_call(target: Target) -> bool:
    return target.side in ("operation", "result") or target.call is not None


def by_name(keeper: Keeper, model: nn.Module, targets: Sequence[Target] | None = None) -> dict[str, Any]:
    """Return what was kept by name, in the order asked for; check that every pattern has found something.

    Args:
        keeper: after its pass.
        model: that ran.
        targets: those of the keeper's that are asked for; None for all.

    Returns:
        Name -> what was kept. See capture.

    Raises:
        CaptureError: nothing that a pattern names ran.
    """
    captured: dict[str, Any] = {}
    for target in keeper.targets if targets is None else targets:
        what = _what(target)
        for call in _calls_of(target, keeper):
            plain = target.call is None and keeper.calls[what] == 1
            captured[target.key(None if plain else call)] = keeper.activations[what, call, target.path]
    _check_ran(keeper, model)
    return captured


def _calls_of(target: Target, keeper: Keeper) -> range:
    calls = keeper.calls[_what(target)]
    return range(calls) if target.call is None else range(target.call, min(target.call + 1, calls))


def _check_ran(keeper: Keeper, model: nn.Module) -> None:
    """Refuse a pattern if nothing that it names ran; warn of other layers that never ran."""
    absent = [target for target in keeper.targets if not _calls_of(target, keeper)]
    answered = {pattern for t in keeper.targets if _calls_of(t, keeper) for pattern in t.patterns}
    for target in absent:
        calls = keeper.calls[_what(target)]
        if answered.issuperset(target.patterns):
            continue
        if calls:
            raise CaptureError(
                f"layer {target.key(None)!r} has no call {target.call}: it ran {calls} times, counted from 0."
            )
        asked, module = target.key(None), target.module
        if module is None:
            raise CaptureError(f"layer {asked!r} never ran in this pass.")
        raise CaptureError(why_absent(model, target.name, module, asked, keeper.copied, module in keeper.elsewhere))
    absent = [target for target in absent if not keeper.calls[_what(target)]]
    for what, is_elsewhere in (("ran in another thread", True), ("never ran", False)):
        names = [repr(target.key(None)) for target in absent if (target.module in keeper.elsewhere) is is_elsewhere]
        if names:
            warn_caller(f"left out {len(names)} layers that {what}: {', '.join(names)}")
