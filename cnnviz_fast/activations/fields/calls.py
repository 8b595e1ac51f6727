"""A call of an operation, as its rule sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .reach import Reach, Whole, combined, length, plain_reach, words

if TYPE_CHECKING:
    import torch

Found = Reach | list[Reach]
"""The reach of what an operation puts out: one for all outputs, or one for each."""


@dataclass(frozen=True)
class Call:
    """A call of an operation.

    Attributes:
        name: of the operation, without its overload.
        given: its arguments by name, defaults too.
        outputs: the tensors that it put out.
        known: finds the reach of a tensor; None for one that came from no input.
    """

    name: str
    given: Mapping[str, Any]
    outputs: Sequence[torch.Tensor]
    known: Callable[[Any], Reach | None]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the first output."""
        return tuple(self.outputs[0].shape)

    @property
    def first(self) -> Reach:
        """Reach of the first argument."""
        return self.reach(next(iter(self.given.values())))

    def reach(self, tensor: torch.Tensor) -> Reach:
        """Return the reach of a tensor, whether or not it came from an input."""
        found = self.known(tensor)
        return plain_reach(tensor.shape) if found is None else found

    def dims(self, name: str) -> list[int]:
        """Return the axes of the first argument that an argument names; all where it names none."""
        ndim = len(self.first.axes)
        given = self.given.get(name)
        named = [given] if isinstance(given, int) else given or range(ndim)
        return [int(dim) % max(ndim, 1) for dim in named]

    def number(self, name: str) -> int:
        """Return an argument that is a whole number."""
        return int(self.given[name])


Rule = Callable[[Call], Found]


def elementwise(call: Call) -> Found:
    """Follow what works entry by entry."""
    taken = [call.reach(tensor) for tensor in tensors(call.given.values())]
    placed = [reach for reach in taken if reach.holds_positions()]
    if len(placed) == 1 and tuple(map(length, placed[0].axes)) == call.shape:
        return placed[0]
    return combined(taken, call.shape)


def tensors(values: Any) -> list[torch.Tensor]:
    """List the tensors among arguments, in lists too."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, (list, tuple)):
            found += tensors(value)
        elif hasattr(value, "shape") and hasattr(value, "dtype"):
            found.append(value)
    return found


def refuse(reach: Reach, dims: Sequence[int], what: str) -> None:
    """Raise Whole where any of these axes holds positions."""
    kinds = set[int]().union(*(reach.kinds(dim) for dim in dims))
    if kinds:
        raise Whole(f"{what} {words(kinds)}")
