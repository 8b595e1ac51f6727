"""A batch on which the model ran: what is kept of it until its files are written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from .outcomes import FailedImage, ImageId, Outcome

if TYPE_CHECKING:
    import torch

    from .attributed import HeatBatch


class CapturedBatch(NamedTuple):
    """The activations of the layers for some images.

    ready: mark on the model's stream behind all of it.
    heat: heat maps of the images; None without.
    """

    images: list[ImageId]
    activations: dict[str, torch.Tensor]
    shape: tuple[int, ...]
    samples: torch.Tensor | None
    ready: Any
    heat: HeatBatch | None = None

    def part(self, first: int, last: int) -> CapturedBatch:
        """Return the part of images first..last-1."""
        count = len(self.images)
        activations = {layer: part_of(each, count, first, last) for layer, each in self.activations.items()}
        samples = None if self.samples is None else self.samples[first:last]
        heat = None if self.heat is None else self.heat.part(first, last)
        shape = (last - first, *self.shape[1:])
        return CapturedBatch(self.images[first:last], activations, shape, samples, self.ready, heat)

    def sound(self) -> Iterator[CapturedBatch | Outcome]:
        """Yield the parts of images whose heat maps mean something, and what became of the others, in order."""
        first = 0
        for n, reason in enumerate([] if self.heat is None else self.heat.faults()):
            if reason is not None:
                if n > first:
                    yield self.part(first, n)
                yield Outcome(failed=[FailedImage(self.images[n], reason)])
                first = n + 1
        if not first:
            yield self
        elif first < len(self.images):
            yield self.part(first, len(self.images))


def part_of(activations: torch.Tensor, count: int, first: int, last: int) -> torch.Tensor:
    """Return the activations for some images; those of windows have several entries each.

    Args:
        activations: (N * windows, ...) real dtype.
        count: number of images, N.
        first: of the images.
        last: the image behind the last.

    Returns:
        Those of images first..last-1: a view.
    """
    each = len(activations) // count
    return activations[first * each : last * each]
