"""A row of the index: what came out of one layer of one image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_OPTIONAL = ("sheet", "grid", "tiles", "report", "strongest", "sizes", "attribution", "shard", "end")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRow:
    """What came out of one layer of one image. Fields that are None are left out of the index, but for min and max.

    Attributes:
        image: its name.
        layer: its name; of a clip with the time step.
        shape: of the maps, (C, H, W).
        dtype: of the maps.
        min: smallest finite value of the channels that were picked; None where there is none.
        max: largest one.
        dead: number of channels that are all zero.
        nonfinite: number of values that are NaN or infinite.
        sheet: height and width of the sheet, in px.
        grid: of the sheet, where it is not the one that the manifest of the run has for the layer.
        tiles: names of the tiles, where they are not simply all channels.
        report: health of the layer.
        strongest: the channels that stand out most.
        attribution: of heat maps, the method, and what it explained: targets with their scores.
        files: paths, relative to the folder of the run.
        sizes: of files that are in no tar, in bytes.
        shard: tar file that holds the files.
        end: place in the tar behind the files, in bytes.
    """

    image: str
    layer: str
    shape: Sequence[int]
    dtype: str
    min: float | None
    max: float | None
    dead: int
    nonfinite: int
    sheet: Sequence[int] | None = None
    grid: dict[str, int] | None = None
    tiles: Sequence[str] | None = None
    report: dict[str, Any] | None = None
    strongest: Sequence[dict[str, Any]] | None = None
    attribution: dict[str, Any] | None = None
    files: Sequence[str] = ()
    sizes: Sequence[int] | None = None
    shard: str | None = None
    end: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a line of the index has them, in that order."""
        named = ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        return {name: value for name, value in named if value is not None or name not in _OPTIONAL}
