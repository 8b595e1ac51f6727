"""A run in this process, and the run before it that measures the statistics which sheets are drawn on."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..activations.passes.rows import with_rows
from ..channels.dataset_files import read_statistics, statistics_file
from ..errors import OptionError
from ..models.loaded import LoadedModel
from ..options.drawing import RenderOptions
from ..options.runs import CLASS_FOLDERS, TOP
from ..runtime.progress import Progress
from .attributed import check_target
from .batches import BatchWorker
from .checkpoints import gathered, merged
from .collected import Statistics
from .engine import Engine, EngineTask
from .folder.run_file import fingerprint_in, refuse_others
from .images import Images
from .outcomes import Outcome
from .runner import Runner
from .shard import render_shard
from .spec import RunSpec, RunSummary

if TYPE_CHECKING:
    from ..inputs.reading import ImageBatch

DATASET = ".dataset"
"""Folder of the run that measures for normalize dataset; no layer's folder begins with a dot."""


class LocalEngine:
    """Makes everything in this process; processes of its own read the images."""

    def stop_event(self, folder: Path) -> threading.Event:
        """Return a plain event."""
        return threading.Event()

    def outcomes(self, task: EngineTask) -> Generator[Outcome, None, None]:
        """Read images and make what is wanted of them; see Engine."""
        worker = BatchWorker(task.model, task.output_spec, task.findings)
        reads = task.images.read(
            task.spec.ranks,
            task.is_done,
            task.output_spec.batch,
            workers=task.spec.readers,
            timeout_s=task.spec.run.timeout,
            pin=worker.on_cuda,
            stop=task.stop,
        )

        def timed() -> Iterator[ImageBatch]:
            for read in reads:
                task.stages.add("decode", read.seconds)
                yield read

        try:
            yield from render_shard(worker, timed(), task.named, task.stop)
        finally:
            with contextlib.suppress(ValueError):  # after a second Ctrl-C the thread of the model is still in there
                reads.close()


def run_here(
    engine: Engine,
    model: LoadedModel,
    images: Images,
    spec: RunSpec,
    on_file: Callable[[Path], object] | None = None,
) -> RunSummary:
    """Do this process's share of a run.

    Args:
        engine: makes the outputs.
        model: from load_model.
        images: all images; this process does those of its rank.
        spec: what is asked for.
        on_file: called with the path of each file.

    Returns:
        What was done.
    """
    with_rows(model, images.count)  # refuses what has other rows before a folder is made
    check_target(spec.heat, model, images.count)
    if spec.run.labels == CLASS_FOLDERS and images.catalogue is None:
        raise OptionError(f"labels {CLASS_FOLDERS!r} go with files, got images without folders. Give a file of labels.")
    statistics = statistics_of(engine, model, images, spec)
    return Runner(engine, model, images, spec, statistics, on_file).run()


def statistics_of(engine: Engine, model: LoadedModel, images: Images, spec: RunSpec) -> Path | None:
    """Return the file of statistics that sheets are drawn on; where none is given, a run of its own measures them.

    Args:
        engine: does that run.
        model: of the run.
        images: of the run.
        spec: what is asked for.

    Returns:
        The file; None where sheets are drawn without.

    Raises:
        OptionError: statistics are given, but nothing is drawn on them.
    """
    if spec.drawing.normalize != "dataset":
        if spec.run.statistics is not None:
            raise OptionError(f"statistics go with normalize 'dataset', got normalize {spec.drawing.normalize!r}.")
        return None
    if spec.run.statistics is not None:
        found = statistics_file(spec.run.statistics)
        read_statistics(found)  # so that an error in it shows before anything else
        return found
    draws_heat = spec.heat is not None and spec.heat.backdrop is not None
    if not draws_heat and not {"sheets", "tiles"} & set(spec.run.save):
        return None  # nothing is drawn
    only = dataclasses.replace(spec.run, save=("statistics",), shards=None, parquet=False, **TOP)
    drawing = RenderOptions(threads=spec.drawing.threads)
    first = dataclasses.replace(
        spec,
        folder=spec.folder / DATASET,
        run=only,
        drawing=drawing,
        backdrop=None,
        heat=dataclasses.replace(spec.heat, backdrop=None) if draws_heat and spec.heat else None,
    )
    if spec.run.array:  # whose tasks may run one after another: the first would wait for the last
        raise OptionError(
            "array takes normalize 'dataset' only with statistics of an earlier run. Measure them in an array of their "
            "own, with save 'statistics' into another folder."
        )
    if (there := fingerprint_in(spec.folder)) is not None:
        if (kept := merged(Statistics(), first.folder)).exists():
            return kept  # a run keeps the scale that it began with, whatever images have come since
        here = spec.fingerprint(model, images, None) | {"statistics": there.get("statistics")}  # not known yet
        refuse_others(spec.folder, here, there)  # before all images are measured for nothing
    summary = run_here(engine, model, images, first)
    if spec.ranks.world_size == 1:
        return summary.statistics
    with Progress("none", None) as progress:
        return gathered(Statistics(), first.folder, spec.ranks, images.count, progress.say)
