"""The journal of a run: it takes the folder for one run, and holds what is finished and what failed.

    run.json                          the fingerprint of the run; another run is refused
    index.jsonl                       a line for each finished image and layer; of several ranks
                                      index-RANK-of-WORLD_SIZE.jsonl
    failed.jsonl                      a line for each image that failed in the latest run; named like the index
    .lock, .lock-RANK-of-WORLD_SIZE   while a run is in the folder

The index is the journal: once an image's files are in place, its lines are written in one call, and so are there
however the process ends. Lines torn by a power cut are cut off, and lines whose files are gone or damaged are taken out
(see promises.py); their images are done again.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from ...errors import InputError, OptionError, WriteError
from ...formats.names import folded_stem, told_apart
from ...runtime.compact import DIGEST_BYTES, DigestMap, digest_of
from ...runtime.disk import HeldFolder, flush
from ...runtime.files import cannot_write, make_folder, whole_file
from ...runtime.untrusted import open_regular
from .index import FinishedLines, Line, files_of, image_lines, name_of, read_finished, read_line
from .lock import FolderLock
from .promises import Promises
from .run_file import agree

_TOLD_BY = (8, 16, 24)  # hexadecimal digits of a key's SHA-256, as output_stems takes
_PLACE_BYTES = 8
_COPIED_BYTES = 1 << 20  # at once
_FILE_BITS = 16  # of a place: the number of the index file; the other 48 bits are the byte in it


class Journal:
    """A folder that is taken for a run, and what is finished in it. Threads may share one.

    A million finished images take 97 MB of memory, and 6 s to read.

    Attributes:
        redone: images that are done again, as far as can be known: they stood behind damage in this rank's index, or
            their files are not there as its lines say.
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: Mapping[str, Any],
        *,
        rank: int = 0,
        world_size: int = 1,
        keeps_ranks: bool = False,
    ) -> None:
        """Take a folder, and read what is finished in it, by whatever number of ranks.

        Args:
            folder: of the run; made where it is missing.
            fingerprint: of `fingerprint_of`, JSON: everything that the outputs depend on.
            rank: of this process, from 0.
            world_size: number of ranks.
            keeps_ranks: whether a run can only be taken up by as many ranks as began it.

        Raises:
            OptionError: another run is in the folder, or it holds a run with another fingerprint, of an older version,
                or one that another number of ranks has to take up.
            WriteError: the folder cannot be written.
        """
        if not 0 <= rank < world_size:
            raise OptionError(f"rank must be from 0 to {world_size - 1} of {world_size} ranks, got {rank}.")
        self.redone = 0
        self._folder = Path(folder)
        self._path = self._folder / name_of("index", rank, world_size)
        self._failed = self._folder / name_of("failed", rank, world_size)
        self._places = DigestMap(_PLACE_BYTES)  # key -> where its lines are
        self._owners = DigestMap(DIGEST_BYTES)  # stem, without case -> digest of the key that has it
        self._threads = threading.Lock()
        make_folder(self._folder)
        self._held = HeldFolder(self._folder)
        with contextlib.ExitStack() as undo:
            fixed = world_size if keeps_ranks else None
            lock = FolderLock(self._folder, rank, world_size, lambda: agree(self._folder, fingerprint, fixed))
            undo.callback(lock.release)
            try:
                self._file = self._open_index(undo)
                self._take_up(undo)
                _forget_failures(self._folder, rank, world_size)
            except OSError as error:
                raise cannot_write(self._path, error) from error
            self._taken = undo.pop_all()

    @property
    def count(self) -> int:
        """Number of finished images: of all ranks when the folder was taken, and this rank's since then."""
        return len(self._places)

    def is_done(self, key: str) -> bool:
        """Check whether an image is finished."""
        return self._places.get(key) is not None

    def stem_for(self, key: str, stem: str) -> str:
        """Return the stem of an image's files: always the same one, and one that no other image in the folder has.

        Args:
            key: of the image.
            stem: among the images of this run, of `output_stems`.

        Returns:
            The stem in the index where the image is finished; else `stem`, with digits of the key's SHA-256 where
            another image has it already. Case does not count.

        Raises:
            InputError: another image has the stem with digits too. Only a key that was made for that comes to it.
        """
        place = self._places.get(key)
        if place is not None and (line := self._line_at(place)) is not None and line["key"] == key:
            return str(line["stem"])
        own = digest_of(key)
        with self._threads:
            for candidate in _candidates(key, stem):
                if self._owners.setdefault(folded_stem(candidate), own) == own:
                    return candidate
        raise InputError(f"image {key!r} has no name that is not another image's. Rename it.")

    def append(self, finished: Sequence[tuple[str, str, Sequence[Mapping[str, Any]]]]) -> None:
        """Enter images as finished, in one write: all of them, or after an error none.

        Args:
            finished: key, stem and rows of each, see `image_lines`. Those that are finished already are passed over.

        Raises:
            WriteError: for example, the disk is full, or the folder is another one now. The index is as before.
        """
        with self._threads:
            self.check()
            new = [(key, stem, image_lines(key, stem, rows)) for key, stem, rows in finished if not self.is_done(key)]
            self._write(b"".join(lines for _, _, lines in new))
            for key, stem, lines in new:
                self._note(key, stem, self._own, self._end)
                self._end += len(lines)

    def fail(self, name: str, key: str, reason: str) -> None:
        """Enter an image as failed.

        Args:
            name: what messages call it.
            key: of the image.
            reason: why, in a sentence.

        Raises:
            WriteError: the file cannot be written.
        """
        line = json.dumps({"image": name, "key": key, "reason": reason}) + "\n"
        self.check()
        try:
            with self._threads, open(self._failed, "ab") as file:
                file.write(line.encode())
        except OSError as error:
            raise cannot_write(self._failed, error) from error

    def check(self) -> None:
        """Check that what was written is in the folder: that it and the index are those that were taken.

        Raises:
            WriteError: one was removed, renamed or replaced meanwhile.
        """
        self._held.check()
        try:
            same = os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._path))
        except OSError:
            same = False
        if not same:
            raise WriteError(f"cannot write {self._path}: it was removed or replaced meanwhile. Run it again.")

    def rows(self) -> Iterator[Line]:
        """Read the lines of the images that this rank has finished, in the order they were entered."""
        with open(self._path, "rb") as file:
            for finished in read_finished(file):
                yield from finished.lines

    def close(self) -> None:
        """Put the index on the disk, and release the folder."""
        with contextlib.suppress(OSError, ValueError):  # it is closed already, or the disk is gone
            flush(self._file.fileno())
        self._taken.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_index(self, undo: contextlib.ExitStack) -> BinaryIO:
        """Open this rank's index to append to it; a pipe of that name is not waited for."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        return undo.enter_context(os.fdopen(os.open(self._path, flags, 0o666), "ab", buffering=0))

    def _take_up(self, undo: contextlib.ExitStack) -> None:
        """Read all index files; take what is not there any more, and what stands behind damage, out of this rank's."""
        self._files = [path for path, _, _ in files_of(self._folder, "index")]
        self._own = self._files.index(self._path)
        for number, path in enumerate(self._files):
            gone: list[FinishedLines] = []
            gone_bytes = end = 0
            is_own = number == self._own
            with open_regular(path) as file, contextlib.closing(Promises(self._folder, has_tars=is_own)) as promises:
                for finished in read_finished(file):
                    end = finished.end
                    if promises.are_kept(finished.lines):
                        first = finished.lines[0]
                        self._note(first["key"], first["stem"], number, finished.start - gone_bytes)
                    elif is_own:
                        gone.append(finished._replace(lines=[]))
                        gone_bytes += finished.end - finished.start
                if is_own:
                    file.seek(end)
                    self.redone = len(gone) + _begun_images(file)
                    self._cut(file, gone, end, undo)
                    self._end = end - gone_bytes

    def _cut(self, file: BinaryIO, gone: Sequence[FinishedLines], end: int, undo: contextlib.ExitStack) -> None:
        """Cut this rank's index off at a byte, and take lines before it out.

        Args:
            file: the index, for reading.
            gone: bytes of the lines, in order.
            end: where to cut.
            undo: closes the file that is written.
        """
        if not gone:
            self._file.truncate(end)
            return
        start = 0
        with whole_file(self._path) as new:
            for first, last in [*((each.start, each.end) for each in gone), (end, end)]:
                file.seek(start)
                while start < first and (block := file.read(min(first - start, _COPIED_BYTES))):
                    new.write(block)
                    start += len(block)
                start = last
            new.flush()
            flush(new.fileno())  # a disk that loses the new index must still have the old one
            file.close()  # Windows replaces no file that is open
            self._file.close()
        self._file = self._open_index(undo)

    def _note(self, key: str, stem: str, number: int, start: int) -> None:
        self._places.setdefault(key, (start << _FILE_BITS | number).to_bytes(_PLACE_BYTES, "little"))
        self._owners.setdefault(folded_stem(stem), digest_of(key))

    def _line_at(self, place: bytes) -> Line | None:
        start, number = divmod(int.from_bytes(place, "little"), 1 << _FILE_BITS)
        with open(self._files[number], "rb") as file:
            file.seek(start)
            return read_line(file.readline())

    def _write(self, block: bytes) -> None:
        """Append all of a block, or nothing."""
        left = memoryview(block)
        try:
            while left:
                left = left[self._file.write(left) :]
        except BaseException as error:
            with contextlib.suppress(OSError):  # a torn line is cut off when the folder is taken the next time
                self._file.truncate(self._end)
            if isinstance(error, OSError):
                raise cannot_write(self._path, error) from error
            raise


def _candidates(key: str, stem: str) -> Iterator[str]:
    """Yield the stems that an image may have: without digits of its key, then with more and more of them."""
    yield stem
    bare = (stem[: -digits - 1] for digits in _TOLD_BY)
    base = next(
        (part for part, digits in zip(bare, _TOLD_BY, strict=True) if stem == told_apart(part, key, digits)), stem
    )
    for digits in _TOLD_BY:
        yield told_apart(base, key, digits)


def _begun_images(tail: BinaryIO) -> int:
    """Count the images in the tail that is cut off from an index; at least one where there is a tail."""
    keys, damaged = set(), 0
    for raw in tail:
        line = read_line(raw)
        if line is None:
            damaged = 1
        else:
            keys.add(line["key"])
    return max(len(keys), damaged)


def _forget_failures(folder: Path, rank: int, world_size: int) -> None:
    """Remove the failures of the run before: they are tried again. This run's other ranks remove their own."""
    for path, other, of in files_of(folder, "failed"):
        if of != world_size or other == rank:
            path.unlink(missing_ok=True)
