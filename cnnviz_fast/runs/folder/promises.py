"""What the rows of an index promise, checked against what is there: an index alone proves nothing.

Somebody removes files, a disk loses them with its power, a tar is cut short or replaced by another. An image whose
files are not there as its rows say is done again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .index import Line
from .tar_members import TarMembers, open_members


class Promises:
    """Checks the rows of an index, in their order."""

    def __init__(self, folder: Path, *, has_tars: bool) -> None:
        """Begin at the first row.

        Args:
            folder: of the run.
            has_tars: whether the tars of this index are checked; those of another process may just be written.
        """
        self._folder = folder
        self._has_tars = has_tars
        self._shard: str | None = None
        self._tar: TarMembers | None = None

    def are_kept(self, lines: Sequence[Line]) -> bool:
        """Check whether all files of an image are there as its lines say; the members of a tar in their order."""
        return all(map(self._is_kept, lines))

    def _is_kept(self, line: Line) -> bool:
        files, sizes = line.get("files", []), line.get("sizes")
        if not (isinstance(files, list) and all(isinstance(file, str) for file in files)):
            return False
        if "shard" in line:
            return not self._has_tars or self._is_in_tar(line["shard"], files, line.get("end"))
        promised = sizes if isinstance(sizes, list) and len(sizes) == len(files) else [None] * len(files)
        return all(map(self._is_there, files, promised))

    def _is_there(self, file: str, promised: Any) -> bool:
        """Check whether a file is there, and as large as promised; rows of older runs do not say how large."""
        try:
            found = os.stat(self._folder / file)
        except (OSError, ValueError):  # it is gone, or the row is damaged
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == (promised or found.st_size) > 0

    def _is_in_tar(self, shard: Any, files: list[str], end: Any) -> bool:
        if not isinstance(shard, str):
            return False
        if shard != self._shard:  # rows are in the order of the tars
            self.close()
            self._shard, self._tar = shard, open_members(self._folder, shard)
        if self._tar is not None and self._tar.go_on(files) == end:
            return True
        self.close()  # what stands behind is lost with it
        return False

    def close(self) -> None:
        """Close the tar that was looked at last."""
        if self._tar is not None:
            self._tar.close()
        self._tar = None
