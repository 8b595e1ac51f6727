"""Stage 4 of 7, for vectors: a layer whose channels are single cells is drawn as a bar of them, with a ranked list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from .options import RenderOptions

CELL_PX = 16
"""Side of a cell where neither `tile` nor `scale` is given."""

BAR_CELLS = 64
"""Cells in a row of the bar where no `grid` is given: 1000 classes make 1024 x 256 px."""

LISTED = 10
"""Length of the ranked list."""


@dataclass(frozen=True)
class Entry:
    """A line of the ranked list.

    channel: index in the vector.
    value: its value.
    share: where the value lies between the least and the greatest of the vector, 0 to 1.
    category: name of the class it stands for, where the weights say so.
    """

    channel: int
    value: float
    share: float
    category: str | None = None

    @property
    def line(self) -> str:
        """Say it in one line."""
        return f"{self.channel}: {self.value:.4g}  {self.category or ''}".rstrip()


def is_vector(maps: torch.Tensor) -> bool:
    """Tell whether every map is a single cell.

    Args:
        maps: (C, H, W) float32.
    """
    return maps.shape[1:] == (1, 1)


def as_bar(options: RenderOptions, count: int) -> RenderOptions:
    """Fill in how a vector is drawn where the options leave it open.

    Args:
        options: as given. A cell has no range of its own: the layer's stands for `normalize` channel.
        count: number of cells.

    Returns:
        The options with the cell's size, the bar's width and the range.
    """
    return replace(
        options,
        tile=CELL_PX if options.tile is None and options.scale is None else options.tile,
        grid=(0, min(count, BAR_CELLS)) if options.grid == (0, 0) else options.grid,
        normalize="layer" if options.normalize == "channel" else options.normalize,
    )


def strongest(maps: torch.Tensor, categories: Sequence[str] | None = None) -> list[Entry]:
    """List the greatest entries of a vector.

    Args:
        maps: (C, 1, 1) float32, finite or not.
        categories: names of C classes. Left out where they are of another number: those of the model's last layer.

    Returns:
        The LISTED greatest, the greatest first, of equal ones the lowest channel first; none that are not finite.
    """
    values = maps.flatten().cpu().double().numpy()
    channels = np.flatnonzero(np.isfinite(values))
    named = categories if categories is not None and len(categories) == len(values) else None
    least, span = values[channels].min(initial=np.inf), float(np.ptp(values[channels])) if len(channels) else 0.0
    ranked = channels[np.argsort(-values[channels], kind="stable")][:LISTED].tolist()
    return [
        Entry(c, float(values[c]), float((values[c] - least) / span) if span else 1.0, named[c] if named else None)
        for c in ranked
    ]
