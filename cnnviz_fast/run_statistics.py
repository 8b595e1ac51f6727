"""Statistics of a run: kept while it goes on, taken up after a kill, merged over processes, drawn on by another run.

.statistics.part.safetensors   while it goes on: of the first so many pictures of the index
statistics.safetensors         of all pictures, once they are done
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .dataset_statistics import LayerStatistics, Ranges, ranges_of
from .errors import InputError
from .stages import stage
from .statistics_files import covered_by, read_statistics, write_statistics

if TYPE_CHECKING:
    from .journal import Journal
    from .options import RenderOptions
    from .ranks import Place

SHARE = 0.02
"""Of a run's time that its checkpoints may take: those of two small layers, 5 ms each, come four times a second, and
those of 2048 channels of both signs, 60 MB, every ten seconds or so. What a kill loses is measured again."""

POLL_S = 0.5
_STEM, _SUFFIX = "statistics", ".safetensors"


class Checkpoints:
    """The statistics of this process's share, on disk.

    pictures: how many of its index they are of, those that could not be measured again included.
    """

    def __init__(self, folder: Path, place: Place) -> None:
        self.pictures = 0
        self._folder = folder
        self._place = place
        self._whole = folder / place.file(_STEM, _SUFFIX)
        self._part = folder / f".{place.file(_STEM, '.part' + _SUFFIX)}"
        self._next_at = time.monotonic()

    def restore(self, statistics: dict[str, LayerStatistics], journal: Journal) -> set[str]:
        """Take up what an earlier run has kept.

        Args:
            statistics: to be filled.
            journal: of the run.

        Returns:
            Keys of finished pictures that are not in them, to be measured again.
        """
        if self._whole.exists():  # until this run is done it is not of all pictures
            os.replace(self._whole, self._part)
        done = list(dict.fromkeys(row["key"] for row in journal.rows()))
        self.pictures = len(done)
        kept = _read_kept(self._part)
        covered = covered_by(self._part) if kept else 0
        if covered > len(done):  # of pictures that the index does not know: it was cut behind their backs
            self._part.unlink()
            return set(done)
        statistics.update(kept)
        return set(done[covered:])

    def keep(self, statistics: Mapping[str, LayerStatistics]) -> None:
        """Write the statistics of all pictures that are in the index, unless that would be too often."""
        begin = time.monotonic()
        if begin >= self._next_at:
            self.keep_now(statistics)
            self._next_at = begin + (time.monotonic() - begin) / SHARE

    def keep_now(self, statistics: Mapping[str, LayerStatistics]) -> None:
        """Write the statistics of all pictures that are in the index."""
        with stage("write"):
            write_statistics(self._part, statistics, covers=self.pictures)

    def finish(self, statistics: Mapping[str, LayerStatistics]) -> Path:
        """Write the statistics of the whole share, and where it was the last one, of all shares together.

        Returns:
            The file.
        """
        self.keep_now(statistics)
        os.replace(self._part, self._whole)
        if self._place.world > 1 and all((self._folder / name).exists() for name in self._place.files(_STEM, _SUFFIX)):
            _merge(self._folder, self._place)
        return self._whole


def merged(folder: Path) -> Path:
    """Name the file of the statistics of all processes together."""
    return folder / f"{_STEM}{_SUFFIX}"


def gathered(folder: Path, place: Place) -> Path:
    """Wait until all processes have their statistics, and return the file of all of them together."""
    while not all((folder / name).exists() for name in place.files(_STEM, _SUFFIX)):
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


def _merge(folder: Path, place: Place) -> Path:
    """Merge the statistics of all processes. Each may do it: they make the same file."""
    together: dict[str, LayerStatistics] = {}
    for name in place.files(_STEM, _SUFFIX):
        for layer, statistics in read_statistics(folder / name).items():
            if layer in together:
                together[layer].merge(statistics)
            else:
                together[layer] = statistics
    return write_statistics(merged(folder), together)


def _read_kept(path: Path) -> dict[str, LayerStatistics]:
    try:
        return read_statistics(path) if path.exists() else {}
    except InputError:  # of another version: measured anew
        return {}
