"""The unit of work of a run, wherever it runs: pictures go in as tensors, files and rows of the index come out.

    capture   a batch goes through the model, on its device; what the layers put out is kept
    save      of each picture and layer what was asked for becomes files, in workers, on a stream of its own

`render_shard` overlaps both: the model runs its next batch while the files of this one are made.
"""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from . import backends
from .batch import measure_batch
from .capture import capture
from .dataset_statistics import LayerStatistics
from .device import Fitting, device_at
from .errors import CaptureError, OptionError, ShapeError
from .file_names import layer_parts
from .forward import weight_of
from .look import LayerMaps, frame_of, read_outputs
from .options import LayoutOptions, RenderOptions
from .products import Product, Shown
from .stages import stage
from .strips import default_threads, in_order

if TYPE_CHECKING:
    from .channels import ChannelStatistics
    from .dataset_statistics import Ranges
    from .models import LoadedModel
    from .overlay import Backdrop
    from .reading import Read


class Named(NamedTuple):
    """A picture of a run: its key, what messages call it, and the stem of its files."""

    key: str
    name: str
    stem: str


class Finished(NamedTuple):
    """A picture whose files are all there, with a row of the index for each layer."""

    picture: Named
    rows: list[dict[str, Any]]


class Failed(NamedTuple):
    """A picture of which nothing came, and why."""

    picture: Named
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What became of a batch."""

    finished: list[Finished] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)


@dataclass(frozen=True)
class Recipe:
    """What is made of every picture.

    Attributes:
        layers: layer patterns; see capture.
        layout: how to read what layers put out.
        options: how to draw.
        products: the kinds of files.
        folder: where they go.
        ranges: layer -> range of each channel, with normalize dataset.
        backdrop: the picture to lay maps over.
        collects: whether statistics over all pictures are wanted.
        batch: pictures at once.
    """

    layers: Sequence[str | int]
    layout: LayoutOptions
    options: RenderOptions
    products: Sequence[Product]
    folder: Path
    ranges: Mapping[str, Ranges] | None = None
    backdrop: Backdrop | None = None
    collects: bool = False
    batch: int = 16


class _Captured(NamedTuple):
    """What the layers put out for some pictures.

    ready: mark on the model's stream behind all of it.
    """

    pictures: list[Named]
    outputs: dict[str, torch.Tensor]
    shape: tuple[int, ...]
    frames: torch.Tensor | None
    ready: Any


class Work:
    """A model and a recipe, and what is learnt on the way: statistics, grids, and how many pictures fit at once.

    fills: whether a batch that is not full is filled up for the model. torch and cuDNN choose their algorithms by its
        size, and those differ in the last bit: filled up, a picture comes out the same whoever it is batched with.
    """

    def __init__(self, model: LoadedModel, recipe: Recipe) -> None:
        self.model = model
        self.recipe = recipe
        self.fills = False
        self.statistics: dict[str, LayerStatistics] = {}
        self.grids: dict[str, dict[str, int]] = {}
        self.device = device_at(weight_of(model.module, torch.empty(0)).device)
        self.fitting = Fitting(self.device, recipe.batch)
        self._folders: dict[str, str] = {}
        if recipe.options.backend in ("auto", "numba"):
            backends.missing("numba")  # loads it, before workers ask for it
            backends.cannot_load("numba_sketch")

    @property
    def on_cuda(self) -> bool:
        """Whether the model lies on CUDA."""
        return self.device.device.type == "cuda"

    def without_products(self) -> Work:
        """Return what only measures, into the same statistics."""
        other = Work(self.model, dataclasses.replace(self.recipe, products=()))
        other.statistics, other.fills = self.statistics, self.fills
        return other

    def capture(self, pictures: list[Named], batch: torch.Tensor) -> _Captured:
        """Run the model on a batch, (N, 3, H, W) float32 on any device."""
        count = len(batch)
        size = max(count, min(self.recipe.batch, self.fitting.most)) if self.fills else count
        filled = batch if size == count else torch.cat([batch, batch[-1:].expand(size - count, *batch.shape[1:])])
        with stage("forward"):
            outputs = capture(self.model, filled, list(self.recipe.layers))
            if size > count:
                outputs = {layer: output[: len(output) // size * count] for layer, output in outputs.items()}
            frames = frame_of(batch) if self.recipe.backdrop else None
            return _Captured(pictures, outputs, tuple(batch.shape), frames, self.device.mark())

    def save(self, captured: _Captured) -> Outcome:
        """Make the files of the pictures, in workers; their maps are let go of when this returns.

        Raises:
            CnnvizError: what is wrong with every picture: an option, a layer that cannot be drawn, a full disk.
        """
        try:
            found = list(read_outputs(self.model, captured.outputs, captured.shape, self.recipe.layout))
        except ShapeError as error:
            if not self._folders:  # the first ones: no other picture will do better
                raise
            return Outcome(failed=[Failed(picture, str(error)) for picture in captured.pictures])
        self._name_folders([read.name for read in found])
        with self.device.faults():
            stream = self.device.stream(captured.ready)
            with stream.active(), stage("render"):
                measured = [measure_batch(read.maps, self.recipe.options) for read in found]
                if self.recipe.collects:
                    self._collect(found)
                ready = self.device.mark()
            jobs = [(n, at) for n in range(len(captured.pictures)) for at in range(len(found))]
            make = partial(self._make, captured, found, measured, ready)
            rows = list(in_order(lambda job: make(*job), jobs, self.recipe.options.threads or default_threads()))
        outcome = Outcome()
        for n, picture in enumerate(captured.pictures):
            outcome.finished.append(Finished(picture, rows[n * len(found) : (n + 1) * len(found)]))
        return outcome

    def _collect(self, found: Sequence[LayerMaps]) -> None:
        for read in found:
            statistics = self.statistics.setdefault(read.layer, LayerStatistics(read.maps.shape[1]))
            statistics.update(read.maps, again=bool(read.step))

    def _name_folders(self, names: list[str]) -> None:
        if list(self._folders) != names:
            self._folders = dict(zip(names, layer_parts(names), strict=True))

    def _make(
        self,
        captured: _Captured,
        found: Sequence[LayerMaps],
        measured: Sequence[Sequence[ChannelStatistics]],
        ready: Any,
        n: int,
        at: int,
    ) -> dict[str, Any]:
        """Make all files of picture n and layer `at`; return its row of the index."""
        recipe, read, picture = self.recipe, found[at], captured.pictures[n]
        under = None
        if recipe.backdrop is not None and captured.frames is not None:
            under = recipe.backdrop.seen_by_model(captured.frames[n], self.model.preprocess)
        shown = Shown(
            maps=read.maps[n],
            source=read.source(self.model, picture.name),
            measured=measured[at][n],
            # One worker a picture: files are many, and each is small.
            options=dataclasses.replace(recipe.options, threads=1),
            ranges=self._ranges_of(read.layer),
            backdrop=under,
        )
        row: dict[str, Any] = {"image": picture.name, "layer": read.name, "shape": list(shown.maps.shape)}
        row |= {"dtype": str(shown.maps.dtype).removeprefix("torch.")} | _summary(shown.measured)
        files: list[str] = []
        with self.device.stream(ready).active():
            for product in recipe.products:
                made, facts = product.make(shown, recipe.folder, self._folders[read.name], picture.stem)
                files += made
                row |= facts
        if "grid" in row:
            self.grids.setdefault(read.name, row.pop("grid"))
        return row | {"files": files}

    def _ranges_of(self, layer: str) -> Ranges | None:
        """Look up what a layer is drawn on, with normalize dataset."""
        if self.recipe.ranges is None:
            return None
        if layer not in self.recipe.ranges:
            known = ", ".join(self.recipe.ranges) or "none"
            raise OptionError(f"statistics must hold every layer that is drawn, got {known}, but not {layer!r}.")
        return self.recipe.ranges[layer]


def _summary(measured: ChannelStatistics) -> dict[str, Any]:
    """Return what a row of the index tells of the channels of a layer that were picked."""
    finite = ~measured.vmin.isnan()
    return {
        "min": float(measured.vmin[finite].min()) if finite.any() else None,
        "max": float(measured.vmax[finite].max()) if finite.any() else None,
        "dead": int(measured.dead.sum()),
        "nonfinite": int(measured.nonfinite.sum()),
    }


def render_shard(
    work: Work, reads: Iterable[Read], named: Callable[[int], Named], stop: threading.Event | None = None
) -> Iterator[Outcome]:
    """Make the files of some pictures. The model runs in a thread of its own, at most two batches ahead.

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
    ahead = _Ahead(_captured(work, reads, named, stop or threading.Event()))
    try:
        for item in ahead:
            yield item if isinstance(item, Outcome) else work.save(item)
            del item  # its maps
    finally:
        ahead.close()


def _captured(
    work: Work, reads: Iterable[Read], named: Callable[[int], Named], stop: threading.Event
) -> Iterator[_Captured | Outcome]:
    """Run the model on what was read; pictures on which it fails are told from those that stood beside them."""
    for read in reads:
        if stop.is_set():
            return
        if read.failures:
            yield Outcome(failed=[Failed(named(position), reason) for position, reason in read.failures])
        for positions, batch in read.parts:
            pictures = [named(position) for position in positions]
            start = 0
            while start < len(pictures):
                step = _Step(work, pictures[start:], batch[start:])
                done = work.fitting.fit(step, len(pictures) - start)
                start += done
                yield from step.results
                del step


class _Step:
    """Run the model on the first so many of some pictures; `Fitting` finds out how many."""

    def __init__(self, work: Work, pictures: list[Named], batch: torch.Tensor) -> None:
        self.work, self.pictures, self.batch = work, pictures, batch
        self.results: list[_Captured | Outcome] = []

    def __call__(self, count: int) -> None:
        self.results = []
        try:
            self.results.append(self.work.capture(self.pictures[:count], self.batch[:count]))
            return
        except CaptureError as error:
            if _ran_out(self.work, error):
                raise error.__cause__ from None  # type: ignore[misc]  # it has one, which Fitting knows
            reason = str(error)
        if count == 1:
            self.results.append(Outcome(failed=[Failed(self.pictures[0], reason)]))
            return
        for n in range(count):  # one by one, to see which it is
            try:
                self.results.append(self.work.capture(self.pictures[n : n + 1], self.batch[n : n + 1]))
            except CaptureError as error:
                self.results.append(Outcome(failed=[Failed(self.pictures[n], str(error))]))


def _ran_out(work: Work, error: CaptureError) -> bool:
    return error.__cause__ is not None and work.device.is_full(error.__cause__)


class _Ahead(Iterator[Any]):
    """Items of an iterator that a thread of its own works through, one of them ahead."""

    _END = object()

    def __init__(self, items: Iterator[Any]) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=1)
        self._closed = threading.Event()
        self._items = items
        self._thread = threading.Thread(target=self._work, name="cnnviz-forward", daemon=True)
        self._thread.start()

    def __next__(self) -> Any:
        item = self._queue.get()
        if item is self._END:
            self._queue.put(item)
            raise StopIteration
        if isinstance(item, BaseException):
            self._queue.put(self._END)
            raise item
        return item

    def close(self) -> None:
        """Let the thread end, and wait for it."""
        self._closed.set()
        while self._thread.is_alive():
            while not self._queue.empty():
                self._queue.get()
            self._thread.join(0.01)

    def _work(self) -> None:
        try:
            for item in self._items:
                self._queue.put(item)
                del item
                if self._closed.is_set():
                    break
        except BaseException as error:  # raised again by whoever takes the next item
            self._queue.put(error)
        else:
            self._queue.put(self._END)
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
