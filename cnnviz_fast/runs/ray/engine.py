"""A run on Ray: this process lists the pictures and keeps account, actors that hold the model make the files.

    connected    to a cluster                                                       ray_cluster.py
    calls_of     which batches an actor does in one go
    RayRun       the run: its batches go to the actors, and a small row of each comes back as soon as it is finished
    Actor        what does a call                                                   ray_actor.py

The actors write the files themselves: of several machines, all have to see the folder of the run under the same path.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import os
import pickle
import shutil
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import BackendError, BackendUnavailableError, OptionError, reason_of
from ...models.factories import FILE_MODULE
from ...runtime.extras import import_extra
from ...runtime.files import make_folder
from ..images import Loaded, images_of
from ..local import run_here
from ..runner import Runner
from ..spec import CUDA_BATCH, RunSpec, RunSummary, loaded_model
from .actor import NOTES, STOP, Actor, ActorTask, Returned
from .cluster import ActorPool, connected, pool_of, quiet_console, threads_ended

if TYPE_CHECKING:
    from torch import nn

    from ...models.loaded import LoadedModel
    from ..batches import BatchWorker, Outcome

CHUNK_BATCHES = 64
"""Batches in a call at most. Each call starts processes that read, in about the time of a batch."""

INIT_DEATHS = 8
"""Actors that die in a row before they can do anything, after which it is given up."""


def run_on_ray(
    model: LoadedModel | nn.Module | str, images: Any, job: RunSpec, on_file: Callable[[Path], object] | None
) -> RunSummary:
    """Do a run with Ray Data.

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
    import_extra("ray.data", "ray", "runs with engine 'ray'", BackendUnavailableError)
    loaded = loaded_model(model, "cpu")
    pictures = images_of(images, loaded.preprocess, job.max_pixels, job.folder)
    if isinstance(pictures, Loaded):
        raise OptionError("a DataLoader goes with engine 'local', got engine 'ray'. Give its Dataset.")
    if any(parameter.is_cuda for parameter in loaded.module.parameters()):
        loaded = dataclasses.replace(loaded, module=copy.deepcopy(loaded.module).cpu())
    with connected(ray, job.run.address):
        crew = pool_of([node["Resources"] for node in ray.nodes() if node["Alive"]], job.run.workers)
        if crew.on_gpu and job.run.batch is None:
            job = dataclasses.replace(job, run=dataclasses.replace(job.run, batch=CUDA_BATCH))
        return run_here(loaded, pictures, job, on_file, partial(RayRunner, crew))


def chunks_of(batches: Sequence[Any], actors: int) -> list[Sequence[Any]]:
    """Share batches out in calls: long ones, while each of the other actors has twice as many left to do meanwhile.

    Args:
        batches: all of them.
        actors: how many there are.

    Returns:
        The batches of each call, in order.
    """
    calls = []
    while batches:
        size = min(CHUNK_BATCHES, -(-len(batches) // (2 * actors - 1)))
        calls.append(batches[:size])
        batches = batches[size:]
    return calls


class RayRunner(Runner):
    """A run of which Ray's actors do the work."""

    def __init__(self, crew: ActorPool, *run: Any) -> None:
        super().__init__(*run)
        self.crew = crew
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
        """Take what the actors send, in any order but that of each call."""
        calls = chunks_of(self.pictures.left(self.job.place, is_done, work.output_spec.batch), self.crew.actors)
        if not calls:
            return
        known = set()
        with self._notes(), contextlib.closing(_returned(self.crew, self._shift(work, calls))) as sent:
            for returned in sent:
                if returned.batch is None:
                    for note in self.notes.glob(f"{returned.call}-*"):
                        note.unlink(missing_ok=True)
                    if self.stop.is_set() and not any(self.notes.glob("*.begun*")):
                        return  # the rest of the calls would come back empty
                elif returned[:2] not in known:  # of a call that is done again
                    known.add(returned[:2])
                    for stage, seconds in returned.seconds.items():
                        self.stages.add(stage, seconds)
                    self._fill_in_grids(returned)
                    yield returned.outcome

    def _fill_in_grids(self, returned: Returned) -> None:
        """Have rows leave out the grid that the manifest has, in place of the first one that their actor met."""
        for row in (row for one in returned.outcome.finished for row in one.rows):
            grid = row.pop("grid", None) or returned.grids.get(row["layer"])
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

    def _shift(self, work: BatchWorker, calls: list[Any]) -> ActorTask:
        stems = {}
        for position in (position for call in calls for batch in call for position in batch):
            picture = self.pictures.named(position)
            if (stem := self.journal.stem_for(picture.key, picture.stem)) != picture.stem:
                stems[position] = stem
        return ActorTask(
            model=self.model,
            pictures=self.pictures,
            calls=calls,
            stems=stems,
            output_spec=dataclasses.replace(work.output_spec, folder=work.output_spec.folder.absolute()),
            fills=work.fills,
            done=work.done,
            folder=os.getcwd(),
            cpus=self.crew.cpus,
            on_gpu=self.crew.on_gpu,
            timeout_s=self.job.run.timeout,
        )


class _Flag(threading.Event):
    """An event that other machines see as a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def set(self) -> None:
        super().set()
        with contextlib.suppress(OSError):  # the folder is gone: there is nobody left to be told
            self._path.touch()


def _returned(crew: ActorPool, shift: ActorTask) -> Generator[Returned, None, None]:
    """Do the calls of a shift; Ray does those again whose actor dies, and goes without it until it can be replaced."""
    import ray

    reference = ray.put(_packed(shift))
    calls = ray.data.from_items(list(range(len(shift.calls))), override_num_blocks=len(shift.calls))
    results = calls.map_batches(
        Actor,
        fn_constructor_args=([reference],),
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=crew.actors, max_tasks_in_flight_per_actor=2),
        num_cpus=crew.cpus,
        num_gpus=1 if crew.on_gpu else 0,
    )
    # Each row is a block of its own, which goes out when it is there, and not with the rest of its call.
    results.context.target_max_block_size = 1
    # Not in order: behind a call that is lost with its machine all others would wait to be written down.
    results.context.execution_options.preserve_order = False
    results.context.enable_progress_bars = False
    results.context.max_consecutive_actor_init_deaths = INIT_DEATHS
    try:
        with quiet_console(), threads_ended():
            for rows in results.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
                for row in rows["returned"]:
                    returned = pickle.loads(row)
                    if isinstance(returned, Exception):
                        raise returned
                    yield returned
    except ray.exceptions.RayError as error:
        raise BackendError(f"Ray cannot go on: {reason_of(error)}. What is finished stays; run it again.") from error


def _packed(shift: ActorTask) -> bytes:
    """Pickle a shift, with the code of models that were made by files, which no other process can import."""
    from ray import cloudpickle

    files = [module for name, module in list(sys.modules.items()) if name.startswith(FILE_MODULE)]
    for module in files:
        cloudpickle.register_pickle_by_value(module)
    try:
        packed: bytes = cloudpickle.dumps(shift)
    except Exception as error:  # a user's own objects may raise anything
        raise OptionError(f"model and images must pickle for engine 'ray', but do not: {reason_of(error)}.") from error
    finally:
        for module in files:
            cloudpickle.unregister_pickle_by_value(module)
    return packed
