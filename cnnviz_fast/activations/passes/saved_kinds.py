"""How containers, arrays and random generators are saved, compared with what was saved, and put back."""

from __future__ import annotations

import array
import collections
import copy
import functools
import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

_MOST_BYTES = 2**26
"""Largest array that is copied."""


class Kind(NamedTuple):
    """How objects of a class are saved, compared with what was saved, and put back."""

    save: Callable[[Any], Any]
    is_same: Callable[[Any, Any], bool]
    put_back: Callable[[Any, Any], None]


@functools.cache
def kinds() -> dict[type, Kind]:
    """Return how objects of each class are saved, but not of classes that inherit from these."""
    import torch

    ordered = Kind(list, are_same_entries, _refill)
    table = Kind(lambda table: list(table.items()), _are_same_items, _refill)
    return {
        list: ordered,
        collections.deque: ordered,
        set: Kind(set, lambda value, saved: bool(value == saved), _refill),
        **dict.fromkeys((dict, collections.OrderedDict, collections.defaultdict, collections.Counter), table),
        **dict.fromkeys((bytearray, array.array), Kind(_copied_items, _begins_with, _write_items)),
        np.ndarray: Kind(_copied_array, _is_same_array, _write_array),
        torch.Generator: Kind(
            lambda generator: generator.get_state(),
            lambda generator, saved: torch.equal(generator.get_state(), saved),
            lambda generator, saved: generator.set_state(saved),
        ),
        random.Random: Kind(
            random.Random.getstate,
            lambda generator, saved: bool(generator.getstate() == saved),
            random.Random.setstate,
        ),
        # Drawing changes them in any case, and their states are dicts of arrays: put back without a comparison.
        np.random.Generator: Kind(
            lambda generator: copy.deepcopy(generator.bit_generator.state),
            lambda generator, saved: False,
            lambda generator, saved: setattr(generator.bit_generator, "state", saved),
        ),
        np.random.RandomState: Kind(
            lambda generator: generator.get_state(legacy=False),
            lambda generator, saved: False,
            lambda generator, saved: generator.set_state(saved),
        ),
    }


def are_same_entries(value: Any, saved: list[Any]) -> bool:
    """Check whether a container holds the same objects in the same order."""
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


def _copied_items(values: Any) -> Any:
    return values[:] if memoryview(values).nbytes <= _MOST_BYTES else None


def _begins_with(values: Any, saved: Any) -> bool:
    """Check whether an array of Python's own holds what it did; notes behind that stay."""
    return saved is None or bool(values[: len(saved)] == saved)


def _write_items(values: Any, saved: Any) -> None:
    values[: len(saved)] = saved


def _copied_array(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    return values.copy() if values.nbytes <= _MOST_BYTES and values.flags.writeable else None


def _is_same_array(values: np.ndarray[Any, Any], saved: np.ndarray[Any, Any] | None) -> bool:
    if saved is None or values.shape != saved.shape:  # too large, or resized, which cannot be undone beside its views
        return True
    return values.tobytes() == saved.tobytes() if values.dtype.kind != "O" else False


def _write_array(values: np.ndarray[Any, Any], saved: np.ndarray[Any, Any]) -> None:
    values[...] = saved
