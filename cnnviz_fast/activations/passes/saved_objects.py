"""Containers, arrays, random generators and objects of its own that a model keeps, as they were before a pass.

Memory banks, histories, caches and codebooks are kept in lists, dicts and arrays too, and a layer may draw from a
generator of its own, or count in an object or a class: a pass in eval mode changes them like buffers. Notes stay, for
whoever reads them: numbers and names behind what a list held before, or in a container that was empty.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import operator
from collections.abc import Callable, Collection, Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from .own_objects import Holder, counter_at, holder_of, inside, is_installed, next_of, numbers_in, package_of
from .saved_kinds import Kind, are_same_entries, kinds

if TYPE_CHECKING:
    import torch
    from torch import nn

_MOST_VISITED = 10_000
"""Containers and objects that are looked into: a model may hold a table of a million words. Those beyond stay as the
pass leaves them."""
_CONTAINERS = (list, tuple, set, dict, collections.deque)
_ABSENT = object()


class SavedObjects:
    """Objects that can be changed in place, in attributes and in the containers that lie there.

    Args:
        attributes: of each module, by name.
        around: classes of the modules, and functions, that hold values too.
        listed: the modules.

    Attributes:
        tensors: those in containers and objects, which are no parameters, and those of modules there that are not
            listed. Their values are not saved here.
    """

    def __init__(
        self,
        attributes: Iterable[dict[str, Any]],
        around: Iterable[Any] = (),
        listed: Collection[Any] = (),
    ) -> None:
        self.tensors: list[torch.Tensor] = []
        self._saved: list[tuple[Kind, Any, Any]] = []
        self._held: list[tuple[Holder, Any, dict[Any, Any]]] = []
        self._counters: list[tuple[Callable[[Any, Any, Any], None], Any, Any, Any, str]] = []
        self._listed = listed
        self._packages = set(map(package_of, set(map(type, listed))))
        self._pending: list[Any] = list(around)
        self._seen: set[int] = set()
        internal, leaves = _names_of_torch(), _leaves()
        for own in attributes:
            for name, value in own.items():
                if type(value) not in leaves and name not in internal:
                    self._note(operator.setitem, own, name, value)
        while self._pending:
            value = self._pending.pop()
            if id(value) not in self._seen:
                self._seen.add(id(value))
                self._save(value)

    def _save(self, value: Any) -> None:
        """Save an object, and take note of what is in it."""
        write: Callable[[Any, Any, Any], None] = operator.setitem
        entries: Iterable[tuple[Any, Any]] = ()
        if (kind := kinds().get(type(value))) is not None:
            self._saved.append((kind, value, kind.save(value)))
            entries = list(value.items()) if isinstance(value, dict) else enumerate(list(_entries(value)))
        elif type(value) is tuple:
            entries = enumerate(value)
        elif isinstance(value, FunctionType):
            self._save_around(value)
        elif (holder := holder_of(value)) is not None:
            if self._is_around(value, holder):
                self._save_numbers(value)
            else:
                self._held.append((holder, value, before := holder.items(value)))
                write, entries = holder.write, before.items()
                self._pending.append(type(value))
        elif _is_module(value):
            self._note_hidden(value)
        else:
            entries = enumerate(inside(value))
        leaves = _leaves()
        for key, entry in entries if len(self._seen) < _MOST_VISITED else ():
            if _is_tensor(entry):
                self.tensors.append(entry)
            elif type(entry) not in leaves:
                self._note(write, value, key, entry)

    def _save_around(self, function: FunctionType) -> None:
        """Save the variables around a function, and numbers in what lies there, but nothing that it may collect."""
        holder = holder_of(function)
        before = {} if holder is None else holder.items(function)
        if holder is not None:
            self._held.append((holder, function, before))
        for key, value in before.items():
            if _is_tensor(value):
                self.tensors.append(value)
            elif isinstance(value, FunctionType):
                self._pending.append(value)
            elif type(value) is itertools.count and holder is not None:
                self._note(holder.write, function, key, value)
            else:
                self._save_numbers(value)

    def _save_numbers(self, value: Any) -> None:
        """Save the numbers in a list, a dict or an object alone."""
        if (holder := numbers_in(value)) is not None:
            self._held.append((holder, value, holder.items(value)))

    def _is_around(self, value: Any, holder: Holder) -> bool:
        """Check for an object that the model is a part of, and not the other way round, such as a trainer.

        It holds a layer, or is of an installed package that the model is not of. Data sets may hang on it.
        """
        if isinstance(value, type):
            return False
        package = package_of(type(value))
        if package not in self._packages and is_installed(package):
            return True
        return any(_is_module(one) and one in self._listed for one in holder.items(value).values())

    def _note(self, write: Callable[[Any, Any, Any], None], owner: Any, key: Any, value: Any) -> None:
        """Take note of a value that an owner holds."""
        if type(value) is itertools.count:
            self._counters.append((write, owner, key, value, next_of(value)))
        else:
            self._pending.append(value)

    def _note_hidden(self, module: nn.Module) -> None:
        """Take note of what a pass may write in a module that the model does not list: an average of itself, say."""
        for part in module.modules() if module not in self._listed else ():
            if part not in self._listed:
                held = (*part._buffers.values(), *part._parameters.values())
                self.tensors += (one for one in held if one is not None and not one.requires_grad)

    def put_back(self) -> None:
        """Restore what has changed, without replacing any object but counters, which only count on."""
        for kind, value, saved in self._saved:
            if kind.is_same(value, saved):
                continue
            # Copies of layers are collected, not computed with.
            if not isinstance(value, _CONTAINERS) or (is_plain(value) and not _has_notes_alone(value, saved)):
                kind.put_back(value, saved)
        for holder, value, before in self._held:
            _put_back_values(holder, value, before)
        for write, owner, key, counter, text in self._counters:
            if next_of(counter) != text and (earlier := counter_at(text)) is not None:
                with contextlib.suppress(TypeError, LookupError):  # in a tuple, or in a list that the pass shortened
                    write(owner, key, earlier)


def _put_back_values(holder: Holder, value: Any, before: dict[Any, Any]) -> None:
    """Restore the values in an object, unless one of them is more than values: others may say that it was made."""
    now = holder.items(value)
    if before.keys() == now.keys() and all(map(operator.is_, before.values(), now.values())):
        return
    changed = [key for key in {**before, **now} if before.get(key, _ABSENT) is not now.get(key, _ABSENT)]
    if all(_is_value(each.get(key)) for key in changed for each in (before, now)):
        for key in changed:
            if key in before:
                holder.write(value, key, before[key])
            else:
                holder.remove(value, key)


def _is_value(value: Any) -> bool:
    import torch

    return value is None or isinstance(value, (torch.dtype, torch.device, torch.Size)) or is_plain(value)


def _is_tensor(value: Any) -> bool:
    import torch

    return type(value) is torch.Tensor


def _is_module(value: Any) -> bool:
    from torch import nn

    return isinstance(value, nn.Module)


def _entries(value: Any) -> Iterable[Any]:
    """Return what is in a container; nothing of any other value."""
    if not isinstance(value, _CONTAINERS):
        return ()
    return value.values() if isinstance(value, dict) else value


@functools.cache
def _names_of_torch() -> frozenset[str]:
    """Return the names of the attributes that every module has: its tables of layers, tensors and hooks."""
    from torch import nn

    return frozenset(vars(nn.Module()))


@functools.cache
def _leaves() -> frozenset[type]:
    """Return the classes of values in which nothing is looked for; tensors are dealt with apart."""
    import torch

    numbers = (type(None), bool, int, float, complex, str, bytes)
    code = (type, ModuleType, BuiltinFunctionType)
    return frozenset((*numbers, *code, torch.Tensor, torch.nn.Parameter, torch.dtype, torch.device, torch.Size))


def _has_notes_alone(container: Any, saved: Any) -> bool:
    """Check whether nothing has changed in a container but for what was added behind, in which there are no tensors."""
    if not isinstance(container, list):
        return not saved and not holds_values(container)
    before = len(saved)
    return are_same_entries(container[:before], saved) and not holds_values(container[before:])


def is_plain(value: Any) -> bool:
    """Check whether a value is a number, a text, an array, a tensor that is no parameter, or made of these alone.

    Args:
        value: of an attribute of a module.

    Returns:
        True for an empty container too; a container, or an object of one's own, may hold None.
    """
    import torch

    atoms = (bool, int, float, complex, str, bytes, np.ndarray, np.generic, torch.Tensor)
    return all(isinstance(one, atoms) and not isinstance(one, torch.nn.Parameter) for one in _parts(value))


def holds_values(value: Any) -> bool:
    """Check whether a value is a tensor or an array, or a container in which there is one."""
    import torch

    return any(isinstance(one, (torch.Tensor, np.ndarray)) for one in _parts(value))


def _parts(value: Any) -> Iterator[Any]:
    """List what is in a container or an object, and in those in it, without None; a value that is neither itself."""
    pending, seen = [value], set()  # a list may hold itself
    while pending:
        one = pending.pop()
        if type(one) in _leaves():
            yield one
            continue
        holder = None if isinstance(one, (*_CONTAINERS, type, FunctionType)) else holder_of(one)
        if holder is None and not isinstance(one, _CONTAINERS):
            yield one
        elif id(one) not in seen:
            seen.add(id(one))
            entries = _entries(one) if holder is None else holder.items(one).values()
            pending.extend(entry for entry in entries if entry is not None)


def is_empty(value: Any) -> bool:
    """Check whether a value is a container without entries."""
    return isinstance(value, _CONTAINERS) and not value
