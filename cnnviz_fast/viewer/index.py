"""The index of a run, read a page at a time: of each image only where its lines begin is kept in memory."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

from ..runs.folder.index import Line, files_of, read_line
from ..runtime.compact import DigestMap
from ..runtime.untrusted import open_regular

_PART = re.compile(rb'"part": \[(\d{1,9}), (\d{1,9})\]')
"""Which line of an image a line is: quotes inside of names are escaped, so that no name looks like it."""

_MOST_LINE_BYTES = 2**26


class RunIndex:
    """The finished images of a run, by number: 8 bytes of memory for each. Lines are parsed when they are looked at.

    is_damaged: whether a line is not one of an index: what is behind it is not read.
    """

    def __init__(self, folder: Path) -> None:
        """Find where the lines of each image begin.

        Args:
            folder: of the run.

        Raises:
            OSError: an index cannot be read.
        """
        self._files = [path for path, _, _ in files_of(folder, "index")]
        seen = DigestMap(0) if len(self._files) > 1 else None  # of several processes each image counts once
        found = [_starts_in(path, seen) for path in self._files]
        self._starts = [starts for starts, _ in found]
        self.is_damaged = any(is_damaged for _, is_damaged in found)
        self._ends = list(accumulate(map(len, self._starts)))

    def __len__(self) -> int:
        """Return the number of images."""
        return self._ends[-1] if self._ends else 0

    def lines(self, number: int) -> list[Line]:
        """Return the lines of an image; none where they are damaged."""
        file = bisect_right(self._ends, number)
        return self._read(file, self._starts[file][number - (self._ends[file] - len(self._starts[file]))])

    def before(self, number: int) -> Line | None:
        """Return the last line of the image before one in the same file; None for the first one."""
        file = bisect_right(self._ends, number)
        if number == self._ends[file] - len(self._starts[file]):
            return None
        lines = self.lines(number - 1)
        return lines[-1] if lines else None

    def _read(self, file: int, start: int) -> list[Line]:
        lines: list[Line] = []
        try:
            with open_regular(self._files[file]) as content:
                content.seek(start)
                while not lines or len(lines) < lines[0]["part"][1]:
                    line = read_line(content.readline(_MOST_LINE_BYTES))
                    if line is None or line["part"][0] != len(lines):
                        return []
                    lines.append(line)
        except OSError:
            return []
        return lines


def _starts_in(path: Path, seen: DigestMap | None) -> tuple[array[int], bool]:
    """Return where the lines of each image of an index begin whose lines are all there, and whether it is damaged."""
    starts = array("Q")
    at = start = expected = 0
    with open_regular(path) as file:
        for raw in iter(lambda: file.readline(_MOST_LINE_BYTES), b""):
            found = _PART.search(raw)
            is_whole = raw.endswith(b"\n")
            if found is None or not is_whole:
                return starts, is_whole  # the last line may be under way
            part, count = int(found[1]), int(found[2])
            if part not in (0, expected):
                return starts, True
            start = at if part == 0 else start
            expected = part + 1
            if expected == count and _is_new(raw[: found.start()], seen):
                starts.append(start)
            at += len(raw)
    return starts, False


def _is_new(head: bytes, seen: DigestMap | None) -> bool:
    """Check whether an image, by its key and stem, was not seen before; note it."""
    if seen is None:
        return True
    known = len(seen)
    seen.setdefault(head.decode("utf-8", "replace"), b"")
    return len(seen) > known
