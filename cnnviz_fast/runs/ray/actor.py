"""What runs in an actor of Ray: a model that stays, and one call after another, each of a few batches of pictures.

Each batch is sent as soon as it is finished. An actor may die in a call, and its machine with it; Ray then makes
another one do the call again, and takes what it sends, by the count, for what was sent before. So each batch is kept
beside the files until its call is over: it is sent again as it was, and the work goes on behind it.
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
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...errors import BackendError, OptionError, reason_of
from ...runtime.files import whole_file
from ...runtime.stage_times import Stages, watched
from ..batches import BatchWorker, OutputSpec, findings_for
from ..outcomes import ImageId, Outcome
from ..shard import render_shard

if TYPE_CHECKING:
    from ...inputs.reading import ImageBatch
    from ...models.load import LoadedModel
    from ..images import Images

NOTES = ".ray"
"""Folder in that of the run, while it goes on: what it has to say to its actors, wherever they are."""

STOP = "stop"
"""Its file that lets actors begin no further batch."""

ATTEMPTS = 4
"""Deaths over the same pictures, after which it is they that are at fault, and not the machines."""

UNDER_WAY = 2
"""Batches that an actor may die of: the model is at one, while the files of the one before are made."""


@dataclass(frozen=True)
class ActorTask:
    """All that an actor has to know of a run.

    Attributes:
        model: on the CPU.
        pictures: all of them.
        calls: positions of the pictures of each batch of each call.
        stems: of those pictures whose files have other names than `pictures` gives them.
        output_spec: what is made.
        done: see Findings.
        folder: that relative paths start from.
        cpus: of an actor.
        on_gpu: whether it has a GPU.
        timeout_s: that a picture may take to be read.
    """

    model: LoadedModel
    pictures: Images
    calls: Sequence[Sequence[Sequence[int]]]
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

    def work(self) -> BatchWorker:
        """Make the work of an actor, in it."""
        with contextlib.suppress(OSError):  # not there on this machine: then neither is anything below it
            os.chdir(self.folder)
        if not self.notes.is_dir():
            raise OptionError(
                f"out must lie on a file system that all machines of the cluster share, but {platform.node()} does not "
                f"see {self.output_spec.folder}."
            )
        if self.on_gpu:
            self.model.module.to("cuda")  # Ray shows each actor no other GPU than its own
        drawing = self.output_spec.drawing
        options = dataclasses.replace(drawing.options, threads=drawing.options.threads or self.cpus)
        drawing = dataclasses.replace(drawing, options=options)
        findings = findings_for(self.model, self.output_spec.batch, self.done)
        return BatchWorker(self.model, dataclasses.replace(self.output_spec, drawing=drawing), findings)


class Returned(NamedTuple):
    """What comes back of a batch.

    call: that it belongs to.
    batch: which one of the call it is; None at the end of a call, whether or not all of it is done.
    grids: layer -> the grid that its rows leave out.
    seconds: spent in each stage.
    """

    call: int
    batch: int | None
    outcome: Outcome
    grids: dict[str, dict[str, int]]
    seconds: dict[str, float]


class Actor:
    """What Ray Data calls with a number of a call at a time."""

    def __init__(self, shift: Sequence[Any]) -> None:
        """Keep the reference of the shift, pickled, in a list: Ray would put what it refers to in its place."""
        self._reference = shift[0]
        self._shift: ActorTask | None = None

    def __call__(self, rows: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Do a call, and give a row for each batch."""
        for call in rows["item"]:
            for packed in self._results(int(call)):
                yield {"returned": np.array([packed], object)}

    def _results(self, call: int) -> Iterator[bytes]:
        """Do a call; what is wrong with every picture is sent as well, since Ray takes what is raised for its own."""
        try:
            if self._shift is None:
                self._shift = _received(self._reference)
                self._work = self._shift.work()
            yield from _done(self._shift, self._work, call)
        except Exception as error:
            yield _pickled(error)


def _received(reference: Any) -> ActorTask:
    """Fetch what the run has sent, with the classes of its model and pictures."""
    import ray

    packed = ray.get(reference)
    try:
        shift: ActorTask = pickle.loads(packed)
    except Exception as error:  # whatever the import of somebody's module raises
        raise BackendError(
            f"{platform.node()} cannot load the model or the images: {reason_of(error)}. Install what they need on "
            f"every machine of the Ray cluster."
        ) from error
    return shift


def _done(shift: ActorTask, work: BatchWorker, call: int) -> Iterator[bytes]:
    """Do a call, but for what an actor before this one has finished of it."""
    begin = 0
    with contextlib.suppress(FileNotFoundError):
        while True:
            yield _note(shift, call, begin).read_bytes()
            begin += 1
    if begin < len(shift.calls[call]) and not shift.stopped:
        _count_attempt(shift, call, begin)
        for returned in _batches(shift, work, call, begin):
            packed = pickle.dumps(returned)
            with whole_file(_note(shift, call, begin)) as file:
                file.write(packed)
            yield packed
            begin += 1
    yield pickle.dumps(Returned(call, None, Outcome(), {}, {}))


def _note(shift: ActorTask, call: int, batch: int) -> Path:
    """Say where a batch is kept that is finished."""
    return shift.notes / f"{call}-{batch}.done"


def _count_attempt(shift: ActorTask, call: int, begin: int) -> None:
    """Note that a call goes on at a batch, until it is over, so that the next attempt knows if this one dies of it."""
    died = len(list(shift.notes.glob(f"{call}-{begin}.begun*")))
    if died >= ATTEMPTS:
        positions = [position for batch in shift.calls[call][begin : begin + UNDER_WAY] for position in batch]
        first, last = (shift.pictures.named(position).name for position in (positions[0], positions[-1]))
        raise BackendError(
            f"Ray's actors died {died} times over the same {len(positions)} pictures, {first} to {last}. See why in "
            f"Ray's logs, /tmp/ray/session_latest/logs; where memory ended, lower batch or workers."
        )
    (shift.notes / f"{call}-{begin}.begun{died}").touch()


def _batches(shift: ActorTask, work: BatchWorker, call: int, begin: int) -> Iterator[Returned]:
    """Do the batches of a call from `begin` on, until it is told to stop."""
    work.findings.grids.clear()
    stages = Stages()
    sizes = list(map(len, shift.calls[call]))

    def until_stopped(reads: Iterator[ImageBatch]) -> Iterator[ImageBatch]:
        for read in reads:
            if shift.stopped:
                return
            stages.add("decode", read.seconds)
            yield read

    def named(position: int) -> ImageId:
        picture = shift.pictures.named(position)
        return picture._replace(stem=shift.stems.get(position, picture.stem))

    reads = shift.pictures.read_these(
        shift.calls[call][begin:], workers=max(1, shift.cpus // 2), timeout_s=shift.timeout_s, pin=work.on_cuda
    )
    before: dict[str, float] = {}
    whole = Outcome()
    with watched(stages), contextlib.closing(reads):
        for outcome in render_shard(work, until_stopped(reads), named):
            whole.add(outcome)
            if len(whole.finished) + len(whole.failed) == sizes[begin]:  # failures come by themselves, and sizes do
                seconds = stages.seconds()
                spent = {name: seconds[name] - before.get(name, 0.0) for name in seconds}
                yield Returned(call, begin, whole, dict(work.findings.grids), spent)
                before, whole = seconds, Outcome()
                begin += 1


def _pickled(error: Exception) -> bytes:
    try:
        return pickle.dumps(error)
    except Exception:  # one of somebody's own that holds what cannot be sent
        return pickle.dumps(BackendError("".join(traceback.format_exception_only(error)).strip()))
