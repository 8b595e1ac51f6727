"""Work on many variants of an image: as many at once as were asked for, and as fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import ModelFailedError
from ..runtime.device import Device, Fitting, device_at

if TYPE_CHECKING:
    import torch

AT_ONCE = 8
"""Variants of an image in a pass: the more, the faster a GPU is; of a larger batch as many as it has images."""


def in_chunks(work: Callable[[int, int], object], count: int, device: torch.device, most: int) -> None:
    """Do some work in chunks, which are halved where memory runs out.

    Args:
        work: does units first..last-1; it may run a model. Called again for units that it did not finish.
        count: number of units.
        device: whose memory may run out.
        most: units to try at once.

    Raises:
        MemoryError: one unit does not fit.
    """
    memory = device_at(device)
    Fitting(memory, most).run(_raising(work, memory), 0, count)


def at_once(work: Callable[[int], object], device: torch.device, most: int) -> None:
    """Do some work once, on as many units as fit into memory.

    Args:
        work: does a number of units; it may run a model. Called again with half of them if memory runs out.
        device: whose memory may run out.
        most: units to try.

    Raises:
        MemoryError: one unit does not fit.
    """
    memory = device_at(device)
    Fitting(memory, most).fit(_raising(work, memory), most)


def _raising(work: Callable[..., object], memory: Device) -> Callable[..., None]:
    """Return the work, which raises what a model has raised itself where that means that memory ran out."""

    def attempt(*units: int) -> None:
        try:
            work(*units)
        except ModelFailedError as error:
            if error.__cause__ is not None and memory.is_full(error.__cause__):
                raise error.__cause__ from None
            raise

    return attempt
