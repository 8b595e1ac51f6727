"""Containers, arrays and random generators that a model keeps in plain attributes, as they were before a pass.

Memory banks, histories, caches and codebooks are kept in lists, dicts and arrays too, and a layer may draw from a
generator of its own: a pass in eval mode changes them like buffers. Notes stay, for whoever reads them: numbers and
names behind what a list held before, or in a container that was empty.
"""

from __future__ import annotations

import collections
import copy
import functools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch

_MOST_VISITED = 10_000
"""Entries of containers that are looked into: a model may hold a table of a million words."""
_MOST_BYTES = 2**26
"""Largest array that is copied."""
_CONTAINERS = (list, tuple, set, dict, collections.deque)


class _Kind(NamedTuple):
    """How objects of a class are saved, told apart from what was saved, and put back."""

    save: Callable[[Any], Any]
    is_same: Callable[[Any, Any], bool]
    put_back: Callable[[Any, Any], None]


class SavedObjects:
    """Objects that can be changed in place, in attributes and in the containers that lie there.

    Args:
        attributes: of each module, by name.

    Attributes:
        tensors: those in containers, which are no parameters. Their values are not saved here.
    """

    def __init__(self, attributes: Iterable[Mapping[str, Any]]) -> None:
        import torch

        kinds, internal = _kinds(), _names_of_torch()
        looked_at = {*kinds, tuple}
        pending = [
            value
            for own in attributes
            for name, value in own.items()
            if type(value) in looked_at and name not in internal
        ]
        self.tensors: list[torch.Tensor] = []
        self._saved: list[tuple[_Kind, Any, Any]] = []
        seen: set[int] = set()
        while pending:
            value = pending.pop()
            if id(value) in seen:
                continue
            seen.add(id(value))
            if (kind := kinds.get(type(value))) is not None:
                self._saved.append((kind, value, kind.save(value)))
            for entry in _entries(value) if len(seen) < _MOST_VISITED else ():
                if type(entry) is torch.Tensor:
                    self.tensors.append(entry)
                elif type(entry) in looked_at:
                    pending.append(entry)

    def put_back(self) -> None:
        """Restore what has changed, without replacing any object."""
        for kind, value, saved in self._saved:
            if kind.is_same(value, saved):
                continue
            # Copies of layers are collected, not computed with.
            if not isinstance(value, _CONTAINERS) or (is_plain(value) and not _has_notes_alone(value, saved)):
                kind.put_back(value, saved)


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
def _kinds() -> dict[type, _Kind]:
    import torch

    ordered = _Kind(list, _are_same_entries, _refill)
    table = _Kind(lambda table: list(table.items()), _are_same_items, _refill)
    return {
        list: ordered,
        collections.deque: ordered,
        set: _Kind(set, lambda value, saved: bool(value == saved), _refill),
        **dict.fromkeys((dict, collections.OrderedDict, collections.defaultdict, collections.Counter), table),
        np.ndarray: _Kind(_copied_array, _is_same_array, _write_array),
        torch.Generator: _Kind(
            lambda generator: generator.get_state(),
            lambda generator, saved: torch.equal(generator.get_state(), saved),
            lambda generator, saved: generator.set_state(saved),
        ),
        random.Random: _Kind(
            random.Random.getstate,
            lambda generator, saved: bool(generator.getstate() == saved),
            random.Random.setstate,
        ),
        # Drawing changes them in any case, and their states are dicts of arrays: put back without a comparison.
        np.random.Generator: _Kind(
            lambda generator: copy.deepcopy(generator.bit_generator.state),
            lambda generator, saved: False,
            lambda generator, saved: setattr(generator.bit_generator, "state", saved),
        ),
        np.random.RandomState: _Kind(
            lambda generator: generator.get_state(legacy=False),
            lambda generator, saved: False,
            lambda generator, saved: generator.set_state(saved),
        ),
    }


def _are_same_entries(value: Any, saved: list[Any]) -> bool:
    return len(value) == len(saved) and all(now is before for now, before in zip(value, saved, strict=True))


def _are_same_items(table: Mapping[Any, Any], saved: list[tuple[Any, Any]]) -> bool:
    return len(table) == len(saved) and all(
        now[0] is before[0] and now[1] is before[1] for now, before in zip(table.items(), saved, strict=True)
    )


def _refill(container: Any, saved: Any) -> None:
    container.clear()
    if isinstance(container, collections.Counter):
        dict.update(container, saved)  # its own `update` adds
    elif isinstance(container, (set, dict)):
        container.update(saved)
    else:
        container.extend(saved)


def _copied_array(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    return array.copy() if array.nbytes <= _MOST_BYTES and array.flags.writeable else None


def _is_same_array(array: np.ndarray[Any, Any], saved: np.ndarray[Any, Any] | None) -> bool:
    if saved is None or array.shape != saved.shape:  # too large, or resized, which cannot be undone beside its views
        return True
    return array.tobytes() == saved.tobytes() if array.dtype.kind != "O" else False


def _write_array(array: np.ndarray[Any, Any], saved: np.ndarray[Any, Any]) -> None:
    array[...] = saved


def _has_notes_alone(container: Any, saved: Any) -> bool:
    """Check whether nothing has changed in a container but for what was added behind, in which there are no tensors."""
    if not isinstance(container, list):
        return not saved and not holds_values(container)
    before = len(saved)
    return _are_same_entries(container[:before], saved) and not holds_values(container[before:])


def is_plain(value: Any) -> bool:
    """Check whether a value is a number, a text, an array, a tensor that is no parameter, or a container of these.

    Args:
        value: of an attribute of a module.

    Returns:
        True for an empty container too; a container may hold None.
    """
    import torch

    atoms = (bool, int, float, complex, str, bytes, np.ndarray, np.generic, torch.Tensor)
    return all(isinstance(one, atoms) and not isinstance(one, torch.nn.Parameter) for one in _parts(value))


def holds_values(value: Any) -> bool:
    """Check whether a value is a tensor or an array, or a container in which there is one."""
    import torch

    return any(isinstance(one, (torch.Tensor, np.ndarray)) for one in _parts(value))


def _parts(value: Any) -> Iterator[Any]:
    """List what is in a container, and in the containers in it, without None; a value that is none itself."""
    pending, seen = [value], set()  # a list may hold itself
    while pending:
        one = pending.pop()
        if not isinstance(one, _CONTAINERS):
            yield one
        elif id(one) not in seen:
            seen.add(id(one))
            pending.extend(entry for entry in _entries(one) if entry is not None)


def is_empty(value: Any) -> bool:
    """Check whether a value is a container without entries."""
    return isinstance(value, _CONTAINERS) and not value
