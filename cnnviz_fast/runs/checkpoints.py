"""What a run collects of its images: kept while it goes on, taken up after a kill, merged over processes.

.statistics.A-B.safetensors   while the run goes on: of the images A to B-1, in the order of the index
statistics.safetensors        of all images, once they are done

Each kind of record has files of its own name; see collected.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..channels.dataset import merge_layers
from ..errors import InputError
from ..runtime.compact import digest_of
from ..runtime.disk import flush_files
from ..runtime.files import move_file
from ..runtime.run_files import collected_name
from ..runtime.stage_times import stage
from .collected import Kind, Records

if TYPE_CHECKING:
    from .folder.journal import Journal
    from .ranks import Ranks

About = Callable[[Records], Mapping[str, Any]]
"""Records of all images -> what else goes into their file; see `Kind.write`."""

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

_SUFFIX = ".safetensors"

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Checkpoints:
    """Records of this process's share, in memory and on disk: what is measured is soon safe from a kill.

    Each file is of some images, and begins where another file ends. Now and then one file of all images so far is
    written, and the others are removed.

    Each file names the images that it is of by a digest of all keys in the index up to its end. An image that was lost
    meanwhile, and stands elsewhere in the index once it is done again, makes that another one; it would count twice.

    kind: of the records.
    kept: layer -> record that is on disk.
    """

    def __init__(
        self,
        kind: Kind,
        folder: Path,
        ranks: Ranks,
        listed: int | None = None,
        settle: Callable[[], object] = lambda: None,
    ) -> None:
        """Begin with nothing; see restore.

        Args:
            kind: of the records.
            folder: of the run.
            ranks: of this process.
            listed: number of images of all processes, where that is known.
            settle: enters the images that were added into the index. Called before a file says that it is of them.
        """
        self.kind = kind
        self._settle = settle
        self._folder = folder
        self._ranks = ranks
        self._listed = listed
        self._whole = folder / ranks.file(kind.name, _SUFFIX)
        self.kept: Records = {}
        self._unsaved: Records = {}
        self._first = self._last = 0  # images of the index that the unsaved records are of
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
            move_file(self._whole, self._file(0, _covered_by(self.kind.facts(self._whole))))
        done = list(dict.fromkeys(row["key"] for row in journal.rows()))
        files = sorted(self._files(), key=lambda file: (file[0], -file[1]))
        digests = self._digests_at(done, {last for _, last, _ in files})
        covered = 0
        for first, last, path in files:
            # The index was truncated where a file goes beyond it, so this part covers images no longer in it.
            if first == covered < last <= len(done) and self.kind.facts(path).get("keys") in (digests[last], None):
                with contextlib.suppress(InputError):  # of another version: measured anew
                    merge_layers(self.kept, self.kind.read(path))
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

    def add(self, records: Records, keys: Sequence[str] = ()) -> None:
        """Add the records of a batch, and write them to disk unless that would be too often.

        Args:
            records: layer -> record of its images; not to be used afterwards.
            keys: of the images that it has added to the index.
        """
        merge_layers(self._unsaved, records)
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
        self._count_as_kept()
        self._keep_in(self._file(0, self._last))

    def finish(self, about: About = lambda _: NOTHING) -> Path:
        """Write the records of this share, and if it is the last one, those of all shares together.

        Args:
            about: called with the records of all images, where they are written.

        Returns:
            The file.
        """
        alone = self._ranks.world_size == 1
        self._count_as_kept()
        self._keep_in(self._whole, about(self.kept) if alone else NOTHING)
        if alone or _missing(self.kind, self._folder, self._ranks, self._listed):
            return self._whole
        return _merge(self.kind, self._folder, self._ranks, about)

    def _write(self, path: Path, records: Records, about: Mapping[str, Any] = NOTHING) -> None:
        self._settle()
        with stage("write"):
            facts = {"covers": self._last, "keys": self._keys.hexdigest(), "listed": self._listed}
            self.kind.write(path, records, **{**about, "facts": {**about.get("facts", {}), **facts}})

    def _keep_in(self, path: Path, about: Mapping[str, Any] = NOTHING) -> None:
        """Write all that is kept into one file, and remove the others."""
        self._write(path, self.kept, about)
        flush_files(self._folder, [path.name])  # before what it replaces is gone
        for _, _, other in self._files():
            if other != path:
                other.unlink()

    def _count_as_kept(self) -> None:
        merge_layers(self.kept, self._unsaved)
        self._unsaved = {}
        self._first = self._last

    def _file(self, first: int, last: int) -> Path:
        return self._folder / f".{self._ranks.file(self.kind.name, f'.{first}-{last}{_SUFFIX}')}"

    def _files(self) -> list[tuple[int, int, Path]]:
        """List the files of this share while the run goes on: first image, the one behind the last, path."""
        own = re.escape(f".{self._ranks.file(self.kind.name, '')}")
        name = re.compile(rf"{own}\.(\d+)-(\d+){re.escape(_SUFFIX)}", re.ASCII)
        found = [(name.fullmatch(path.name), path) for path in self._folder.iterdir()]
        return [(int(match[1]), int(match[2]), path) for match, path in found if match]


def _covered_by(facts: Mapping[str, Any]) -> int:
    """Return how many images of the index a file with these facts is of; 0 where it is damaged."""
    covers = facts.get("covers")
    return covers if isinstance(covers, int) and 0 < covers < 1 << 63 else 0


def merged(kind: Kind, folder: Path) -> Path:
    """Return the path of the records of all processes together."""
    return folder / collected_name(kind.name)


def gathered(kind: Kind, folder: Path, ranks: Ranks, listed: int | None, say: Callable[[str], None]) -> Path:
    """Wait until all processes have their records, and return the file of all of them together.

    Args:
        kind: of the records.
        folder: of the run that makes them.
        ranks: of this process.
        listed: number of images of all processes. A file of another number is an earlier run's, and is waited to be
            renewed.
        say: called with a message where that takes long, which names the processes that are waited for.

    Returns:
        The file.
    """
    say_at = time.monotonic() + PATIENCE_S
    while missing := _missing(kind, folder, ranks, listed):
        if time.monotonic() > say_at:
            numbers = ", ".join(map(str, missing))
            say(f"waiting for the {kind.name} of process {numbers} of {ranks.world_size}, counted from 0")
            say_at = math.inf
        time.sleep(POLL_S)
    return _merge(kind, folder, ranks)


def _merge(kind: Kind, folder: Path, ranks: Ranks, about: About = lambda _: NOTHING) -> Path:
    """Merge the records of all processes. Several may do it at once: they write the same file."""
    together: Records = {}
    for name in ranks.files(kind.name, _SUFFIX):
        merge_layers(together, kind.read(folder / name))
    return kind.write(merged(kind, folder), together, **about(together))


def _missing(kind: Kind, folder: Path, ranks: Ranks, listed: int | None) -> list[int]:
    """Return the ranks whose records are not there, or are of a run with another number of images."""
    facts = [kind.facts(folder / name) for name in ranks.files(kind.name, _SUFFIX)]
    return [rank for rank, each in enumerate(facts) if not each or each.get("listed") != listed]
