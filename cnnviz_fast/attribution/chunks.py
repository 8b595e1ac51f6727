"""Work on many variants of an image: as many at once as were asked for, and as fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import ModelFailedError
from ..runtime.device import Fitting, device_at

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

    def attempt(first: int, last: int) -> None:
        try:
            work(first, last)
        except ModelFailedError as error:
            if error.__cause__ is not None and memory.is_full(error.__cause__):
                raise error.__cause__ from None
            raise

    Fitting(memory, most).run(attempt, 0, count)
