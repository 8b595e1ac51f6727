"""Stage 3 of the main path, second half: capture targets -> activations.

Forward hooks are hung on exactly the modules asked for, one pass is run, and the hooks are taken off again whatever
happens. The model comes back as it was: training flags, other people's hooks, gradients, random state, and nothing that
it stores for itself during the pass is made unfit for training.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import CaptureError, InputError
from .layers import LayerInfo, Target, layer_list, meta_copy, resolve
from .models import module_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .models import LoadedModel

    Hook = Callable[[nn.Module, tuple[Any, ...], Any], None]

_flags_lock = threading.Lock()
# The modules that were in training mode and are held in eval mode now: by how many passes. Shared by all threads: the
# first pass to come takes the flag, the last one to go gives it back.
_held: collections.Counter[nn.Module] = collections.Counter()


def capture(
    model: LoadedModel | nn.Module, batch: torch.Tensor, layers: str | int | Sequence[str | int]
) -> dict[str, torch.Tensor]:
    """Capture what layers put out in one pass, in eval mode and without gradients.

    Args:
        model: a record of `load_model`, or any module. It comes back as it was.
        batch: (N, C, H, W) float, any device. Brought to the device and dtype of the model's weights. Not modified.
        layers: one layer pattern or several; `cnnviz_fast.layers` says what a pattern may be.

    Returns:
        Layer name -> (N, C, H, W), or whatever else the layer put out, in the order asked for. Copies that no later
        operation of the model overwrites, on the device of the layer, detached. A key is `name:k` where call k was
        asked for or the module ran several times. Of the modules that one pattern names, those that never ran are
        left out with a warning.

    Raises:
        InputError: `batch` is not a tensor, or `layers` holds what cannot be a pattern.
        LayerNotFoundError: a pattern matches nothing.
        CaptureError: the model fails, nothing that a pattern names ran, or an output is not one tensor with values.
    """
    root = module_of(model)
    targets = resolve(root, layers)
    keeper = _Keeper(targets)
    _run(root, batch, keeper.wanted, keeper)
    return _by_name(targets, keeper)


def list_layers(
    model: LoadedModel | nn.Module, input: torch.Tensor | None = None, size: int | tuple[int, int] = 224
) -> list[LayerInfo]:
    """List the layers of a model with what one pass in eval mode makes of them.

    The pass runs on a twin of the model on the meta device, which has shapes but no values and no weights. Only where
    that cannot be done (a forward that looks at values, a model that cannot be copied) the model itself runs once.

    Args:
        model: a record of `load_model`, or any module, on any device. It comes back as it was.
        input: (N, C, H, W) float, any device. What goes in; by default one sample of the channels of the first Conv2d.
        size: height and width of the default input, px; one number for both.

    Returns:
        One record a layer, in the order of `named_modules()`.

    Raises:
        CaptureError: the model cannot run on this input.
    """
    root = module_of(model)
    batch = _blank_batch(root, size) if input is None else input
    try:
        observer = _observe(meta_copy(root), batch.to("meta"))
    except Exception:
        observer = _observe(root, batch)
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


@contextlib.contextmanager
def hooked(modules: Iterable[nn.Module], hook: Hook) -> Iterator[None]:
    """Hang a forward hook on modules, behind those that are there, and take it off again on every way out.

    Args:
        modules: where to hang it.
        hook: called in this thread only; what other threads put through the same modules passes it by.
    """
    thread = threading.get_ident()

    def own_thread_only(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if threading.get_ident() == thread:
            hook(module, inputs, output)

    handles = []
    try:
        for module in modules:
            handles.append(module.register_forward_hook(own_thread_only))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module of a model in eval mode, and give each its own training flag back on every way out.

    The flags are set directly: a `train()` that a model overrides may do more than that, such as merging weights.

    Args:
        model: any module. While several threads are in here with the same one, it stays in eval mode for all.
    """
    held = []
    try:
        with _flags_lock:
            for module in model.modules():
                if module.training or module in _held:
                    _held[module] += 1
                    held.append(module)
                    module.training = False
        yield
    finally:
        with _flags_lock:
            for module in held:
                _held[module] -= 1
                if not _held[module]:
                    del _held[module]
                    module.training = True


def _run(model: nn.Module, batch: torch.Tensor, modules: Iterable[nn.Module], hook: Hook) -> None:
    """Run one pass with a hook on some modules."""
    import torch

    if not isinstance(batch, torch.Tensor):
        kind = type(batch).__name__
        raise InputError(f"the input of a model must be a (N, C, H, W) tensor, got {kind}. Make one with load_images.")
    try:
        # no_grad, not inference_mode, which is no faster here: what a model caches in itself during such a pass
        # (anchors, position tables) could not take part in training afterwards.
        with torch.inference_mode(False), torch.no_grad(), evaluating(model), hooked(modules, hook):
            batch = _placed(batch, model)
            # For models that draw even in eval mode. Draws that other threads make meanwhile are taken back as well.
            with torch.random.fork_rng([batch.device] if batch.is_cuda else [], device_type="cuda"):
                model(batch)
    except CaptureError:
        raise
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise CaptureError(
            f"the model failed on an input of shape {tuple(batch.shape)}: {type(error).__name__}: {reason}"
        ) from error


def _placed(batch: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """Copy a batch to the device and float dtype of the weights, so that no in-place layer gets at the caller's own."""
    import torch

    # Listed, so that the 8-bit floats of quantised weights do not count.
    ordinary = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    weights = itertools.chain(model.parameters(), model.buffers())
    weight = next((weight for weight in weights if weight.dtype in ordinary), batch)
    dtype = weight.dtype if batch.is_floating_point() else batch.dtype
    return batch.detach().to(weight.device, dtype, copy=True)


class _Keeper:
    """Hook that keeps a copy of what the wanted calls of the wanted modules put out."""

    def __init__(self, targets: Iterable[Target]) -> None:
        self.wanted: dict[nn.Module, set[int | None]] = {}
        self.names: dict[nn.Module, str] = {}
        self.calls: collections.Counter[nn.Module] = collections.Counter()
        self.maps: dict[tuple[nn.Module, int], torch.Tensor] = {}
        for target in targets:
            self.wanted.setdefault(target.module, set()).add(target.call)
            self.names.setdefault(target.module, target.name)

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        import torch

        call = self.calls[module]
        self.calls[module] += 1
        if self.wanted[module].isdisjoint((None, call)):
            return
        # Cloned at once: the next layer may work in place, and whether one will cannot be known before it has. Outside
        # inference mode, which a model may enter by itself: the caller shall be able to go on with the maps.
        with torch.inference_mode(False):
            self.maps[module, call] = _only_tensor(output, self.names[module]).detach().clone()


class _Observer:
    """Hook that notes the calls of every layer and the output shape of the first call of each."""

    def __init__(self, model: nn.Module) -> None:
        self.names: dict[nn.Module, str] = {module: name for name, module in layer_list(model)}
        self.calls: collections.Counter[str] = collections.Counter()
        self.shapes: dict[str, tuple[int, ...]] = {}

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        name = self.names[module]
        tensors = _tensors_in(output)
        if self.calls[name] == 0 and len(tensors) == 1:
            self.shapes[name] = tuple(tensors[0].shape)
        self.calls[name] += 1


def _observe(model: nn.Module, batch: torch.Tensor) -> _Observer:
    """Run one pass with an observer on every layer."""
    observer = _Observer(model)
    _run(model, batch, observer.names, observer)
    return observer


def _tensors_in(output: Any) -> list[torch.Tensor]:
    """List the tensors in an output: itself, or those in its tuples, lists and mappings, however deep."""
    import torch

    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, (list, tuple)):
        return [tensor for part in output for tensor in _tensors_in(part)]
    return []


def _only_tensor(output: Any, name: str) -> torch.Tensor:
    """Return the one tensor of an output, which must have values."""
    tensors = _tensors_in(output)
    if len(tensors) != 1:
        kind = type(output).__name__
        raise CaptureError(f"layer {name!r} must put out one tensor, got {len(tensors)} (output of type {kind}).")
    tensor = tensors[0]
    if tensor.is_meta:
        raise CaptureError(f"layer {name!r} put out a meta tensor, which has no values. Load the model with weights.")
    if tensor.numel() == 0:
        raise CaptureError(f"layer {name!r} put out an empty tensor of shape {tuple(tensor.shape)}.")
    return tensor


def _by_name(targets: Iterable[Target], keeper: _Keeper) -> dict[str, torch.Tensor]:
    """Name the captured maps in the order asked for; every pattern must have given at least one."""
    maps: dict[str, torch.Tensor] = {}
    answered: set[str] = set()
    absent = []
    for target in targets:
        calls = keeper.calls[target.module]
        wanted = range(calls) if target.call is None else range(target.call, min(target.call + 1, calls))
        if not wanted:
            absent.append(target)
        else:
            answered.update(target.patterns)
        for call in wanted:
            plain = target.call is None and calls == 1
            maps[target.name if plain else f"{target.name}:{call}"] = keeper.maps[target.module, call]
    for target in absent:
        calls = keeper.calls[target.module]
        if calls and not answered.issuperset(target.patterns):
            raise CaptureError(f"layer {target.name!r} has no call {target.call}: it ran {calls} x, counted from 0.")
        if not answered.issuperset(target.patterns):
            raise CaptureError(f"layer {target.name!r} never ran in this pass, or its forward() was called directly.")
    never_ran = [repr(target.name) for target in absent if not keeper.calls[target.module]]
    if never_ran:
        warnings.warn(f"left out {len(never_ran)} layers that never ran: {', '.join(never_ran)}", stacklevel=3)
    return maps


def _blank_batch(model: nn.Module, size: int | tuple[int, int]) -> torch.Tensor:
    """Make the default input of `list_layers`: one black sample, stored as a single number."""
    import torch

    height, width = (size, size) if isinstance(size, int) else size
    channels = next((m.in_channels for m in model.modules() if isinstance(m, torch.nn.Conv2d)), 3)
    return torch.zeros(()).expand(1, channels, height, width)
