"""Two layers side by side on one scale, and their difference: what another image, model or checkpoint changed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ..channels.entrance import Handed, enter
from ..channels.selection import pick
from ..channels.tile_ranges import SharedRanges
from ..channels.values import as_maps, json_numbers
from ..errors import OptionError, ShapeError
from ..kernels.torch_ops import widest
from ..options.declared import takes
from ..options.drawing import SINGLE_SHEETS, TITLE_FIELDS, RenderOptions
from ..options.parsers import path as path_of
from ..provenance import Provenance, given_provenance, package_version
from ..runtime.device import device_at
from .notebook import html_of
from .plan import plan_sheet
from .render import draw_sheet
from .sheet import Sheet

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..options.keywords import SheetKeywords

BETWEEN_PX = 16
"""Least px between the two sheets of a pair, so that it does not look like one grid of twice the columns."""

MOST_CHANGED = 10
"""Number of the most changed channels that are named."""

BLOCK_VALUES = 1 << 22
"""Changes are measured in blocks of about this many values. As float64 that is 32 MB for each array."""


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Two layers, compared.

    pair: a's sheet on the left and b's on the right; equal values have equal colours.
    difference: the sheet of b - a, zero in the middle of its colormap.
    manifest: where a and b came from, how much each channel changed (see Change), and which changed most, by lost cells
        and then by rms. The manifest of the difference holds it too.
    """

    pair: Sheet
    difference: Sheet
    manifest: dict[str, Any]

    def __repr__(self) -> str:
        """Return what it is, in one line."""
        height, width = self.difference.index.shape
        count, most = len(self.manifest["channels"]), self.manifest["most_changed"]
        return f"Comparison({count:,} channels, most changed {most}, {height:,} x {width:,} px a sheet)"

    def _repr_html_(self) -> str:
        """Return both sheets as HTML for a notebook."""
        return html_of([("a | b", self.pair), ("b - a", self.difference)])

    def save(self, path: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write both sheets with their manifests.

        Args:
            path: `layer4.png` makes `layer4_compare.png` and `layer4_difference.png`; suffixes as in Sheet.save.

        Returns:
            Both paths.

        Raises:
            CnnvizError: see Sheet.save.
        """
        path = path_of("path", path)
        return (
            self.pair.save(path.with_name(f"{path.stem}_compare{path.suffix}")),
            self.difference.save(path.with_name(f"{path.stem}_difference{path.suffix}")),
        )


@dataclass(frozen=True)
class Change:
    """How much each channel changed, over the cells that are finite in both a and b; NaN without such cells.

    mean_abs: (C,) float64. Mean magnitude of b - a.
    max_abs: (C,) float64. Greatest magnitude of b - a.
    rms: (C,) float64. Root mean square of b - a.
    correlation: (C,) float64. Pearson correlation of a and b; NaN where one of them is flat.
    lost: (C,) int64. Cells that are finite in only one of the two.
    """

    mean_abs: torch.Tensor
    max_abs: torch.Tensor
    rms: torch.Tensor
    correlation: torch.Tensor
    lost: torch.Tensor

    def order(self) -> list[int]:
        """Return positions of the channels that changed, by lost cells, then by rms, greatest first."""
        pairs = list(zip(self.lost.tolist(), self.rms.nan_to_num(0).tolist(), strict=True))
        return sorted((i for i, pair in enumerate(pairs) if any(pair)), key=lambda i: pairs[i], reverse=True)


def measure_change(a: torch.Tensor, b: torch.Tensor) -> Change:
    """Measure how much each channel changed, in float64.

    Args:
        a: (C, H, W) float32, finite or not. Not modified.
        b: (C, H, W) float32 on the same device. Not modified.

    Returns:
        The change from a to b.
    """
    at_once = max(1, BLOCK_VALUES // a[0].numel())
    blocks = [_measure(*(maps[start : start + at_once] for maps in (a, b))) for start in range(0, len(a), at_once)]
    return Change(*(torch.cat(columns) for columns in zip(*blocks, strict=True)))


def _measure(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the columns of a Change."""
    a, b = a.flatten(1).to(widest(a)), b.flatten(1).to(widest(b))
    finite_a, finite_b = a.isfinite(), b.isfinite()
    both = finite_a & finite_b
    count = both.sum(1).to(a.dtype)  # without cells to compare, 0 / 0 makes the NaN
    magnitude = (b - a).abs().where(both, 0)
    around_a, around_b = _around_mean(a, both), _around_mean(b, both)
    spread = (around_a.square().sum(1) * around_b.square().sum(1)).sqrt()
    return (
        magnitude.sum(1) / count,
        magnitude.amax(1).where(count > 0, torch.nan),
        (magnitude.square().sum(1) / count).sqrt(),
        (around_a * around_b).sum(1) / spread,
        (finite_a ^ finite_b).sum(1),
    )


def _around_mean(values: torch.Tensor, both: torch.Tensor) -> torch.Tensor:
    """Return the cells in `both` minus their mean, and 0 elsewhere; exactly 0 in all of a flat channel."""
    # The greatest value is subtracted first: the computed mean of equal values can differ from them in the last bit.
    greatest = values.where(both, -torch.inf).amax(1, keepdim=True)
    values = (values - greatest).where(both, 0)
    return (values - values.sum(1, keepdim=True) / both.sum(1, keepdim=True)).where(both, 0)


@takes(RenderOptions, without=SINGLE_SHEETS)
def compare(
    a: Any,
    b: Any,
    *,
    axes: str = "auto",
    planes: Any = None,
    provenance_a: Provenance | None = None,
    provenance_b: Provenance | None = None,
    field: Any = None,
    diverging: str = "coolwarm",
    **options: Unpack[SheetKeywords],
) -> Comparison:
    """Draw two layers side by side on one scale, and their difference.

    The ranges that `normalize` asks for are those of a and b together, for each channel or for the layer. The
    difference is that of the maps themselves, before any sigmoid. It has one range for all channels, plus/minus its
    largest magnitude, and shows the `bad` colour where a, b or b - a is not finite in float32. Everything is drawn in
    memory, at one byte per pixel: three sheets, and for a moment both halves of the pair a second time.

    A title stands above each half, with what is known of its own side, and above the difference, where fields in which
    the two differ read "b - a". A colour bar stands under each.

    Args:
        a: (C, H, W) real dtype, a tensor on any device or a numpy array, finite or not; or what else render takes. Not
            modified.
        b: (C, H, W) real dtype, as `a`; moved to its device.
        axes: of `a` and `b` where their channels are not first; see render.
        planes: of volumes, the plane to compare; see render.
        provenance_a: where `a` came from, for the manifest.
        provenance_b: where `b` came from.
        field: receptive field of the layers, which must be one for both; see render.
        diverging: colormap of the difference, such as coolwarm, RdBu_r or berlin; its upper end means b is greater.
        **options: see below.

    Returns:
        The comparison.

    Raises:
        ShapeError: `a` and `b` differ in shape, or are not maps.
        OptionError: an option cannot be used, or belongs to single sheets.
        InputError: anything else about `a`, `b` or an option.
        BackendUnavailableError: the named backend does not work for these maps.
        KernelError: the device of the maps was lost, or refuses the work.
        MemoryError: memory ran out.
    """
    checked = _checked(options)
    handed_a, handed_b = enter(a, axes, planes), enter(b, axes, planes)
    wanted = handed_a.completed(checked)
    first, second = as_maps(handed_a.maps), as_maps(handed_b.maps)
    if first.shape != second.shape:
        raise ShapeError(f"a and b must have the same shape, got {tuple(first.shape)} and {tuple(second.shape)}.")
    with device_at(first.device).faults():
        second = second.to(first.device)
        provenance_a, provenance_b = (given_provenance(side, field) for side in (provenance_a, provenance_b))
        provenances = {"a": _describe(provenance_a, handed_a), "b": _describe(provenance_b, handed_b)}
        titled = _titled(provenance_a, provenance_b)
        if wanted.align == "field" and provenance_a.field != provenance_b.field:
            raise OptionError("align 'field' must have one receptive field for a and b, got two. Take another align.")
        pair = _draw_pair(first, second, wanted, provenances, titled)
        change = measure_change(*(pick(maps, wanted.channels)[0] for maps in (first, second)))
        changes = _describe_changes(pair, change)
        manifest = {
            "cnnviz_fast": package_version(),
            **provenances,
            "most_changed": [changes[position]["channel"] for position in change.order()[:MOST_CHANGED]],
            "channels": changes,
        }
        halves = pair.manifest["sheet"]
        as_pair = replace(wanted, tile=pair.manifest["options"]["tile"], grid=(halves["rows"], halves["cols"]))
        difference = draw_sheet(plan_sheet(second - first, _on_zero(as_pair, change, diverging), titled.difference))
        return Comparison(pair, replace(difference, manifest=manifest | _shared(difference.manifest)), manifest)


def _checked(options: Mapping[str, object]) -> RenderOptions:
    """Make the record of options, and refuse those that only single sheets take."""
    wanted, usual = RenderOptions.of(options), RenderOptions()
    for name in SINGLE_SHEETS:
        if name in options and getattr(wanted, name) != getattr(usual, name):
            raise OptionError(f"{name} belongs to single sheets; a comparison has none. Leave it out.")
    if wanted.normalize == "dataset":
        raise OptionError("normalize 'dataset' belongs to single sheets: a comparison draws on the range of both.")
    return wanted


def _describe(provenance: Provenance, handed: Handed) -> dict[str, Any]:
    """Describe one of the two for a manifest."""
    facts = handed.placed(provenance).facts()
    return {**facts, "dtype": str(handed.maps.dtype).removeprefix("torch.")}


class _Titled(NamedTuple):
    """What the titles of the three sheets are made of."""

    a: Provenance
    b: Provenance
    difference: Provenance


def _titled(a: Provenance, b: Provenance) -> _Titled:
    """Return the provenances for the titles: what only one side knows is "a" or "b" on the other one.

    So both sides have a title or neither has one, and their tiles lie at the same height.
    """
    sides: dict[str, tuple[Any, Any]] = {}
    for name in TITLE_FIELDS:
        known = [str(getattr(side, name) or "").strip() for side in (a, b)]
        sides[name] = (known[0] or "a", known[1] or "b") if any(known) else (None, None)
    both: dict[str, Any] = {
        n: first if first == second else f"{second} - {first}" for n, (first, second) in sides.items()
    }
    return _Titled(
        Provenance(**{name: first for name, (first, _) in sides.items()}, field=a.field),
        Provenance(**{name: second for name, (_, second) in sides.items()}, field=b.field),
        Provenance(**both, field=a.field),
    )


def _shared(manifest: dict[str, Any]) -> dict[str, Any]:
    """Return what a sheet's manifest says of both layers: everything but the provenance."""
    own = {field.name for field in dataclasses.fields(Provenance)}
    return {name: value for name, value in manifest.items() if name not in own}


def _draw_pair(
    a: torch.Tensor, b: torch.Tensor, options: RenderOptions, provenances: dict[str, Any], titled: _Titled
) -> Sheet:
    """Draw the sheets of a and b, each on the ranges of both, and join them."""
    left = draw_sheet(plan_sheet(a, options, titled.a, ranges=SharedRanges(b)))
    right = draw_sheet(plan_sheet(b, options, titled.b, ranges=SharedRanges(a)))
    height, width = left.index.shape
    between = max(BETWEEN_PX, 2 * options.gap)
    gap = np.full((height, between), left.colors.background, dtype=np.uint8)
    moved = width + between
    tiles = [{"of": "a", **tile} for tile in left.manifest["tiles"]]
    for tile in right.manifest["tiles"]:
        y0, x0, y1, x1 = tile["box"]
        tiles.append({"of": "b", **tile, "box": [y0, x0 + moved, y1, x1 + moved]})
    joined = np.hstack([left.index, gap, right.index])  # a title may be wider than one of them
    manifest = provenances | _shared(left.manifest)
    manifest |= {"sheet": {**manifest["sheet"], "width": joined.shape[1], "between": between}, "tiles": tiles}
    return Sheet(joined, left.colors, manifest)


def _on_zero(options: RenderOptions, change: Change, diverging: str) -> RenderOptions:
    """Return the options of the difference: zero in the middle, and on both sides the largest change of any channel."""
    largest = min(float(change.max_abs.nan_to_num(0).max()), torch.finfo(torch.float32).max)
    ends: dict[str, Any] = {"normalize": "symmetric", "vmin": None, "vmax": None}
    if largest > 0:
        ends = {"normalize": "fixed", "vmin": -largest, "vmax": largest}
    return replace(options, colormap=diverging, percentile=None, **ends)


def _describe_changes(pair: Sheet, change: Change) -> list[dict[str, Any]]:
    """Return a record for each channel: the range that both are drawn on, and how much it changed."""
    names = [field.name for field in dataclasses.fields(change)]
    rows = zip(*(json_numbers(getattr(change, name)) for name in names), strict=True)
    return [
        {**{name: tile[name] for name in ("channel", "vmin", "vmax")}, **dict(zip(names, row, strict=True))}
        for tile, row in zip(pair.manifest["tiles"], rows, strict=False)  # the tiles of a come first
    ]
