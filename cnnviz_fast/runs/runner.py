"""A run while it goes on: which pictures are left, what becomes of each, and what is written down of it.

Journal       which are done already; refuses a folder of another run
read_batches  worker processes decode                      reading.py
render_shard  the model runs, files are made               passes.py, work.py
Journal       the rows of each batch are appended, in order: it is the index too
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..channels.dataset import LayerStatistics, merge_layers
from ..errors import ImagesFailedError
from ..models.loaded import LoadedModel
from ..provenance import package_version
from ..runtime.files import json_bytes, sweep, whole_file
from ..runtime.progress import Progress
from ..runtime.stage_times import Stages, stage, watched
from .batches import BatchWorker, FinishedImage, ImageId, Outcome
from .folder.index import index_to_parquet
from .folder.journal import Journal
from .folder.lock import alone
from .folder.tars import TarWriter
from .images import Images
from .interrupts import softened
from .shard import render_shard
from .spec import RunSpec, RunSummary
from .statistics import Checkpoints

if TYPE_CHECKING:
    from ..inputs.reading import ImageBatch

MANIFEST = "manifest"

MEGABYTE = 1_000_000

RUNNING = ".running"
"""Mark of a run that goes on, or was killed."""

OTHERS_WRITE_S = 600.0
"""No file takes another process so long to write."""

FAILURES_SAID = 10
"""So many failures are said on stderr as they happen; one of a million in ten would drown everything else."""


class Runner:
    """A run while it goes on: keeps account of what becomes of the pictures. `_outcomes` is where the work is done."""

    def __init__(
        self,
        model: LoadedModel,
        pictures: Images,
        job: RunSpec,
        statistics: Path | None,
        on_file: Callable[[Path], object] | None,
    ) -> None:
        self.model, self.pictures, self.job = model, pictures, job
        self.statistics = statistics
        self.on_file = on_file
        self.stages = Stages()
        self.stop = threading.Event()
        self.finished = self.failed = self.skipped = 0
        self.layers: dict[str, dict[str, Any]] = {}

    def __call__(self) -> RunSummary:
        begin = time.monotonic()
        place = self.job.place
        with ExitStack() as stack:
            fingerprint = self.job.fingerprint(self.model, self.pictures, self.statistics)
            keeps_world = self.job.run.shards is not None or "statistics" in self.job.run.save
            self.journal = stack.enter_context(
                Journal(self.job.folder, fingerprint, rank=place.rank, world=place.world, keeps_world=keeps_world)
            )
            self._take_up_manifest()
            self._sweep_up_after_kills(stack)
            self.tars = self._open_tars(stack)
            folder = self.job.folder if self.tars is None else self.tars.staged
            self.work = BatchWorker(self.model, self.job.output_spec(self.model, self.statistics, folder))
            self.work.done = self.journal.count  # where some were finished, failures are the pictures' own
            self.work.grids = {name: facts["grid"] for name, facts in self.layers.items() if facts.get("grid")}
            self.checkpoints = None
            if self.work.output_spec.collects:
                self.checkpoints = Checkpoints(self.job.folder, place, self.pictures.count)
            self.work.fills = (self.pictures.count or 0) > self.work.output_spec.batch
            share = len(self.pictures.share(place)) + (len(self.pictures.failures) if place.rank == 0 else 0)
            self.progress = stack.enter_context(Progress(self.job.run.progress, share or None))
            stack.enter_context(watched(self.stages))
            stack.enter_context(softened(self.stop, self.progress.say))
            self._do_all()
            if self.tars is not None:
                self._say_files(self.tars.close())
            return self._sum_up(time.monotonic() - begin)

    def _take_up_manifest(self) -> None:
        """Remember the layers that an earlier run has found."""
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            before = json.loads((self.job.folder / self.job.place.file(MANIFEST, ".json")).read_text())
            self.layers = {name: dict(facts) for name, facts in before["layers"].items()}

    def _sweep_up_after_kills(self, stack: ExitStack) -> None:
        """Remove halves of files where a run before was killed: it has left its mark, which every other way removes."""
        place, folder = self.job.place, self.job.folder
        if marks := set(folder.glob(f"{RUNNING}*")):
            sweep(folder, older_than_s=0 if place.world == 1 else OTHERS_WRITE_S)
            for mark in marks - {folder / name for name in place.files(RUNNING, "")}:
                mark.unlink(missing_ok=True)  # of another number of processes, of which none is there any more
        mark = folder / place.file(RUNNING, "")
        mark.touch()
        stack.callback(mark.unlink, missing_ok=True)

    def _open_tars(self, stack: ExitStack) -> TarWriter | None:
        if self.job.run.shards is None:
            return None
        place = self.job.place
        tars = TarWriter(self.job.folder, place.file("shard", "-"), self.job.run.shards * MEGABYTE, self.journal.rows())
        stack.callback(tars.leave)
        return tars

    def _do_all(self) -> None:
        """Do what is not done; before that, measure again what statistics have missed."""
        for failure in self.pictures.failures if self.job.place.rank == 0 else ():
            self._fail(failure.name, failure.name, failure.reason)
        if self.checkpoints is not None:
            missed = self.checkpoints.restore(self.journal)
            self.work.like.update(self.checkpoints.kept)
            self._measure_again(missed, self.checkpoints)
        for outcome in self._outcomes(self.work, self._is_done):
            self._keep(outcome)
            if self.checkpoints is not None:
                self.checkpoints.add(outcome.statistics, len(outcome.finished))

    def _measure_again(self, missed: set[str], checkpoints: Checkpoints) -> None:
        """Measure pictures that are finished, but not in the statistics."""
        if not missed:
            return
        statistics: dict[str, LayerStatistics] = {}
        for outcome in self._outcomes(self.work.without_outputs(), lambda key: key not in missed):
            merge_layers(statistics, outcome.statistics)
            for failed in outcome.failed:
                self.progress.say(f"{failed.picture.name} is not in the statistics: {failed.reason}")
        if not self.stop.is_set():
            checkpoints.add(statistics, 0)

    def _outcomes(self, work: BatchWorker, is_done: Callable[[str], bool]) -> Iterator[Outcome]:
        """Read pictures and make what is wanted of them."""
        reads = self.pictures.read(
            self.job.place,
            is_done,
            work.output_spec.batch,
            workers=self.job.readers,
            timeout_s=self.job.run.timeout,
            pin=work.on_cuda,
            stop=self.stop,
        )
        try:
            yield from render_shard(work, self._timed(reads), self._named, self.stop)
        finally:
            with contextlib.suppress(ValueError):  # after a second Ctrl-C the thread of the model is still in there
                reads.close()

    def _is_done(self, key: str) -> bool:
        done = self.journal.is_done(key)
        self.skipped += done
        return done

    def _timed(self, reads: Iterator[ImageBatch]) -> Iterator[ImageBatch]:
        for read in reads:
            self.stages.add("decode", read.seconds)
            yield read

    def _named(self, position: int) -> ImageId:
        picture = self.pictures.named(position)
        return picture._replace(stem=self.journal.stem_for(picture.key, picture.stem))

    def _keep(self, outcome: Outcome) -> None:
        """Write down what became of a batch, so that it is never done again."""
        for failed in outcome.failed:
            self._fail(failed.picture.name, failed.picture.key, failed.reason)
        if self.tars is not None:
            outcome = dataclasses.replace(outcome, finished=[self._into_tar(one) for one in outcome.finished])
        with stage("write"):
            self.journal.append([(one.picture.key, one.picture.stem, one.rows) for one in outcome.finished])
        first = self.finished == 0
        self.finished += len(outcome.finished)
        for row in (row for one in outcome.finished for row in one.rows):
            facts = self.layers.setdefault(row["layer"], {"shape": row["shape"], "dtype": row["dtype"]})
            facts.setdefault("grid", self.work.grids.get(row["layer"]))
            if self.tars is None:
                self._say_files(row["files"])
        if self.tars is not None:
            self._say_files(self.tars.turn())
        if first and self.finished:
            self._write_manifest(self._summary(complete=False))  # rows say what differs from its grids
        self.progress.show(self.finished, self.failed, self.skipped)

    def _say_files(self, files: Iterable[str]) -> None:
        if self.on_file is not None:
            for file in files:
                self.on_file(self.job.folder / file)

    def _into_tar(self, one: FinishedImage) -> FinishedImage:
        assert self.tars is not None
        return one._replace(rows=[row | self.tars.add(row["files"]) for row in one.rows])

    def _fail(self, name: str, key: str, reason: str) -> None:
        self.journal.fail(name, key, reason)
        self.failed += 1
        if self.job.run.strict:
            raise ImagesFailedError(f"{name}: {reason.rstrip('.')}. Without strict the others would be done.")
        if self.failed <= FAILURES_SAID:
            self.progress.say(f"{name}: {reason}")
            if self.failed == FAILURES_SAID:
                self.progress.say("further failures stand in failed.jsonl only")
        self.progress.show(self.finished, self.failed, self.skipped)

    def _sum_up(self, seconds: float) -> RunSummary:
        job = self.job
        statistics = None
        if self.checkpoints is not None and not self.stop.is_set():
            statistics = self.checkpoints.finish()
        elif self.checkpoints is not None and self.finished:  # so nothing is missed any more
            self.checkpoints.keep()
        self.progress.show(self.finished, self.failed, self.skipped)  # where nothing was left to be done, too
        if self.stop.is_set():
            self.progress.say(f"stopped after {self.finished} pictures; the same call goes on with the others")
        elif job.run.parquet:
            with alone(job.folder):  # the last one of several processes has seen the rows of all
                index_to_parquet(job.folder)
        summary = self._summary(complete=not self.stop.is_set(), seconds=seconds, statistics=statistics)
        self._write_manifest(summary)
        return summary

    def _summary(self, *, complete: bool, seconds: float = 0.0, statistics: Path | None = None) -> RunSummary:
        return RunSummary(
            folder=self.job.folder,
            pictures=self.finished + self.failed + self.skipped,
            finished=self.finished,
            skipped=self.skipped,
            failed=self.failed,
            complete=complete,
            seconds=seconds,
            stages=self.stages.seconds(),
            statistics=statistics,
        )

    def _write_manifest(self, summary: RunSummary) -> None:
        """Write what came out of this process's share, and how to read it."""
        document = {
            "cnnviz_fast": package_version(),
            "model": self.model.spec,
            "weights": self.model.weights,
            "layers": self.layers,
            "save": self.job.run.save,
            "options": dict(vars(self.job.drawing)),
            **dataclasses.asdict(summary),
            "statistics": None if summary.statistics is None else summary.statistics.name,
        }
        del document["folder"]
        with whole_file(self.job.folder / self.job.place.file(MANIFEST, ".json")) as file:
            file.write(json_bytes(document))
