"""What is made of a batch of pictures: they go in as tensors, files and rows of the index come out.

capture   a batch goes through the model, on its device; what the layers put out is kept
save      of each picture and layer what was asked for becomes files, in workers, on a stream of its own
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..activations.capture import capture
from ..activations.forward import weight_of
from ..activations.maps import LayerMaps, frame_of, read_activations
from ..channels.dataset import LayerStatistics, merge_layers
from ..errors import ShapeError
from ..formats.names import layer_parts
from ..kernels import backends
from ..pipeline import Drawing
from ..runtime.device import Fitting, device_at
from ..runtime.stage_times import stage
from ..runtime.workers import default_threads, in_order
from ..sheets.samples import measure_batch
from .outputs import Output

if TYPE_CHECKING:
    from ..channels.statistics import ChannelStatistics
    from ..models.loaded import LoadedModel


class ImageId(NamedTuple):
    """A picture of a run: its key, what messages call it, and the stem of its files."""

    key: str
    name: str
    stem: str


class FinishedImage(NamedTuple):
    """A picture whose files are all there, with a row of the index for each layer."""

    picture: ImageId
    rows: list[dict[str, Any]]


class FailedImage(NamedTuple):
    """A picture of which nothing came, and why."""

    picture: ImageId
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What became of a batch.

    statistics: layer -> what the pictures that are finished held, where that is wanted.
    """

    finished: list[FinishedImage] = field(default_factory=list)
    failed: list[FailedImage] = field(default_factory=list)
    statistics: dict[str, LayerStatistics] = field(default_factory=dict)

    def add(self, other: Outcome) -> None:
        """Add what became of other pictures; `other` is not to be used afterwards."""
        self.finished.extend(other.finished)
        self.failed.extend(other.failed)
        merge_layers(self.statistics, other.statistics)


@dataclass(frozen=True)
class OutputSpec:
    """What is made of every picture.

    Attributes:
        layers: layer patterns; see capture.
        drawing: how they are read and drawn.
        outputs: the kinds of files.
        folder: where they go.
        collects: whether statistics over all pictures are wanted.
        batch: pictures at once.
    """

    layers: Sequence[str | int]
    drawing: Drawing
    outputs: Sequence[Output]
    folder: Path
    collects: bool
    batch: int


class CapturedBatch(NamedTuple):
    """What the layers put out for some pictures.

    ready: mark on the model's stream behind all of it.
    """

    pictures: list[ImageId]
    outputs: dict[str, torch.Tensor]
    shape: tuple[int, ...]
    frames: torch.Tensor | None
    ready: Any

    def part(self, first: int, last: int) -> CapturedBatch:
        """Return what is there of pictures first..last-1."""
        count = len(self.pictures)
        outputs = {layer: _part(output, count, first, last) for layer, output in self.outputs.items()}
        frames = None if self.frames is None else self.frames[first:last]
        return CapturedBatch(self.pictures[first:last], outputs, (last - first, *self.shape[1:]), frames, self.ready)


def _part(output: torch.Tensor, count: int, first: int, last: int) -> torch.Tensor:
    """Return what a layer put out for pictures first..last-1 of `count`; of windows, several each."""
    each = len(output) // count
    return output[first * each : last * each]


class BatchWorker:
    """A model and a recipe, and what is learnt on the way: grids, and how many pictures fit at once.

    done: pictures that were finished, by an earlier run too. Until there is one, what goes wrong with a whole batch is
        taken to go wrong with every picture.
    captured, refused: pictures on which the model ran, and on which it failed before it ran on any.
    like: layer -> statistics that those of the next batch are like: of as many channels, in the same octaves.
    fills: whether a batch that is not full is filled up for the model. torch and cuDNN choose their algorithms by its
        size, and those differ in the last bit: filled up, a picture comes out the same whoever it is batched with.
    """

    def __init__(self, model: LoadedModel, output_spec: OutputSpec) -> None:
        self.model = model
        self.output_spec = output_spec
        # One worker an image: files are many, and each is small.
        options = dataclasses.replace(output_spec.drawing.options, threads=1)
        self.one_worker = dataclasses.replace(output_spec.drawing, options=options)
        self.fills = False
        self.done = self.captured = self.refused = 0
        self.like: dict[str, LayerStatistics] = {}
        self.grids: dict[str, dict[str, int]] = {}
        self.device = device_at(weight_of(model.module, torch.empty(0)).device)
        self.fitting = Fitting(self.device, output_spec.batch)
        self._folders: dict[str, str] = {}
        if output_spec.drawing.options.backend in ("auto", "numba"):
            backends.missing("numba")  # loads it, before workers ask for it
            backends.cannot_load("numba_sketch")

    @property
    def on_cuda(self) -> bool:
        """Whether the model lies on CUDA."""
        return self.device.device.type == "cuda"

    def without_outputs(self) -> BatchWorker:
        """Return what only measures."""
        other = BatchWorker(self.model, dataclasses.replace(self.output_spec, outputs=()))
        other.fills, other.fitting, other.like, other.done = self.fills, self.fitting, self.like, self.done
        return other

    def capture(self, pictures: list[ImageId], batch: torch.Tensor, size: int) -> CapturedBatch:
        """Run the model on a batch, (N, 3, H, W) float32 on any device, filled up to `size` pictures."""
        count = len(batch)
        filled = batch if size == count else torch.cat([batch, batch[-1:].expand(size - count, *batch.shape[1:])])
        with stage("forward"):
            outputs = capture(self.model, filled, list(self.output_spec.layers))
            if size > count:  # copied, so that what was filled up takes no memory
                outputs = {layer: _part(output, size, 0, count).clone() for layer, output in outputs.items()}
            frames = frame_of(batch) if self.output_spec.drawing.backdrop else None
            return CapturedBatch(pictures, outputs, tuple(batch.shape), frames, self.device.mark())

    def save(self, captured: CapturedBatch) -> Outcome:
        """Make the files of the pictures, in workers; their maps are let go of when this returns.

        Raises:
            CnnvizError: what is wrong with every picture: an option, a layer that cannot be drawn, a full disk.
            MemoryError: there is too little for a single picture.
        """
        whole = Outcome()
        reason = self.device.attempt(lambda: whole.add(self._save(captured)))
        if reason is None:
            return whole
        count = len(captured.pictures)
        if count == 1:
            raise MemoryError(f"{self.device.device} has too little memory for one picture: {reason}")
        for first, last in ((0, count // 2), (count // 2, count)):
            whole.add(self.save(captured.part(first, last)))
        return whole

    def _save(self, captured: CapturedBatch) -> Outcome:
        stream = self.device.stream(captured.ready)
        with self.device.faults(), stream.active(), stage("render"):
            try:
                found = list(
                    read_activations(self.model, captured.outputs, captured.shape, self.output_spec.drawing.axes)
                )
                if self.output_spec.collects:
                    self._refuse_other_channels(found)
            except ShapeError as error:
                if not self.done:
                    raise
                return Outcome(failed=[FailedImage(picture, str(error)) for picture in captured.pictures])
            self._name_folders([read.name for read in found])
            measured = [measure_batch(read.maps, self.output_spec.drawing.options) for read in found]
            ready = self.device.mark()
        jobs = [(n, at) for n in range(len(captured.pictures)) for at in range(len(found))]

        def make(job: tuple[int, int]) -> dict[str, Any]:
            with self.device.faults(), self.device.stream(ready).active():
                return self._make(captured, found[job[1]], measured[job[1]][job[0]], job[0])

        rows = list(in_order(make, jobs, self.output_spec.drawing.options.threads or default_threads()))
        statistics: dict[str, LayerStatistics] = {}
        if self.output_spec.collects:
            with self.device.faults(), stream.active(), stage("render"):
                statistics = self._collect(found)
        self.done += len(captured.pictures)
        each = len(found)
        pictures = enumerate(captured.pictures)
        finished = [FinishedImage(picture, rows[n * each : (n + 1) * each]) for n, picture in pictures]
        return Outcome(finished, statistics=statistics)

    def _refuse_other_channels(self, found: Sequence[LayerMaps]) -> None:
        for read in found:
            like = self.like.get(read.layer)
            if like is not None and like.channels != read.maps.shape[1]:
                raise ShapeError(
                    f"layer {read.layer!r} must have as many channels for every picture, {like.channels}, got "
                    f"{read.maps.shape[1]}. Leave statistics out."
                )

    def _collect(self, found: Sequence[LayerMaps]) -> dict[str, LayerStatistics]:
        """Measure what the layers put out; time steps of a clip count as one picture."""
        statistics: dict[str, LayerStatistics] = {}
        for read in found:
            if read.layer not in statistics:
                like = self.like.get(read.layer) or LayerStatistics(read.maps.shape[1])
                statistics[read.layer] = like.blank()
            statistics[read.layer].update(read.maps, again=bool(read.step))
        self.like.update(statistics)
        return statistics

    def _name_folders(self, names: list[str]) -> None:
        if list(self._folders) != names:
            self._folders = dict(zip(names, layer_parts(names), strict=True))

    def _make(self, captured: CapturedBatch, read: LayerMaps, measured: ChannelStatistics, n: int) -> dict[str, Any]:
        """Make all files of a layer of picture n; return its row of the index."""
        spec, picture = self.output_spec, captured.pictures[n]
        frame = None if captured.frames is None else captured.frames[n]
        shown = self.one_worker.layer_input(self.model, read, n, picture.name, frame, measured)
        row: dict[str, Any] = {"image": picture.name, "layer": read.name, "shape": list(shown.maps.shape)}
        row |= {"dtype": str(shown.maps.dtype).removeprefix("torch.")} | _summary(measured)
        files: list[str] = []
        for output in spec.outputs:
            made, facts = output.make(shown, spec.folder, self._folders[read.name], picture.stem)
            files += made
            row |= facts
        if "grid" in row and row["grid"] == self.grids.setdefault(read.name, row["grid"]):
            del row["grid"]  # what stands in the manifest
        return row | {"files": files}


def _summary(measured: ChannelStatistics) -> dict[str, Any]:
    """Return what a row of the index tells of the channels of a layer that were picked."""
    finite = ~measured.vmin.isnan()
    return {
        "min": float(measured.vmin[finite].min()) if finite.any() else None,
        "max": float(measured.vmax[finite].max()) if finite.any() else None,
        "dead": int(measured.dead.sum()),
        "nonfinite": int(measured.nonfinite.sum()),
    }
