"""Sheets of several samples: measured together, planned one by one, each drawn while the caller uses the one before.

On CUDA all of it runs on a stream of its own. That stream waits for the one on which the maps were made, and never the
other way about: the model runs its next batch while the sheets of this batch are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ..channels.dataset import LayerStatistics, Ranges, ranges_of
from ..channels.entrance import as_rows, enter_batch, read_axes
from ..channels.selection import pick
from ..channels.statistics import ChannelStatistics, channel_statistics
from ..channels.values import check_values
from ..errors import DTypeError, InputError, repr_of
from ..kernels import backends
from ..options.declared import takes
from ..options.drawing import RenderOptions
from ..provenance import Provenance
from ..runtime.device import Fitting, device_at
from ..runtime.plain import plain
from .pixels import PendingSheet, begin_whole
from .plan import plan_sheet
from .sheet import Sheet

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..options.keywords import RenderKeywords
    from .overlay import Backdrop
    from .plan import Plan

MEASURED_BYTES = 1 << 28
"""Bytes of maps that are measured at once. The torch backend needs up to ten times as much memory in addition. The
others need none, except for a copy of maps whose channels are not contiguous, such as channels-last ones. Where that is
too much, fewer samples are measured at once."""


def plan_batch(
    maps: torch.Tensor,
    options: RenderOptions,
    provenances: Sequence[Provenance],
    backdrops: Sequence[Backdrop | None] | None = None,
    plan: Callable[..., Plan] = plan_sheet,
    ranges: Ranges | None = None,
) -> Iterator[Plan]:
    """Plan a sheet for each sample. All are measured together, so that the device is waited for only once.

    Args:
        maps: (N, C, H, W) real dtype, any device, finite or not. Not modified.
        options: how to draw them.
        provenances: where the maps of each sample came from.
        backdrops: the image to lay each over, or None for none.
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
    """Measure all samples together, so that the device is waited for only once.

    Args:
        maps: (N, C, H, W) real dtype, any device, finite or not. Not modified.
        options: `channels` picks what is measured.

    Returns:
        The statistics of the channels picked, for each sample, on the CPU.

    Raises:
        OptionError: a channel that `maps` does not have.
        KernelError: the device was lost.
        MemoryError: the device cannot measure a single sample.
    """
    backend = backends.choose(options.backend, str(maps.device))
    found: list[ChannelStatistics] = []

    def measure(first: int, last: int) -> None:
        picked, numbers = pick(backend.readable(maps[first:last]), options.channels)
        together = channel_statistics(backend, picked.flatten(0, 1), options.threads).cpu()
        found.extend(together.split(len(numbers)))

    at_once = MEASURED_BYTES // (maps[0].numel() * maps.element_size())
    device = device_at(maps.device)
    with device.faults():
        Fitting(device, at_once).run(measure, 0, len(maps))
    return found


@takes(RenderOptions)
def render_batch(
    maps: torch.Tensor | Mapping[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]],
    *,
    axes: str = "auto",
    planes: Any = None,
    provenances: Sequence[Provenance] | None = None,
    statistics: Mapping[str, LayerStatistics] | LayerStatistics | None = None,
    field: Any = None,
    **options: Unpack[RenderKeywords],
) -> Iterator[Sheet]:
    """Draw a sheet for each of N samples, of one layer or of several.

    Each sheet is drawn while the caller works on the one before, so at most two are in memory. Where the next sheet
    cannot be begun, the one before is yielded first, and then the error is raised. Once the last sheet of a layer is
    drawn its maps are released: those that a generator hands in are then gone from memory.

    Args:
        maps: (N, C, H, W) real dtype, any device, finite or not. For several layers a mapping from their names to such
            maps, as capture returns it, or an iterable of (name, maps). Not modified.
        axes: of each sample, where it is not (C, H, W); see render.
        planes: of volumes (N, C, D, H, W), the plane to draw, counted from 0.
        provenances: where each of the N samples came from; the name of the layer is filled in.
        statistics: of the layer over a data set, with normalize dataset; a mapping from names for several layers.
        field: receptive field of the layer, with align field, unless `provenances` tell it; a mapping from names for
            several layers, as `receptive_field` returns it for those.
        **options: see below.

    Yields:
        The sheets, layer by layer and within a layer sample by sample.

    Raises:
        InputError: maps or an option cannot be used, or `provenances` does not hold one per sample.
        BackendUnavailableError: the named backend does not work for these maps.
        KernelError: the device was lost, or refuses the work.
        MemoryError: a sheet does not fit into memory.
    """
    checked, read = RenderOptions.of(options), read_axes(axes, planes)
    several = maps.items() if isinstance(maps, Mapping) else _pairs_in(maps)
    pairs = iter([(None, maps)]) if isinstance(maps, torch.Tensor) else several
    return _one_ahead(_pending_sheets(pairs, provenances, statistics, field, checked, read))


def _pending_sheets(
    pairs: Iterable[tuple[str | None, torch.Tensor]],
    provenances: Sequence[Provenance] | None,
    statistics: Mapping[str, LayerStatistics] | LayerStatistics | None,
    field: Any,
    options: RenderOptions,
    read: tuple[str, int | None],
) -> Iterator[PendingSheet]:
    """Begin one sheet after another; `read` is how the axes of each sample are read."""
    order, plane = read
    for layer, maps in pairs:
        maps = _checked_batch(layer, maps, provenances, read)
        drawn = as_rows(options, maps.shape[-1]) if order in ("cl", "lc") else options
        stream = device_at(maps.device).stream()
        known: dict[str, Any] = {} if layer is None else {"layer": layer}
        known |= {} if plane is None else {"plane": plane}
        own_field = field.get(layer) if layer is not None and isinstance(field, Mapping) else field
        named = [
            replace(provenance, **known).with_field(own_field)
            for provenance in provenances or [Provenance()] * len(maps)
        ]
        of_layer = statistics.get(str(layer)) if isinstance(statistics, Mapping) else statistics
        plans = plan_batch(maps, drawn, named, ranges=ranges_of(of_layer, options))
        del maps  # now only the generator of the plans holds them
        while True:
            with stream.active():
                plan = next(plans, None)
                if plan is None:
                    break
                pending = begin_whole(plan)
            yield pending
            del plan, pending


def _pairs_in(maps: Any) -> Iterator[tuple[str | None, torch.Tensor]]:
    """Yield the pairs of an iterable of (name, maps), and refuse anything else."""
    try:
        pairs = iter(maps)
    except TypeError:
        raise DTypeError(f"maps must be a tensor, a mapping or pairs of name and maps, got {repr_of(maps)}.") from None
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise DTypeError(f"maps must be a tensor, a mapping or pairs of name and maps, got {repr_of(pair)} in it.")
        yield pair[0], pair[1]


def _finished(pending: PendingSheet) -> Sheet:
    plan = pending.plan
    return Sheet(pending.finish(), plan.palette, plan.describe(), plan.overlay)


def _one_ahead(sheets: Iterator[PendingSheet]) -> Iterator[Sheet]:
    """Finish and yield sheets. The next one is begun before a sheet is yielded; none is left unfinished."""
    following = next(sheets, None)
    try:
        while following is not None:
            current, following = following, None
            try:
                following = next(sheets, None)
            except Exception:
                yield _finished(current)
                raise
            sheet = _finished(current)
            del current  # and with it the maps, while the caller uses the sheet
            yield sheet
            del sheet
    finally:
        if following is not None:
            following.give_up()


def _checked_batch(
    layer: str | None, maps: Any, provenances: Sequence[Provenance] | None, read: tuple[str, int | None]
) -> torch.Tensor:
    """Return the maps of a layer as (N, C, H, W), and refuse what is no such batch."""
    what = "maps" if layer is None else f"maps of {layer}"
    if not isinstance(maps, torch.Tensor):
        raise DTypeError(f"{what} must be a tensor, got {type(maps).__name__}. Pass torch.as_tensor(maps).")
    values = enter_batch(plain(maps, what, opened=False), *read, what)
    check_values(values)
    if provenances is not None and len(provenances) != len(values):
        raise InputError(f"provenances must hold one per sample, {len(values)}, got {len(provenances)}.")
    return values.detach().resolve_neg()
