"""A run on Ray: actors hold the model and write the files, this process lists the images and keeps the account.

quirks    what Ray does to terminals and signals
cluster   the connection, and how many actors there are
actor     what runs in each of them
chunks    batches go to the actors in chunks, and the result of each comes back as soon as it is finished

All machines of the cluster must see the folder of the run under the same path.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
import shutil
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import BackendUnavailableError, OptionError
from ...inputs.images import usual_spec
from ...runtime.extras import import_extra
from ...runtime.files import make_folder
from ..images import LoaderImages, images_of
from ..local import run_here
from ..spec import CUDA_BATCH, RunSpec, RunSummary, loaded_model
from .actor import NOTES, STOP, ActorTask, BatchResult
from .chunks import batch_results, chunks_of
from .cluster import ActorPool, connected, pool_of

if TYPE_CHECKING:
    from torch import nn

    from ...models.loaded import LoadedModel
    from ..batches import Findings
    from ..engine import EngineTask
    from ..folder.rows import IndexRow
    from ..outcomes import Outcome


def run_on_ray(
    model: LoadedModel | nn.Module | str, images: Any, spec: RunSpec, on_file: Callable[[Path], object] | None
) -> RunSummary:
    """Do a run with Ray's actors.

    Args:
        model: as in run.
        images: as in run, but no DataLoader.
        spec: what is asked for.
        on_file: called with the path of each file.

    Returns:
        What was done.

    Raises:
        OptionError: something is asked for that Ray's actors cannot do.
        BackendUnavailableError: Ray is not installed, or its cluster cannot be reached.
        CnnvizError: see run.
    """
    if spec.run.shards is not None:
        raise OptionError("shards go with engine 'local', got engine 'ray', whose actors write loose files.")
    if spec.ranks.world_size > 1:
        raise OptionError(f"engine 'ray' shares images out itself, got {spec.ranks.world_size} processes. Start one.")
    ray = import_extra("ray", "ray", "runs with engine 'ray'", BackendUnavailableError)
    loaded = loaded_model(model, "cpu")
    found = images_of(images, usual_spec(loaded, spec.max_pixels, spec.decoding), spec.folder)
    if isinstance(found, LoaderImages):
        raise OptionError("a DataLoader goes with engine 'local', got engine 'ray'. Give its Dataset.")
    if any(parameter.is_cuda for parameter in loaded.module.parameters()):
        loaded = dataclasses.replace(loaded, module=copy.deepcopy(loaded.module).cpu())
    with connected(ray, spec.run.address):
        pool = pool_of([node["Resources"] for node in ray.nodes() if node["Alive"]], spec.run.readers)
        if pool.on_gpu and spec.run.batch is None:
            spec = dataclasses.replace(spec, run=dataclasses.replace(spec.run, batch=CUDA_BATCH))
        return run_here(RayEngine(pool), loaded, found, spec, on_file)


class RayEngine:
    """Has Ray's actors make everything."""

    def __init__(self, pool: ActorPool) -> None:
        self._pool = pool

    def stop_event(self, folder: Path) -> threading.Event:
        """Return an event that the actors see too."""
        return _Flag(folder / NOTES / STOP)

    def outcomes(self, task: EngineTask) -> Generator[Outcome, None, None]:
        """Yield the results of the actors, in order within each chunk, but not from chunk to chunk; see Engine."""
        chunks = chunks_of(task.images.left(task.spec.ranks, task.is_done, task.output_spec.batch), self._pool.actors)
        if not chunks:
            return
        with _notes_of(task), contextlib.closing(batch_results(self._pool, self._actor_task(task, chunks))) as results:
            for result in results:
                for stage, seconds in result.seconds.items():
                    task.stages.add(stage, seconds)
                yield _with_grids(result, task.findings)

    def _actor_task(self, task: EngineTask, chunks: list[Any]) -> ActorTask:
        stems = {}
        for position in (position for chunk in chunks for batch in chunk for position in batch):
            if (stem := task.named(position).stem) != task.images.named(position).stem:
                stems[position] = stem
        return ActorTask(
            model=task.model,
            images=task.images,
            chunks=chunks,
            stems=stems,
            output_spec=dataclasses.replace(task.output_spec, folder=task.output_spec.folder.absolute()),
            done=task.findings.done,
            folder=os.getcwd(),
            cpus=self._pool.cpus,
            on_gpu=self._pool.on_gpu,
            timeout_s=task.spec.run.timeout,
        )


def _with_grids(result: BatchResult, findings: Findings) -> Outcome:
    """Return an outcome whose rows leave out the grids of the manifest, not the first ones that their actor met."""

    def adapted(row: IndexRow) -> IndexRow:
        grid = row.grid or result.grids.get(row.layer)
        is_new = grid is not None and findings.is_new_grid(row.layer, grid)
        return dataclasses.replace(row, grid=grid if is_new else None)

    finished = [one._replace(rows=list(map(adapted, one.rows))) for one in result.outcome.finished]
    return dataclasses.replace(result.outcome, finished=finished)


@contextlib.contextmanager
def _notes_of(task: EngineTask) -> Iterator[Path]:
    """Keep the folder of notes for the block."""
    notes = task.spec.folder / NOTES
    shutil.rmtree(notes, ignore_errors=True)
    make_folder(notes)
    if task.stop.is_set():
        task.stop.set()  # the file was not there before its folder was
    try:
        yield notes
    finally:
        shutil.rmtree(notes, ignore_errors=True)


class _Flag(threading.Event):
    """An event that other machines see as a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def set(self) -> None:
        super().set()
        with contextlib.suppress(OSError):  # without the folder there are no actors
            self._path.touch()
