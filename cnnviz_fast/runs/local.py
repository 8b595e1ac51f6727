"""This process's share of a run, and the statistics that it draws on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from ..channels.dataset_files import read_statistics
from ..errors import OptionError
from ..models.loaded import LoadedModel
from ..options.drawing import RenderOptions
from ..runtime.progress import Progress
from .folder.journal import fingerprint_in, refuse_others
from .images import Images
from .runner import Runner
from .spec import RunSpec, RunSummary
from .statistics import gathered, merged

DATASET = ".dataset"
"""Folder of the run that makes the statistics for normalize dataset; no layer's folder begins with a dot."""


def run_here(
    model: LoadedModel,
    pictures: Images,
    job: RunSpec,
    on_file: Callable[[Path], object] | None = None,
    kind: Callable[..., Runner] | None = None,
) -> RunSummary:
    """Do this process's share of a run.

    Args:
        model: from load_model.
        pictures: all of them; this process takes those of its place.
        job: what is asked for.
        on_file: called with the path of each file.
        kind: makes the run; None for one that does all the work itself.

    Returns:
        What was done.
    """
    kind = kind or Runner
    return kind(model, pictures, job, statistics_of(model, pictures, job, kind), on_file)()


def statistics_of(model: LoadedModel, pictures: Images, job: RunSpec, kind: Callable[..., Runner]) -> Path | None:
    """Return the file of statistics that sheets are drawn on, made by a run of its own first where none is given.

    Args:
        model: of the run.
        pictures: of the run.
        job: what is asked for.
        kind: makes that other run.

    Returns:
        The file; None where sheets are drawn without.

    Raises:
        OptionError: there are statistics that nothing is drawn on.
    """
    if job.drawing.normalize != "dataset":
        if job.run.statistics is not None:
            raise OptionError(f"statistics go with normalize 'dataset', got normalize {job.drawing.normalize!r}.")
        return None
    if job.run.statistics is not None:
        read_statistics(job.run.statistics)  # so that what is wrong with it shows before anything else
        return Path(job.run.statistics)
    if not {"sheets", "tiles"} & set(job.run.save):
        return None  # nothing is drawn
    only = dataclasses.replace(job.run, save=("statistics",), shards=None, parquet=False)
    first = dataclasses.replace(
        job, folder=job.folder / DATASET, run=only, drawing=RenderOptions(threads=job.drawing.threads), backdrop=None
    )
    if (there := fingerprint_in(job.folder)) is not None:
        if (kept := merged(first.folder)).exists():
            return kept  # a run keeps the scale that it began with, whatever pictures have come since
        here = job.fingerprint(model, pictures, None) | {"statistics": there.get("statistics")}  # not known yet
        refuse_others(job.folder, here, there)  # before all pictures are measured for nothing
    summary = run_here(model, pictures, first, kind=kind)
    if job.place.world == 1:
        return summary.statistics
    with Progress("none", None) as progress:
        return gathered(first.folder, job.place, pictures.count, progress.say)
