"""What a run is asked for, and the summary of what it has done."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..channels.dataset_files import ranges_for
from ..models.load import load_model
from ..models.loaded import LoadedModel, as_given, module_of
from ..options.attribution import AttributionOptions
from ..options.declared import older_names
from ..options.drawing import RenderOptions
from ..options.reading import AS_USUAL, AxesOptions, ImageOptions
from ..options.runs import RunOptions
from ..pipeline import Drawing
from ..runtime.workers import default_threads
from ..sheets.overlay import Backdrop
from .batches import OutputSpec
from .collected import Kind, Statistics
from .folder.fingerprint import fingerprint_of
from .images import Images
from .outputs import heat_outputs_of, outputs_of
from .ranks import Ranks
from .top import Top

if TYPE_CHECKING:
    from torch import nn

    from ..attribution.drawing import HeatMaps
    from .labels import Labels

CPU_BATCH, CUDA_BATCH = 16, 64
"""Images that go through the model at once."""


@dataclass(frozen=True)
class RunSpec:
    """Everything that `run` is asked for but the model and the images; the names are those of its arguments."""

    layers: list[str | int] | None
    folder: Path
    format: str
    max_pixels: int
    axes: AxesOptions
    backdrop: Backdrop | None
    run: RunOptions
    drawing: RenderOptions
    ranks: Ranks
    decoding: ImageOptions = AS_USUAL
    labels: Labels | None = None
    heat: HeatMaps | None = None

    @property
    def collects(self) -> list[Kind]:
        """The kinds of records over all images that are kept."""
        top = Top(self.run.top, self.labels, self.max_pixels, self.decoding)
        return [kind for kind in (Statistics(), top) if kind.name in self.run.save]

    @property
    def readers(self) -> int:
        """Number of processes that read: half the cores, which leaves the others to the model."""
        return min(8, max(1, default_threads() // 2)) if self.run.readers is None else self.run.readers

    def fingerprint(self, model: LoadedModel, images: Images, statistics: Path | None) -> dict[str, Any]:
        """Return everything that changes the outputs; of the statistics that sheets are drawn on, their content.

        The device and the size of the batch are left out, though they move values by their last bits: a run may be
        taken up with less memory, and on another machine.
        """
        settings = {
            "save": list(self.run.save),
            "shards": self.run.shards,
            "format": self.format,
            "axes": self.axes.axes,
            "planes": self.axes.planes,
            "inputs": model.inputs,
            "forward": model.forward,
            "overlay": self.backdrop and self.backdrop.digest(),
            "images": images.identity(),
            "statistics": statistics and hashlib.sha256(statistics.read_bytes()).hexdigest(),
            **{name: value for name, value in vars(self.drawing).items() if name != "threads"},
            **({} if self.decoding == AS_USUAL else vars(self.decoding)),  # runs of before know of neither
            **({} if "top" not in self.run.save else self.run.top | {"labels": self.labels and self.labels.digest}),
            **({} if self.heat is None else {"attribution": self._attribution(self.heat)}),
        }
        return fingerprint_of(model, list(map(str, self.layers or ())), settings)

    @staticmethod
    def _attribution(heat: HeatMaps) -> dict[str, Any]:
        """Return what heat maps depend on, but for what all outputs depend on.

        Where they are drawn, that is which options of drawing were given too: others are as they suit the maps.
        """
        options = {name: value for name, value in vars(heat.options).items() if name != "chunk"}
        look = sorted(heat.look) if heat.backdrop else []
        return {"method": heat.method, "target": heat.target, **options, "look": look}

    def output_spec(self, model: LoadedModel, statistics: Path | None, folder: Path, images: int | None) -> OutputSpec:
        """Return what is made of every image.

        Args:
            model: of the run.
            statistics: file of the statistics that sheets are drawn on.
            folder: where the files go.
            images: how many there are, where that is known.

        Returns:
            The record.

        Raises:
            InputError: the file holds no statistics.
        """
        on_cuda = any(parameter.is_cuda for parameter in model.module.parameters())
        ranges = None if statistics is None else ranges_for(statistics, self.drawing)
        batch = self.run.batch or (CUDA_BATCH if on_cuda else CPU_BATCH)
        return OutputSpec(
            layers=self.layers,
            drawing=Drawing(self.drawing, self.axes, self.backdrop, ranges, "atlases" in self.run.save),
            outputs=outputs_of(self.run.save, self.format),
            heat=self.heat,
            heat_outputs=heat_outputs_of(self.run.save, self.format, drawn=self.backdrop is not None),
            folder=folder,
            collects=self.collects,
            batch=batch,
            images=images,
            fills=(images or 0) > batch,
        )


@dataclass(frozen=True)
class RunSummary:
    """What a run has done.

    Attributes:
        folder: where everything is.
        images: number of images that this process finished, skipped or failed: its whole share, unless it was stopped.
        finished: images that this call finished.
        skipped: images that an earlier call had finished.
        failed: images that failed; failed.jsonl has the reasons.
        complete: whether the run went on to the end.
        seconds: how long the run took.
        stages: seconds in decode, forward, render, encode and write, of all threads and processes together.
        passed_over: files of the folders that are no images, sheets of this package and folders of other runs.
        statistics: file of the statistics, or None. Of several processes, the last one to end has the file of all
            images, the others those of their own shares.
        top: file of the images that excite each channel most, or None; see read_top. As with statistics.
    """

    folder: Path
    images: int
    finished: int
    skipped: int
    failed: int
    complete: bool
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)
    passed_over: int = 0
    statistics: Path | None = None
    top: Path | None = None

    @property
    def rate(self) -> float:
        """Images a second."""
        return (self.finished + self.failed) / self.seconds if self.seconds else 0.0


class SplitOptions(NamedTuple):
    """The keywords of `run` by what they are about, those of drawing as they were given too."""

    run: RunOptions
    drawing: RenderOptions
    attribution: AttributionOptions
    look: dict[str, object]


def split_options(options: Mapping[str, object]) -> SplitOptions:
    """Make the records of options from the keywords of `run`."""
    own = {f.name for f in dataclasses.fields(RunOptions)} | set(older_names(RunOptions).values())
    of_methods = {f.name for f in dataclasses.fields(AttributionOptions)}
    look = {name: value for name, value in options.items() if name not in own | of_methods}
    return SplitOptions(
        RunOptions.of({name: value for name, value in options.items() if name in own}),
        RenderOptions.of(look),
        AttributionOptions.of({name: value for name, value in options.items() if name in of_methods}),
        look,
    )


def loaded_model(model: LoadedModel | nn.Module | str, device: str) -> LoadedModel:
    """Load the model of a run on a device where a spec is given; a model that is loaded stays where it is."""
    loaded = load_model(model, device=device) if isinstance(model, str) else model
    return loaded if isinstance(loaded, LoadedModel) else as_given(module_of(loaded))
