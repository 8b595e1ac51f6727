"""What is made of a batch of images: tensors go in, files and rows of the index come out.

capture   the model runs on a batch, on its device; the activations of the layers are kept
save      the outputs of each image and layer become files, in workers, on a stream of their own
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..activations.capture import capture
from ..activations.maps import LayerMaps, read_activations
from ..activations.passes.forward import weight_of
from ..activations.passes.rows import inputs_at, with_rows
from ..attribution.head import INPUT
from ..channels.statistics import ChannelStatistics
from ..channels.values import json_numbers
from ..errors import ShapeError
from ..formats.names import layer_parts
from ..kernels import backends
from ..pipeline import Drawing
from ..runtime.caller import each_note_once
from ..runtime.device import Fitting, device_at
from ..runtime.stage_times import stage
from ..runtime.workers import default_threads, in_order
from ..sheets.samples import measure_batch
from .attributed import HeatBatch, attributed
from .captured import CapturedBatch, part_of
from .collected import MeasuredMaps
from .folder.rows import IndexRow
from .outcomes import FailedImage, FinishedImage, ImageId, Outcome
from .outputs import Output

if TYPE_CHECKING:
    from ..attribution.drawing import HeatMaps
    from ..models.loaded import LoadedModel
    from .collected import Kind, Records


@dataclass(frozen=True)
class OutputSpec:
    """What is made of every image.

    Attributes:
        layers: layer patterns; see capture. None where heat maps alone are made.
        drawing: how they are read and drawn.
        outputs: the kinds of files.
        folder: where they go.
        collects: the kinds of records over all images that are kept.
        batch: images at once.
        heat: what heat maps are made; None without.
        heat_outputs: the kinds of files of these.
        images: how many there are in the run; None where that is not known.
        fills: whether a batch that is not full is filled up for the model. torch and cuDNN choose their algorithms by
            the size of the batch, and those differ in the last bit: filled up, an image always gives the same maps,
            whatever other images are in its batch.
    """

    layers: Sequence[str | int] | None
    drawing: Drawing
    outputs: Sequence[Output]
    folder: Path
    collects: Sequence[Kind]
    batch: int
    heat: HeatMaps | None = None
    heat_outputs: Sequence[Output] = ()
    images: int | None = None
    fills: bool = False

    @property
    def reads_layers(self) -> bool:
        """Whether anything is made of what the layers put out."""
        return bool(self.outputs or self.collects)

    @property
    def reads_heat(self) -> bool:
        """Whether anything is made of heat maps."""
        return self.heat is not None and bool(self.heat_outputs or any(kind.takes_heat for kind in self.collects))


@dataclass
class Findings:
    """What is learnt from each batch for those that follow.

    Attributes:
        fitting: how many images fit into memory at once.
        done: finished images, an earlier run's too. While there are none, an error of a whole batch is taken to be an
            error of every image.
        captured: images on which the model ran.
        refused: images on which the model failed before it ran on any.
        like: kind -> layer -> record that those of the next batch resemble: as many channels, in the same octaves.
        grids: layer -> the grid that rows leave out, since the manifest has it.
    """

    fitting: Fitting
    done: int = 0
    captured: int = 0
    refused: int = 0
    like: dict[str, Records] = field(default_factory=dict)
    grids: dict[str, dict[str, int]] = field(default_factory=dict)

    def is_new_grid(self, layer: str, grid: dict[str, int]) -> bool:
        """Check whether a row must tell its grid; the first grid of a layer becomes the manifest's."""
        return grid != self.grids.setdefault(layer, grid)


def findings_for(
    model: LoadedModel, batch: int, done: int = 0, grids: Mapping[str, dict[str, int]] | None = None
) -> Findings:
    """Return what is known before the first batch.

    Args:
        model: on its device.
        batch: images to try at once.
        done: images that an earlier run finished.
        grids: layer -> the grid that the manifest of an earlier run has.

    Returns:
        The record, to be passed to a `BatchWorker`.
    """
    device = device_at(weight_of(model.module, torch.empty(0)).device)
    return Findings(Fitting(device, batch), done=done, grids=dict(grids or {}))


class BatchWorker:
    """Runs a model on batches and writes what an `OutputSpec` asks for. What it learns goes into `findings`."""

    def __init__(self, model: LoadedModel, output_spec: OutputSpec, findings: Findings) -> None:
        self.model = with_rows(model, output_spec.images)
        self.output_spec = output_spec
        self.findings = findings
        self.device = findings.fitting.device
        # One worker an image: files are many, and each is small.
        options = dataclasses.replace(output_spec.drawing.options, threads=1)
        self._drawing = dataclasses.replace(output_spec.drawing, options=options)
        self._heat = output_spec.heat if output_spec.reads_heat else None
        self._notes: set[object] = set()
        self._folders: dict[str, str] = {}
        backends.load(output_spec.drawing.options.backend)
        backends.cpu_kernels("sketch")

    @property
    def on_cuda(self) -> bool:
        """Whether the model is on CUDA."""
        return self.device.device.type == "cuda"

    def capture(self, images: list[ImageId], batch: torch.Tensor, size: int) -> CapturedBatch:
        """Run the model on a batch, (N, 3, H, W) float32 on any device, filled up to `size` images."""
        count = len(batch)
        filled = batch if size == count else torch.cat([batch, batch[-1:].expand(size - count, *batch.shape[1:])])
        with stage("forward"):
            positions = [image.position for image in images]
            positions += positions[-1:] * (size - count)
            inputs = inputs_at(self.model, positions)
            heat, activations = self._attributed(filled, positions, count)
            if not activations and self.output_spec.reads_layers:
                activations = capture(self.model, filled, list(self.output_spec.layers or ()), inputs=inputs)
            if size > count:  # copied, so that the images that filled it up take no memory
                activations = {layer: part_of(each, size, 0, count).clone() for layer, each in activations.items()}
            samples = batch if self.output_spec.drawing.backdrop else None
            return CapturedBatch(images, activations, tuple(batch.shape), samples, self.device.mark(), heat)

    def _attributed(
        self, batch: torch.Tensor, positions: Sequence[int], count: int
    ) -> tuple[HeatBatch | None, dict[str, torch.Tensor]]:
        """Return the heat maps of the first images of a batch, and what the layers put out where the method looked."""
        if self._heat is None:
            return None, {}
        with each_note_once(self._notes):
            found = attributed(self.model, batch, self._heat, positions)
        if self._heat.layers is None and INPUT not in found.maps:
            self._heat = dataclasses.replace(self._heat, layers=list(found.maps))  # the same for all images
        activations = dict(found.activations) if self.output_spec.reads_layers else {}
        return HeatBatch(self._heat, found.part(0, count)), activations

    def save(self, captured: CapturedBatch) -> Outcome:
        """Write the files of the images, in workers; half of the images at a time where memory runs out.

        Raises:
            CnnvizError: an error of every image: an option, a layer that cannot be drawn, a full disk.
            MemoryError: there is too little for a single image.
        """
        whole = Outcome()
        reason = self.device.attempt(lambda: whole.add(self._save(captured)))
        if reason is None:
            return whole
        count = len(captured.images)
        if count == 1:
            raise MemoryError(f"{self.device.device} has too little memory for one image: {reason}.")
        for first, last in ((0, count // 2), (count // 2, count)):
            whole.add(self.save(captured.part(first, last)))
        return whole

    def _save(self, captured: CapturedBatch) -> Outcome:
        stream = self.device.stream(captured.ready)
        with self.device.faults(), stream.active(), stage("render"):
            try:
                found, heat = self._read(captured)
            except ShapeError as error:
                if not self.findings.done:
                    raise
                return Outcome(failed=[FailedImage(image, str(error)) for image in captured.images])
            self._name_folders([read.name for read in found], captured.heat)
            options = self.output_spec.drawing.options
            measured = [measure_batch(read.maps, options) for read in found]
            measured += [measure_batch(read.maps, dataclasses.replace(options, channels=None)) for read in heat]
            told = [_facts_of(each) for each in measured]
            layers = len(found)
            found += heat
            ready = self.device.mark()
        pairs = [(n, at) for n in range(len(captured.images)) for at in range(len(found))]

        def make(pair: tuple[int, int]) -> IndexRow:
            n, at = pair
            with self.device.faults(), self.device.stream(ready).active():
                return self._make(captured, found[at], measured[at][n], told[at][n], n, is_heat=at >= layers)

        rows = list(in_order(make, pairs, self.output_spec.drawing.options.threads or default_threads()))
        collected: dict[str, Records] = {}
        if self.output_spec.collects:
            with self.device.faults(), stream.active(), stage("render"):
                keys = [image.key for image in captured.images]
                collected = self._collect(found, measured, keys, {read.layer for read in heat})
                stream.wait()  # they are merged on another stream
        self.findings.done += len(captured.images)
        each = len(found)
        finished = [FinishedImage(image, rows[n * each : (n + 1) * each]) for n, image in enumerate(captured.images)]
        return Outcome(finished, collected=collected)

    def _read(self, captured: CapturedBatch) -> tuple[list[LayerMaps], list[LayerMaps]]:
        """Return maps of layers, and heat maps; raise ShapeError where records are kept and channels have changed."""
        axes = self.output_spec.drawing.axes
        found = list(read_activations(self.model, captured.activations, captured.shape, axes))
        heat = [] if captured.heat is None else captured.heat.maps(self.model, captured.shape)
        for kind, read in product(self.output_spec.collects, [*found, *heat]):
            like = self.findings.like.get(kind.name, {}).get(read.layer)
            if like is not None and like.channels != read.maps.shape[1]:
                raise ShapeError(
                    f"layer {read.layer!r} must have as many channels for every image, {like.channels}, got "
                    f"{read.maps.shape[1]}. Leave {kind.name} out."
                )
        return found, heat

    def _collect(
        self,
        found: Sequence[LayerMaps],
        measured: Sequence[Sequence[ChannelStatistics]],
        keys: Sequence[str],
        heat: Collection[str],
    ) -> dict[str, Records]:
        """Measure the layers; the time steps of a clip and the planes of a volume count as one image.

        Args:
            found: the maps of each.
            measured: what their channels hold, for each image.
            keys: of the images.
            heat: those of the layers that are heat maps.

        Returns:
            Kind of record -> layer -> record.
        """
        is_whole = self.output_spec.drawing.options.channels is None
        steps: dict[str, list[MeasuredMaps]] = {}
        for read, channels in zip(found, measured, strict=True):
            steps.setdefault(read.layer, []).append(MeasuredMaps(read, channels if is_whole else None))
        collected: dict[str, Records] = {kind.name: {} for kind in self.output_spec.collects}
        for (layer, maps), kind in product(steps.items(), self.output_spec.collects):
            if layer in heat and not kind.takes_heat:
                continue
            like = self.findings.like.setdefault(kind.name, {})
            record = (like.get(layer) or kind.record(maps[0].read.maps.shape[1])).blank()
            kind.feed(record, maps, keys)
            like[layer] = collected[kind.name][layer] = record
        return collected

    def _name_folders(self, names: list[str], heat: HeatBatch | None) -> None:
        if list(self._folders) != [*names, *(heat.names if heat else ())]:
            self._folders = dict(zip(names, layer_parts(names), strict=True))
            self._folders |= heat.folders(list(self._folders.values())) if heat else {}

    def _make(
        self,
        captured: CapturedBatch,
        read: LayerMaps,
        measured: ChannelStatistics,
        facts: dict[str, Any],
        n: int,
        *,
        is_heat: bool,
    ) -> IndexRow:
        """Write all files of a layer of image n; return its row of the index: `facts`, and what it has of the files."""
        image = captured.images[n]
        sample = None if captured.samples is None else captured.samples[n]
        shown = (self.model, read, n, image.name, sample, measured)
        if is_heat:
            assert captured.heat is not None
            layer = captured.heat.layer_input(*shown, self._drawing)
            facts = {**facts, "attribution": captured.heat.facts(n)}
        else:
            layer = self._drawing.layer_input(*shown)
        files: list[str] = []
        for output in self.output_spec.heat_outputs if is_heat else self.output_spec.outputs:
            written, more = output.make(layer, self.output_spec.folder, self._folders[read.name], image.stem)
            files += written
            facts = {**facts, **more}
        if "grid" in facts and not self.findings.is_new_grid(read.name, facts["grid"]):
            del facts["grid"]
        shape, dtype = list(layer.maps.shape), str(layer.maps.dtype).removeprefix("torch.")
        return IndexRow(image=image.name, layer=layer.name, shape=shape, dtype=dtype, files=files, **facts)


def _facts_of(measured: Sequence[ChannelStatistics]) -> list[dict[str, Any]]:
    """Return what the rows of some images tell of a layer's values: calls take longer than sums, so once for all."""
    names = [field.name for field in dataclasses.fields(ChannelStatistics)]
    together = ChannelStatistics(*(torch.stack([getattr(each, name) for each in measured]) for name in names))
    columns = {
        "min": np.fmin.reduce(together.vmin.numpy(), axis=1),
        "max": np.fmax.reduce(together.vmax.numpy(), axis=1),
        "dead": np.count_nonzero(together.dead.numpy(), axis=1),
        "nonfinite": np.count_nonzero(together.nonfinite.numpy(), axis=1),
    }
    rows = zip(*(json_numbers(torch.from_numpy(column)) for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]
