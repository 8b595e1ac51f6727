"""Tar files instead of loose ones: files are appended in order, and a tar shows its name once it is whole.

.shard-000003.tar.part    being written; after a kill it is cut off behind the last file in the index
shard-000002.tar          whole, with the two blocks of zeros at its end
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...runtime.files import cannot_write, make_folder
from ...runtime.stage_times import stage

_END = bytes(2 * tarfile.BLOCKSIZE)


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
            rows: lines of the index, in order; `shard` and `end` of the last one are where to go on.

        Raises:
            WriteError: the folder cannot be written.
        """
        self._folder = folder
        self._prefix = prefix
        self.staged = folder / f".{prefix}staged"
        shutil.rmtree(self.staged, ignore_errors=True)
        self._most_bytes = most_bytes
        self._number, self._end = 0, 0
        for row in rows:
            if "shard" in row:
                self._number, self._end = int(row["shard"].removeprefix(prefix).removesuffix(".tar")), int(row["end"])
        self._take_back()
        self._file = self._open()
        self._unreported: list[str] = []
        self._unreported = self.turn()  # the run may have been killed before it ended a tar that was large enough
        make_folder(self.staged)  # last, so that it is not left behind where something else raises

    @property
    def name(self) -> str:
        """Name that the tar which is being written will have."""
        return f"{self._prefix}{self._number:06d}.tar"

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
                header = tarfile.TarInfo(name)
                header.size = len(content)
                padding = bytes(-len(content) % tarfile.BLOCKSIZE)
                self._file.write(header.tobuf(tarfile.PAX_FORMAT) + content + padding)
                (self.staged / name).unlink()
            self._file.flush()
            self._end = self._file.tell()
        return {"shard": self.name, "end": self._end}

    def _take_back(self) -> None:
        """Remove what is not in the index from all tars. Where the index was damaged, those images are done again."""
        with self._faults():
            for path in self._folder.glob(f"{self._prefix}*.tar"):
                number = path.name.removeprefix(self._prefix).removesuffix(".tar")
                if re.fullmatch(r"\d{6}", number) and int(number) > self._number:
                    path.unlink()
            whole = self._folder / self.name
            if whole.exists() and whole.stat().st_size == self._end + len(_END):
                self._number, self._end = self._number + 1, 0
            elif whole.exists():
                os.replace(whole, self._part)
            elif self._end and not self._part.exists():  # it was whole, and somebody moved it away
                self._number, self._end = self._number + 1, 0

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
                self._file.write(_END)
            self._file.close()
            if self._end:
                os.replace(self._part, self._folder / self.name)
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
        return self._folder / f".{self.name}.part"

    def _open(self) -> Any:
        with self._faults():
            file = open(self._part, "r+b" if self._end else "wb")  # noqa: SIM115  # closed by close or leave
            file.truncate(self._end)
            file.seek(self._end)
            return file

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise cannot_write(self._folder / self.name, error) from error
