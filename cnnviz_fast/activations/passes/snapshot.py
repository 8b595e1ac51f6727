"""What a pass may change in a model: saved before the first of the passes that overlap, put back after the last.

    training flags      every module is in eval mode for the time of the pass
    copies              get no hooks, and the flags of what they are copies of; see copies.py
    buffers             entries that were replaced, values that were written; see saved_values.py
    parameters          memory that was replaced; values where they are not trained but others are (key encoders)
    objects             entries of lists, dicts, sets and queues, values of arrays, states of generators, attributes of
                        objects and classes of one's own, variables around functions; see saved_objects.py
    new layers          that the pass has made where there was none are taken out again, and so are parameters and
                        buffers; see grown.py
    gradients           are taken off for the time of the pass: a model may run backward in its forward
    plain attributes    numbers, texts, tensors, and containers of these that were replaced: counters, hidden states; of
                        torch's own layers, which keep none, numbers that the model writes: a rate of dropout, momentum

The values of trained parameters are not copied: a change of them is said in a warning. Where something cannot be
undone, or the model has replaced layers of its own, objects and plain attributes stay as the pass left them, since they
may say so: a flag `fused` must not be undone if the fusing is not. What a model notes in an empty list, and attributes
that are new, stay as well: somebody may want to read them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import operator
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any

from ...models.layers import takes_hooks
from .copies import Copies
from .followers import followers_in, is_of_torch, split_buffers
from .grown import Grown
from .own_objects import around
from .saved_objects import SavedObjects, holds_values, is_empty, is_plain
from .saved_values import SavedTensors, SavedValues

if TYPE_CHECKING:
    from torch import nn

_SHARDED = ("FullyShardedDataParallel",)
"""Classes whose parameters have their memory moved about between passes too, so that it must stay where it is."""

_ABSENT = object()
# Each pass looks at every module and tensor: by these, which are not written in Python, in half the time.
_PARAMETERS, _BUFFERS, _MODULES = map(operator.attrgetter, ("_parameters", "_buffers", "_modules"))
_HOOKS, _PRE_HOOKS = map(operator.attrgetter, ("_forward_hooks", "_forward_pre_hooks"))

_lock = threading.Lock()
# Shared by all threads.
_held: dict[nn.Module, Snapshot] = {}


@dataclasses.dataclass
class Changes:
    """What has happened to a model in a pass.

    Attributes:
        lost: names of weights that were changed and cannot be restored.
        copied: deep copies that the model has made of its modules -> what each is a copy of.
        taken_out: names of layers that the model has built, and no longer has.
    """

    lost: list[str] = dataclasses.field(default_factory=list)
    taken_out: list[str] = dataclasses.field(default_factory=list)
    copied: dict[nn.Module, nn.Module] = dataclasses.field(default_factory=dict)


@contextlib.contextmanager
def evaluating(modules: Mapping[str, nn.Module], changes: Changes | None = None) -> Iterator[None]:
    """Put modules in eval mode, and restore them and what they hold however the block ends.

    Flags are set directly: a `train()` that a model overrides may do more than that, such as merging weights.

    Args:
        modules: name -> module, of a whole model. It stays in eval mode until the last thread has left the block.
        changes: after the block it says what has happened in it.
    """
    changes = Changes() if changes is None else changes
    with _lock:
        fresh: dict[nn.Module, str] = {}
        for name, module in modules.items():
            if module not in _held:
                fresh.setdefault(module, name)
        if fresh:
            _held.update(dict.fromkeys(fresh, Snapshot(fresh)))
        used = list(dict.fromkeys(map(_held.__getitem__, modules.values())))
        for snapshot in used:
            snapshot.passes += 1
    try:
        yield
    finally:
        with _lock:
            for snapshot in used:
                snapshot.passes -= 1
                if not snapshot.passes:
                    for module in snapshot.modules:
                        del _held[module]
                    changes.lost += snapshot.put_back()
                    changes.taken_out += snapshot.taken_out
                changes.copied |= snapshot.copied()


class Snapshot:
    """Modules as they were, now in eval mode.

    Args:
        modules: module -> its name.

    Attributes:
        passes: how many are under way.
        taken_out: as in Changes, once the modules are put back.
    """

    def __init__(self, modules: Mapping[nn.Module, str]) -> None:
        import torch

        self.modules = modules
        self.passes = 0
        self.taken_out: list[str] = []
        # TorchScript makes new objects of what it holds each time that it is asked.
        kinds = set(map(type, modules))  # few, of which each question is asked once
        if any(issubclass(kind, torch.jit.ScriptModule) for kind in kinds):
            modules = {module: name for module, name in modules.items() if takes_hooks(module)}
        self._plain = modules
        # Shallow copies: a value that is still the same object was not replaced.
        own_kinds = {kind for kind in kinds if not is_of_torch(kind)}
        own = [module for module in modules if type(module) in own_kinds]
        self._attributes = list(map(vars, own))
        self._attributes_before = list(map(dict.copy, self._attributes))
        layers = {kind for kind in kinds - own_kinds if not hasattr(kind, "cls_to_become")}  # lazy ones find theirs
        self._layers = [vars(module) for module in modules if type(module) in layers]
        self._layers_before = list(map(dict.copy, self._layers))
        hooks = _values([*map(_HOOKS, modules), *map(_PRE_HOOKS, modules)])
        self._objects = SavedObjects(
            self._attributes, [*around(own), *(hook for hook in hooks if isinstance(hook, FunctionType))], self.modules
        )
        self._own = list(filter(None, map(_PARAMETERS, modules)))
        self._own_before = list(map(dict, self._own))
        self._grown = Grown(own)
        self._tables = list(filter(None, map(_MODULES, modules)))
        self._structure = _values(self._tables)
        self._buffers = list(filter(None, map(_BUFFERS, modules)))
        self._buffers_before = list(map(dict, self._buffers))
        plain = [value for value in _values(self._attributes) if type(value) is torch.Tensor] + self._objects.tensors
        self._flags = {module: bool(getattr(module, "training", False)) for module in self.modules}
        is_training = any(self._flags.values())
        parameters = [one for one in _values(self._own) if one is not None]
        if any(kind.__name__ in _SHARDED for kind in kinds):
            parameters = []
        self._gradients = [(one, one.grad) for one in parameters]
        for one, gradient in self._gradients:
            if gradient is not None:
                one.grad = None
        followers = followers_in(modules, parameters)
        buffers, statistics = split_buffers(modules, set(map(id, followers)), is_training)
        self._tensors = SavedTensors([*buffers, *plain, *followers], parameters, statistics)
        with torch.no_grad():
            self._values = SavedValues(self._tensors.before[: len(self._tensors.state)])
        parallel = {kind for kind in kinds if issubclass(kind, torch.nn.DataParallel)}
        self._parallel: list[tuple[Any, Any]] = [
            (one, vars(one)["device_ids"]) for one in (modules if parallel else ()) if type(one) in parallel
        ]
        self._copies = Copies({module: self._flags[module] for module in modules})
        for module, flag in self._flags.items():
            if flag:
                module.training = False
        for module, _ in self._parallel:
            # Called directly: its replicas would each see a part of the batch, in other threads.
            module.device_ids = []

    def put_back(self) -> list[str]:
        """Restore the modules, and what they hold.

        Returns:
            The names of weights that were changed and cannot be restored.
        """
        self._copies.close()
        for module, flag in self._flags.items():
            if getattr(module, "training", flag) != flag:
                module.training = flag
        for module, device_ids in self._parallel:
            module.device_ids = device_ids
        for one, gradient in self._gradients:
            if one.grad is not gradient:
                one.grad = gradient
        if _differ(self._layers_before, self._layers):
            for own, before in zip(self._layers, self._layers_before, strict=True):
                own.update({name: value for name, value in before.items() if type(value) in (int, float)})
        for module, name in self._grown.take_out(self._attributes_before):
            self.taken_out.append(f"{self.modules[module]}.{name}".lstrip("."))
        is_whole = _are_same(self._structure, _values(self._tables)) and self._put_back_parameters()
        if not _are_same(_values(self._buffers_before), _values(self._buffers)):
            for now, before in zip(self._buffers, self._buffers_before, strict=True):
                now.update(before)
        lost = self._put_back_tensors()
        if is_whole and not lost:
            self._objects.put_back()
            if not _are_same(_values(self._attributes_before), _values(self._attributes)):
                for own, attributes in zip(self._attributes, self._attributes_before, strict=True):
                    _put_back_attributes(own, attributes)
        return self._names_of(lost) if lost else []

    def _put_back_parameters(self) -> bool:
        """Restore parameters that were replaced by others; return whether all are the same again.

        Not those of other classes, which FSDP2 replaces in a way of its own.
        """
        from torch.nn import Parameter

        if not _are_same(_values(self._own_before), _values(self._own)):
            for now, before in zip(self._own, self._own_before, strict=True):
                pairs = [(name, old, now.get(name)) for name, old in before.items()]
                now.update({name: old for name, old, new in pairs if type(old) is type(new) is Parameter})
        return _are_same(_values(self._own_before), _values(self._own))

    def _put_back_tensors(self) -> set[int]:
        """Restore tensors; return the ids of those that were written and are not saved."""
        import torch

        with torch.no_grad():
            lost = self._tensors.move_back()
            self._values.put_back()
        if written := self._tensors.written():
            left_out = set(map(id, self._values.left_out))
            pairs = zip(self._tensors.state, self._tensors.before, strict=False)
            restored = {id(one) for one, before in pairs if id(before) not in left_out}
            self._tensors.reset_versions(one for one in written if id(one) in restored)
            lost += [one for one in written if id(one) not in restored]
        return set(map(id, lost))

    def copied(self) -> dict[nn.Module, nn.Module]:
        """Return the deep copies that the model has made of its modules -> what each is a copy of."""
        return dict(self._copies.made)

    def _names_of(self, tensors: set[int]) -> list[str]:
        """Return the names of tensors, given by their ids."""
        # Of the statistics of a norm only the number of batches is counted.
        tensors = tensors | {
            id(one)
            for module in self._plain
            if any(id(one) in tensors for one in module._buffers.values())
            for one in module._buffers.values()
            if is_of_torch(type(module))
        }
        return [
            f"{name}.{own}" if name else own
            for module, name in self._plain.items()
            for own, tensor in (
                *vars(module).items(),
                *module._parameters.items(),
                *module._buffers.items(),
            )
            if id(tensor) in tensors
        ]


def _put_back_attributes(own: dict[str, Any], before: Mapping[str, Any]) -> None:
    """Restore the plain attributes of a module, unless the pass has removed an object beside them.

    A lazy module does that when it is initialised, which is not undone.
    """
    names = [name for name, value in before.items() if own.get(name, _ABSENT) is not value]
    if all(name in own or is_plain(before[name]) for name in names):
        for name in names:
            if _is_state(before[name], own.get(name)):
                own[name] = before[name]


def _is_state(before: Any, now: Any) -> bool:
    """Check whether an attribute that was replaced is part of what is computed with, and not of what is built."""
    if before is None or is_empty(before):  # a hidden state, or a bank, that began
        return holds_values(now) and is_plain(now)
    return is_plain(before) and (now is None or is_plain(now))


def _differ(before: Sequence[dict[str, Any]], now: Sequence[dict[str, Any]]) -> bool:
    """Check whether attributes may have changed: in a quarter of the time that it takes to compare objects."""
    try:
        return before != now
    except Exception:  # a tensor was replaced, and tensors compare value by value
        return True


def _values(mappings: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Return the values of several mappings as one list."""
    return list(itertools.chain.from_iterable(map(operator.methodcaller("values"), mappings)))


def _are_same(before: Collection[Any], now: Collection[Any]) -> bool:
    """Check whether two collections hold the same objects in the same order."""
    return len(before) == len(now) and all(map(operator.is_, before, now))
