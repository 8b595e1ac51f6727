"""Options: the only home of defaults. Frozen records that check themselves; the command line is generated from them."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import OptionError
from .declared import SelfChecking, option
from .parsers import (
    as_float32,
    channel_list,
    choice,
    choices,
    flag,
    float32,
    grid,
    percentiles,
    pixels,
    positive,
    template,
    text,
    whole,
    whole_within,
)

DEFAULT_TILE_PX = 224
"""Longer side of a tile where neither `tile` nor `scale` is given: the input size of most classification models."""

DEFAULT_ALPHA = 0.5
"""Weight of the maps' colours where they lie over a picture."""


NORMALIZATIONS = ("channel", "layer", "percentile", "symmetric", "sigmoid", "fixed", "dataset")
REDUCTIONS = ("sum", "mean", "max", "strongest")
RANKS = ("mean", "abs-mean", "max", "variance", "nonzero", "norm")
ALIGNMENTS = ("left", "center", "corners")
UPSAMPLINGS = ("bilinear", "nearest")
BACKENDS = ("auto", "reference", "torch", "numba", "triton")
TITLE_FIELDS = ("model", "weights", "layer", "image")

SINGLE_SHEETS = ("topk", "sort", "rank", "reduce", "beside", "label", "title", "colorbar", "report")
"""Render options that a comparison of two layers does not take."""


@dataclass(frozen=True, kw_only=True)
class RenderOptions(SelfChecking):
    """Say how maps are drawn. The types are what a field holds; each takes what its sentence says, also as text."""

    tile: int | tuple[int, int] | None = option(
        None,
        pixels,
        f"tile size in px: the longer side, the map's shape is kept; HxW for an exact size "
        f"(default {DEFAULT_TILE_PX} unless scale is given)",
        "PX",
    )
    scale: float | None = option(None, positive, "tile size as a factor of the map's own size", "FACTOR")
    grid: tuple[int, int] = option("auto", grid, "rows and columns of tiles: auto, ROWSxCOLS, ROWSx or xCOLS", "GRID")
    gap: int = option(0, whole(0), "px between tiles", "PX")
    margin: int = option(0, whole(0), "px around the grid", "PX")
    normalize: str = option(
        "channel",
        choice(*NORMALIZATIONS),
        "range of values that the colormap spans: each channel's own (channel), one for all (layer), each channel's "
        "percentiles (percentile), plus/minus the largest magnitude (symmetric), a sigmoid's 0 to 1 (sigmoid), vmin to "
        "vmax (fixed), or each channel's own over a data set (dataset)",
        "|".join(NORMALIZATIONS),
    )
    vmin: float | None = option(None, float32, "lower end of the range, with normalize fixed", "VALUE")
    vmax: float | None = option(None, float32, "upper end of the range, with normalize fixed", "VALUE")
    percentile: tuple[float, float] | None = option(
        None,
        percentiles,
        "LOW,HIGH, with normalize percentile (default 1,99) or dataset (default: its extremes)",
        "LOW,HIGH",
    )
    align: str = option("center", choice(*ALIGNMENTS), "where samples lie when maps are enlarged", "|".join(ALIGNMENTS))
    upsampling: str = option(
        "bilinear",
        choice(*UPSAMPLINGS),
        "between samples: bilinear, or nearest to see the map's own cells",
        "|".join(UPSAMPLINGS),
    )
    colormap: str = option("viridis", text, "name of a colormap, such as viridis, gray, magma or coolwarm", "NAME")
    background: str = option("black", text, "colour of gaps, margins and empty cells: a name or #rrggbb", "COLOUR")
    bad: str = option("magenta", text, "colour of NaN and infinities: a name or #rrggbb", "COLOUR")
    channels: tuple[int, ...] | None = option(
        None, channel_list, "channels to draw, such as 0-63,128 (default: all)", "LIST"
    )
    topk: int | None = option(None, whole(1), "draw only so many channels, the first by rank", "K")
    sort: bool = option(False, flag, "draw the channels in the order of rank, not of their numbers")
    rank: str | None = option(
        None,
        choice(*RANKS),
        "what topk and sort go by, the greatest first, of each channel's finite values: their mean (the default), mean "
        "magnitude, maximum, variance, share that is not zero, or Euclidean norm",
        "|".join(RANKS),
    )
    reduce: tuple[str, ...] | None = option(
        None,
        choices(*REDUCTIONS),
        "draw instead of the channels their sum, mean or max at each cell, or the strongest: the channel of the "
        "greatest mean magnitude; several as sum,max",
        "|".join(REDUCTIONS),
    )
    beside: bool = option(False, flag, "with reduce: draw the channels too, behind what they are reduced to")
    label: bool = option(False, flag, "write above each tile which channel it shows")
    title: str | None = option(
        None,
        template(*TITLE_FIELDS),
        "line of text above the grid; {model}, {weights}, {layer} and {image} stand for theirs",
        "TEXT",
    )
    colorbar: bool = option(False, flag, "draw a bar of the colormap below the grid, with the ends of the range")
    report: bool = option(
        False,
        flag,
        "say which channels are dead, flat, saturated or not finite, how sparse the layer is, and how the "
        "channels' ranges are distributed",
    )
    backend: str = option(
        "auto",
        choice(*BACKENDS),
        "implementation of the kernels (auto: numba for maps on the CPU, triton for those on CUDA, or else torch)",
        "|".join(BACKENDS),
    )
    threads: int | None = option(None, whole(1), "workers that draw and encode (default: one a core)", "N")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tile is not None and self.scale is not None:
            raise OptionError("tile and scale both set the tile size. Give one of them.")
        if self.normalize == "fixed":
            if self.vmin is None or self.vmax is None:
                raise OptionError("normalize 'fixed' needs vmin and vmax. Give both.")
            if not as_float32(self.vmin) < as_float32(self.vmax):
                raise OptionError(f"vmin must be less than vmax in float32, got {self.vmin:.9g} and {self.vmax:.9g}.")
        elif self.vmin is not None or self.vmax is not None:
            raise OptionError(f"vmin and vmax go with normalize 'fixed', got normalize {self.normalize!r}.")
        ranked = self.topk is not None or self.sort
        if ranked:
            object.__setattr__(self, "rank", self.rank or "mean")
        elif self.rank is not None:
            raise OptionError(f"rank goes with topk or sort, got rank {self.rank!r} alone.")
        if self.beside and self.reduce is None:
            raise OptionError("beside goes with reduce. Say what the channels are to be reduced to.")
        if ranked and self.reduce is not None and not self.beside:
            raise OptionError("topk and sort order channels, and with reduce none are drawn. Add beside.")
        if self.normalize == "percentile":
            object.__setattr__(self, "percentile", self.percentile or (1.0, 99.0))
        elif self.percentile is not None and self.normalize != "dataset":
            raise OptionError(
                f"percentile goes with normalize 'percentile' or 'dataset', got normalize {self.normalize!r}."
            )
        if self.normalize == "dataset" and set(self.reduce or ()) - {"strongest"}:
            raise OptionError(
                f"normalize 'dataset' has ranges of channels, not of their sum, mean or max, got reduce "
                f"{','.join(self.reduce or ())!r}. Leave reduce out, or draw the strongest."
            )

    @property
    def flat(self) -> float:
        """The normalised value at which a flat channel is drawn: the least, or with symmetric the middle."""
        return 0.5 if self.normalize == "symmetric" else 0.0


@dataclass(frozen=True, kw_only=True)
class EntryOptions(SelfChecking):
    """Say which palette entries stand for what, where the palette is the caller's; see `kernels.Paint`."""

    levels: int = option(256, whole_within(2, 256), "entries 0 .. levels - 1 show values", "N")
    background: int = option(0, whole_within(0, 255), "entry of gaps, margins and empty cells", "ENTRY")
    bad: int = option(0, whole_within(0, 255), "entry of NaN and infinities", "ENTRY")
