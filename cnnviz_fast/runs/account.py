"""The account of a run: what becomes of each image is counted, told and written down."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..errors import ImagesFailedError
from ..models.loaded import LoadedModel
from ..provenance import package_version
from ..runtime.disk import HeldFolder, flush_files
from ..runtime.files import json_bytes, whole_file
from ..runtime.progress import Progress
from ..runtime.stage_times import stage
from ..runtime.untrusted import read_json
from .folder.journal import Journal
from .folder.tars import TarWriter
from .images import Images
from .outcomes import FinishedImage, ImageId, Outcome
from .spec import RunSpec, RunSummary

MANIFEST = "manifest"

FAILURES_SHOWN = 10
"""Failures that are told on stderr as they happen; of a million images, one failure in ten would hide all else."""


class Account:
    """What became of the images of a run so far.

    finished, failed, skipped: numbers of images of this process's share; an earlier run finished those skipped.
    layers: layer -> shape, dtype and grid, as the manifest has them.
    """

    def __init__(
        self,
        spec: RunSpec,
        journal: Journal,
        tars: TarWriter | None,
        progress: Progress,
        on_file: Callable[[Path], object] | None,
    ) -> None:
        """Begin where an earlier run stopped.

        Args:
            spec: of the run.
            journal: of its folder.
            tars: to put files into, or None for loose files.
            progress: shows the counts.
            on_file: called with the path of each file, or of each tar, once it is complete.
        """
        self.finished = self.failed = self.skipped = 0
        self.layers = _layers_in(spec)
        self._spec = spec
        self._journal = journal
        self._tars = tars
        self._progress = progress
        self._on_file = on_file
        self._held: dict[str, HeldFolder] = {}  # of the layers
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="cnnviz index")
        self._writing: Future[list[str]] | None = None  # a batch, to be flushed and entered while the next one is made

    @property
    def grids(self) -> dict[str, dict[str, int]]:
        """Layer -> the grid that rows leave out, since the manifest has it."""
        return {name: facts["grid"] for name, facts in self.layers.items() if facts.get("grid")}

    def is_done(self, key: str) -> bool:
        """Check whether an earlier run finished an image, and count it as skipped then."""
        done = self._journal.is_done(key)
        self.skipped += done
        return done

    def named(self, images: Images, position: int) -> ImageId:
        """Return the key, name and stem of an image; no other image in the folder has this stem."""
        image = images.named(position)
        return image._replace(stem=self._journal.stem_for(image.key, image.stem))

    def keep(self, outcome: Outcome, grids: Mapping[str, dict[str, int]]) -> None:
        """Write down what became of a batch, so that it is never done again, behind the caller's back; see `settle`.

        Args:
            outcome: of the batch.
            grids: of layers, which rows leave out.

        Raises:
            CnnvizError: the batch before could not be written down, or an image failed with `strict`.
        """
        self.settle()
        for failed in outcome.failed:
            self.fail(failed.image.name, failed.image.key, failed.reason)
        finished = [self._in_tar(image) for image in outcome.finished]
        for row in [row for image in finished for row in image.rows]:
            facts = self.layers.setdefault(row.layer, {"shape": row.shape, "dtype": row.dtype})
            facts.setdefault("grid", grids.get(row.layer))
        if finished:
            # In the caller's context, which has how errors advise.
            self._writing = self._writer.submit(contextvars.copy_context().run, self._write_down, finished)
        self.finished += len(finished)
        self.show()

    def settle(self) -> None:
        """Wait until the batch that was kept last is written down, and report its files.

        Raises:
            WriteError: for example, the disk is full, or a folder is another one now.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            files = writing.result()
            self._report(self._tars.turn() if self._tars is not None else files)

    def _write_down(self, finished: list[FinishedImage]) -> list[str]:
        """Enter images into the index once their files are on the disk, which is idle time; return their files."""
        with stage("write"):
            finished = self._on_disk(finished)
            self._journal.append([(*_entry(image), [row.to_json() for row in image.rows]) for image in finished])
        return [file for image in finished for row in image.rows for file in row.files]

    def close(self) -> None:
        """Wait until the batch that was kept last is written down, also where another error ends the run."""
        self._writer.shutdown()

    def end(self) -> None:
        """Wait for what is written down, and end the tar that is being written, where there is one."""
        self.settle()
        if self._tars is not None:
            self._report(self._tars.close())

    def _report(self, files: Iterable[str]) -> None:
        if self._on_file is not None:
            for file in files:
                self._on_file(self._spec.folder / file)

    def fail(self, name: str, key: str, reason: str) -> None:
        """Write down that an image failed; raise ImagesFailedError with `strict`."""
        self._journal.fail(name, key, reason)
        self.failed += 1
        if self._spec.run.strict:
            raise ImagesFailedError(f"{name}: {reason.rstrip('.')}. Without strict the others would be done.")
        if self.failed <= FAILURES_SHOWN:
            self._progress.say(f"{name}: {reason}")
            if self.failed == FAILURES_SHOWN:
                self._progress.say("further failures stand in failed.jsonl only")
        self.show()

    def show(self) -> None:
        """Show the counts."""
        self._progress.show(self.finished, self.failed, self.skipped)

    def summary(self, **facts: Any) -> RunSummary:
        """Return the counts and other facts as a summary."""
        return RunSummary(
            folder=self._spec.folder,
            images=self.finished + self.failed + self.skipped,
            finished=self.finished,
            skipped=self.skipped,
            failed=self.failed,
            **facts,
        )

    def write_manifest(self, model: LoadedModel, summary: RunSummary) -> None:
        """Write what came out of this process's share, and how to read it."""
        document = {
            "cnnviz_fast": package_version(),
            "model": model.spec,
            "weights": model.weights,
            "layers": self.layers,
            "save": self._spec.run.save,
            "options": dict(vars(self._spec.drawing)),
            **dataclasses.asdict(summary),
            "statistics": summary.statistics and summary.statistics.name,
            "top": summary.top and summary.top.name,
        }
        del document["folder"]
        with whole_file(_manifest_of(self._spec)) as file:
            file.write(json_bytes(document))

    def _in_tar(self, image: FinishedImage) -> FinishedImage:
        """Move the files of an image into the tar, where there is one."""
        if self._tars is None:
            return image
        return image._replace(rows=[dataclasses.replace(row, **self._tars.add(row.files)) for row in image.rows])

    def _on_disk(self, images: list[FinishedImage]) -> list[FinishedImage]:
        """Wait until the files of images are on the disk, all at once; then their rows may say that they are there."""
        if self._tars is not None:
            self._tars.flush()
            return images
        files = [file for image in images for row in image.rows for file in row.files]
        for part in {file.partition("/")[0] for file in files}:
            if part not in self._held:
                self._held[part] = HeldFolder(self._spec.folder / part)
            self._held[part].check()
        sizes = iter(flush_files(self._spec.folder, files))
        return [
            image._replace(
                rows=[dataclasses.replace(row, sizes=[next(sizes) for _ in row.files] or None) for row in image.rows]
            )
            for image in images
        ]


def _entry(image: FinishedImage) -> tuple[str, str]:
    return image.image.key, image.image.stem


def _manifest_of(spec: RunSpec) -> Path:
    return spec.folder / spec.ranks.file(MANIFEST, ".json")


def _layers_in(spec: RunSpec) -> dict[str, dict[str, Any]]:
    """Read the layers that an earlier run found, from its manifest."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        before = read_json(_manifest_of(spec))
        return {name: dict(facts) for name, facts in before["layers"].items()}
    return {}
