"""The range of values that each tile is drawn on, and where it comes from.

None           from what the maps hold, as the option `normalize` says
SharedRanges   from them and from the maps of another sheet, which will stand beside this one
Ranges         from statistics over a data set, with normalize dataset
GivenRanges    from the caller, who has decided them
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ..errors import OptionError, ShapeError
from .dataset import Ranges
from .ranges import drawing_range
from .selection import pick
from .statistics import channel_statistics
from .vectors import range_of_cells

if TYPE_CHECKING:
    from ..kernels.backends import Backend
    from ..options.drawing import RenderOptions
    from .chosen import ChosenChannels


@dataclass(frozen=True, eq=False)
class SharedRanges:
    """Ranges of two layers together: that of the sheet, and the one drawn beside it.

    maps: (C, H, W) float32, in the shape and on the device of the sheet's own. Maps of the other layer.
    """

    maps: torch.Tensor


@dataclass(frozen=True, eq=False)
class GivenRanges:
    """Ranges that the caller has decided, whatever the option `normalize` says.

    vmin: (K,) float32, on the CPU. Lower end of the range of each tile.
    vmax: (K,) float32, on the CPU. Its upper end; equal to `vmin` for a flat channel.
    """

    vmin: torch.Tensor
    vmax: torch.Tensor


RangeOrigin = Ranges | SharedRanges | GivenRanges | None


class TileRanges(NamedTuple):
    """The range of each tile.

    vmin: (K,) float32, on the CPU. Its lower end; NaN where there is none.
    vmax: (K,) float32, on the CPU. Its upper end.
    all_finite: whether the maps, and those they share their ranges with, hold no NaN and no infinity.
    shared: whether the ranges are shared with other maps.
    """

    vmin: torch.Tensor
    vmax: torch.Tensor
    all_finite: bool
    shared: bool


def decide_ranges(chosen: ChosenChannels, backend: Backend, given: RangeOrigin = None) -> TileRanges:
    """Decide the range of values that each tile is drawn on.

    Args:
        chosen: the channels, and the options that decide.
        backend: whose kernels measure.
        given: where ranges come from, if not from what the maps hold; those over a data set are of all channels of
            the layer.

    Returns:
        The ranges.

    Raises:
        OptionError: normalize dataset without ranges over a data set, or the other way about.
        ShapeError: ranges over a data set of another number of channels than the layer has.
    """
    options, maps, statistics = chosen.options, chosen.maps, chosen.statistics
    _check_dataset(options, given)
    if isinstance(given, SharedRanges):
        maps = torch.cat([maps, pick(given.maps, options.channels)[0]], dim=1)
        statistics = channel_statistics(backend, maps, options.threads).cpu()
    if isinstance(given, GivenRanges):
        vmin, vmax = given.vmin, given.vmax
    elif isinstance(given, tuple):
        vmin, vmax = _over_data_set(chosen, given)
    elif chosen.is_vector:
        vmin, vmax = range_of_cells(maps, backend, options)
    else:
        vmin, vmax = drawing_range(maps, statistics.vmin, statistics.vmax, options)
    return TileRanges(vmin.cpu(), vmax.cpu(), statistics.all_finite, isinstance(given, SharedRanges))


def _check_dataset(options: RenderOptions, given: RangeOrigin) -> None:
    """Refuse normalize dataset without ranges over a data set, and such ranges with another one."""
    wanted = options.normalize == "dataset"
    if wanted and not isinstance(given, tuple):
        raise OptionError("normalize 'dataset' needs statistics of the data set. Pass them as statistics.")
    if not wanted and isinstance(given, tuple):
        raise OptionError(f"statistics go with normalize 'dataset', got normalize {options.normalize!r}.")


def _over_data_set(chosen: ChosenChannels, ranges: Ranges) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ranges of the tiles, (K,) float32 each, out of those of all channels over a data set."""
    count = chosen.layer_channels
    if any(end.shape != (count,) for end in ranges):
        raise ShapeError(f"statistics must be of the layer's {count} channels, got those of {len(ranges[0])}.")
    numbers = np.asarray(chosen.selection.channels, dtype=np.int64)
    vmin, vmax = (torch.from_numpy(end[numbers]) for end in ranges)
    # A channel without a finite value in the whole set has no range there, and is drawn on its own.
    return vmin.where(~vmin.isnan(), chosen.statistics.vmin), vmax.where(~vmax.isnan(), chosen.statistics.vmax)
