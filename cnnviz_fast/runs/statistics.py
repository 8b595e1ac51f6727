"""Statistics of a run: kept while it goes on, taken up after a kill, merged over processes, drawn on by another run.

.statistics.A-B.safetensors   while the run goes on: of the images A to B-1, in the order of the index
statistics.safetensors        of all images, once they are done
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..channels.dataset import LayerStatistics, Ranges, merge_layers, ranges_of
from ..channels.dataset_files import facts_of, read_statistics, write_statistics
from ..errors import InputError
from ..runtime.compact import digest_of
from ..runtime.disk import flush_files
from ..runtime.stage_times import stage

if TYPE_CHECKING:
    from ..options.drawing import RenderOptions
    from .folder.journal import Journal
    from .ranks import Ranks

PART_SHARE = 0.05
"""Share of a run's time that writing what batches add may take: 2048 channels of both signs take 70 ms, and are written
every 1.4 s, which is a batch or two of a ResNet-50 on two cores."""

PART_S = 0.002
"""What takes no longer to write is written with every batch. Two small layers take 1 ms."""

WHOLE_SHARE = 0.02
"""Share of a run's time that merging the files of batches into one file of all images may take."""

POLL_S = 0.5
PATIENCE_S = 30.0
"""After which a process names those it waits for, since one that has died never comes."""

_STEM, _SUFFIX = "statistics", ".safetensors"


class Checkpoints:
    """The statistics of this process's share, in memory and on disk: what is measured is soon safe from a kill.

    Each file is of some images, and begins where another file ends. Now and then one file of all images so far is
    written, and the others are removed.

    Each file names the images that it is of by a digest of all keys in the index up to its end. An image that was lost
    meanwhile, and stands elsewhere in the index once it is done again, makes that another one; it would count twice.

    kept: layer -> statistics that are on disk.
    """

    def __init__(
        self, folder: Path, ranks: Ranks, listed: int | None = None, settle: Callable[[], object] = lambda: None
    ) -> None:
        """Begin with nothing; see restore.

        Args:
            folder: of the run.
            ranks: of this process.
            listed: number of images of all processes, where that is known.
            settle: enters the images that were added into the index. Called before a file says that it is of them.
        """
        self._settle = settle
        self._folder = folder
        self._ranks = ranks
        self._listed = listed
        self._whole = folder / ranks.file(_STEM, _SUFFIX)
        self.kept: dict[str, LayerStatistics] = {}
        self._unsaved: dict[str, LayerStatistics] = {}
        self._first = self._last = 0  # images of the index that the unsaved statistics are of
        self._keys = hashlib.sha256()  # of the images up to the last one
        self._part_at = self._whole_at = time.monotonic()
        self._part_took = 0.0

    def restore(self, journal: Journal) -> set[str]:
        """Read what an earlier run has kept.

        Args:
            journal: of the run.

        Returns:
            Keys of finished images that are not in it. They are to be measured again, and added without keys.
        """
        if self._whole.exists():  # until this run is done it is not of all images
            os.replace(self._whole, self._file(0, _covered_by(self._whole)))
        done = list(dict.fromkeys(row["key"] for row in journal.rows()))
        files = sorted(self._files(), key=lambda file: (file[0], -file[1]))
        digests = self._digests_at(done, {last for _, last, _ in files})
        covered = 0
        for first, last, path in files:
            # The index was truncated where a file goes beyond it, so this part covers images no longer in it.
            if first == covered < last <= len(done) and facts_of(path).get("keys") in (digests[last], None):
                with contextlib.suppress(InputError):  # of another version: measured anew
                    merge_layers(self.kept, read_statistics(path))
                    covered = last
                    continue
            path.unlink()
        self._first = covered
        self._last = len(done)
        return set(done[covered:])

    def _digests_at(self, keys: Sequence[str], ends: Collection[int]) -> dict[int, str]:
        """Return the digests of the first keys, up to each of some ends, and go on from that of all."""
        digests = {}
        for count, key in enumerate(keys, 1):
            self._keys.update(digest_of(key))
            if count in ends:
                digests[count] = self._keys.hexdigest()
        return digests

    def add(self, statistics: dict[str, LayerStatistics], keys: Sequence[str] = ()) -> None:
        """Add the statistics of a batch, and write them to disk unless that would be too often.

        Args:
            statistics: layer -> statistics of its images; not to be used afterwards.
            keys: of the images that it has added to the index.
        """
        merge_layers(self._unsaved, statistics)
        self._last += len(keys)
        for key in keys:
            self._keys.update(digest_of(key))
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
        """Write all that was added into one file of images so far."""
        self._keep_in(self._file(0, self._last))

    def finish(self) -> Path:
        """Write the statistics of this share, and if it is the last one, those of all shares together.

        Returns:
            The file.
        """
        self._keep_in(self._whole)
        if self._ranks.world_size == 1 or _missing(self._folder, self._ranks, self._listed):
            return self._whole
        return _merge(self._folder, self._ranks)

    def _write(self, path: Path, statistics: Mapping[str, LayerStatistics]) -> None:
        self._settle()
        with stage("write"):
            keys = self._keys.hexdigest()
            write_statistics(path, statistics, {"covers": self._last, "keys": keys, "listed": self._listed})

    def _keep_in(self, path: Path) -> None:
        """Write all that was added into one file, and remove the others."""
        self._count_as_kept()
        self._write(path, self.kept)
        flush_files(self._folder, [path.name])  # before what it replaces is gone
        for _, _, other in self._files():
            if other != path:
                other.unlink()

    def _count_as_kept(self) -> None:
        merge_layers(self.kept, self._unsaved)
        self._unsaved = {}
        self._first = self._last

    def _file(self, first: int, last: int) -> Path:
        return self._folder / f".{self._ranks.file(_STEM, f'.{first}-{last}{_SUFFIX}')}"

    def _files(self) -> list[tuple[int, int, Path]]:
        """List the files of this share while the run goes on: first image, the one behind the last, path."""
        name = re.compile(
            re.escape(f".{self._ranks.file(_STEM, '')}") + rf"\.(\d+)-(\d+){re.escape(_SUFFIX)}", re.ASCII
        )
        found = [(name.fullmatch(path.name), path) for path in self._folder.iterdir()]
        return [(int(match[1]), int(match[2]), path) for match, path in found if match]


def _covered_by(path: Path) -> int:
    """Return how many images of the index a file is of; 0 where it is damaged."""
    covers = facts_of(path).get("covers")
    return covers if isinstance(covers, int) and 0 < covers < 1 << 63 else 0


def merged(folder: Path) -> Path:
    """Return the path of the statistics of all processes together."""
    return folder / f"{_STEM}{_SUFFIX}"


def gathered(folder: Path, ranks: Ranks, listed: int | None, say: Callable[[str], None]) -> Path:
    """Wait until all processes have their statistics, and return the file of all of them together.

    Args:
        folder: of the run that makes them.
        ranks: of this process.
        listed: number of images of all processes. A file of another number is an earlier run's, and is waited to be
            renewed.
        say: called with a message where that takes long, which names the processes that are waited for.

    Returns:
        The file.
    """
    say_at = time.monotonic() + PATIENCE_S
    while missing := _missing(folder, ranks, listed):
        if time.monotonic() > say_at:
            numbers = ", ".join(map(str, missing))
            say(f"waiting for the statistics of process {numbers} of {ranks.world_size}, counted from 0")
            say_at = math.inf
        time.sleep(POLL_S)
    return _merge(folder, ranks)


def ranges_for(path: Path, options: RenderOptions) -> dict[str, Ranges]:
    """Read the ranges that sheets are drawn on from a statistics file.

    Args:
        path: of the file; see write_statistics.
        options: `percentile`.

    Returns:
        Layer -> range of each channel.

    Raises:
        InputError: it is not a statistics file.
    """
    return {layer: ranges for layer, each in read_statistics(path).items() if (ranges := ranges_of(each, options))}


def _merge(folder: Path, ranks: Ranks) -> Path:
    """Merge the statistics of all processes. Several may do it at once: they write the same file."""
    together: dict[str, LayerStatistics] = {}
    for name in ranks.files(_STEM, _SUFFIX):
        merge_layers(together, read_statistics(folder / name))
    return write_statistics(merged(folder), together)


def _missing(folder: Path, ranks: Ranks, listed: int | None) -> list[int]:
    """Return the ranks whose statistics are not there, or are of a run with another number of images."""
    facts = [facts_of(folder / name) for name in ranks.files(_STEM, _SUFFIX)]
    return [rank for rank, each in enumerate(facts) if not each or each.get("listed") != listed]
