"""Stage 7 of 7, the journal of a run: what is finished, what failed, and that only one run like it is in the folder.

    run.json                     what everything in the folder depends on; another run is refused
    index.jsonl                  a line for each finished picture and layer; index-RANK-of-WORLD.jsonl of several ranks
    failed.jsonl                 a line for each picture that failed the last time; named like the index
    .lock, .lock-RANK-of-WORLD   while a run is in the folder

The index is the journal: a picture's lines are handed to the system at once when its files are in place, and so are
there however the process ends. Lines torn by a power cut are cut off, and their pictures drawn anew.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from ...errors import InputError, OptionError, reason_of
from ...formats.names import folded_stem, told_apart
from ...provenance import package_version
from ...runtime.compact import DIGEST_BYTES, DigestMap, digest_of
from ...runtime.files import cannot_write, make_folder, whole_file
from .fingerprint import differences
from .index import RUN, Line, files_of, name_of, picture_lines, read_finished, read_line
from .lock import FolderLock

_TOLD_BY = (8, 16, 24)  # hexadecimal digits of a key's SHA-256, as output_stems takes
_PLACE_BYTES = 8
_FILE_BITS = 16  # of a place: which index file; the other 48 say where in it


class Journal:
    """A folder of output that is taken for a run, and what is finished in it. Threads may share one.

    A million finished pictures take 97 MB of memory, and 6 s to read.

    Attributes:
        redone: pictures that stood behind a damage of this rank's index, which was cut off, so far as can be told.
    """

    def __init__(
        self, folder: Path, fingerprint: Mapping[str, Any], *, rank: int = 0, world: int = 1, keeps_world: bool = False
    ) -> None:
        """Take a folder, and read what is finished in it, by whatever number of ranks.

        Args:
            folder: of the output; made where it is missing.
            fingerprint: of `fingerprint_of`, JSON: what everything in the folder depends on.
            rank: of this process, from 0.
            world: number of ranks.
            keeps_world: whether a run can only be taken up by as many ranks as began it.

        Raises:
            OptionError: another run is in the folder, or it holds a run with another fingerprint, or one that another
                number of ranks has to take up.
            WriteError: the folder cannot be written.
        """
        if not 0 <= rank < world:
            raise OptionError(f"rank must be from 0 to {world - 1} of {world} ranks, got {rank}.")
        self.redone = 0
        self._folder = Path(folder)
        self._path = self._folder / name_of("index", rank, world)
        self._failed = self._folder / name_of("failed", rank, world)
        self._places = DigestMap(_PLACE_BYTES)  # key -> where its lines are
        self._owners = DigestMap(DIGEST_BYTES)  # stem, without case -> digest of the key that has it
        self._threads = threading.Lock()
        make_folder(self._folder)
        with contextlib.ExitStack() as undo:
            lock = FolderLock(
                self._folder, rank, world, lambda: _agree(self._folder, fingerprint, world if keeps_world else None)
            )
            undo.callback(lock.release)
            try:
                self._file = undo.enter_context(open(self._path, "ab", buffering=0))
                self._take_up()
                _forget_failures(self._folder, rank, world)
            except OSError as error:
                raise cannot_write(self._path, error) from error
            self._taken = undo.pop_all()

    @property
    def count(self) -> int:
        """Number of finished pictures, those of all ranks when the folder was taken and since then this rank's."""
        return len(self._places)

    def is_done(self, key: str) -> bool:
        """Tell if a picture is finished."""
        return self._places.get(key) is not None

    def stem_for(self, key: str, stem: str) -> str:
        """Give a picture the stem of its files: one that no other picture in the folder has, and always the same.

        Args:
            key: of the picture.
            stem: that it has among the pictures of this run, of `output_stems`.

        Returns:
            The stem in the index where the picture is finished; else `stem`, with digits of the key's SHA-256 where
            that is, but for its case, another picture's.

        Raises:
            InputError: even these are another picture's, which takes a key made for it.
        """
        place = self._places.get(key)
        if place is not None and (line := self._line_at(place)) is not None:
            return str(line["stem"])
        own = digest_of(key)
        with self._threads:
            for candidate in _candidates(key, stem):
                if self._owners.setdefault(folded_stem(candidate), own) == own:
                    return candidate
        raise InputError(f"image {key!r} has no name that is not another image's. Rename it.")

    def append(self, finished: Sequence[tuple[str, str, Sequence[Mapping[str, Any]]]]) -> None:
        """Enter pictures as finished, in one write: all of them, or after an error none.

        Args:
            finished: key, stem and rows of each, see `picture_lines`. Those that are finished already are passed over.

        Raises:
            WriteError: the disk is full, say. The index is as before.
        """
        with self._threads:
            new = [(key, stem, picture_lines(key, stem, rows)) for key, stem, rows in finished if not self.is_done(key)]
            self._write(b"".join(lines for _, _, lines in new))
            for key, stem, lines in new:
                self._note(key, stem, self._own, self._end)
                self._end += len(lines)

    def fail(self, name: str, key: str, reason: str) -> None:
        """Enter a picture as failed.

        Args:
            name: what messages call it.
            key: of the picture.
            reason: why, in a sentence.

        Raises:
            WriteError: the file cannot be written.
        """
        line = json.dumps({"image": name, "key": key, "reason": reason}) + "\n"
        try:
            with self._threads, open(self._failed, "ab") as file:
                file.write(line.encode())
        except OSError as error:
            raise cannot_write(self._failed, error) from error

    def rows(self) -> Iterator[Line]:
        """Read the lines of the pictures that this rank has finished, in the order they were entered."""
        with open(self._path, "rb") as file:
            for finished in read_finished(file):
                yield from finished.lines

    def close(self) -> None:
        """Give the folder back."""
        self._taken.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take_up(self) -> None:
        """Read all index files; cut off this rank's own behind its last finished picture."""
        self._files = [path for path, _, _ in files_of(self._folder, "index")]
        self._own = self._files.index(self._path)
        for number, path in enumerate(self._files):
            with open(path, "rb") as file:
                end = 0
                for finished in read_finished(file):
                    self._note(finished.lines[0]["key"], finished.lines[0]["stem"], number, finished.start)
                    end = finished.end
                if number == self._own:
                    self._end = end
                    file.seek(end)
                    self.redone = _begun_pictures(file)
        self._file.truncate(self._end)

    def _note(self, key: str, stem: str, number: int, start: int) -> None:
        self._places.setdefault(key, (start << _FILE_BITS | number).to_bytes(_PLACE_BYTES, "little"))
        self._owners.setdefault(folded_stem(stem), digest_of(key))

    def _line_at(self, place: bytes) -> Line | None:
        start, number = divmod(int.from_bytes(place, "little"), 1 << _FILE_BITS)
        with open(self._files[number], "rb") as file:
            file.seek(start)
            return read_line(file.readline())

    def _write(self, block: bytes) -> None:
        """Write all of a block behind what there is, or nothing."""
        left = memoryview(block)
        try:
            while left:
                left = left[self._file.write(left) :]
        except BaseException as error:
            with contextlib.suppress(OSError):  # left torn, it is cut off when the folder is next taken
                self._file.truncate(self._end)
            if isinstance(error, OSError):
                raise cannot_write(self._path, error) from error
            raise


def _candidates(key: str, stem: str) -> Iterator[str]:
    """Give the stems that a picture may have: without digits of its key, or with as many as it takes."""
    yield stem
    bare = (stem[: -digits - 1] for digits in _TOLD_BY)
    base = next(
        (part for part, digits in zip(bare, _TOLD_BY, strict=True) if stem == told_apart(part, key, digits)), stem
    )
    for digits in _TOLD_BY:
        yield told_apart(base, key, digits)


def _begun_pictures(tail: BinaryIO) -> int:
    """Count the pictures in what is cut off from an index, one at least where there is anything."""
    keys, damaged = set(), 0
    for raw in tail:
        line = read_line(raw)
        if line is None:
            damaged = 1
        else:
            keys.add(line["key"])
    return max(len(keys), damaged)


def _agree(folder: Path, fingerprint: Mapping[str, Any], world: int | None) -> None:
    """Compare a fingerprint, and a number of ranks, with the folder's; write it into a folder that has none."""
    there = fingerprint_in(folder)
    if there is None:
        if files_of(folder, "index"):
            raise OptionError(
                f"folder {str(folder)!r} holds the index of a run, but not what it depends on: run.json is missing. "
                f"Give another out."
            )
        document = {"cnnviz_fast": package_version(), "fingerprint": fingerprint}
        with whole_file(folder / RUN) as file:
            file.write(json.dumps(document, indent=2).encode())
        return
    refuse_others(folder, fingerprint, there)
    for path, _, of in files_of(folder, "index") if world is not None else ():
        if of != world and path.stat().st_size:
            raise OptionError(
                f"a run with statistics or tars must be taken up by as many processes as began it, {of}, got {world}. "
                f"Give another out."
            )


def fingerprint_in(folder: Path) -> dict[str, Any] | None:
    """Return the fingerprint of the run in a folder, None where there is none.

    Raises:
        OptionError: it is damaged.
    """
    try:
        return dict(json.loads((folder / RUN).read_bytes())["fingerprint"])
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError) as error:
        raise OptionError(
            f"folder {str(folder)!r} holds a damaged run.json: {reason_of(error)}. Give another out."
        ) from error


def refuse_others(folder: Path, fingerprint: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    """Raise OptionError where the fingerprint that is in a folder is another one, with what differs."""
    if found := differences(fingerprint, there):
        raise OptionError(
            f"folder {str(folder)!r} holds a run with other settings: {'; '.join(found)}. Give another out."
        )


def _forget_failures(folder: Path, rank: int, world: int) -> None:
    """Remove what failed when the folder was last taken: it is tried again. This run's other ranks remove their own."""
    for path, other, of in files_of(folder, "failed"):
        if of != world or other == rank:
            path.unlink(missing_ok=True)
