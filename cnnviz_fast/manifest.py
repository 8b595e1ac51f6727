"""Stage 7 of 7: the manifest beside a sheet. Which tile is which channel, its range, its statistics and its flags."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from .channels import ChannelStatistics
    from .layout import GridLayout
    from .options import RenderOptions
    from .overlay import Overlay
    from .palette import Palette


@dataclass(frozen=True)
class Source:
    """Where maps came from, for the manifest; each part may be unknown.

    Attributes:
        model: spec of the model.
        weights: which ones.
        layer: name of the layer.
        image: name of the picture.
        layout: how the layer's output was read, such as "nhwc".
        prefix_tokens: how many tokens of it are not in the maps.
        time_step: which one of a clip, from 0.
    """

    model: str | None = None
    weights: str | None = None
    layer: str | None = None
    image: str | None = None
    layout: str | None = None
    prefix_tokens: int | None = None
    time_step: int | None = None


def package_version() -> str:
    """Return the version of the installed package."""
    from importlib.metadata import version

    return version("cnnviz_fast")


def describe_sheet(
    source: Source,
    options: RenderOptions,
    backend: str,
    maps: dict[str, Any],
    layout: GridLayout,
    palette: Palette,
    channels: list[int],
    statistics: ChannelStatistics,
    vmin: torch.Tensor,
    vmax: torch.Tensor,
    overlay: Overlay | None = None,
) -> dict[str, Any]:
    """Build the manifest of a sheet.

    Args:
        source: where the maps came from.
        options: how they were drawn.
        backend: name of the backend that drew them.
        maps: shape, dtype and device of the layer's maps, before selection.
        layout: the grid.
        palette: the colours.
        channels: channel number of each tile.
        statistics: of the channels drawn.
        vmin: (C,) float32. Lower end of the range that each tile is drawn on.
        vmax: (C,) float32. Its upper end.
        overlay: what lies under the tiles.

    Returns:
        A record that JSON can hold; a value that is not finite is None. A tile's `box` is [y0, x0, y1, x1] in px,
        the ends exclusive; `vmin` and `vmax` are the range it is drawn on, `min` and `max` its own finite extremes.
    """
    return {
        "cnnviz_fast": package_version(),
        **dataclasses.asdict(source),
        "maps": maps,
        "sheet": {"height": layout.height, "width": layout.width, **dataclasses.asdict(layout)},
        "palette": {"levels": palette.levels, "background": palette.background, "bad": palette.bad},
        "backend": backend,
        "options": dataclasses.asdict(options),
        "overlay": overlay.description if overlay else None,
        "tiles": _describe_tiles(layout, channels, statistics, vmin, vmax),
    }


def _describe_tiles(
    layout: GridLayout, channels: list[int], statistics: ChannelStatistics, vmin: torch.Tensor, vmax: torch.Tensor
) -> list[dict[str, Any]]:
    measured = (getattr(statistics, field.name) for field in dataclasses.fields(statistics))
    # One transfer and one conversion a column, not one a number; and a literal, the fastest way to make 2048 records.
    columns = zip(channels, *map(_json_numbers, (vmin, vmax, *measured)), _flags(statistics), strict=True)
    return [
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
            layout.boxes(), columns, strict=True
        )
    ]


def _flags(statistics: ChannelStatistics) -> list[list[str]]:
    """Name what is odd about each channel: flat (min = max), dead (all zero), nonfinite (holds NaN or infinities)."""
    flags: list[list[str]] = [[] for _ in range(len(statistics.vmin))]
    for name, present in (
        ("flat", statistics.vmin == statistics.vmax),
        ("dead", statistics.zeros == 1),
        ("nonfinite", (statistics.nan + statistics.inf) > 0),
    ):
        for position in present.nonzero()[:, 0].tolist():
            flags[position].append(name)
    return flags


def _json_numbers(column: torch.Tensor) -> list[Any]:
    """Return the numbers of a tensor, with None for what JSON cannot hold."""
    values: list[Any] = column.tolist()
    if column.is_floating_point() and not bool(column.isfinite().all()):
        return [value if math.isfinite(value) else None for value in values]
    return values
