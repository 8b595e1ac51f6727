"""A run from its beginning to its end: it takes the folder, has an engine do what is left, and sums up.

Journal      which images are finished already; refuses a folder of another run
Engine       reads images, runs the model and writes files
Account      what becomes of each batch is appended to the journal, which is the index too
Checkpoints  records over all images, kept while the run goes on
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..channels.dataset import merge_layers
from ..inputs.find import count_in_words
from ..models.loaded import LoadedModel
from ..runtime.files import sweep
from ..runtime.progress import Progress
from ..runtime.stage_times import Stages, watched
from .account import Account
from .batches import findings_for
from .checkpoints import Checkpoints
from .collected import Kind, Records
from .engine import Engine, EngineTask
from .folder.index import index_to_parquet
from .folder.journal import Journal
from .folder.lock import alone
from .folder.tars import TarWriter
from .images import Images
from .interrupts import softened
from .spec import RunSpec, RunSummary

MEGABYTE = 1_000_000

RUNNING = ".running"
"""Mark of a run that goes on, or that was killed."""

OTHERS_WRITE_S = 600.0
"""No process takes so long to write a file."""


@dataclass(frozen=True)
class _OpenRun:
    """What a run holds while it goes on."""

    journal: Journal
    progress: Progress
    account: Account
    checkpoints: list[Checkpoints]
    task: EngineTask


class Runner:
    """Does this process's share of a run, with an engine that makes the outputs."""

    def __init__(
        self,
        engine: Engine,
        model: LoadedModel,
        images: Images,
        spec: RunSpec,
        statistics: Path | None = None,
        on_file: Callable[[Path], object] | None = None,
    ) -> None:
        """Prepare a run; nothing is read or written yet.

        Args:
            engine: makes the outputs.
            model: from load_model.
            images: all images; this process does those of its rank.
            spec: what is asked for.
            statistics: file of the statistics that sheets are drawn on.
            on_file: called with the path of each file.
        """
        self._engine = engine
        self._model = model
        self._images = images
        self._spec = spec
        self._statistics = statistics
        self._on_file = on_file
        self._stages = Stages()
        self._stop = engine.stop_event(spec.folder)

    def run(self) -> RunSummary:
        """Do what is left of the run; see `run` of api.py for what it raises."""
        begin = time.monotonic()
        with ExitStack() as stack:
            opened = self._open(stack)
            stack.enter_context(watched(self._stages))
            stack.enter_context(softened(self._stop, opened.progress.say))
            self._do_all(opened)
            opened.account.end()
            return self._sum_up(opened, begin)

    def _open(self, stack: ExitStack) -> _OpenRun:
        """Take the folder, and what an earlier run left in it; `stack` gives everything back."""
        spec, ranks = self._spec, self._spec.ranks
        fingerprint = spec.fingerprint(self._model, self._images, self._statistics)
        keeps_ranks = spec.run.shards is not None or bool(spec.collects)
        journal = stack.enter_context(
            Journal(spec.folder, fingerprint, rank=ranks.rank, world_size=ranks.world_size, keeps_ranks=keeps_ranks)
        )
        self._sweep_up_after_kills(stack)
        tars = None if spec.run.shards is None else _open_tars(stack, spec, journal)
        output_spec = spec.output_spec(
            self._model, self._statistics, spec.folder if tars is None else tars.staged, self._images.count
        )
        share = len(self._images.share(ranks)) + (len(self._images.failures) if ranks.rank == 0 else 0)
        progress = stack.enter_context(Progress(spec.run.progress, share or None))
        if journal.redone:
            progress.say(f"done again, since files or rows of finished images are gone: {journal.redone}")
        account = Account(spec, journal, tars, progress, self._on_file)
        stack.callback(account.close)
        task = EngineTask(
            model=self._model,
            images=self._images,
            spec=spec,
            output_spec=output_spec,
            findings=findings_for(self._model, output_spec.batch, journal.count, account.grids),
            is_done=account.is_done,
            named=partial(account.named, self._images),
            stop=self._stop,
            stages=self._stages,
        )
        checkpoints = [
            Checkpoints(kind, spec.folder, ranks, self._images.count, account.settle) for kind in output_spec.collects
        ]
        return _OpenRun(journal, progress, account, checkpoints, task)

    def _sweep_up_after_kills(self, stack: ExitStack) -> None:
        """Remove half-written files where a run was killed: a kill alone leaves the run's mark behind."""
        ranks, folder = self._spec.ranks, self._spec.folder
        if marks := set(folder.glob(f"{RUNNING}*")):
            sweep(folder, older_than_s=0 if ranks.world_size == 1 else OTHERS_WRITE_S)
            for mark in marks - {folder / name for name in ranks.files(RUNNING, "")}:
                mark.unlink(missing_ok=True)  # of a run with another number of processes, which has ended
        mark = folder / ranks.file(RUNNING, "")
        mark.touch()
        stack.callback(mark.unlink, missing_ok=True)

    def _do_all(self, opened: _OpenRun) -> None:
        """Do what is left; before that, measure again what the records have missed."""
        account, task = opened.account, opened.task
        if self._images.passed_over and self._spec.ranks.rank == 0:
            opened.progress.say(count_in_words(self._images.passed_over))
        for failure in self._images.failures if self._spec.ranks.rank == 0 else ():
            account.fail(failure.name, failure.name, failure.reason)
        for checkpoints in opened.checkpoints:
            missed = checkpoints.restore(opened.journal)
            task.findings.like[checkpoints.kind.name] = dict(checkpoints.kept)
            self._measure_again(opened, checkpoints, missed)
        with closing(self._engine.outcomes(task)) as outcomes:
            for outcome in outcomes:
                first = account.finished == 0
                account.keep(outcome, task.findings.grids)
                if first and account.finished:
                    self._write_manifest(opened, self._summary(opened, complete=False))  # it has the rows' grids
                for checkpoints in opened.checkpoints:
                    records = outcome.collected.get(checkpoints.kind.name, {})
                    checkpoints.add(records, [image.image.key for image in outcome.finished])

    def _measure_again(self, opened: _OpenRun, checkpoints: Checkpoints, missed: set[str]) -> None:
        """Measure images that are finished, but are not in the records of a kind; no files are written."""
        if not missed:
            return
        kind = checkpoints.kind
        only_measured = dataclasses.replace(opened.task.output_spec, outputs=(), heat_outputs=(), collects=[kind])
        task = dataclasses.replace(opened.task, output_spec=only_measured, is_done=lambda key: key not in missed)
        records: Records = {}
        with closing(self._engine.outcomes(task)) as outcomes:
            for outcome in outcomes:
                merge_layers(records, outcome.collected.get(kind.name, {}))
                for failed in outcome.failed:
                    opened.progress.say(f"{failed.image.name} is not in the {kind.name}: {failed.reason}")
        if not self._stop.is_set():
            checkpoints.add(records)

    def _sum_up(self, opened: _OpenRun, begin: float) -> RunSummary:
        account, stopped = opened.account, self._stop.is_set()
        seconds = time.monotonic() - begin
        files: dict[str, Path] = {}
        for checkpoints in opened.checkpoints:
            if not stopped:
                files[checkpoints.kind.name] = checkpoints.finish(partial(self._about, opened, checkpoints.kind))
            elif account.finished:  # so that the next run has nothing to measure again
                checkpoints.keep()
        account.show()  # also where nothing was left to do
        if stopped:
            opened.progress.say(f"stopped after {account.finished} images; the same call goes on with the others")
        elif self._spec.run.parquet:
            with alone(self._spec.folder):  # the last one of several processes has seen the rows of all
                index_to_parquet(self._spec.folder)
        summary = self._summary(opened, complete=not stopped, seconds=seconds, **files)
        self._write_manifest(opened, summary)
        opened.journal.check()  # nothing that was written is elsewhere
        return summary

    def _about(self, opened: _OpenRun, kind: Kind, records: Records) -> dict[str, Any]:
        """Return what else is written with the records of all images, and print what is to be known of them."""
        for line in kind.remarks(records, self._images):
            opened.progress.say(line)
        return kind.about(records, self._model, self._images)

    def _summary(self, opened: _OpenRun, *, seconds: float = 0.0, **facts: Any) -> RunSummary:
        passed_over = sum(self._images.passed_over.values())
        stages = self._stages.seconds()
        return opened.account.summary(seconds=seconds, stages=stages, passed_over=passed_over, **facts)

    def _write_manifest(self, opened: _OpenRun, summary: RunSummary) -> None:
        opened.account.write_manifest(self._model, summary)


def _open_tars(stack: ExitStack, spec: RunSpec, journal: Journal) -> TarWriter:
    assert spec.run.shards is not None
    tars = TarWriter(spec.folder, spec.ranks.file("shard", "-"), spec.run.shards * MEGABYTE, journal.rows())
    stack.callback(tars.leave)
    return tars
