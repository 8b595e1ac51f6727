"""The tail of a network: what a pass does with the output of a layer, done again with other outputs of that layer.

A pass is recorded once, operation by operation, from a tensor on that takes the place of the output. Played again, only
these operations run, on tensors of the same shapes; what they need of the part before the layer, such as the other
side of a skip connection, is remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary


@dataclass(frozen=True)
class _Slot:
    """A place for a tensor that depends on the output of the layer."""

    number: int


class _Step(NamedTuple):
    """An operation: its function, its arguments with slots in the place of tensors, and the slots of its results."""

    function: Callable[..., Any]
    args: Any
    kwargs: Any
    returned: tuple[_Slot | None, ...]

    def slots(self) -> set[_Slot]:
        """Return the slots of what it is called with."""
        return {leaf for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, _Slot)}


class Tail(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operations that depend on a tensor.

    Args:
        rows: of the batch that goes through them.

    Attributes:
        rows: as given.
        is_whole: whether all that depends on it was recorded. It is not where the model has looked at values to decide
            what to do next, or has written into a tensor that it goes on to use under another name.
    """

    def __init__(self, rows: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows = rows
        self.is_whole = True
        self._slots: Any = WeakIdKeyDictionary()
        self._steps: list[_Step] = []
        self._count = 0
        self._start: _Slot | None = None
        self._end: _Slot | None = None
        self._written: set[int] = set()  # memory that is no longer what it was before the layer ran

    def begin(self, start: torch.Tensor) -> None:
        """Record from here on what depends on a tensor, (N, ...) real dtype."""
        self._start = self._slot_for(start)

    def end(self, values: torch.Tensor) -> None:
        """Return what `values`, (N, T) float32, becomes when the tail is played."""
        self._end = self._slots.get(values)
        self.is_whole = self.is_whole and self._end is not None

    def play(self, start: torch.Tensor) -> torch.Tensor:
        """Run the tail on another output of the layer.

        Args:
            start: (N, ...) real dtype, of the shape of the tensor that it began with. It may be written to.

        Returns:
            (N, T) float32. What the values at the end become.
        """
        assert self._start is not None
        assert self._end is not None
        last = {slot: at for at, step in enumerate(self._steps) for slot in step.slots()} | {self._end: -1}
        held = {self._start: start}

        def filled(leaf: Any) -> Any:
            return held[leaf] if isinstance(leaf, _Slot) else leaf

        with torch.inference_mode(False), torch.no_grad():
            for at, step in enumerate(self._steps):
                result = step.function(*tree_map(filled, step.args), **tree_map(filled, step.kwargs))
                made = zip(step.returned, tree_leaves(result), strict=True)
                held.update((slot, each) for slot, each in made if slot in last)
                for slot in step.slots():
                    if last[slot] == at:
                        del held[slot]
        return held[self._end]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and record it where it depends on the tensor."""
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if self._start is None or self._end is not None or not any(tensor in self._slots for tensor in given):
            return func(*args, **kwargs)
        if torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags:
            self.is_whole = False
        if any(tensor not in self._slots and _memory(tensor) in self._written for tensor in given):
            self.is_whole = False
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in tree_leaves(value):
                    self._take_over(tensor)
        placed = tree_map(self._slot_of, args), tree_map(self._slot_of, kwargs)
        result = func(*args, **kwargs)
        slots = [self._slot_for(leaf) if isinstance(leaf, torch.Tensor) else None for leaf in tree_leaves(result)]
        self._steps.append(_Step(func, *placed, tuple(slots)))
        return result

    def _take_over(self, tensor: torch.Tensor) -> None:
        """Give a tensor from before the layer a slot, since the next operation writes to it; it begins as a copy."""
        if tensor not in self._slots:
            self._written.add(_memory(tensor))
            self._steps.append(_Step(torch.Tensor.clone, (tensor.clone(),), {}, (self._slot_for(tensor),)))

    def _slot_for(self, tensor: torch.Tensor) -> _Slot:
        """Return the slot of a tensor, a new one where it has none."""
        if tensor not in self._slots:
            self._slots[tensor] = _Slot(self._count)
            self._count += 1
        slot: _Slot = self._slots[tensor]
        return slot

    def _slot_of(self, leaf: Any) -> Any:
        return self._slots.get(leaf, leaf) if isinstance(leaf, torch.Tensor) else leaf


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
