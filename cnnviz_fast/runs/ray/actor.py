"""What runs in an actor of Ray: the model stays loaded, and the actor does one chunk of batches after another.

The result of a batch is yielded to the process that keeps the account, and is also noted beside the files. Where an
actor or its machine dies before the result has arrived, that process reads the note.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pickle
import platform
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...errors import BackendError, OptionError, reason_of
from ...runtime.files import whole_file
from ...runtime.stage_times import Stages, watched
from ..batches import BatchWorker, OutputSpec, findings_for
from ..outcomes import ImageId, Outcome
from ..shard import render_shard

if TYPE_CHECKING:
    from ...inputs.reading import ImageBatch
    from ...models.loaded import LoadedModel
    from ..images import Images

NOTES = ".ray"
"""Folder in the folder of the run, while the run goes on: what actors and the run tell each other through files."""

STOP = "stop"
"""File in NOTES: actors begin no further batch once it exists."""


@dataclass(frozen=True)
class ActorTask:
    """Everything that an actor has to know of a run.

    Attributes:
        model: on the CPU.
        images: all images of the run.
        chunks: for each chunk, the batches; for each batch, the positions of its images.
        stems: position -> stem of the image's files, where it is not the one that `images` has.
        output_spec: what is made of every image.
        done: see Findings.
        folder: working directory that relative paths start from.
        cpus: of each actor.
        on_gpu: whether each actor has a GPU.
        timeout_s: time that an image may take to be read.
    """

    model: LoadedModel
    images: Images
    chunks: Sequence[Sequence[Sequence[int]]]
    stems: Mapping[int, str]
    output_spec: OutputSpec
    done: int
    folder: str
    cpus: int
    on_gpu: bool
    timeout_s: float

    @property
    def notes(self) -> Path:
        """Folder of the notes."""
        return self.output_spec.folder / NOTES

    @property
    def stopped(self) -> bool:
        """Whether no further batch is to be begun."""
        return (self.notes / STOP).exists()

    def note(self, chunk: int, batch: int) -> Path:
        """Return the file that keeps the result of a batch until it is written down."""
        return self.notes / f"{chunk}-{batch}.done"

    def worker(self) -> BatchWorker:
        """Return the worker of an actor; called in the actor's process."""
        with contextlib.suppress(OSError):  # if this machine lacks the folder, it lacks the files below it too
            os.chdir(self.folder)
        if not self.notes.is_dir():
            raise OptionError(
                f"out must lie on a file system that all machines of the cluster share, but {platform.node()} does not "
                f"see {self.output_spec.folder}."
            )
        if self.on_gpu:
            self.model.module.to("cuda")  # Ray shows each actor only its own GPU
        drawing = self.output_spec.drawing
        options = dataclasses.replace(drawing.options, threads=drawing.options.threads or self.cpus)
        drawing = dataclasses.replace(drawing, options=options)
        findings = findings_for(self.model, self.output_spec.batch, self.done)
        return BatchWorker(self.model, dataclasses.replace(self.output_spec, drawing=drawing), findings)


class BatchResult(NamedTuple):
    """What an actor sends of a batch.

    grids: layer -> the grid that the rows of the outcome leave out.
    seconds: spent in each stage.
    """

    outcome: Outcome
    grids: dict[str, dict[str, int]]
    seconds: dict[str, float]


class Actor:
    """The class of the actors. Errors are sent as pickled values, like results: Ray would wrap what is raised."""

    def __init__(self, packed: bytes) -> None:
        """Keep the pickled task; `prepare` loads it."""
        self._packed = packed

    def prepare(self) -> bytes:
        """Load the model, and return None or the error that every image would meet, pickled."""
        try:
            self._task = _loaded(self._packed)
            self._worker = self._task.worker()
        except Exception as error:
            return _pickled(error)
        self._packed = b""
        return pickle.dumps(None)

    def do(self, chunk: int, begin: int) -> Iterator[bytes]:
        """Do a chunk from batch `begin` on, until the run is stopped.

        Yields:
            The result of each batch, pickled; at last the error that every image would meet, if there is one.
        """
        try:
            for batch, result in enumerate(_results(self._task, self._worker, chunk, begin), begin):
                packed = pickle.dumps(result)
                with whole_file(self._task.note(chunk, batch)) as file:
                    file.write(packed)
                yield packed
        except Exception as error:
            yield _pickled(error)


def _loaded(packed: bytes) -> ActorTask:
    """Unpickle a task, which imports the classes of its model and images."""
    try:
        task: ActorTask = pickle.loads(packed)
    except Exception as error:  # whatever the import of a user's module raises
        raise BackendError(
            f"{platform.node()} cannot load the model or the images: {reason_of(error)}. Install what they need on "
            f"every machine of the Ray cluster."
        ) from error
    return task


def _results(task: ActorTask, worker: BatchWorker, chunk: int, begin: int) -> Iterator[BatchResult]:
    """Do the batches of a chunk from `begin` on, until the run is stopped."""
    batches = task.chunks[chunk][begin:]
    sizes = iter([len(batch) for batch in batches])
    worker.findings.grids.clear()
    stages = Stages()

    def until_stopped(reads: Iterator[ImageBatch]) -> Iterator[ImageBatch]:
        for read in reads:
            if task.stopped:
                return
            stages.add("decode", read.seconds)
            yield read

    def named(position: int) -> ImageId:
        image = task.images.named(position)
        return image._replace(stem=task.stems.get(position, image.stem))

    if task.stopped:
        return
    readers = max(1, task.cpus // 2)
    reads = task.images.read_these(batches, workers=readers, timeout_s=task.timeout_s, pin=worker.on_cuda)
    before: dict[str, float] = {}
    whole, size = Outcome(), next(sizes, 0)
    with watched(stages), contextlib.closing(reads):
        for outcome in render_shard(worker, until_stopped(reads), named):
            # Failures, and images of each size, have outcomes of their own: a batch is over once all its images came.
            whole.add(outcome)
            if len(whole.finished) + len(whole.failed) == size:
                seconds = stages.seconds()
                spent = {name: seconds[name] - before.get(name, 0.0) for name in seconds}
                yield BatchResult(whole, dict(worker.findings.grids), spent)
                before, whole, size = seconds, Outcome(), next(sizes, 0)


def _pickled(error: Exception) -> bytes:
    """Pickle an error, or its text if it holds what cannot be pickled."""
    try:
        return pickle.dumps(error)
    except Exception:
        return pickle.dumps(BackendError("".join(traceback.format_exception_only(error)).strip()))
