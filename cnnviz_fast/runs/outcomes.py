"""What became of the images of a run: which are finished, with which rows of the index, and which failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..channels.dataset import merge_layers
from .folder.rows import IndexRow


class ImageId(NamedTuple):
    """An image of a run.

    key: which image it is, in this run and in later ones.
    name: what messages and manifests call it.
    stem: of its files.
    position: among all images of the run.
    """

    key: str
    name: str
    stem: str
    position: int = 0


class FinishedImage(NamedTuple):
    """An image whose files are all written, with a row of the index for each layer."""

    image: ImageId
    rows: list[IndexRow]


class FailedImage(NamedTuple):
    """An image that failed, and why."""

    image: ImageId
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What became of a batch.

    collected: kind of record -> layer -> record of the finished images, where the run keeps any; see collected.py.
    """

    finished: list[FinishedImage] = field(default_factory=list)
    failed: list[FailedImage] = field(default_factory=list)
    collected: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, other: Outcome) -> None:
        """Add the outcome of other images; `other` must not be used afterwards."""
        self.finished.extend(other.finished)
        self.failed.extend(other.failed)
        for kind, records in other.collected.items():
            merge_layers(self.collected.setdefault(kind, {}), records)
