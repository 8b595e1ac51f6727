"""Statistics of a run: kept while it goes on, taken up after a kill, merged over processes, drawn on by another run.

.statistics.A-B.safetensors   while it goes on: of the pictures from A to B, as they come in the index
statistics.safetensors        of all pictures, once they are done
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..channels.dataset import LayerStatistics, Ranges, merge_layers, ranges_of
from ..channels.dataset_files import facts_of, read_statistics, write_statistics
from ..errors import InputError
from ..runtime.stage_times import stage

if TYPE_CHECKING:
    from ..options.drawing import RenderOptions
    from .folder.journal import Journal
    from .ranks import Ranks

PART_SHARE = 0.05
"""Of a run's time that it may take to keep what batches add: 2048 channels of both signs take 70 ms, and are kept every
second and a half, which is a batch or two of a ResNet-50 on two cores."""

PART_S = 0.002
"""What takes no longer is kept with every batch. Two small layers take 1 ms."""

WHOLE_SHARE = 0.02
"""Of a run's time that it may take to keep all statistics in one file, in which those of batches are then merged."""

POLL_S = 0.5
PATIENCE_S = 30.0
"""After which it is said whom a process waits for: one that has died is waited for in vain."""

_STEM, _SUFFIX = "statistics", ".safetensors"


class Checkpoints:
    """The statistics of this process's share, in memory and on disk: what is measured is soon safe from a kill.

    Files of statistics add up, each being of the pictures from where another one ends. One of all pictures so far is
    written now and then, and the others go.

    kept: layer -> statistics that are on disk.
    """

    def __init__(self, folder: Path, place: Ranks, listed: int | None = None) -> None:
        """Begin.

        Args:
            folder: of the run.
            place: of this process.
            listed: pictures of all processes, where that is known.
        """
        self._folder = folder
        self._place = place
        self._listed = listed
        self._whole = folder / place.file(_STEM, _SUFFIX)
        self.kept: dict[str, LayerStatistics] = {}
        self._unsaved: dict[str, LayerStatistics] = {}
        self._first = self._last = 0  # pictures of the index that what is unsaved is of
        self._part_at = self._whole_at = time.monotonic()
        self._part_took = 0.0

    def restore(self, journal: Journal) -> set[str]:
        """Take up what an earlier run has kept.

        Args:
            journal: of the run.

        Returns:
            Keys of finished pictures that are not in it: to be measured again, and added as no further pictures.
        """
        if self._whole.exists():  # until this run is done it is not of all pictures
            os.replace(self._whole, self._file(0, facts_of(self._whole).get("covers") or 0))
        done = list(dict.fromkeys(row["key"] for row in journal.rows()))
        covered, files = 0, sorted(self._files(), key=lambda file: (file[0], -file[1]))
        for first, last, path in files:
            # One that goes on beyond the index is of pictures that are none any more: it was cut behind their backs.
            if first == covered < last <= len(done):
                with contextlib.suppress(InputError):  # of another version: measured anew
                    merge_layers(self.kept, read_statistics(path))
                    covered = last
                    continue
            path.unlink()
        self._first = covered
        self._last = len(done)
        return set(done[covered:])

    def add(self, statistics: dict[str, LayerStatistics], pictures: int) -> None:
        """Add what a batch held, and keep it unless that would be too often.

        Args:
            statistics: layer -> what its pictures held; not to be used afterwards.
            pictures: how many it has added to the index.
        """
        merge_layers(self._unsaved, statistics)
        self._last += pictures
        begin = time.monotonic()
        if begin >= self._whole_at:
            self.keep()
            self._whole_at = begin + (time.monotonic() - begin) / WHOLE_SHARE
        elif begin >= self._part_at and self._last > self._first:
            self._write(self._file(self._first, self._last), self._unsaved)
            self._count_as_kept()
            took = time.monotonic() - begin
            usual, self._part_took = min(took, self._part_took), took  # a disk that stops once does not count
            self._part_at = begin + (usual / PART_SHARE if usual > PART_S else 0)

    def keep(self) -> None:
        """Keep all that was added, in one file."""
        self._keep_in(self._file(0, self._last))

    def finish(self) -> Path:
        """Write the statistics of the whole share, and where it was the last one, of all shares together.

        Returns:
            The file.
        """
        self._keep_in(self._whole)
        if self._place.world == 1 or _missing(self._folder, self._place, self._listed):
            return self._whole
        return _merge(self._folder, self._place)

    def _write(self, path: Path, statistics: Mapping[str, LayerStatistics]) -> None:
        with stage("write"):
            write_statistics(path, statistics, {"covers": self._last, "listed": self._listed})

    def _keep_in(self, path: Path) -> None:
        """Write all that was added into one file; the others go."""
        self._count_as_kept()
        self._write(path, self.kept)
        for _, _, other in self._files():
            if other != path:
                other.unlink()

    def _count_as_kept(self) -> None:
        merge_layers(self.kept, self._unsaved)
        self._unsaved = {}
        self._first = self._last

    def _file(self, first: int, last: int) -> Path:
        return self._folder / f".{self._place.file(_STEM, f'.{first}-{last}{_SUFFIX}')}"

    def _files(self) -> list[tuple[int, int, Path]]:
        """List the files of this process's share while it goes on: first picture, the one behind the last, path."""
        name = re.compile(
            re.escape(f".{self._place.file(_STEM, '')}") + rf"\.(\d+)-(\d+){re.escape(_SUFFIX)}", re.ASCII
        )
        found = [(name.fullmatch(path.name), path) for path in self._folder.iterdir()]
        return [(int(match[1]), int(match[2]), path) for match, path in found if match]


def merged(folder: Path) -> Path:
    """Name the file of the statistics of all processes together."""
    return folder / f"{_STEM}{_SUFFIX}"


def gathered(folder: Path, place: Ranks, listed: int | None, say: Callable[[str], None]) -> Path:
    """Wait until all processes have their statistics, and return the file of all of them together.

    Args:
        folder: of the run that makes them.
        place: of this process.
        listed: pictures of all processes. Files that an earlier run has made of others are not waited for but renewed.
        say: told, where that takes long, which processes are waited for.

    Returns:
        The file.
    """
    say_at = time.monotonic() + PATIENCE_S
    while missing := _missing(folder, place, listed):
        if time.monotonic() > say_at:
            numbers = ", ".join(map(str, missing))
            say(f"waiting for the statistics of process {numbers} of {place.world}, counted from 0")
            say_at = math.inf
        time.sleep(POLL_S)
    return _merge(folder, place)


def ranges_for(path: Path, options: RenderOptions) -> dict[str, Ranges]:
    """Read the ranges that sheets are drawn on out of statistics.

    Args:
        path: of write_statistics.
        options: `percentile`.

    Returns:
        Layer -> range of each channel.

    Raises:
        InputError: the file is none.
    """
    return {layer: ranges for layer, each in read_statistics(path).items() if (ranges := ranges_of(each, options))}


def _merge(folder: Path, place: Ranks) -> Path:
    """Merge the statistics of all processes. Each may do it: they make the same file."""
    together: dict[str, LayerStatistics] = {}
    for name in place.files(_STEM, _SUFFIX):
        merge_layers(together, read_statistics(folder / name))
    return write_statistics(merged(folder), together)


def _missing(folder: Path, place: Ranks, listed: int | None) -> list[int]:
    """Return the numbers of processes whose statistics are not there, or not of so many pictures of all processes."""
    facts = [facts_of(folder / name) for name in place.files(_STEM, _SUFFIX)]
    return [rank for rank, each in enumerate(facts) if not each or each.get("listed") != listed]
