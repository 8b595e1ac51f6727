"""What a pass may change in a model: saved before the first of the passes that overlap, put back after the last.

    training flags      every module is in eval mode for the time of the pass
    copies              get no hooks, and the flags of what they are copies of; see copies.py
    buffers             entries that were replaced, values that were written; see saved_values.py
    parameters          memory that was replaced; values where they are not trained but others are (key encoders)
    plain attributes    numbers, tensors, and tuples of these that were replaced: counters, hidden states

The values of trained parameters are not copied: a change of them is said in a warning. Where something cannot be
undone, or the model has replaced layers of its own, plain attributes stay as the pass left them, since they may say so:
a flag `fused` must not be undone if the fusing is not. What a model collects in lists, and what it keeps for the first
time, stays as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import operator
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .copies import Copies
from .saved_values import SavedTensors, SavedValues

if TYPE_CHECKING:
    import torch
    from torch import nn

_SHARDED = ("FullyShardedDataParallel",)
"""Classes whose parameters have their memory moved about between passes too, so that it must stay where it is."""

_ABSENT = object()
# Each pass looks at every module and tensor: by these, which are not written in Python, in half the time.
_PARAMETERS, _MODULES = operator.attrgetter("_parameters"), operator.attrgetter("_modules")

_lock = threading.Lock()
# Shared by all threads.
_held: dict[nn.Module, Snapshot] = {}


@dataclasses.dataclass
class Changes:
    """What has happened to a model in a pass.

    Attributes:
        lost: names of weights that were changed and cannot be restored.
        copied: modules that the model has made deep copies of.
    """

    lost: list[str] = dataclasses.field(default_factory=list)
    copied: set[nn.Module] = dataclasses.field(default_factory=set)


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
        fresh = {module: name for name, module in reversed(list(modules.items())) if module not in _held}
        if fresh:
            _held.update(dict.fromkeys(fresh, Snapshot(dict(reversed(fresh.items())))))
        used = list(dict.fromkeys(_held[module] for module in modules.values()))
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
                changes.copied |= snapshot.copied()


class Snapshot:
    """Modules as they were, now in eval mode.

    Args:
        modules: module -> its name.
    """

    def __init__(self, modules: Mapping[nn.Module, str]) -> None:
        import torch

        self.modules = modules
        self.passes = 0
        # Shallow copies: a value that is still the same object was not replaced.
        self._attributes = list(map(vars, modules))
        self._attributes_before = list(map(dict.copy, self._attributes))
        self._structure = _structure(modules)
        self._buffers = [module._buffers for module in modules if module._buffers]
        self._buffers_before = list(map(dict, self._buffers))
        plain = _plain_tensors(self._attributes)
        buffers = [one for one in _values(self._buffers) if one is not None]
        parameters = [one for one in _values(map(_PARAMETERS, modules)) if one is not None]
        if any(type(module).__name__ in _SHARDED for module in modules):
            parameters = []
        self._tensors = SavedTensors([*buffers, *plain, *parameters])
        self._state = {id(one) for one in (*buffers, *plain, *_followers(modules, parameters))}
        with torch.no_grad():
            pairs = zip(self._tensors.tensors, self._tensors.before, strict=True)
            self._values = SavedValues(before for tensor, before in pairs if id(tensor) in self._state)
        self._parallel = [(one, one.device_ids) for one in modules if isinstance(one, torch.nn.DataParallel)]
        self._copies = Copies({module: bool(getattr(module, "training", False)) for module in modules})
        for module, flag in self._copies.flags.items():
            if flag:
                module.training = False
        for module, _ in self._parallel:
            # Called directly: its replicas would each see a part of the batch, in other threads.
            module.device_ids = []

    def put_back(self) -> list[str]:
        """Restore the modules.

        Returns:
            The names of weights that were changed and cannot be restored.
        """

        self._copies.close()
        for module, flag in self._copies.flags.items():
            if getattr(module, "training", flag) != flag:
                module.training = flag
        for module, device_ids in self._parallel:
            module.device_ids = device_ids
        is_whole = _are_same(self._structure, _structure(self.modules))
        if not _are_same(_values(self._buffers_before), _values(self._buffers)):
            for now, before in zip(self._buffers, self._buffers_before, strict=True):
                now.update(before)
        lost = self._put_back_tensors()
        if is_whole and not lost and not _are_same(_values(self._attributes_before), _values(self._attributes)):
            for own, attributes in zip(self._attributes, self._attributes_before, strict=True):
                _put_back_attributes(own, attributes)
        return self._names_of(lost) if lost else []

    def _put_back_tensors(self) -> set[int]:
        """Restore tensors; return the ids of those that were written and are not saved."""
        import torch

        with torch.no_grad():
            lost = self._tensors.move_back()
            self._values.put_back()
        if written := self._tensors.written():
            left_out = set(map(id, self._values.left_out))
            pairs = zip(self._tensors.tensors, self._tensors.before, strict=True)
            restored = {id(one) for one, before in pairs if id(one) in self._state and id(before) not in left_out}
            self._tensors.reset_versions(one for one in written if id(one) in restored)
            lost += [one for one in written if id(one) not in restored]
        return set(map(id, lost))

    def copied(self) -> set[nn.Module]:
        """Return the modules that the model has made deep copies of."""
        return set(self._copies.made.values())

    def _names_of(self, tensors: set[int]) -> list[str]:
        """Return the names of tensors, given by their ids."""
        return [
            f"{name}.{own}" if name else own
            for module, name in self.modules.items()
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
    if all(name in own or _is_plain(before[name]) for name in names):
        for name in names:
            if _is_plain(before[name]) and (own.get(name) is None or _is_plain(own[name])):
                own[name] = before[name]


def _followers(modules: Iterable[nn.Module], parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Return parameters that a pass may write: those that are not trained in a model that also has trained ones.

    Of layers that only apply their weights, as those of a frozen backbone, only parameters of the shape of a trained
    one: so the encoders of which another one is the moving average are taken, which their parent writes.
    """
    from torch import nn

    frozen = {id(one) for one in parameters if not one.requires_grad}
    shapes = {one.shape for one in parameters if one.requires_grad} if frozen else set()
    if not shapes:
        return []
    apply_only = (nn.Linear, nn.LayerNorm, nn.GroupNorm, nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase)
    return [
        one
        for module in modules
        for one in module._parameters.values()
        if one is not None and id(one) in frozen and (one.shape in shapes or not isinstance(module, apply_only))
    ]


def _structure(modules: Mapping[nn.Module, str]) -> list[Any]:
    """Return what modules are made of: their classes, their parameters and the modules in them."""
    return [*map(type, modules), *_values(map(_PARAMETERS, modules)), *_values(map(_MODULES, modules))]


def _values(mappings: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Return the values of several mappings as one list."""
    return list(itertools.chain.from_iterable(map(operator.methodcaller("values"), mappings)))


def _plain_tensors(modules: Iterable[dict[str, Any]]) -> list[torch.Tensor]:
    """Return the tensors that are plain attributes of modules, given by their attributes."""
    import torch

    # The tables of every module come first, but where some have been deleted and set again.
    count = len(vars(torch.nn.Module()))
    own = itertools.chain.from_iterable(itertools.islice(attributes.values(), count, None) for attributes in modules)
    return [value for value in own if type(value) is torch.Tensor]


def _are_same(before: Collection[Any], now: Collection[Any]) -> bool:
    """Check whether two collections hold the same objects in the same order."""
    return len(before) == len(now) and all(map(operator.is_, before, now))


def _is_plain(value: Any) -> bool:
    """Check whether a value is a number, a tensor that is no parameter, or a tuple of these."""
    import torch

    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    is_number = isinstance(value, (bool, int, float, complex))
    return is_number or (isinstance(value, torch.Tensor) and not isinstance(value, torch.nn.Parameter))
