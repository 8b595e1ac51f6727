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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import BackendUnavailableError, OptionError
from ...runtime.extras import import_extra
from ...runtime.files import make_folder
from ..images import Loaded, images_of
from ..local import run_here
from ..runner import Runner
from ..spec import CUDA_BATCH, RunSpec, RunSummary, loaded_model
from .actor import NOTES, STOP, ActorTask, BatchResult
from .chunks import batch_results, chunks_of
from .cluster import ActorPool, connected, pool_of

if TYPE_CHECKING:
    from torch import nn

    from ...models.loaded import LoadedModel
    from ..batches import BatchWorker, Outcome


def run_on_ray(
    model: LoadedModel | nn.Module | str, images: Any, job: RunSpec, on_file: Callable[[Path], object] | None
) -> RunSummary:
    """Do a run with Ray's actors.

    Args:
        model: as in run.
        images: as in run, but no DataLoader.
        job: what is asked for.
        on_file: called with the path of each file.

    Returns:
        What was done.

    Raises:
        OptionError: something is asked for that Ray's actors cannot do.
        BackendUnavailableError: Ray is not installed, or its cluster cannot be reached.
        CnnvizError: see run.
    """
    if job.run.shards is not None:
        raise OptionError("shards go with engine 'local', got engine 'ray', whose actors write loose files.")
    if job.place.world > 1:
        raise OptionError(f"engine 'ray' shares pictures out itself, got {job.place.world} processes. Start one.")
    ray = import_extra("ray", "ray", "runs with engine 'ray'", BackendUnavailableError)
    loaded = loaded_model(model, "cpu")
    pictures = images_of(images, loaded.preprocess, job.max_pixels, job.folder)
    if isinstance(pictures, Loaded):
        raise OptionError("a DataLoader goes with engine 'local', got engine 'ray'. Give its Dataset.")
    if any(parameter.is_cuda for parameter in loaded.module.parameters()):
        loaded = dataclasses.replace(loaded, module=copy.deepcopy(loaded.module).cpu())
    with connected(ray, job.run.address):
        pool = pool_of([node["Resources"] for node in ray.nodes() if node["Alive"]], job.run.workers)
        if pool.on_gpu and job.run.batch is None:
            job = dataclasses.replace(job, run=dataclasses.replace(job.run, batch=CUDA_BATCH))
        return run_here(loaded, pictures, job, on_file, partial(RayRunner, pool))


class RayRunner(Runner):
    """A run of which Ray's actors do the work."""

    def __init__(self, pool: ActorPool, *run: Any) -> None:
        super().__init__(*run)
        self.pool = pool
        self.notes = self.job.folder / NOTES
        self.stop = _Flag(self.notes / STOP)

    def __call__(self) -> RunSummary:
        with contextlib.ExitStack() as self.ending:
            return super().__call__()

    def _outcomes(self, work: BatchWorker, is_done: Callable[[str], bool]) -> Iterator[Outcome]:
        """Have the actors make what is wanted of the pictures; whatever ends the run, it ends them first."""
        outcomes = self._made(work, is_done)
        self.ending.callback(outcomes.close)
        return outcomes

    def _made(self, work: BatchWorker, is_done: Callable[[str], bool]) -> Generator[Outcome, None, None]:
        """Take the results of the actors, which come in the order of each chunk, but not of the chunks."""
        chunks = chunks_of(self.pictures.left(self.job.place, is_done, work.output_spec.batch), self.pool.actors)
        if not chunks:
            return
        with self._notes(), contextlib.closing(batch_results(self.pool, self._task(work, chunks))) as results:
            for result in results:
                for stage, seconds in result.seconds.items():
                    self.stages.add(stage, seconds)
                self._fill_in_grids(result)
                yield result.outcome

    def _fill_in_grids(self, result: BatchResult) -> None:
        """Make rows leave out the grid that the manifest has, in place of the first one that their actor met."""
        for row in (row for one in result.outcome.finished for row in one.rows):
            grid = row.pop("grid", None) or result.grids.get(row["layer"])
            if grid is not None and grid != self.work.grids.setdefault(row["layer"], grid):
                row["grid"] = grid

    @contextlib.contextmanager
    def _notes(self) -> Iterator[None]:
        """Keep the folder of notes."""
        shutil.rmtree(self.notes, ignore_errors=True)
        make_folder(self.notes)
        if self.stop.is_set():
            self.stop.set()
        try:
            yield
        finally:
            shutil.rmtree(self.notes, ignore_errors=True)

    def _task(self, work: BatchWorker, chunks: list[Any]) -> ActorTask:
        stems = {}
        for position in (position for chunk in chunks for batch in chunk for position in batch):
            picture = self.pictures.named(position)
            if (stem := self.journal.stem_for(picture.key, picture.stem)) != picture.stem:
                stems[position] = stem
        return ActorTask(
            model=self.model,
            images=self.pictures,
            chunks=chunks,
            stems=stems,
            output_spec=dataclasses.replace(work.output_spec, folder=work.output_spec.folder.absolute()),
            fills=work.fills,
            done=work.done,
            folder=os.getcwd(),
            cpus=self.pool.cpus,
            on_gpu=self.pool.on_gpu,
            timeout_s=self.job.run.timeout,
        )


class _Flag(threading.Event):
    """An event that other machines see as a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def set(self) -> None:
        super().set()
        with contextlib.suppress(OSError):  # without the folder there are no actors
            self._path.touch()
