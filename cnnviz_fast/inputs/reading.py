"""Batches of images, decoded and preprocessed by readers ahead of the model that takes them."""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import DTypeError, ImageError, InputError, ShapeError, reason_of
from ..models.preprocess import Preprocess
from .catalogue import Catalogue
from .images import model_input, preprocessed_input
from .in_memory import is_tensor
from .reader_process import BETWEEN, Notes
from .readers import POLL_S, Readers

Read = Callable[[int], torch.Tensor]
"""Position -> (3, H, W) float32, or (3, T, H, W)."""

CLOSING_S = 2.0
"""How long closing waits for the end of reading. Only an image that hangs with workers=0 goes on after that."""


@dataclass(frozen=True)
class ImageBatch:
    """A batch as it was read.

    Attributes:
        parts: positions, and (n, 3, H, W) float32 or (n, 3, T, H, W); one part for each size of image.
        failures: position, and why it could not be read, in one line.
        seconds: spent on decoding and preprocessing.
    """

    parts: list[tuple[list[int], torch.Tensor]]
    failures: list[tuple[int, str]]
    seconds: float


class ImageReader:
    """Reads the images of a catalogue."""

    def __init__(self, catalogue: Catalogue, preprocess: Preprocess, max_pixels: int) -> None:
        self._catalogue, self._preprocess, self._max_pixels = catalogue, preprocess, max_pixels

    def __call__(self, position: int) -> torch.Tensor:
        """Decode and preprocess the image at a position; raise InputError where that cannot be done."""
        return _only(model_input(self._catalogue[position].open(), self._preprocess, self._max_pixels))


class DatasetReader:
    """Reads the images of a torch Dataset that takes positions.

    A sample is anything that `load_images` takes as one image; a float tensor counts as preprocessed. Or it is a tuple
    or a list that begins with an image, or a mapping that has one under "image", "pixel_values" or its first key.
    """

    def __init__(self, dataset: Any, preprocess: Preprocess, max_pixels: int) -> None:
        self._dataset, self._preprocess, self._max_pixels = dataset, preprocess, max_pixels

    def __call__(self, position: int) -> torch.Tensor:
        """Decode and preprocess the sample at a position; raise InputError, or what the Dataset raises."""
        return _only(model_input(image_in(self._dataset[position]), self._preprocess, self._max_pixels))


def read_batches(
    read: Read,
    batches: Sequence[Sequence[int]],
    *,
    workers: int,
    timeout_s: float,
    pin: bool = False,
    ahead: int = 2,
    stop: threading.Event | None = None,
) -> Iterator[ImageBatch]:
    """Read batches in readers, ahead of the caller.

    An image that cannot be read, or at which its reader crashes or hangs, is a failure of that image alone. A caller
    that stops before the end closes the generator (contextlib.closing), which takes less than 2 s.

    Args:
        read: position -> (3, H, W) float32. It has to pickle where processes are not forked.
        batches: the positions of each batch.
        workers: how many readers (processes); 0 reads in a thread, which survives no crash and ends no hang.
        timeout_s: after which an image counts as hung.
        pin: put the batches into pinned memory where there is CUDA.
        ahead: batches that wait for the caller, besides at most two a reader.
        stop: set it, from any thread, to end the batches, also while one is waited for.

    Yields:
        Each batch, in the order of `batches`.

    Raises:
        ImageError: readers cannot be started, or die again and again while they are at no image.
    """
    readers = Readers(_Task(read, batches), len(batches), readers=workers, timeout_s=timeout_s)
    feed = _Feed(readers, pin and torch.cuda.is_available(), max(ahead, 1))
    atexit.register(feed.close)  # ends the readers of a generator that is still there when Python ends
    try:
        yield from feed.taken(stop or threading.Event())
    finally:
        atexit.unregister(feed.close)
        feed.close()


def read_loader(loader: Iterable[Any], skip: Callable[[int], bool]) -> Iterator[ImageBatch]:
    """Return batches from a DataLoader of the caller's, or from any iterable of such batches.

    Args:
        loader: gives float tensors (N, 3, H, W) or (N, 3, T, H, W), which count as preprocessed; or tuples or lists
            that begin with one; or mappings that have one under "image", "pixel_values", or their first key.
        skip: whether the sample at a position, counted from 0 over all batches, is left out.

    Yields:
        Each batch, without failures; its seconds are those spent waiting for the loader.

    Raises:
        DTypeError: a batch is not a float tensor.
        ShapeError: it has another shape.
    """
    first = 0
    source = iter(loader)
    while True:
        started = time.perf_counter()
        try:
            batch = image_in(next(source))
        except StopIteration:
            return
        seconds = time.perf_counter() - started
        if not is_tensor(batch) or not batch.is_floating_point():
            kind = str(batch.dtype) if is_tensor(batch) else type(batch).__name__
            raise DTypeError(f"a loader's batches must be float tensors, which count as preprocessed, got {kind}.")
        images = preprocessed_input(batch.detach())
        kept = [i for i in range(len(images)) if not skip(first + i)]
        part = images if len(kept) == len(images) else images[kept]
        yield ImageBatch([([first + i for i in kept], part)] if kept else [], [], seconds)
        first += len(images)


@dataclass(frozen=True)
class _Task:
    """Reads one batch, in a reader."""

    read: Read
    batches: Sequence[Sequence[int]]

    def __call__(self, index: int, lost: Mapping[int, str], notes: Notes) -> ImageBatch:
        """Read each image of a batch that can be read, and note of the others why not."""
        started = time.perf_counter()
        by_size: dict[object, tuple[list[int], list[torch.Tensor]]] = {}
        failures = []
        for position in self.batches[index]:
            if position in lost:
                failures.append((position, lost[position]))
                continue
            notes.begin(position)
            try:
                image = self.read(position).detach().float().cpu()
            except BaseException as error:  # a user's own may exit
                failures.append((position, reason_of(error, named=not isinstance(error, InputError))))
                continue
            positions, images = by_size.setdefault(image.shape, ([], []))
            positions.append(position)
            images.append(image)
        notes.enter(BETWEEN)
        parts = [(positions, _stacked(images, notes.shared)) for positions, images in by_size.values()]
        return ImageBatch(parts, failures, time.perf_counter() - started)


def _stacked(images: list[torch.Tensor], shared: bool) -> torch.Tensor:
    """Stack images (3, ...) float32 into a batch, in shared memory where it goes to another process."""
    if not shared:
        return torch.stack(images)
    batch = torch.empty((len(images), *images[0].shape))
    batch.share_memory_()  # type: ignore[no-untyped-call]  # before it is filled: sending it then copies nothing
    return torch.stack(images, out=batch)


class _Feed:
    """A thread that takes batches from readers, and holds a few until the caller takes them."""

    def __init__(self, readers: Readers[ImageBatch], pin: bool, ahead: int) -> None:
        self._readers, self._pin = readers, pin
        self._room = threading.Semaphore(ahead)
        self._arrived: queue.SimpleQueue[ImageBatch | BaseException | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="cnnviz reading", daemon=True)
        self._thread.start()

    def taken(self, stop: threading.Event) -> Iterator[ImageBatch]:
        """Return each batch as it arrives, until there are no more or `stop` is set."""
        while (arrived := self._next(stop)) is not None:
            if isinstance(arrived, BaseException):
                raise arrived
            self._room.release()
            yield arrived

    def _next(self, stop: threading.Event) -> ImageBatch | BaseException | None:
        while not stop.is_set():
            with contextlib.suppress(queue.Empty):
                return self._arrived.get(timeout=POLL_S)
        return None

    def close(self) -> None:
        """Stop, and wait for the end."""
        self._closed = True
        self._readers.stop()
        self._room.release()
        self._thread.join(CLOSING_S)

    def _run(self) -> None:
        try:
            with contextlib.closing(self._readers.results()) as results:
                while self._room.acquire() and not self._closed and (read := next(results, None)) is not None:
                    self._arrived.put(_pinned(read) if self._pin else read)
            self._arrived.put(None)
        except BaseException as error:
            self._arrived.put(error)


def _pinned(read: ImageBatch) -> ImageBatch:
    """Copy a batch to pinned memory."""
    return ImageBatch([(positions, part.pin_memory()) for positions, part in read.parts], read.failures, read.seconds)


def image_in(sample: Any) -> Any:
    """Return the image in a sample: the first of a tuple or list, by name from a mapping, or the sample itself."""
    if isinstance(sample, Mapping):
        named = [key for key in ("image", "pixel_values") if key in sample]
        entries = [sample[key] for key in named or list(sample)[:1]]
    elif isinstance(sample, tuple | list):
        entries = list(sample[:1])
    else:
        return sample
    if not entries:
        raise ImageError(f"a sample must hold an image, got an empty {type(sample).__name__}.")
    return entries[0]


def _only(images: torch.Tensor) -> torch.Tensor:
    """Return the one image of a batch of one."""
    if len(images) != 1:
        raise ShapeError(f"a sample must be one image, got a batch {tuple(images.shape)}.")
    return images[0]
