"""Run one forward pass of a foreign model, with hooks, and leave the model as it was however the pass ends.

Training flags, other hooks, gradients, buffers and the random state do not change (snapshot.py). Compiled parts and
models spread over devices would run past hooks, so during the pass they run as they were written, on one device.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import CaptureError, InputError, ModelFailedError, advice, reason_of
from ...models.layers import every_module
from ...models.lazy import fit_to, seed_first_pass
from ...models.missing import missing_in, noticing_use
from ...models.no_images import taken_instead
from ...runtime.caller import warn_caller
from ...runtime.generators import generators_kept
from ...runtime.plain import without_mask
from .arguments import arguments, callable_of, dtypes_for, placed
from .arguments import weight_of as weight_of
from .copies import PassHook
from .operations import watching
from .snapshot import Changes, evaluating

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .arguments import Forward, Inputs


class Enough(BaseException):
    """Raised in a hook to end the pass. Not an Exception, so that no `except Exception` of a model catches it."""


@dataclass(frozen=True)
class Watched:
    """What is looked at in a pass, and by which functions. A function ends the pass by raising `Enough`.

    What `output`, `input` or `operation` returns takes the place of what it was called with, unless it is None; `input`
    returns positional and named arguments.

    Attributes:
        outputs_of: modules whose outputs are looked at.
        output: called with such a module and its output.
        inputs_of: modules whose inputs are looked at.
        input: called with such a module, its positional and its named arguments, before it runs.
        operation: called with the name and the output of each operation; see operations.py.
        result: called with what the model itself puts out.
        elsewhere: called with a module of either kind where it runs in another thread, and nothing else is.
        missing: called with the name of a weight that the model's checkpoint did not have, when the pass uses it.
        any_thread: whether what other threads run is looked at like the rest: for a model that nobody else runs.
        batch: called with the copy of the batch that the model would get; what it returns is what the model gets.
    """

    outputs_of: Iterable[nn.Module] = ()
    output: Callable[[nn.Module, Any], Any] | None = None
    inputs_of: Iterable[nn.Module] = ()
    input: Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Any] | None = None
    operation: Callable[[str, Any], Any] | None = None
    result: Callable[[Any], None] | None = None
    elsewhere: Callable[[nn.Module], None] | None = None
    missing: Callable[[str], None] | None = None
    any_thread: bool = False
    batch: Callable[[torch.Tensor], torch.Tensor] | None = None


@dataclass
class _Hold:
    """A setting that running passes have changed: the number of those passes, and its original value."""

    passes: int
    original: Any


_lock = threading.Lock()
# Shared by all threads: the first pass to start changes it, the last one to end restores it.
_eager = _Hold(0, None)
# The innermost pass of each thread.
_running = threading.local()


def run_pass(
    model: nn.Module, batch: torch.Tensor, watched: Watched, inputs: Inputs = None, forward: Forward = None
) -> dict[nn.Module, nn.Module]:
    """Run one pass in eval mode, without gradients, and look at what it does.

    Args:
        model: the module to run.
        batch: (N, C, H, W) float. Copied to the device of the model's weights, and to a dtype that they have. Not
            modified.
        watched: what is looked at. An error that one of its functions raises ends the pass and is raised unchanged.
        inputs: what the model takes beside the batch; see `arguments`.
        forward: what is run.

    Returns:
        Deep copies that the model has made of its modules while it ran -> what each is a copy of.

    Raises:
        InputError: `batch` is not a tensor, `inputs` is neither arguments nor a function that makes them, or the pass
            would run inside a transform of torch.func.
        OptionError: `forward` is no method of the model.
        CaptureError: the model failed.
    """
    import torch

    if not isinstance(batch, torch.Tensor):
        kind = type(batch).__name__
        raise InputError(f"the input of a model must be a (N, C, H, W) tensor, got {kind}. Make one with load_images.")
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise InputError(
            "a model must be captured from outside of torch.func, got a call inside vmap, grad or jvp. "
            "Call capture on the whole batch, without the transform."
        )
    batch = without_mask(batch)
    call = callable_of(_runnable(model), forward)
    fit_to(model, batch)
    guard = _Guard()
    changes = Changes()
    try:
        with guard.innermost():
            _try_dtypes(_Pass(model, call, guard.around(watched), inputs, changes), batch, guard)
    except Enough:
        pass
    finally:
        if changes.lost:
            _warn_of_lost(changes.lost)
        if changes.taken_out:
            _warn_of_taken_out(changes.taken_out)
    if guard.failures:
        raise guard.failures[0]
    return changes.copied


@dataclass(frozen=True)
class _Pass:
    """A pass over a model: what is called with which inputs, what is looked at, and what has happened to the model."""

    model: nn.Module
    call: Callable[..., Any]
    watched: Watched
    inputs: Inputs
    changes: Changes


def _try_dtypes(asked: _Pass, batch: torch.Tensor, guard: _Guard) -> None:
    """Run the pass; where weights have several dtypes, on a batch of each, until the model takes one."""
    dtypes = dtypes_for(asked.model, batch)
    for dtype in dtypes:
        try:
            _attempt(asked, batch.to(dtype))
            return
        except (CaptureError, InputError):
            raise
        except Exception as error:
            # Which of the dtypes the input must have shows when it meets the first weight, before anything is seen.
            if isinstance(error, RuntimeError) and not guard.has_seen and dtype != dtypes[-1]:
                continue
            failed = f"the model failed on an input of shape {tuple(batch.shape)}: {reason_of(error, named=True)}"
            raise ModelFailedError(f"{failed}{_input_advice(error, asked)}") from error


def _input_advice(error: Exception, asked: _Pass) -> str:
    """Return what to do where a model takes more than images, none, or those of one size only, so far as it tells."""
    if isinstance(error, TypeError) and re.search(r"missing \d+ required (positional|keyword)", str(error)):
        return f". Give the others: {advice('inputs=...', '--inputs')}"
    if asked.inputs is None and re.search("mat1 and mat2|indices", str(error)) and (said := taken_instead(asked.model)):
        return f". It takes {said}"
    words = (
        r"mat1 and mat2|size of tensor|[Ii]nput (image )?(height|width|size)|[Ii]mage size|[Ww]rong image|match.*size"
    )
    if not isinstance(error, (RuntimeError, ValueError, AssertionError)) or not re.search(words, str(error)):
        return ""
    size = advice("PreprocessOptions(size=...)", "--size")
    return f". If it takes another size, give it: {size}, or make it in a preprocessing of your own"


def _attempt(asked: _Pass, batch: torch.Tensor) -> None:
    """Run the pass on a batch of this dtype; raise what the model and the functions that look at it raise."""
    import torch

    model, watched = asked.model, asked.watched
    # no_grad, not inference_mode, which is no faster: tensors that a model caches during such a pass (anchors,
    # position tables) could not be used in training afterwards.
    with contextlib.ExitStack() as stack:
        for context in (torch.inference_mode(False), torch.no_grad(), _eagerly()):
            stack.enter_context(context)
        # torch 2.6 would take what the caller's autocast casts here, without gradients, for later passes too.
        stack.callback(torch.clear_autocast_cache)
        stack.enter_context(evaluating(every_module(model), asked.changes))
        stack.enter_context(hooked(watched))
        device = weight_of(model, batch).device
        given = placed(batch, device)
        positional, named = arguments(given if watched.batch is None else watched.batch(given), asked.inputs)
        if asked.inputs is not None:
            linked = watched.batch is not None
            positional, named = placed(positional, device, linked=linked), placed(named, device, linked=linked)
        # For models that use random numbers in eval mode too. What other threads draw meanwhile is undone as well.
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"))
        stack.enter_context(generators_kept())
        seed_first_pass(model)
        if watched.operation is not None:
            stack.enter_context(watching(model, watched.operation))
        if watched.missing is not None and (missing := missing_in(model)):
            stack.enter_context(noticing_use(missing, watched.missing))
        result = asked.call(*positional, **named)
        if watched.result is not None:
            watched.result(result)


class _Guard:
    """Stands around the functions that look at a pass: their errors pass through any `except` of the model.

    They see nothing of passes that a user's hook, or the model itself, runs inside this one.

    Attributes:
        failures: the errors.
        has_seen: whether any of the functions was called.
    """

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        self.has_seen = False

    @contextlib.contextmanager
    def innermost(self) -> Iterator[None]:
        """Make this pass the innermost one of its thread for the time of the block."""
        around = getattr(_running, "guard", None)
        _running.guard = self
        try:
            yield
        finally:
            _running.guard = around

    def around(self, watched: Watched) -> Watched:
        """Return `watched` with guarded functions."""
        functions = {name: getattr(watched, name) for name in ("output", "input", "operation", "result")}
        guarded: dict[str, Any] = {
            name: functools.partial(self._call, each) for name, each in functions.items() if each is not None
        }
        return dataclasses.replace(watched, **guarded)

    def _call(self, function: Callable[..., Any], *seen: Any) -> Any:
        if getattr(_running, "guard", self) not in (self, None):
            return None
        self.has_seen = True
        try:
            return function(*seen)
        except Exception as error:
            self.failures.append(error)
            raise Enough from None


def _warn_of_lost(weights: list[str]) -> None:
    """Warn of weights that the model itself has changed."""
    warn_caller(
        f"the model changed {len(weights)} of its weights in a pass in eval mode, which cannot be undone: "
        f"{_some(weights)}"
    )


def _warn_of_taken_out(layers: list[str]) -> None:
    """Warn of layers that are not there to be looked at."""
    warn_caller(
        f"the model builds layers in its first forward, and is left without them: {_some(layers)}. To look at them, "
        f"run it once yourself, where it is made: model(batch)"
    )


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:4])) + (", ..." if len(names) > 4 else "")


@contextlib.contextmanager
def hooked(watched: Watched) -> Iterator[None]:
    """Hang hooks on modules, behind the hooks they have, and remove them however the block ends.

    Args:
        watched: the modules and the functions that are called. They are called in this thread only, not for passes of
            other threads through the same modules.
    """
    hooks, handles = [], []
    try:
        if watched.output is not None:
            see_output = watched.output
            after = PassHook(lambda module, inputs, output: see_output(module, output), watched.elsewhere)
            hooks.append(after)
            handles += [module.register_forward_hook(after) for module in watched.outputs_of]
        if watched.input is not None:
            before = PassHook(watched.input, watched.elsewhere)
            hooks.append(before)
            handles += [module.register_forward_pre_hook(before, with_kwargs=True) for module in watched.inputs_of]
        for hook in hooks:
            hook.any_thread = watched.any_thread
        yield
    finally:
        for hook in hooks:
            hook.is_over = True
        for handle in handles:
            handle.remove()


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
