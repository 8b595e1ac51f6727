"""A run on Ray: this process lists the pictures and keeps account, actors that hold the model make the files.

    connected    to a cluster                                                       ray_cluster.py
    calls_of     which batches an actor does in one go
    RayEngine    its batches go to the actors, and a small row of each comes back as soon as it is finished
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import BackendError, BackendUnavailableError, OptionError, reason_of
from ...models.factories import FILE_MODULE
from ...runtime.extras import import_extra
from ...runtime.files import make_folder
from ..images import LoaderImages, images_of
from ..local import run_here
from ..spec import CUDA_BATCH, RunSpec, RunSummary, loaded_model
from .actor import NOTES, STOP, Actor, ActorTask, Returned
from .cluster import ActorPool, connected, pool_of, quiet_console, threads_ended

if TYPE_CHECKING:
    from torch import nn

    from ...models.load import LoadedModel
    from ..batches import Findings
    from ..engine import EngineTask
    from ..folder.rows import IndexRow
    from ..outcomes import Outcome

CHUNK_BATCHES = 64
"""Batches in a call at most. Each call starts processes that read, in about the time of a batch."""

INIT_DEATHS = 8
"""Actors that die in a row before they can do anything, after which it is given up."""


def run_on_ray(
    model: LoadedModel | nn.Module | str, images: Any, spec: RunSpec, on_file: Callable[[Path], object] | None
) -> RunSummary:
    """Do a run on a Ray cluster.

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
    import_extra("ray.data", "ray", "runs with engine 'ray'", BackendUnavailableError)
    loaded = loaded_model(model, "cpu")
    found = images_of(images, loaded.preprocess, spec.max_pixels, spec.folder)
    if isinstance(found, LoaderImages):
        raise OptionError("a DataLoader goes with engine 'local', got engine 'ray'. Give its Dataset.")
    if any(parameter.is_cuda for parameter in loaded.module.parameters()):
        loaded = dataclasses.replace(loaded, module=copy.deepcopy(loaded.module).cpu())
    with connected(ray, spec.run.address):
        pool = pool_of([node["Resources"] for node in ray.nodes() if node["Alive"]], spec.run.workers)
        if pool.on_gpu and spec.run.batch is None:
            spec = dataclasses.replace(spec, run=dataclasses.replace(spec.run, batch=CUDA_BATCH))
        return run_here(RayEngine(pool), loaded, found, spec, on_file)


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


class RayEngine:
    """Has Ray's actors make everything."""

    def __init__(self, pool: ActorPool) -> None:
        self._pool = pool

    def stop_event(self, folder: Path) -> threading.Event:
        """Return an event that the actors see too."""
        return _Flag(folder / NOTES / STOP)

    def outcomes(self, task: EngineTask) -> Generator[Outcome, None, None]:
        """Yield what the actors send, each call in order and the calls in any; see Engine."""
        calls = chunks_of(task.images.left(task.spec.ranks, task.is_done, task.output_spec.batch), self._pool.actors)
        if not calls:
            return
        known = set()
        actor_task = self._actor_task(task, calls)
        with _notes_of(task) as notes, contextlib.closing(_returned(self._pool, actor_task)) as sent:
            for returned in sent:
                if returned.batch is None:
                    for note in notes.glob(f"{returned.call}-*"):
                        note.unlink(missing_ok=True)
                    if task.stop.is_set() and not any(notes.glob("*.begun*")):
                        return  # the rest of the calls would come back empty
                elif returned[:2] not in known:  # of a call that is done again
                    known.add(returned[:2])
                    for stage, seconds in returned.seconds.items():
                        task.stages.add(stage, seconds)
                    yield _with_grids(returned, task.findings)

    def _actor_task(self, task: EngineTask, calls: list[Any]) -> ActorTask:
        stems = {}
        for position in (position for call in calls for batch in call for position in batch):
            if (stem := task.named(position).stem) != task.images.named(position).stem:
                stems[position] = stem
        return ActorTask(
            model=task.model,
            pictures=task.images,
            calls=calls,
            stems=stems,
            output_spec=dataclasses.replace(task.output_spec, folder=task.output_spec.folder.absolute()),
            done=task.findings.done,
            folder=os.getcwd(),
            cpus=self._pool.cpus,
            on_gpu=self._pool.on_gpu,
            timeout_s=task.spec.run.timeout,
        )


def _with_grids(returned: Returned, findings: Findings) -> Outcome:
    """Return an outcome whose rows leave out the grids of the manifest, not the first ones that their actor met."""

    def adapted(row: IndexRow) -> IndexRow:
        grid = row.grid or returned.grids.get(row.layer)
        is_new = grid is not None and findings.is_new_grid(row.layer, grid)
        return dataclasses.replace(row, grid=grid if is_new else None)

    finished = [one._replace(rows=list(map(adapted, one.rows))) for one in returned.outcome.finished]
    return dataclasses.replace(returned.outcome, finished=finished)


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
