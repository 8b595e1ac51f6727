"""Run one forward pass of a foreign model, with hooks, and leave the model as it was however the pass ends.

Training flags, other hooks, gradients and the random state do not change. Compiled parts and models spread over
devices would run past hooks, so during the pass they run as they were written, on one device.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import CaptureError, InputError, ModelFailedError, reason_of
from ..models.layers import every_module
from .buffers import pool
from .operations import watching

if TYPE_CHECKING:
    import torch
    from torch import nn

    Hook = Callable[[nn.Module, tuple[Any, ...], Any], None]

Inputs = Callable[["torch.Tensor"], Any] | Mapping[str, Any] | Sequence[Any] | None
"""What a model takes beside the batch, or a function that makes everything it takes from the batch."""


class Enough(BaseException):
    """Raised in a hook to end the pass. Not an Exception, so that no `except Exception` of a model catches it."""


@dataclass
class _Hold:
    """An attribute that running passes have changed: the number of those passes, and its original value."""

    passes: int
    original: Any


_lock = threading.Lock()
# Shared by all threads: the first pass to start changes an attribute, the last one to end restores it.
_held: dict[tuple[nn.Module, str], _Hold] = {}
_eager = _Hold(0, None)


def run_pass(
    model: nn.Module,
    batch: torch.Tensor,
    modules: Iterable[nn.Module],
    hook: Hook,
    inputs: Inputs = None,
    on_operation: Callable[[str, Any], None] | None = None,
) -> None:
    """Run one pass in eval mode, without gradients, with a hook on some modules.

    Args:
        model: the module to run.
        batch: (N, C, H, W) float. Copied to the device and dtype of the model's weights. Not modified.
        modules: the modules that get the hook.
        hook: called with each output of these modules. It ends the pass by raising `Enough`; any other error that it
            raises ends the pass too and is raised unchanged.
        inputs: what the model takes beside the batch; see `arguments`.
        on_operation: called with the name and the output of each operation, as `hook` is; see operations.py.

    Raises:
        InputError: `batch` is not a tensor, or `inputs` is neither arguments nor a function that makes them.
        CaptureError: the model failed.
    """
    import torch

    if not isinstance(batch, torch.Tensor):
        kind = type(batch).__name__
        raise InputError(f"the input of a model must be a (N, C, H, W) tensor, got {kind}. Make one with load_images.")
    failures: list[Exception] = []

    def guarded(function: Callable[..., None]) -> Callable[..., None]:
        def call(*seen: Any) -> None:
            try:
                function(*seen)
            except Exception as error:  # so that no `except Exception` of the model catches it
                failures.append(error)
                raise Enough from None

        return call

    try:
        # no_grad, not inference_mode, which is no faster: tensors that a model caches during such a pass (anchors,
        # position tables) could not be used in training afterwards.
        with contextlib.ExitStack() as stack:
            everything = set(every_module(model).values())
            parallel = [module for module in everything if isinstance(module, torch.nn.DataParallel)]
            for context in (torch.inference_mode(False), torch.no_grad(), _eagerly(), evaluating(everything)):
                stack.enter_context(context)
            # Called directly: the replicas of DataParallel would each see a part of the batch, in other threads.
            stack.enter_context(_holding(parallel, "device_ids", []))
            stack.enter_context(hooked(modules, guarded(hook)))
            weight = weight_of(model, batch)
            positional, named = arguments(_placed(batch, weight), inputs)
            if inputs is not None:
                positional, named = _placed(positional, weight), _placed(named, weight)
            # For models that use random numbers in eval mode too. What other threads draw meanwhile is undone as well.
            devices = [weight.device]
            stack.enter_context(torch.random.fork_rng(devices if devices[0].type == "cuda" else [], device_type="cuda"))
            if on_operation is not None:
                stack.enter_context(watching(model, guarded(on_operation)))
            _runnable(model)(*positional, **named)
    except Enough:
        pass
    except (CaptureError, InputError):
        raise
    except Exception as error:
        shape = tuple(batch.shape)
        raise ModelFailedError(
            f"the model failed on an input of shape {shape}: {reason_of(error, named=True)}"
        ) from error
    if failures:
        raise failures[0]


def arguments(batch: torch.Tensor, inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Make the arguments of a model.

    Args:
        batch: (N, C, H, W) float. The first argument, unless `inputs` is a function.
        inputs: a mapping of keyword arguments or a sequence of positional ones that follow the batch; or a function
            of the batch that returns all arguments: a tensor, a sequence of positional ones, or a mapping.

    Returns:
        Positional and keyword arguments.

    Raises:
        InputError: `inputs` is, or returns, something else.
    """
    import torch

    if callable(inputs):
        made = inputs(batch)
        before: tuple[Any, ...] = ()
    else:
        made, before = inputs, (batch,)
    if made is None and not callable(inputs):
        return before, {}
    if isinstance(made, torch.Tensor):
        made = (made,)
    if isinstance(made, Mapping):
        return before, dict(made)
    if isinstance(made, Sequence) and not isinstance(made, str):
        return (*before, *made), {}
    kind = type(made).__name__
    what = "return" if callable(inputs) else "be"
    raise InputError(f"inputs must {what} a tensor, a sequence of arguments or a mapping of named ones, got {kind}.")


@contextlib.contextmanager
def hooked(modules: Iterable[nn.Module], hook: Hook) -> Iterator[None]:
    """Hang a forward hook on modules, behind the hooks they have, and remove it however the block ends.

    Args:
        modules: the modules that get the hook.
        hook: called in this thread only, not for passes of other threads through the same modules.
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


def evaluating(modules: Iterable[nn.Module]) -> contextlib.AbstractContextManager[None]:
    """Put modules in eval mode, and restore the training flag of each however the block ends.

    The flags are set directly: a `train()` that a model overrides may do more than that, such as merging weights.

    Args:
        modules: all modules of a model. It stays in eval mode until the last thread has left the block.
    """
    return _holding(modules, "training", False)


def weight_of(model: nn.Module, default: torch.Tensor) -> torch.Tensor:
    """Return the weight whose device and dtype a model's inputs get: the first of an ordinary float dtype.

    Args:
        model: any module.
        default: (any shape) real dtype. Returned if the model has no such weight.

    Returns:
        The weight.
    """
    import torch

    # Listed, so that the 8-bit floats of quantised weights do not count.
    ordinary = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    weights = itertools.chain(model.parameters(), model.buffers())
    return next((weight for weight in weights if weight.dtype in ordinary), default)


@contextlib.contextmanager
def _holding(modules: Iterable[nn.Module], attribute: str, value: Any) -> Iterator[None]:
    """Set an attribute of modules to a value, until the last of the passes that need it has ended."""
    keys = []
    try:
        with _lock:
            for module in modules:
                original = getattr(module, attribute, value)
                hold = _held.get((module, attribute)) if _held else None
                if hold is None and original == value:
                    continue
                keys.append((module, attribute))
                _held[keys[-1]] = _Hold(1, original) if hold is None else _Hold(hold.passes + 1, hold.original)
                setattr(module, attribute, value)
        yield
    finally:
        with _lock:
            for key in keys:
                _held[key].passes -= 1
                if not _held[key].passes:
                    setattr(key[0], attribute, _held.pop(key).original)


def _runnable(model: nn.Module) -> nn.Module:
    """Return the module inside a distributed wrapper, whose own forward would wait for the other processes."""
    import torch

    while isinstance(model, torch.nn.parallel.DistributedDataParallel):
        model = model.module
    return model


@contextlib.contextmanager
def _eagerly() -> Iterator[None]:
    """Run compiled modules as they were written: compiled code does not call hooks that were added afterwards.

    The setting holds for all threads, so overlapping passes share it. While torch._dynamo is not loaded nothing is
    compiled, so it is not loaded here, which takes seconds.
    """
    import torch

    if "torch._dynamo" not in sys.modules:
        yield
        return
    with _lock:
        if not _eager.passes:
            _eager.original = torch.compiler.set_stance("force_eager")
            _eager.original.__enter__()
        _eager.passes += 1
    try:
        yield
    finally:
        with _lock:
            _eager.passes -= 1
            if not _eager.passes:
                _eager.original.__exit__(None, None, None)
                _eager.original = None


def _placed(value: Any, weight: torch.Tensor) -> Any:
    """Copy the tensors in a value to the device of a weight, and float tensors to its dtype.

    They are copied even where nothing changes, so that no in-place layer writes into the caller's tensors.
    """
    import torch

    if isinstance(value, torch.Tensor):
        mine = value.detach()
        floats = value.is_floating_point() and weight.is_floating_point()
        placed = mine.to(weight.device, weight.dtype if floats else value.dtype)
        return pool.copy(placed) if placed is mine else placed
    if isinstance(value, Mapping):
        return {key: _placed(part, weight) for key, part in value.items()}
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(_placed(part, weight) for part in value)
    return value
