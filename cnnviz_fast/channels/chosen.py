"""The channels of a layer that are drawn, one map for each tile, with all that is known of them before the drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .report import LayerReport, layer_report
from .selection import Selection, select
from .statistics import ChannelStatistics, channel_statistics
from .vectors import Entry, as_bar, is_vector, strongest

if TYPE_CHECKING:
    import torch

    from ..kernels.backends import Backend
    from ..options.drawing import RenderOptions


@dataclass(frozen=True)
class ChosenChannels:
    """The channels that are drawn, one map for each tile.

    maps: (K, H, W) of one of the backend's dtypes, finite or not, on the device of the layer.
    selection: what each of them shows.
    statistics: of these maps, on the CPU.
    options: how they are drawn; those of a vector are completed so that it becomes a bar.
    layer_channels: how many channels the whole layer has.
    is_vector: whether every map is a single cell.
    report: on the whole layer, where the options want it.
    entries: the strongest entries of a vector, where they are wanted.
    """

    maps: torch.Tensor
    selection: Selection
    statistics: ChannelStatistics
    options: RenderOptions
    layer_channels: int
    is_vector: bool
    report: LayerReport | None
    entries: list[Entry] | None


def choose_channels(
    maps: torch.Tensor,
    backend: Backend,
    options: RenderOptions,
    measured: ChannelStatistics | None = None,
    *,
    categories: Sequence[str] | None = None,
    list_entries: bool = True,
) -> ChosenChannels:
    """Choose, order and reduce the channels of a layer, and measure them.

    Args:
        maps: (C, H, W) real dtype, finite or not. Not modified.
        backend: whose kernels measure.
        options: how they are to be drawn.
        measured: statistics of the channels that `options` picks, on the CPU, where they are known already.
        categories: names of the classes that the entries of a vector stand for.
        list_entries: whether the strongest entries of a vector are wanted.

    Returns:
        The channels.

    Raises:
        OptionError: a channel that `maps` does not have, or a `topk` of more channels than there are.
    """
    layer = backend.readable(maps)
    all_picked = options.channels is None  # then the same statistics serve the report and the sheet
    if options.report and all_picked and measured is None:
        measured = channel_statistics(backend, layer, options.threads).cpu()
    report = layer_report(layer, measured if all_picked else None, axes="chw") if options.report else None
    drawn, selection, statistics = select(layer, backend, options, measured)
    vector = is_vector(layer)
    return ChosenChannels(
        maps=drawn,
        selection=selection,
        statistics=statistics,
        options=as_bar(options, len(drawn)) if vector else options,
        layer_channels=len(layer),
        is_vector=vector,
        report=report,
        entries=strongest(layer, categories, options.channels) if vector and list_entries else None,
    )
