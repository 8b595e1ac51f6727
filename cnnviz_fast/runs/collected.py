"""What a run collects of its images: records of layers that batches add to, and that merge over processes.

statistics   what each channel held                    statistics.safetensors
top          the images that excite each channel most  top.safetensors
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..channels.dataset import LayerStatistics
from ..channels.dataset_files import facts_of, read_statistics, write_statistics

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..activations.maps import LayerMaps
    from ..channels.statistics import ChannelStatistics
    from ..models.loaded import LoadedModel
    from .images import Images


class Record(Protocol):
    """What is known of a layer over some images. Records pickle."""

    @property
    def channels(self) -> int:
        """Return the number of channels of the layer."""

    def blank(self) -> Self:
        """Return a record of the same layer without images."""

    def merge(self, other: Self) -> None:
        """Add what is known over other images."""


Records = dict[str, Any]
"""Layer -> Record, all of one kind."""


class MeasuredMaps(NamedTuple):
    """The maps of a layer for a batch of images, or of a time step of it, and what the index says of them.

    read: the maps.
    measured: what each channel holds, for each image; None where only some channels were measured.
    """

    read: LayerMaps
    measured: Sequence[ChannelStatistics] | None


class Kind(Protocol):
    """A kind of record. It pickles, so that other processes collect the same."""

    @property
    def name(self) -> str:
        """Return the name of the kind in `save`, and of its files."""

    @property
    def takes_heat(self) -> bool:
        """Return whether heat maps are collected as the layers are."""

    def record(self, channels: int) -> Any:
        """Return a record without images of a layer with so many channels."""

    def feed(self, record: Any, steps: Sequence[MeasuredMaps], keys: Sequence[str]) -> None:
        """Add a batch of images to a record.

        Args:
            record: of the layer.
            steps: the maps of the layer; several for the time steps of clips and the planes of volumes.
            keys: of the images.
        """

    def read(self, path: Path) -> Records:
        """Read what `write` wrote; raise InputError where that is something else."""

    def facts(self, path: Path) -> dict[str, Any]:
        """Return the facts that a file was written with; none where it is something else."""

    def write(self, path: Path, records: Records, **content: Any) -> Path:
        """Write records into one file, which appears whole or not at all.

        Args:
            path: the file.
            records: layer -> record.
            content: `facts` that can be read on their own, and what `about` returned.

        Returns:
            The path.
        """

    def about(self, records: Records, model: LoadedModel, images: Images) -> dict[str, Any]:
        """Return what else their file says once the records are of all images, as keywords for `write`.

        Args:
            records: layer -> record.
            model: of the run.
            images: of the run.
        """

    def remarks(self, records: Records, images: Images) -> list[str]:
        """Return lines on what a user of these records, which are of all images of the run, should know."""


@dataclass(frozen=True)
class Statistics:
    """Statistics of each channel."""

    name: str = "statistics"
    takes_heat: bool = True

    def record(self, channels: int) -> LayerStatistics:
        """See Kind."""
        return LayerStatistics(channels)

    def feed(self, record: LayerStatistics, steps: Sequence[MeasuredMaps], keys: Sequence[str]) -> None:
        """See Kind."""
        for number, step in enumerate(steps):
            record.update(step.read.maps, again=number > 0)

    def read(self, path: Path) -> Records:
        """See Kind."""
        return dict(read_statistics(path))

    def facts(self, path: Path) -> dict[str, Any]:
        """See Kind."""
        return facts_of(path)

    def write(self, path: Path, records: Records, **content: Any) -> Path:
        """See Kind."""
        return write_statistics(path, records, **content)

    def about(self, records: Records, model: LoadedModel, images: Images) -> dict[str, Any]:
        """See Kind."""
        return {}

    def remarks(self, records: Records, images: Images) -> list[str]:
        """See Kind."""
        return []
