"""Vectors: a layer whose channels are single cells is drawn as a bar of cells, with a ranked list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .ranges import drawing_range
from .statistics import channel_statistics

if TYPE_CHECKING:
    import torch

    from ..kernels.backends import Backend
    from ..options.drawing import RenderOptions

CELL_PX = 16
"""Side of a cell if neither `tile` nor `scale` is given."""

BAR_CELLS = 64
"""Cells in a row of the bar if no `grid` is given: 1000 classes make 1024 x 256 px."""

LISTED = 10
"""Length of the ranked list."""


@dataclass(frozen=True)
class Entry:
    """A line of the ranked list.

    channel: index in the vector.
    value: value of the entry.
    share: position of the value between the least and the greatest of the channels to choose from, 0 to 1.
    category: name of the class, if the weights come with names; else None.
    """

    channel: int
    value: float
    share: float
    category: str | None = None

    @property
    def line(self) -> str:
        """Return the entry as one line of text."""
        return f"{self.channel}: {self.value:.4g}  {self.category or ''}".rstrip()


def is_vector(maps: torch.Tensor) -> bool:
    """Check whether every map is a single cell.

    Args:
        maps: (C, H, W) real dtype.
    """
    return maps.shape[1:] == (1, 1)


def as_bar(options: RenderOptions, count: int) -> RenderOptions:
    """Fill in how a vector is drawn where the options do not say.

    Args:
        options: the options as given. A cell has no range of its own: for `normalize` channel the range of the layer
            is used, and percentiles and largest magnitudes are those of the layer; see range_of_cells.
        count: number of cells.

    Returns:
        The options with the size of a cell, the width of the bar and the range.
    """
    return replace(
        options,
        tile=CELL_PX if options.tile is None and options.scale is None else options.tile,
        grid=(0, min(count, BAR_CELLS)) if options.grid == (0, 0) else options.grid,
        normalize="layer" if options.normalize == "channel" else options.normalize,
    )


def range_of_cells(maps: torch.Tensor, backend: Backend, options: RenderOptions) -> tuple[torch.Tensor, torch.Tensor]:
    """Decide the range of values that the colormap spans: that of a single channel with all cells.

    Args:
        maps: (C, H, 1) float32, or another of `backend.dtypes`, finite or not; H cells for each channel, those of
            H vectors that stand side by side.
        backend: the backend whose kernels measure.
        options: `normalize` and what belongs to it.

    Returns:
        vmin, vmax: (C,) float32, on the device of `maps`. NaN for a channel without finite values.
    """
    cells = maps.reshape(1, 1, -1)
    measured = channel_statistics(backend, cells)
    low, high = drawing_range(cells, measured.vmin, measured.vmax, options)
    finite = maps.isfinite().any(dim=1)[:, 0]
    return low.where(finite, float("nan")), high.where(finite, float("nan"))


def strongest(
    maps: torch.Tensor, categories: Sequence[str] | None = None, channels: Sequence[int] | None = None
) -> list[Entry]:
    """List the greatest entries of a vector.

    Args:
        maps: (C, 1, 1) real dtype, finite or not.
        categories: names of C classes. Ignored if their number is another, since they belong to the last layer then.
        channels: numbers of the channels to choose from; None for all.

    Returns:
        The LISTED greatest finite entries, the greatest first; among equal ones the lowest channel first.
    """
    values = maps.flatten().cpu().double().numpy()
    finite = np.flatnonzero(np.isfinite(values))
    if channels is not None:
        finite = np.intersect1d(finite, channels)
    named = categories if categories is not None and len(categories) == len(values) else None
    least, span = values[finite].min(initial=np.inf), float(np.ptp(values[finite])) if len(finite) else 0.0
    ranked = finite[np.argsort(-values[finite], kind="stable")][:LISTED].tolist()
    return [
        Entry(c, float(values[c]), float((values[c] - least) / span) if span else 1.0, named[c] if named else None)
        for c in ranked
    ]
