"""Lazy layers get their shapes in a first pass. Loading a model makes that pass, so that the weights are known.

The shapes may depend on the size of the input: those of a linear layer behind a flattening one do. So as long as nobody
has changed the weights, an input of another size initialises them anew, as if the model had been loaded for that size.
The weights depend on the seed and the size alone.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..runtime.caller import warn_caller
from .expected import keep_guess
from .layers import hang_lazy_hook, has_lazy, lazy_copy, lazy_twin
from .loaded import example_input

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .loaded import LoadedModel

_lock = threading.RLock()


@dataclass(frozen=True)
class _LazyLayer:
    """A layer that was lazy: its class of then, and its lazy parameters and buffers."""

    module: weakref.ref[nn.Module]
    kind: type[Any]
    parameters: dict[str, Any]
    buffers: dict[str, Any]

    def alive(self) -> Any:
        """Return the layer, which the model still holds."""
        return self.module()


@dataclass
class _Initialised:
    """What a model was initialised for.

    Attributes:
        seed: of the weights.
        layers: that were lazy.
        shapes: of inputs, without the batch, that the weights fit.
        versions: which the weights were, and what their version counters said.
    """

    seed: int
    layers: list[_LazyLayer]
    shapes: set[tuple[int, ...]]
    versions: list[tuple[int, int]]


_initialised: weakref.WeakKeyDictionary[nn.Module, _Initialised] = weakref.WeakKeyDictionary()
# The seeds of models that are lazy still: they cannot run on an image alone.
_waiting: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()


def initialise(model: LoadedModel, seed: int) -> None:
    """Initialise the lazy layers of a model in place, by one pass in eval mode on an input of zeros.

    Layers stay lazy where the model cannot run on that input, as where it takes more beside it: the first pass on the
    right one initialises them, under the same seed.

    Args:
        model: in any mode, which is eval mode afterwards if there are lazy layers. Its preprocessing gives the size of
            the input.
        seed: of the new weights. The random state of the program does not change.
    """
    module = model.module
    if not has_lazy(module):
        return
    _waiting[module] = seed
    with _lock, contextlib.suppress(Exception):  # which a foreign model may raise anywhere
        keep_guess(module)
        batch = example_input(model)
        layers = _lazy_layers(module)
        # First of a copy: a pass that fails half way leaves some layers with shapes that fit no other input.
        _run(lazy_copy(module), batch, seed)
        _run(module, batch, seed)
        _initialised[module] = _Initialised(seed, layers, {tuple(batch.shape[1:])}, _versions(module))


def seed_first_pass(module: nn.Module) -> None:
    """Seed the generator for a pass that initialises what is lazy still in a loaded model; other models are left alone.

    Args:
        module: the model, which runs next. The caller restores the random state.
    """
    import torch

    seed = _waiting.get(module) if _waiting else None
    if seed is None:
        return
    if has_lazy(module):
        torch.default_generator.manual_seed(seed)
    else:
        del _waiting[module]


def fit_to(module: nn.Module, batch: torch.Tensor) -> None:
    """Initialise what was lazy anew where its shapes do not fit an input; other models are left alone.

    Args:
        module: the model.
        batch: (N, ...) real dtype. What will go into it.
    """
    if not _initialised:
        return
    with _lock:
        known = _initialised.get(module)
        shape = tuple(batch.shape[1:])
        if known is None or shape in known.shapes:
            return
        if known.versions != _versions(module):  # trained or loaded: these are no longer the weights of a seed
            del _initialised[module]
            return
        with contextlib.suppress(Exception):
            twin = _anew(module, known, batch.new_zeros(()).expand(1, *shape))
            if _shapes(twin) != _shapes(module):
                _take_over(known.layers, module, twin)
                known.versions, known.shapes = _versions(module), set()
            known.shapes.add(shape)
    if not known.shapes - {shape}:  # they are new: an optimizer may hold the ones before
        warn_caller(
            f"the lazy layers of the model have new weights, of the same seed, for inputs of "
            f"{'x'.join(map(str, shape))}: those before fit another size"
        )


def _anew(module: nn.Module, known: _Initialised, batch: torch.Tensor) -> nn.Module:
    """Return a copy of a model whose lazy layers were initialised by this input; on the CPU, where its generator is."""
    twin = lazy_copy(module)
    if not next(twin.parameters()).is_meta:
        twin = twin.cpu()
    twins = dict(zip(module.modules(), twin.modules(), strict=True))
    for layer in known.layers:
        part: Any = twins[layer.alive()]
        for table, lazy in ((part._parameters, layer.parameters), (part._buffers, layer.buffers)):
            table.update({name: lazy_twin(held, table[name].device) for name, held in lazy.items()})
        part.__class__ = layer.kind
        part._load_hook = part._register_load_state_dict_pre_hook(part._lazy_load_hook)
        hang_lazy_hook(part)
    _run(twin, batch, known.seed)
    return twin


def _take_over(layers: list[_LazyLayer], module: nn.Module, twin: nn.Module) -> None:
    """Copy the weights and the numbers of channels of the layers that were lazy from a copy into its model."""
    import torch

    twins = dict(zip(module.modules(), twin.modules(), strict=True))
    for layer in layers:
        part = layer.alive()
        theirs: Any = twins[part]
        for name in layer.parameters:
            old, new = part._parameters[name], theirs._parameters[name]
            part._parameters[name] = torch.nn.Parameter(new.detach().to(old.device), requires_grad=old.requires_grad)
        part._buffers.update({name: theirs._buffers[name].to(part._buffers[name].device) for name in layer.buffers})
        vars(part).update({name: value for name, value in vars(theirs).items() if type(value) is int})


def _lazy_layers(module: nn.Module) -> list[_LazyLayer]:
    """Take note of the layers of a model that are lazy."""
    from torch.nn.parameter import is_lazy

    found = []
    for part in module.modules():
        parameters, buffers = (
            {name: held for name, held in table.items() if held is not None and is_lazy(held)}
            for table in (part._parameters, part._buffers)
        )
        if parameters or buffers:
            twins = [
                {name: lazy_twin(held, held.device) for name, held in one.items()} for one in (parameters, buffers)
            ]
            found.append(_LazyLayer(weakref.ref(part), type(part), *twins))
    return found


def _run(module: nn.Module, batch: torch.Tensor, seed: int) -> None:
    """Run a module under a seed."""
    import torch

    weight = next(itertools.chain(module.parameters(), module.buffers()))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)  # only the CPU's, as for all random weights
        module.eval()(batch.to(weight.device, weight.dtype))


def _versions(module: nn.Module) -> list[tuple[int, int]]:
    return [(id(parameter), parameter._version) for parameter in module.parameters()]


def _shapes(module: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(one.shape) for one in itertools.chain(module.parameters(), module.buffers())]
