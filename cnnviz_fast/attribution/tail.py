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
from torch.overrides import TorchFunctionMode
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


_TO_PYTHON = {"numpy", "tolist", "__array__", "__dlpack__"}
"""Functions that read values below where operations are seen."""


class Tail(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operations that depend on a tensor.

    Args:
        rows: of the batch that goes through them.

    Attributes:
        rows: as given.
        is_whole: whether all that depends on it was recorded. It is not where the model has looked at values to decide
            what to do next, has drawn random numbers, or has written into a tensor that it goes on to use under another
            name, or that it has used before.
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
        self._changed: set[int] = set()  # memory that the pass has written by itself, such as that of a counter
        self._used: set[int] = set()  # memory of what steps need of the part before the layer
        self._reads = _Reads(self)

    def __enter__(self) -> Tail:
        """Begin to look at operations, and at values that are read."""
        super().__enter__()  # type: ignore[no-untyped-call]
        self._reads.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *failed: Any) -> None:
        """Look no longer."""
        self._reads.__exit__(*failed)  # type: ignore[no-untyped-call]
        super().__exit__(*failed)  # type: ignore[no-untyped-call]

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
        written = _written_by(func, args)
        if self._start is None or self._end is not None or not any(tensor in self._slots for tensor in given):
            if self._end is None:
                self._note_changed(written)
            return func(*args, **kwargs)
        if torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags:
            self.is_whole = False
        if _is_random(func, args, kwargs):
            self.is_whole = False
        if any(tensor not in self._slots and _memory(tensor) in self._written for tensor in given):
            self.is_whole = False
        for tensor in written:
            self._take_over(tensor)
        placed = tree_map(self._slot_of, args), tree_map(self._slot_of, kwargs)
        result = func(*args, **kwargs)
        slots = [self._slot_for(leaf) if isinstance(leaf, torch.Tensor) else None for leaf in tree_leaves(result)]
        self._steps.append(_Step(func, *placed, tuple(slots)))
        return result

    def _take_over(self, tensor: torch.Tensor) -> None:
        """Give a tensor from before the layer a slot, since the next operation writes to it; it begins as a copy."""
        if tensor not in self._slots:
            self._note_changed([tensor])
            self._written.add(_memory(tensor))
            self._steps.append(_Step(torch.Tensor.clone, (tensor.clone(),), {}, (self._slot_for(tensor),)))

    def _slot_for(self, tensor: torch.Tensor) -> _Slot:
        """Return the slot of a tensor, a new one where it has none."""
        if tensor not in self._slots:
            self._slots[tensor] = _Slot(self._count)
            self._count += 1
        slot: _Slot = self._slots[tensor]
        return slot

    def _note_changed(self, tensors: list[torch.Tensor]) -> None:
        """Note tensors that the next operation writes: steps must not need what they held before."""
        memory = set(map(_memory, tensors))
        self._changed |= memory
        self.is_whole = self.is_whole and not memory & self._used

    def _slot_of(self, leaf: Any) -> Any:
        """Return the slot of a tensor; of one from before the layer itself, or a copy if it will not stay as it is."""
        if not isinstance(leaf, torch.Tensor) or leaf in self._slots:
            return self._slots[leaf] if isinstance(leaf, torch.Tensor) else leaf
        if _memory(leaf) in self._changed:  # a buffer gets its value back when the pass is over
            return leaf.clone()
        self._used.add(_memory(leaf))
        return leaf


class _Reads(TorchFunctionMode):
    """Notes that values which depend on the start of a tail go where no operation is seen."""

    def __init__(self, tail: Tail) -> None:
        super().__init__()
        self._tail = tail

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch."""
        if getattr(function, "__name__", "") in _TO_PYTHON and args[0] in self._tail._slots:
            self._tail.is_whole = False
        return function(*args, **(kwargs or {}))


def _written_by(func: Any, args: Any) -> list[torch.Tensor]:
    """Return the tensors that an operation writes."""
    if not func._schema.is_mutable:
        return []
    pairs = zip(func._schema.arguments, args, strict=False)
    values = [value for argument, value in pairs if argument.alias_info is not None and argument.alias_info.is_write]
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _is_random(func: Any, args: Any, kwargs: Any) -> bool:
    """Check whether an operation draws random numbers: attention may, but only where it is asked for dropout."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return False
    names = [argument.name for argument in func._schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    return "dropout_p" not in names or given.get("dropout_p", 0.0) > 0


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
