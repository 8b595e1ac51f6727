"""The unit of work of a run, wherever it runs: the model's passes over what was read, and the files behind them.

`render_shard` overlaps both: the model runs its next batch while the files of this one are made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ..errors import CaptureError, ModelFailedError, reason_of
from ..runtime.prefetch import Ahead
from .batches import BatchWorker, CapturedBatch, FailedImage, ImageId, Outcome

if TYPE_CHECKING:
    import torch

    from ..inputs.reading import ImageBatch


def render_shard(
    work: BatchWorker, reads: Iterable[ImageBatch], named: Callable[[int], ImageId], stop: threading.Event | None = None
) -> Iterator[Outcome]:
    """Make the files of some pictures. The model runs in a thread of its own, one batch ahead of the files.

    Args:
        work: the model and what is made.
        reads: batches of pictures as they were read, in order.
        named: position of a picture -> its names.
        stop: set it to have no further batch begun; what is under way is finished.

    Yields:
        What became of each batch, in order.

    Raises:
        CnnvizError: what would go wrong with every other picture too.
    """
    ahead = Ahead(_captured(work, reads, named, stop or threading.Event()))
    try:
        for item in ahead:
            yield item if isinstance(item, Outcome) else work.save(item)
            del item  # its maps
    except KeyboardInterrupt:
        ahead.stop()  # at once: nobody waits for the batch that the model is at
        raise
    except GeneratorExit:
        # Whoever is told to stop a second time does not wait either.
        ahead.stop() if stop is not None and stop.is_set() else ahead.close()
        raise
    except BaseException:
        ahead.close()
        raise
    ahead.close()


def _captured(
    work: BatchWorker, reads: Iterable[ImageBatch], named: Callable[[int], ImageId], stop: threading.Event
) -> Iterator[CapturedBatch | Outcome]:
    """Run the model on what was read; pictures on which it fails are told from those that stood beside them."""
    for read in reads:
        if stop.is_set():
            return
        if read.failures:
            yield Outcome(failed=[FailedImage(named(position), reason) for position, reason in read.failures])
        for positions, batch in read.parts:
            pictures = [named(position) for position in positions]
            # Pictures of many sizes come a few at a time: filling those up would cost more than it is worth.
            fills = work.fills and len(read.parts) == 1
            start = 0
            while start < len(pictures):
                step = _Step(work, pictures[start:], batch[start:])
                left = len(pictures) - start
                start += min(left, work.fitting.fit(step, max(left, work.output_spec.batch) if fills else left))
                yield from step.results
                del step


class _Step:
    """Run the model on the first of some pictures, filled up to so many; `Fitting` finds out how many fit."""

    def __init__(self, work: BatchWorker, pictures: list[ImageId], batch: torch.Tensor) -> None:
        self.work, self.pictures, self.batch = work, pictures, batch
        self.results: list[CapturedBatch | Outcome] = []

    def __call__(self, size: int) -> None:
        self.results = []
        count = min(size, len(self.pictures))
        if (reason := self._run(0, count, size)) is None:
            return
        if count == 1:
            self._note(0, reason)
            return
        reasons = [self._run(n, n + 1, size if size > count else 1) for n in range(count)]  # to see which it is
        if set(reasons) == {reason} and not (self.work.done or self.work.captured):
            self.work.refused += count
            if self.work.refused >= self.work.output_spec.batch:
                raise CaptureError(reason)
        for n, reason in enumerate(reasons):
            if reason is not None:
                self._note(n, reason)

    def _run(self, first: int, last: int, size: int) -> str | None:
        """Run the model on pictures first..last-1; return why it fails, and None where it does not."""
        try:
            captured = self.work.capture(self.pictures[first:last], self.batch[first:last], size)
        except ModelFailedError as error:
            raised = error.__cause__
            assert raised is not None
            if self.work.device.is_full(raised):
                raise raised from None
            return f"the model failed: {reason_of(raised, named=True)}"
        except CaptureError as error:
            return str(error)
        self.work.captured += last - first
        self.results.append(captured)
        return None

    def _note(self, n: int, reason: str) -> None:
        self.results.append(Outcome(failed=[FailedImage(self.pictures[n], reason)]))
