"""Stage 2 of 7, reading: the pictures of a run, decoded and preprocessed ahead of the model, in batches."""

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
from torch.utils.data import default_collate

from ..errors import DTypeError, ImageError, InputError, ShapeError, reason_of
from ..models.preprocess import Preprocess
from .catalogue import Catalogue
from .images import model_input, preprocessed_input
from .in_memory import is_tensor
from .read_workers import POLL_S, Notes, Workers

Reader = Callable[[int], torch.Tensor]
"""Position -> (3, H, W) float32, or (3, T, H, W)."""

CLOSING_S = 2.0
"""How long it is waited for the end of reading. Only a picture that hangs with workers=0 is left behind then."""


@dataclass(frozen=True)
class ImageBatch:
    """A batch as it was read.

    Attributes:
        parts: positions, and (n, 3, H, W) float32 or (n, 3, T, H, W); one part for each size of picture, in order of
            positions.
        failures: position, and why it could not be read, in one line.
        seconds: spent decoding and preprocessing, summed over workers.
    """

    parts: list[tuple[list[int], torch.Tensor]]
    failures: list[tuple[int, str]]
    seconds: float


class ImageReader:
    """Reads the pictures of a catalogue."""

    def __init__(self, catalogue: Catalogue, preprocess: Preprocess, max_pixels: int) -> None:
        self._catalogue, self._preprocess, self._max_pixels = catalogue, preprocess, max_pixels

    def __call__(self, position: int) -> torch.Tensor:
        """Decode and preprocess the picture at a position; raise InputError where that cannot be done."""
        return _only(model_input(self._catalogue[position].open(), self._preprocess, self._max_pixels))


class DatasetReader:
    """Reads the pictures of a torch Dataset that takes positions.

    A sample may be whatever `load_images` takes as one picture, a float tensor among it, which counts as preprocessed;
    or a tuple or list that begins with it; or a mapping that has it under "image", "pixel_values", or its first key.
    """

    def __init__(self, dataset: Any, preprocess: Preprocess, max_pixels: int) -> None:
        self._dataset, self._preprocess, self._max_pixels = dataset, preprocess, max_pixels

    def __call__(self, position: int) -> torch.Tensor:
        """Decode and preprocess the sample at a position; raise InputError, or what the Dataset raises."""
        return _only(model_input(image_in(self._dataset[position]), self._preprocess, self._max_pixels))


def read_batches(
    read: Reader,
    batches: Sequence[Sequence[int]],
    *,
    workers: int,
    timeout_s: float,
    pin: bool = False,
    ahead: int = 2,
    stop: threading.Event | None = None,
) -> Iterator[ImageBatch]:
    """Read batches in worker processes, ahead of who takes them.

    A picture that cannot be read, or that its worker crashes or hangs at, is a failure of its batch and of nothing
    else. Whoever stops before the end closes the generator (contextlib.closing), which takes less than 2 s.

    Args:
        read: position -> (3, H, W) float32. It has to pickle where processes are not forked.
        batches: the positions of each batch.
        workers: how many processes; 0 reads in a thread, where crashes are not survived, and hangs last.
        timeout_s: after which a picture counts as hung.
        pin: whether the batches shall lie in pinned memory; they do where there is CUDA.
        ahead: batches that wait to be taken, beside at most two a worker.
        stop: set it to end the batches, also while one is waited for.

    Yields:
        Each batch, in their order.

    Raises:
        ImageError: workers cannot be started, or die again and again while they are at no picture.
    """
    task = _Task(read, batches)
    source = Workers(task, len(batches), workers=workers, timeout_s=timeout_s)
    feed = _Feed(source, pin and torch.cuda.is_available(), max(ahead, 1))
    atexit.register(feed.close)  # for a generator that is still there when Python ends, before it ends the workers
    try:
        yield from feed.taken(stop or threading.Event())
    finally:
        atexit.unregister(feed.close)
        feed.close()


def read_loader(loader: Iterable[Any], skip: Callable[[int], bool]) -> Iterator[ImageBatch]:
    """Take batches from a DataLoader of the caller's, or from anything that gives such batches.

    Args:
        loader: gives float tensors (N, 3, H, W) or (N, 3, T, H, W), which count as preprocessed; or tuples or lists
            that begin with one; or mappings that have one under "image", "pixel_values", or their first key.
        skip: whether the sample at a position, counted from 0 over all batches, is left out.

    Yields:
        Each batch, without failures; its seconds are those that the loader was waited for.

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
        pictures = preprocessed_input(batch.detach())
        kept = [i for i in range(len(pictures)) if not skip(first + i)]
        part = pictures if len(kept) == len(pictures) else pictures[kept]
        yield ImageBatch([([first + i for i in kept], part)] if kept else [], [], seconds)
        first += len(pictures)


@dataclass(frozen=True)
class _Task:
    """Reads one batch, in a worker."""

    read: Reader
    batches: Sequence[Sequence[int]]

    def __call__(self, index: int, lost: Mapping[int, str], notes: Notes) -> ImageBatch:
        """Read what can be read of a batch, and say of the rest why not."""
        started = time.perf_counter()
        by_size: dict[object, tuple[list[int], list[torch.Tensor]]] = {}
        failures = []
        for position in self.batches[index]:
            if position in lost:
                failures.append((position, lost[position]))
                continue
            notes.begin(position)
            try:
                picture = self.read(position).detach().float().cpu()
            except BaseException as error:  # a user's own may exit
                failures.append((position, reason_of(error, named=not isinstance(error, InputError))))
                continue
            positions, pictures = by_size.setdefault(picture.shape, ([], []))
            positions.append(position)
            pictures.append(picture)
        notes.end()
        # In a worker, default_collate stacks into shared memory: nothing is copied on the way out.
        parts = [(positions, default_collate(pictures)) for positions, pictures in by_size.values()]
        return ImageBatch(parts, failures, time.perf_counter() - started)


class _Feed:
    """A thread that takes batches from workers, and holds a few until they are taken."""

    def __init__(self, source: Workers[ImageBatch], pin: bool, ahead: int) -> None:
        self._source, self._pin = source, pin
        self._room = threading.Semaphore(ahead)
        self._arrived: queue.SimpleQueue[ImageBatch | BaseException | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="cnnviz reading", daemon=True)
        self._thread.start()

    def taken(self, stop: threading.Event) -> Iterator[ImageBatch]:
        """Give each batch as it arrives, until there are no more or nobody wants them."""
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
        self._source.stop()
        self._room.release()
        self._thread.join(CLOSING_S)

    def _run(self) -> None:
        try:
            with contextlib.closing(self._source.results()) as results:
                while self._room.acquire() and not self._closed and (read := next(results, None)) is not None:
                    self._arrived.put(_pinned(read) if self._pin else read)
            self._arrived.put(None)
        except BaseException as error:
            self._arrived.put(error)


def _pinned(read: ImageBatch) -> ImageBatch:
    """Copy a batch to pinned memory."""
    return ImageBatch([(positions, part.pin_memory()) for positions, part in read.parts], read.failures, read.seconds)


def image_in(sample: Any) -> Any:
    """Give the picture in a sample: a tuple's or a list's first, a mapping's by its name, anything else itself."""
    if isinstance(sample, Mapping):
        named = [key for key in ("image", "pixel_values") if key in sample]
        entries = [sample[key] for key in named or list(sample)[:1]]
    elif isinstance(sample, tuple | list):
        entries = list(sample[:1])
    else:
        return sample
    if not entries:
        raise ImageError(f"a sample must hold a picture, got an empty {type(sample).__name__}.")
    return entries[0]


def _only(pictures: torch.Tensor) -> torch.Tensor:
    """Give the one picture of a batch of one."""
    if len(pictures) != 1:
        raise ShapeError(f"a sample must be one picture, got a batch {tuple(pictures.shape)}.")
    return pictures[0]
