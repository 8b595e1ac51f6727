"""The unit of work of a run, wherever it runs: the model runs on batches that were read, and files are written.

`render_shard` overlaps both: the model runs its next batch while the files of this one are written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ..errors import CaptureError, InputError, ModelFailedError, reason_of
from ..runtime import freed_memory
from ..runtime.prefetch import Ahead
from .batches import BatchWorker
from .captured import CapturedBatch
from .outcomes import FailedImage, ImageId, Outcome

if TYPE_CHECKING:
    import torch

    from ..inputs.reading import ImageBatch


def render_shard(
    worker: BatchWorker,
    reads: Iterable[ImageBatch],
    named: Callable[[int], ImageId],
    stop: threading.Event | None = None,
) -> Iterator[Outcome]:
    """Write the files of some images. The model runs in a thread of its own, one batch ahead of the files.

    Args:
        worker: the model and what is made.
        reads: batches of images as they were read, in order.
        named: position of an image -> its key, name and stem.
        stop: no further batch is begun once it is set; what is under way is finished.

    Yields:
        What became of each batch, in order.

    Raises:
        CnnvizError: an error of every image.
    """
    with freed_memory.kept():
        ahead = Ahead(_captured(worker, reads, named, stop or threading.Event()))
        try:
            for item in ahead:
                yield item if isinstance(item, Outcome) else worker.save(item)
                del item  # its maps
        except KeyboardInterrupt:
            ahead.stop()  # at once: nobody waits for the batch that the model is at
            raise
        except GeneratorExit:
            # The second signal to stop does not wait either.
            ahead.stop() if stop is not None and stop.is_set() else ahead.close()
            raise
        except BaseException:
            ahead.close()
            raise
        ahead.close()


def _captured(
    worker: BatchWorker, reads: Iterable[ImageBatch], named: Callable[[int], ImageId], stop: threading.Event
) -> Iterator[CapturedBatch | Outcome]:
    """Run the model on what was read; an image on which it fails costs the others of its batch nothing."""
    batch_size, fits = worker.output_spec.batch, worker.findings.fitting.fit
    for read in reads:
        if stop.is_set():
            return
        if read.failures:
            yield Outcome(failed=[FailedImage(named(position), reason) for position, reason in read.failures])
        for positions, batch in read.parts:
            images = [named(position) for position in positions]
            # Images of many sizes come a few at a time: filling those up would cost more than it is worth.
            fills = worker.output_spec.fills and len(read.parts) == 1
            start = 0
            while start < len(images):
                step = _Step(worker, images[start:], batch[start:])
                left = len(images) - start
                start += min(left, fits(step, max(left, batch_size) if fills else left))
                yield from step.results
                del step


class _Step:
    """Run the model on the first of some images, filled up to a size; `Fitting` finds out which size fits."""

    def __init__(self, worker: BatchWorker, images: list[ImageId], batch: torch.Tensor) -> None:
        self.worker, self.images, self.batch = worker, images, batch
        self.results: list[CapturedBatch | Outcome] = []

    def __call__(self, size: int) -> None:
        self.results = []
        count = min(size, len(self.images))
        if (reason := self._run(0, count, size)) is None:
            return
        if count == 1:
            self._note(0, reason)
            return
        reasons = [self._run(n, n + 1, size if size > count else 1) for n in range(count)]  # to see which it is
        findings = self.worker.findings
        if set(reasons) == {reason} and not (findings.done or findings.captured):
            findings.refused += count
            if findings.refused >= self.worker.output_spec.batch:
                raise CaptureError(reason)
        for n, reason in enumerate(reasons):
            if reason is not None:
                self._note(n, reason)

    def _run(self, first: int, last: int, size: int) -> str | None:
        """Run the model on images first..last-1; return why it fails, and None where it does not."""
        findings = self.worker.findings
        try:
            captured = self.worker.capture(self.images[first:last], self.batch[first:last], size)
        except ModelFailedError as error:
            raised = error.__cause__
            assert raised is not None
            if self.worker.device.is_full(raised):
                raise raised from None
            return f"the model failed: {reason_of(raised, named=True)}"
        except CaptureError as error:
            return str(error)
        except InputError as error:  # of a target: once others had it, it is this image that has not
            if self.worker.output_spec.heat is None or not (findings.done or findings.captured):
                raise
            return str(error)
        findings.captured += last - first
        self.results += captured.sound()
        return None

    def _note(self, n: int, reason: str) -> None:
        self.results.append(Outcome(failed=[FailedImage(self.images[n], reason)]))
