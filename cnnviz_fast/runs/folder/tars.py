"""Tar files instead of loose ones: files are appended in order, and a tar shows its name once it is whole.

.shard-000003.tar.part    being written; after a kill it is cut off behind the last file in the index
shard-000002.tar          whole, with the two blocks of zeros at its end
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import WriteError
from ...runtime.disk import flush, flush_folders
from ...runtime.files import cannot_write, make_folder, move_file
from ...runtime.stage_times import stage
from .tar_members import END, NUMBER, ends_at, header_of, padding_of, part_of


class TarWriter:
    """Appends files to tars of about `most_bytes`.

    staged: folder where files are written first.
    """

    def __init__(self, folder: Path, prefix: str, most_bytes: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Go on where an earlier run stopped.

        Args:
            folder: of the tars.
            prefix: of their names.
            most_bytes: a tar of this size is ended, and the next one begun.
            rows: lines of the index, in order, whose files are in the tars; see promises.py. `shard` and `end` of the
                last one are where to go on.

        Raises:
            WriteError: the folder cannot be written.
        """
        self._folder = folder
        self._prefix = prefix
        self.staged = folder / f".{prefix}staged"
        shutil.rmtree(self.staged, ignore_errors=True)
        self._most_bytes = most_bytes
        ends = {row["shard"]: row["end"] for row in rows if "shard" in row}
        last = next(reversed(ends), self._named(0))
        self._number, self._end = int(last.removeprefix(prefix).removesuffix(".tar")), ends.get(last, 0)
        self._take_back(ends)
        self._file = self._open()
        self._unreported: list[str] = []
        self._unreported = self.turn()  # the run may have been killed before it ended a tar that was large enough
        make_folder(self.staged)  # last, so that it is not left behind where something else raises

    @property
    def name(self) -> str:
        """Name that the tar which is being written will have."""
        return self._named(self._number)

    def _named(self, number: int) -> str:
        return f"{self._prefix}{number:06d}.tar"

    def add(self, files: Iterable[str]) -> dict[str, Any]:
        """Move files into the tar.

        Args:
            files: their paths below `staged`, and names in the tar.

        Returns:
            Fields of the IndexRow: the tar, and the byte behind the files.

        Raises:
            WriteError: for example, the disk is full.
        """
        with stage("write"), self._faults():
            for name in files:
                content = (self.staged / name).read_bytes()
                self._file.write(header_of(name, len(content)) + content + padding_of(len(content)))
                (self.staged / name).unlink()
            self._file.flush()
            self._end = self._file.tell()
        return {"shard": self.name, "end": self._end}

    def flush(self) -> None:
        """Wait until everything that was added is on the disk.

        Raises:
            WriteError: the disk refuses it, or the tar is no longer there.
        """
        with self._faults():
            flush(self._file.fileno())
            if not os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._part)):
                raise WriteError(f"cannot write {self._part}: it was replaced meanwhile. Run it again.")

    def _take_back(self, ends: Mapping[str, int]) -> None:
        """Remove what is not in the index from all tars, and end those that are whole as tars end.

        Args:
            ends: tar -> the byte behind its last file in the index.
        """
        with self._faults():
            for path in list(self._folder.iterdir()):
                name = path.name.removeprefix(".").removesuffix(".part")
                if NUMBER.fullmatch(name.removeprefix(self._prefix)) and name.startswith(self._prefix):
                    if name not in ends:
                        path.unlink()
                    elif name != self.name:
                        self._mend(name, ends[name])
            whole = self._folder / self.name
            if whole.exists() and ends_at(whole, self._end):
                self._number, self._end = self._number + 1, 0
            elif whole.exists():
                move_file(whole, self._part)

    def _mend(self, name: str, end: int) -> None:
        """Cut off what follows the last file of a tar that later ones follow, and end it."""
        whole, part = self._folder / name, part_of(self._folder, name)
        if whole.exists() and ends_at(whole, end):
            return
        if whole.exists():
            move_file(whole, part)
        with open(part, "r+b") as file:
            file.truncate(end)
            file.seek(end)
            file.write(END)
        move_file(part, whole)

    def turn(self) -> list[str]:
        """Begin a new tar where this one is large enough. Its files must be in the index.

        Returns:
            Names of the tars that were ended and not returned before.
        """
        if self._end < self._most_bytes:
            return self._reported([])
        ended = self.close()
        self._number, self._end = self._number + 1, 0
        self._file = self._open()
        return ended

    def close(self) -> list[str]:
        """End the tar and rename it to its name; an empty one is removed.

        Returns:
            Names of the tars that were ended and not returned before.
        """
        with self._faults():
            if self._end:
                self._file.write(END)
                self._file.flush()
                self.flush()
            self._file.close()
            if self._end:
                move_file(self._part, self._folder / self.name)
                flush_folders([self._folder])
                return self._reported([self.name])
            self._part.unlink()
            return self._reported([])

    def leave(self) -> None:
        """Leave the tar as it is, for a later run to take up. Must be called, however the run ends."""
        with contextlib.suppress(OSError):
            self._file.close()
        shutil.rmtree(self.staged, ignore_errors=True)

    def _reported(self, ended: list[str]) -> list[str]:
        """Put a tar that was ended when the run was taken up, if it was not returned yet, before others."""
        reported, self._unreported = self._unreported + ended, []
        return reported

    @property
    def _part(self) -> Path:
        return part_of(self._folder, self.name)

    def _open(self) -> Any:
        with self._faults():
            file = open(self._part, "r+b" if self._end else "wb")  # noqa: SIM115  # closed by close or leave
            flush_folders([self._folder])
            file.truncate(self._end)
            file.seek(self._end)
            return file

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self._folder / self.name, error) from error
