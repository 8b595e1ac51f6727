"""What runs in an actor of Ray: a model that stays, and one call after another, each of a few batches of pictures.

An actor may die in a call, and its machine with it; Ray then makes another one do the call again. So files are written
as if they were not there, and what a call has measured travels with its rows: only what is delivered is counted.
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

from .decode import reason
from .errors import BackendError, OptionError
from .stages import Stages, watched
from .work import Named, Outcome, Recipe, Work, render_shard

if TYPE_CHECKING:
    from .models import LoadedModel
    from .reading import Read
    from .run_pictures import Pictures

NOTES = ".ray"
"""Folder in that of the run, while it goes on: what it has to say to its actors, wherever they are."""

STOP = "stop"
"""Its file that lets actors begin no further batch."""

ATTEMPTS = 4
"""Deaths over the same pictures, after which it is they that are at fault, and not the machines."""


@dataclass(frozen=True)
class Shift:
    """All that an actor has to know of a run.

    Attributes:
        model: on the CPU.
        pictures: all of them.
        calls: positions of the pictures of each batch of each call.
        stems: of those pictures whose files have other names than `pictures` gives them.
        recipe: what is made.
        fills: see Work.
        folder: that relative paths start from.
        cpus: of an actor.
        on_gpu: whether it has a GPU.
        timeout_s: that a picture may take to be read.
    """

    model: LoadedModel
    pictures: Pictures
    calls: Sequence[Sequence[Sequence[int]]]
    stems: Mapping[int, str]
    recipe: Recipe
    fills: bool
    folder: str
    cpus: int
    on_gpu: bool
    timeout_s: float

    @property
    def notes(self) -> Path:
        """Folder of the notes."""
        return self.recipe.folder / NOTES

    def work(self) -> Work:
        """Make the work of an actor, in it."""
        with contextlib.suppress(OSError):  # not there on this machine: then neither is anything below it
            os.chdir(self.folder)
        if not self.notes.is_dir():
            raise OptionError(
                f"out must lie on a file system that all machines of the cluster share, but {platform.node()} does not "
                f"see {self.recipe.folder}."
            )
        if self.on_gpu:
            self.model.module.to("cuda")  # Ray shows each actor no other GPU than its own
        options = self.recipe.options
        options = dataclasses.replace(options, threads=options.threads or self.cpus)
        work = Work(self.model, dataclasses.replace(self.recipe, options=options))
        work.fills = self.fills
        return work


class Returned(NamedTuple):
    """What comes back of a call.

    actor: which one did it.
    cut: whether it was told to stop before the end.
    grids: layer -> its grid, for the manifest.
    seconds: spent in each stage.
    """

    actor: str
    cut: bool
    outcome: Outcome
    grids: dict[str, dict[str, int]]
    seconds: dict[str, float]


class Actor:
    """What Ray Data calls with a number of a call at a time."""

    def __init__(self, shift: Sequence[Any]) -> None:
        """Keep the reference of the shift, pickled, in a list: Ray would put what it refers to in its place."""
        self._reference = shift[0]
        self._shift: Shift | None = None

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Do a call; what is wrong with every picture is returned, since Ray takes what is raised for its own."""
        return {"returned": np.array([_pickled(self._result(int(call))) for call in rows["item"]], object)}

    def _result(self, call: int) -> Returned | Exception:
        try:
            if self._shift is None:
                self._shift = _received(self._reference)
                self._work = self._shift.work()
            with _attempt(self._shift, call):
                return _done(self._shift, self._work, call)
        except Exception as error:
            return error


def _received(reference: Any) -> Shift:
    """Fetch what the run has sent, with the classes of its model and pictures."""
    import ray

    packed = ray.get(reference)
    try:
        shift: Shift = pickle.loads(packed)
    except Exception as error:  # whatever the import of somebody's module raises
        raise BackendError(
            f"{platform.node()} cannot load the model or the images: {reason(error)}. Install what they need on every "
            f"machine of the Ray cluster."
        ) from error
    return shift


def _done(shift: Shift, work: Work, call: int) -> Returned:
    """Do a call."""
    work.grids = {}
    stages = Stages()
    batches = shift.calls[call]
    readers = max(1, shift.cpus // 2)
    taken = 0

    def until_stopped(reads: Iterator[Read]) -> Iterator[Read]:
        nonlocal taken
        for read in reads:
            if (shift.notes / STOP).exists():
                return
            taken += 1
            stages.add("decode", read.seconds)
            yield read

    def named(position: int) -> Named:
        picture = shift.pictures.named(position)
        return picture._replace(stem=shift.stems.get(position, picture.stem))

    reads = shift.pictures.read_these(batches, workers=readers, timeout_s=shift.timeout_s, pin=work.on_cuda)
    whole = Outcome()
    with watched(stages), contextlib.closing(reads):
        for outcome in render_shard(work, until_stopped(reads), named):
            whole.add(outcome)
    actor = f"{platform.node()}/{os.getpid()}"
    return Returned(actor, taken < len(batches), whole, work.grids, stages.seconds())


@contextlib.contextmanager
def _attempt(shift: Shift, call: int) -> Iterator[None]:
    """Note that a call is being done, so that the next one knows if this one dies of it."""
    begun = len(list(shift.notes.glob(f"{call}.*")))
    if begun >= ATTEMPTS:
        positions = [position for batch in shift.calls[call] for position in batch]
        first, last = (shift.pictures.named(position).name for position in (positions[0], positions[-1]))
        raise BackendError(
            f"Ray's actors died {begun} times over the same {len(positions)} pictures, {first} to {last}. See why in "
            f"Ray's logs, /tmp/ray/session_latest/logs; where memory ended, lower batch or workers."
        )
    note = shift.notes / f"{call}.{begun}"
    note.touch()
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def _pickled(result: Returned | Exception) -> bytes:
    try:
        return pickle.dumps(result)
    except Exception:  # an error of somebody's own that holds what cannot be sent
        assert isinstance(result, Exception)
        return pickle.dumps(BackendError("".join(traceback.format_exception_only(result)).strip()))
