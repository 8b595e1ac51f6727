"""Batches of images, decoded and preprocessed by readers ahead of the model that takes them."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import InputError, ShapeError, reason_of
from . import unnamed_memory
from .catalogue import Catalogue
from .images import InputSpec, usual_spec
from .in_memory import is_tensor
from .reader_process import BETWEEN, Notes
from .readers import POLL_S, Readers
from .samples import image_in, images_of, is_preprocessed, preprocessed_input, samples_in

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

    def __init__(self, catalogue: Catalogue, spec: InputSpec) -> None:
        self._catalogue, self._spec = catalogue, spec

    def __call__(self, position: int) -> torch.Tensor:
        """Decode and preprocess the image at a position; raise InputError where that cannot be done."""
        return _only(self._spec.read(self._catalogue[position].open()), " Save each in a file of its own.")


class DatasetReader:
    """Reads the images of a data set that takes positions.

    A sample is anything that `load_images` takes as one image; a float tensor counts as preprocessed. Or it is a tuple
    or a list that begins with an image, or a mapping that holds one; see `samples.image_in`.
    """

    def __init__(self, dataset: Any, spec: InputSpec) -> None:
        self._dataset, self._spec = dataset, spec

    def __call__(self, position: int) -> torch.Tensor:
        """Decode and preprocess the sample at a position; raise InputError, or what the Dataset raises."""
        return _only(self._spec.read(image_in(self._dataset[position])))


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

    An image that cannot be read, or at which two readers have crashed or hung, is a failure of that image alone. A
    caller that stops before the end closes the generator (contextlib.closing), which takes less than 2 s.

    Args:
        read: position -> (3, H, W) float32. It has to pickle where processes are not forked.
        batches: the positions of each batch.
        workers: how many readers (processes); 0 reads in a thread, which survives no crash and ends no hang.
        timeout_s: after which a reader counts as hung at its image.
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


def read_loader(
    loader: Iterable[Any], skip: Callable[[int], bool], spec: InputSpec | None = None, batch: int = 1
) -> Iterator[ImageBatch]:
    """Return batches from a DataLoader of the caller's, or from any iterable of batches or of single samples.

    Args:
        loader: gives float tensors (N, C, H, W), which count as preprocessed and stay together; other batches and
            single samples, which are preprocessed one by one; or tuples or lists that begin with one of these, or are
            samples themselves; or mappings that hold one; see `samples.images_of`.
        skip: whether the sample at a position, counted from 0 over all batches, is left out.
        spec: how an image becomes the model's input; None for ImageNet's.
        batch: how many single samples make a batch.

    Yields:
        Each batch; its seconds are those spent on waiting for the loader and on preprocessing. A single sample that
        cannot be preprocessed is a failure of its own.

    Raises:
        ShapeError: a batch of floats has a shape that the model does not take.
    """
    spec = spec or usual_spec()
    first, waiting = 0, _Samples()
    source = iter(loader)
    while True:
        started = time.perf_counter()
        try:
            images = images_of(next(source), spec.expected)
        except StopIteration:
            break
        except Exception:
            if waiting.count:  # what was read before is not lost
                yield waiting.batch()
            raise
        floats = is_preprocessed(images, spec.expected)
        given = preprocessed_input(_detached(images), spec.expected) if floats else None
        together = given is not None and len(given) > 1
        if waiting.count and together:
            yield waiting.batch()
            waiting = _Samples()
        samples: Any = _listed(images, spec) if given is None else given
        kept = [i for i in range(len(samples)) if not skip(first + i)]
        if together:
            part = samples if len(kept) == len(samples) else samples[kept]
            seconds = time.perf_counter() - started
            yield ImageBatch([([first + i for i in kept], part)] if kept else [], [], seconds)
        else:
            for i in kept:
                waiting.add(first + i, lambda _, image=samples[i]: _only(spec.read(image)))  # type: ignore[misc]
            waiting.seconds += time.perf_counter() - started
            if waiting.count >= batch:
                yield waiting.batch()
                waiting = _Samples()
        first += len(samples)
    if waiting.count:
        yield waiting.batch()


def _detached(images: Any) -> Any:
    return images.detach() if is_tensor(images) else images


def _listed(images: Any, spec: InputSpec) -> list[Any]:
    """Return the samples of a batch that still has to be preprocessed, or the one sample that it is."""
    return list(_flat(samples_in(images, spec.expected)))


def _flat(split: Any) -> Iterator[Any]:
    """List what lies in lists, at any depth: the float images of a list are batches of one, each in a list."""
    if isinstance(split, list):
        for each in split:
            yield from _flat(each)
    else:
        yield split


class _Samples:
    """Samples of one batch: those that were read, by their size, and why the others were not."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._by_size: dict[object, tuple[list[int], list[torch.Tensor]]] = {}
        self._failures: list[tuple[int, str]] = []

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._failures) + sum(len(positions) for positions, _ in self._by_size.values())

    def add(self, position: int, read: Read) -> None:
        """Read one sample; note why where that fails."""
        try:
            image = read(position).detach().float().cpu()
        except BaseException as error:  # a user's own may exit
            self.fail(position, reason_of(error, named=not isinstance(error, InputError)))
            return
        positions, images = self._by_size.setdefault(image.shape, ([], []))
        positions.append(position)
        images.append(image)

    def fail(self, position: int, reason: str) -> None:
        """Note a sample that cannot be read."""
        self._failures.append((position, reason))

    def batch(self, shared: bool = False) -> ImageBatch:
        """Return the batch, in shared memory where it goes to another process."""
        parts = [(positions, _stacked(images, shared)) for positions, images in self._by_size.values()]
        return ImageBatch(parts, self._failures, self.seconds)


@dataclass(frozen=True)
class _Task:
    """Reads one batch, in a reader."""

    read: Read
    batches: Sequence[Sequence[int]]

    def __call__(self, index: int, lost: Mapping[int, str], notes: Notes) -> ImageBatch:
        """Read each image of a batch that can be read, and note of the others why not."""
        started, samples = time.perf_counter(), _Samples()
        for position in self.batches[index]:
            if position in lost:
                samples.fail(position, lost[position])
                continue
            notes.begin(position)
            samples.add(position, self.read)
        notes.enter(BETWEEN)
        batch = samples.batch(notes.shared)
        return dataclasses.replace(batch, seconds=time.perf_counter() - started)


def _stacked(images: list[torch.Tensor], shared: bool) -> torch.Tensor:
    """Stack images (3, ...) float32 into a batch, in shared memory where it goes to another process."""
    if not shared:
        return torch.stack(images)
    batch = unnamed_memory.empty((len(images), *images[0].shape))  # before it is filled: sending it copies nothing
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


def _only(images: torch.Tensor, advice: str = "") -> torch.Tensor:
    """Return the one image of a batch of one."""
    if len(images) != 1:
        raise ShapeError(f"a sample must be one image, got a batch {tuple(images.shape)}.{advice}")
    return images[0]
