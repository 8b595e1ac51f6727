"""Stages 4 to 6 for several samples: measured together, planned one by one, drawn while the one before is looked at.

On CUDA all of it runs on a stream of its own. That waits for the stream on which maps were made, which never waits for
it: the model runs its next batch while the sheets of this one are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ..channels.dataset import LayerStatistics, Ranges, ranges_of
from ..channels.selection import pick
from ..channels.statistics import ChannelStatistics, channel_statistics
from ..channels.values import check_values
from ..errors import DTypeError, InputError, ShapeError
from ..kernels import backends
from ..options.declared import takes
from ..options.drawing import RenderOptions
from ..provenance import Provenance
from ..runtime.device import Fitting, device_at
from .pixels import PendingSheet, begin_whole
from .plan import plan_sheet
from .sheet import Sheet

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..options.keywords import RenderKeywords
    from .overlay import Backdrop
    from .plan import Plan

MEASURED_BYTES = 1 << 28
"""Of maps that are measured at once. The torch backend takes up to ten times as much beside them, the others nothing,
but for a copy of maps whose channels do not follow each other, such as channels-last ones. Where that is too much,
fewer samples are taken."""


def plan_batch(
    maps: torch.Tensor,
    options: RenderOptions,
    provenances: Sequence[Provenance],
    backdrops: Sequence[Backdrop | None] | None = None,
    plan: Callable[..., Plan] = plan_sheet,
    ranges: Ranges | None = None,
) -> Iterator[Plan]:
    """Plan a sheet for each sample. All of them are measured together, and the device is waited for once for that.

    Args:
        maps: (N, C, H, W) real dtype, any device, finite or not. Not modified.
        options: how to draw them.
        provenances: where the maps of each sample came from.
        backdrops: the picture to lay each over.
        plan: `plan_sheet`, or `plan_tiles` for single files.
        ranges: with normalize dataset, those of the layer's channels.

    Yields:
        The plans.

    Raises:
        CnnvizError: anything that is wrong; see plan_sheet.
        MemoryError: the device cannot measure a single sample.
    """
    measured = measure_batch(maps, options)
    under = backdrops or [None] * len(maps)
    for sample, provenance, backdrop, statistics in zip(maps, provenances, under, measured, strict=True):
        yield plan(sample, options, provenance, backdrop, measured=statistics, ranges=ranges)


def measure_batch(maps: torch.Tensor, options: RenderOptions) -> list[ChannelStatistics]:
    """Measure all samples together: the device is waited for once.

    Args:
        maps: (N, C, H, W) real dtype, any device, finite or not. Not modified.
        options: `channels` picks what is measured.

    Returns:
        The statistics of the channels picked, for each sample, on the CPU.

    Raises:
        OptionError: a channel that `maps` does not have.
        KernelError: the device was lost.
        MemoryError: it cannot measure a single sample.
    """
    backend = backends.choose(options.backend, str(maps.device))
    found: list[ChannelStatistics] = []

    def measure(first: int, last: int) -> None:
        picked, numbers = pick(backend.readable(maps[first:last]), options.channels)
        together = channel_statistics(backend, picked.flatten(0, 1)).cpu()
        count = len(numbers)
        found.extend(together[n * count : (n + 1) * count] for n in range(last - first))

    at_once = MEASURED_BYTES // (maps[0].numel() * maps.element_size())
    device = device_at(maps.device)
    with device.faults():
        Fitting(device, at_once).run(measure, 0, len(maps))
    return found


@takes(RenderOptions)
def render_batch(
    maps: torch.Tensor | Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]],
    *,
    provenances: Sequence[Provenance] | None = None,
    statistics: Mapping[str, LayerStatistics] | LayerStatistics | None = None,
    **options: Unpack[RenderKeywords],
) -> Iterator[Sheet]:
    """Draw a sheet for each of N samples, of one layer or of several.

    Each is drawn while the caller works on the one before, so at most two are under way: where the next one cannot
    be begun, the one before is handed out, and then the error raised. Maps of a layer are let go of once its last
    sheet is drawn; so they are gone if nobody else holds them, as those that a generator hands in.

    Args:
        maps: (N, C, H, W) real dtype, any device, finite or not; or layer name -> such maps, as capture returns them,
            or pairs of both. Not modified.
        provenances: where each of the N samples came from; the layer's name is filled in.
        statistics: of the layer over a data set, with normalize dataset; layer name -> statistics for several.
        **options: see below.

    Yields:
        The sheets, layer by layer and within a layer sample by sample.

    Raises:
        InputError: maps or an option cannot be used, or there is not one source a sample.
        BackendUnavailableError: the named backend does not work for these maps.
        KernelError: the device was lost, or refuses the work.
        MemoryError: a sheet does not fit into memory.
    """
    checked = RenderOptions.of(options)
    several = maps.items() if isinstance(maps, Mapping) else maps
    pairs = iter([(None, maps)]) if isinstance(maps, torch.Tensor) else several
    return _one_ahead(_begun(pairs, provenances, statistics, checked))


def _begun(
    pairs: Iterable[tuple[str | None, torch.Tensor]],
    provenances: Sequence[Provenance] | None,
    statistics: Mapping[str, LayerStatistics] | LayerStatistics | None,
    options: RenderOptions,
) -> Iterator[PendingSheet]:
    """Begin to draw sheet after sheet."""
    for layer, maps in pairs:
        _check_batch(layer, maps, provenances)
        stream = device_at(maps.device).stream()
        named = [
            provenance if layer is None else replace(provenance, layer=layer)
            for provenance in provenances or [Provenance()] * len(maps)
        ]
        known = statistics.get(str(layer)) if isinstance(statistics, Mapping) else statistics
        plans = plan_batch(maps, options, named, ranges=ranges_of(known, options))
        del maps  # the last one who holds them is the generator of the plans
        while True:
            with stream.active():
                plan = next(plans, None)
                if plan is None:
                    break
                begun = begin_whole(plan)
            yield begun
            del plan, begun


def _finished(begun: PendingSheet) -> Sheet:
    plan = begun.plan
    return Sheet(begun.finish(), plan.palette, plan.describe(), plan.overlay)


def _one_ahead(begun: Iterator[PendingSheet]) -> Iterator[Sheet]:
    """Yield sheets; each is begun before the one ahead of it is handed out, and none is left under way."""
    ahead = next(begun, None)
    try:
        while ahead is not None:
            ready, ahead = ahead, None
            try:
                ahead = next(begun, None)
            except Exception:
                yield _finished(ready)
                raise
            sheet = _finished(ready)
            del ready  # and with it the maps, while the caller looks at the sheet
            yield sheet
            del sheet
    finally:
        if ahead is not None:
            ahead.wait()


def _check_batch(layer: str | None, maps: Any, provenances: Sequence[Provenance] | None) -> None:
    what = "maps" if layer is None else f"maps of {layer}"
    if not isinstance(maps, torch.Tensor):
        raise DTypeError(f"{what} must be a tensor, got {type(maps).__name__}. Pass torch.as_tensor(maps).")
    if maps.ndim != 4:
        raise ShapeError(
            f"{what} must have shape (N, C, H, W), got {tuple(maps.shape)}. For one sample there is render."
        )
    check_values(maps)
    if provenances is not None and len(provenances) != len(maps):
        raise InputError(f"provenances must be one a sample, {len(maps)}, got {len(provenances)}.")
