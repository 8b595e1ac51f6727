"""The manifest beside a sheet: which tile is which channel, its range, its statistics and its flags."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from ..channels.values import json_numbers
from ..provenance import Provenance, package_version
from ..runtime.files import json_bytes
from ..runtime.native import native

if TYPE_CHECKING:
    from ..channels.report import LayerReport
    from ..channels.selection import Selection
    from ..channels.statistics import ChannelStatistics
    from ..channels.vectors import Entry
    from ..geometry import Grid
    from ..options.drawing import RenderOptions
    from ..palette import Palette
    from .overlay import Overlay


@dataclass(frozen=True, eq=False)
class SheetFacts:
    """What a manifest says of a sheet.

    Attributes:
        provenance: where its maps came from.
        options: how they were drawn.
        backend: name of the backend that drew them.
        maps: (C, H, W) or (C,) real dtype. As they were given.
        grid: the grid.
        palette: the colours.
        selection: what each tile shows.
        statistics: of the maps drawn.
        vmin: (K,) float32. Lower end of the range that each tile is drawn on.
        vmax: (K,) float32. Its upper end.
        report: on the whole layer, where the options want it.
        entries: the strongest entries of a vector.
        overlay: what lies under the tiles.
        image: what stands above the grid: its source and its box.
    """

    provenance: Provenance
    options: RenderOptions
    backend: str
    maps: Any
    grid: Grid
    palette: Palette
    selection: Selection
    statistics: ChannelStatistics
    vmin: torch.Tensor
    vmax: torch.Tensor
    report: LayerReport | None = None
    entries: Sequence[Entry] | None = None
    overlay: Overlay | None = None
    image: dict[str, Any] | None = None


def describe_sheet(facts: SheetFacts) -> dict[str, Any]:
    """Build the manifest of a sheet.

    Args:
        facts: what it says.

    Returns:
        A record that JSON can hold; a value that is not finite is None. The `box` of a tile is [y0, x0, y1, x1] in px,
        the ends exclusive; `vmin` and `vmax` are the range it is drawn on, `min` and `max` its own finite extremes.
        Where anything is reduced, every tile has a `reduce`, which is None for a channel as it is. Where channels are
        ranked, it has a `rank`, its score. The `channel` of a sum, mean or max is None; of the strongest it is that
        channel's number. Where an image stands above the grid, `input` is its source and its box.
    """
    return _manifest(facts, _describe_tiles(facts))


def sheet_json(facts: SheetFacts, files: Sequence[str] | None = None) -> bytes:
    """Return the manifest of a sheet as JSON: the same text as that of `describe_sheet`, in a fraction of the time.

    Args:
        facts: what it says.
        files: the file of each tile, where tiles have files of their own; see `with_files`.

    Returns:
        The text.
    """
    module, _ = native()
    if module is not None:
        import orjson

        with contextlib.suppress(TypeError):  # a text that is not UTF-8, see json_bytes
            records = _tile_records(module, facts)
            if files is not None:
                records = _with_files(records, orjson.dumps(files))
            return orjson.dumps(_manifest(facts, orjson.Fragment(records)))
    return json_bytes(with_files(describe_sheet(facts), files))


def _with_files(records: bytes, files: bytes) -> bytes:
    # Neither text holds what it is split at anywhere else: in a name a quotation mark follows a backslash.
    names, rests = files[2:-2].split(b'","'), records.split(b'{"channel":')[1:]
    tiles = (b'{"file":"%b","channel":%b' % pair for pair in zip(names, rests, strict=True))
    return b"[" + b"".join(tiles)


def with_files(manifest: dict[str, Any], files: Sequence[str] | None) -> dict[str, Any]:
    """Return a manifest in which the first entry of each tile is its `file`; as it is where there are no files."""
    if files is None:
        return manifest
    return {**manifest, "tiles": [{"file": name, **tile} for name, tile in zip(files, manifest["tiles"], strict=True)]}


def _manifest(facts: SheetFacts, tiles: Any) -> dict[str, Any]:
    grid, palette, entries = facts.grid, facts.palette, facts.entries
    return {
        "cnnviz_fast": package_version(),
        **facts.provenance.facts(),
        "maps": {
            "shape": list(facts.maps.shape),
            "dtype": str(facts.maps.dtype).removeprefix("torch."),
            "device": str(getattr(facts.maps, "device", "cpu")),
        },
        "sheet": describe_grid(grid),
        "palette": {"levels": palette.levels, "background": palette.background, "bad": palette.bad, "ink": palette.ink},
        "backend": facts.backend,
        "options": dict(vars(facts.options)),
        "overlay": facts.overlay.description if facts.overlay else None,
        **({} if facts.image is None else {"input": facts.image}),
        **({} if facts.report is None else {"report": dataclasses.asdict(facts.report)}),
        **({} if entries is None else {"strongest": [dict(vars(entry)) for entry in entries]}),
        "tiles": tiles,
    }


def describe_grid(grid: Grid) -> dict[str, int]:
    """Return what a manifest says of a grid: its numbers, and the size of the sheet that follows from them."""
    return {"height": grid.height, "width": grid.width, **vars(grid)}


def _describe_tiles(facts: SheetFacts) -> list[dict[str, Any]]:
    grid, selection, statistics, vmin, vmax = facts.grid, facts.selection, facts.statistics, facts.vmin, facts.vmax
    measured = (getattr(statistics, field.name) for field in dataclasses.fields(statistics))
    # One transfer and one conversion a column, not one a number; and a literal, the fastest way to make 2048 records.
    columns = zip(selection.channels, *map(json_numbers, (vmin, vmax, *measured)), _flags(statistics), strict=True)
    tiles = [
        {
            "channel": channel,
            "box": box,
            "vmin": low,
            "vmax": high,
            "min": least,
            "max": greatest,
            "mean": mean,
            "std": std,
            "zeros": zeros,
            "nan": nan,
            "inf": inf,
            "flags": flags,
        }
        for box, (channel, low, high, least, greatest, mean, std, zeros, nan, inf, flags) in zip(
            grid.boxes(), columns, strict=True
        )
    ]
    for key, column in (("reduce", selection.reductions), ("rank", selection.scores)):
        if column is not None:
            for tile, value in zip(tiles, column, strict=True):
                tile[key] = value
    return tiles


def _tile_records(module: ModuleType, facts: SheetFacts) -> bytes:
    """Return `_describe_tiles` as JSON. orjson writes the numbers, and native code what stands between them."""
    import orjson

    selection, statistics = facts.selection, facts.statistics
    drawn_on, own = (facts.vmin, facts.vmax), (statistics.vmin, statistics.vmax)
    own_ranges = all(drawn is of_channel for drawn, of_channel in zip(drawn_on, own, strict=True))
    columns = *(() if own_ranges else drawn_on), *own, statistics.mean, statistics.std, statistics.zeros
    numbers = torch.stack([column.double() for column in columns], dim=1).ravel().numpy()
    records: bytes = module.tile_records(
        facts.grid.numbers,
        orjson.dumps(selection.channels),
        own_ranges,
        orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY),
        statistics.nan.numpy(),
        statistics.inf.numpy(),
        statistics.flat.numpy(),
        statistics.dead.numpy(),
        orjson.dumps(selection.reductions or []),
        orjson.dumps(selection.scores or []),
    )
    return records


def _flags(statistics: ChannelStatistics) -> list[list[str]]:
    """Return the flags of each channel: flat (min = max), dead (all zero), nonfinite (holds NaN or infinities)."""
    flags: list[list[str]] = [[] for _ in range(len(statistics.vmin))]
    for name, present in (
        ("flat", statistics.flat),
        ("dead", statistics.dead),
        ("nonfinite", statistics.nonfinite),
    ):
        for position in present.nonzero()[:, 0].tolist():
            flags[position].append(name)
    return flags
