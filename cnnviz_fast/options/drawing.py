"""How maps are drawn: the options of sheets and tiles, and their defaults. The command line is made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import OptionError
from .declared import SelfChecking, option, takes_keywords
from .keywords import EntryKeywords, RenderKeywords
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

if TYPE_CHECKING:
    from typing_extensions import Unpack

PLAIN_TILE_PX = 224
"""Longer side of a tile with `plain` and of a single file: the input size of most classification models."""

DEFAULT_ALPHA = 0.5
"""Weight of the maps' colours where they lie over an image."""


NORMALIZATIONS = ("channel", "layer", "percentile", "symmetric", "sigmoid", "fixed", "dataset")
REDUCTIONS = ("sum", "mean", "max", "strongest")
RANKS = ("mean", "abs-mean", "max", "variance", "nonzero", "norm")
BY_SIZE_ALONE = ("left", "center", "corners")
"""Alignments for which the sizes of map and tile are enough."""
ALIGNMENTS = (*BY_SIZE_ALONE, "field")
UPSAMPLINGS = ("auto", "bilinear", "nearest")
BACKENDS = ("auto", "reference", "torch", "numba", "native", "triton")
TITLE_FIELDS = ("model", "weights", "layer", "image")
"""What a title may say of where maps came from; {shape} is that of the layer."""

PLAIN: Mapping[str, object] = {
    "gap": 0, "margin": 0, "upsampling": "bilinear", "background": "black", "label": False, "title": "", "marks": False,
}  # fmt: skip
"""What `plain` stands for, beside tiles of PLAIN_TILE_PX on a nearly square sheet. Each is overruled by its option."""

SINGLE_SHEETS = ("topk", "sort", "rank", "reduce", "beside", "report")
"""Render options that a comparison of two layers does not take."""

RGB_OPTIONS = (
    "plain", "tile", "scale", "grid", "gap", "margin", "upsampling", "background", "label", "title", "backend",
    "threads",
)  # fmt: skip
"""Render options that mean something where tiles have their colours already."""

_OWN_RANGES = "what colours span: channel (default), layer, percentile, symmetric (about 0), sigmoid"
_PERCENTILES = "with normalize percentile (default 1,99)"

WITHOUT_STATISTICS = {"normalize": f"{_OWN_RANGES} or fixed (vmin to vmax)", "percentile": _PERCENTILES}
"""Sentences of options where there are no statistics of a data set, and so no normalize dataset."""


@takes_keywords(RenderKeywords)
@dataclass(frozen=True, kw_only=True)
class RenderOptions(SelfChecking):
    """How maps are drawn. Each option also takes text, as its sentence says; a field holds what was made of it."""

    if TYPE_CHECKING:

        def __init__(self, **options: Unpack[RenderKeywords]) -> None: ...

    plain: bool = option(
        False,
        flag,
        f"only tiles, of {PLAIN_TILE_PX} px: no gap, text or mark",
        group="size",
    )
    tile: int | tuple[int, int] | None = option(
        None,
        pixels,
        "px of its longer side, or HxW (default: to fit a screen)",
        "PX",
        "size",
    )
    scale: float | None = option(None, positive, "tile size as a multiple of the map's, in place of tile", "F", "size")
    grid: tuple[int, int] = option("auto", grid, "rows and columns: auto, RxC, Rx or xC", "RxC", "size")
    gap: int = option(4, whole(0), "px between tiles", "PX", "size")
    margin: int = option(8, whole(0), "px around the grid", "PX", "size")
    align: str = option(
        "center",
        choice(*ALIGNMENTS),
        "sample positions: left, center (default), corners, field",
        "WHERE", "size",
    )  # fmt: skip
    upsampling: str = option(
        "auto",
        choice(*UPSAMPLINGS),
        "bilinear, nearest, or auto (default): by size of cell",
        "HOW",
        "size",
    )
    normalize: str = option(
        "channel",
        choice(*NORMALIZATIONS),
        f"{_OWN_RANGES}, fixed (vmin to vmax) or dataset (each its own over a data set)",
        "RANGE", "range",
    )  # fmt: skip
    vmin: float | None = option(None, float32, "lower end of the range, with normalize fixed", "VALUE", "range")
    vmax: float | None = option(None, float32, "upper end of the range, with normalize fixed", "VALUE", "range")
    percentile: tuple[float, float] | None = option(
        None,
        percentiles,
        f"{_PERCENTILES} or dataset",
        "LOW,HIGH", "range",
    )  # fmt: skip
    colormap: str = option("viridis", text, "name, such as gray, magma or coolwarm", "NAME", "range")
    background: str = option("#202020", text, "colour around tiles: name or #rrggbb", "COLOUR", "range")
    bad: str = option("magenta", text, "colour of NaN and infinities", "COLOUR", "range")
    channels: tuple[int, ...] | None = option(
        None, channel_list, "numbers to draw, such as 0-63,128 (default: all)", "LIST", "channels"
    )
    topk: int | None = option(None, whole(1), "draw only the K strongest by rank (default: mean)", "K", "channels")
    sort: bool = option(False, flag, "draw the strongest channels first, not in the order of numbers", group="channels")
    rank: str | None = option(
        None,
        choice(*RANKS),
        "what makes a channel strong: mean (default), abs-mean, max, variance, nonzero or norm",
        "BY", "channels",
    )  # fmt: skip
    reduce: tuple[str, ...] | None = option(
        None,
        choices(*REDUCTIONS),
        "draw sum, mean, max or strongest of all; also sum,max",
        "HOW", "channels",
    )  # fmt: skip
    beside: bool = option(False, flag, "with reduce: draw the channels too, after the reduction", group="channels")
    label: bool | None = option(None, flag, "number each tile (default: from 64 px on)", group="text")
    title: str | None = option(
        None,
        template(*TITLE_FIELDS, "shape"),
        "line on top: {model} {layer} {weights} {image} {shape}",
        "TEXT", "text",
    )  # fmt: skip
    colorbar: bool = option(False, flag, "draw the colormap and its range below the grid", group="text")
    marks: bool = option(True, flag, "cross out dead and flat channels, frame reductions beside others", group="text")
    report: bool = option(
        False,
        flag,
        "report dead, flat, saturated and non-finite channels",
        group="text",
    )
    backend: str = option(
        "auto", choice(*BACKENDS), "auto (default), native, numba, triton, torch, reference", "NAME", "running"
    )
    threads: int | None = option(None, whole(1), "workers that draw and encode (default: one a core)", "N", "running")

    @staticmethod
    def implied(given: Mapping[str, object]) -> dict[str, object]:
        """Return the modes that options imply: fixed of vmin and vmax, percentile of percentile, sort of rank."""
        modes: dict[str, object] = dict(PLAIN) if given.get("plain") is True else {}
        if "vmin" in given or "vmax" in given:
            modes["normalize"] = "fixed"
        elif "percentile" in given:
            modes["normalize"] = "percentile"
        if "rank" in given and "topk" not in given and ("reduce" not in given or given.get("beside")):
            modes["sort"] = True
        return modes

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


@takes_keywords(EntryKeywords)
@dataclass(frozen=True, kw_only=True)
class EntryOptions(SelfChecking):
    """Which palette entries stand for what, where the palette is the caller's; see `kernels.Paint`."""

    if TYPE_CHECKING:

        def __init__(self, **options: Unpack[EntryKeywords]) -> None: ...

    levels: int = option(256, whole_within(2, 256), "entries 0 .. levels - 1 show values", "N")
    background: int = option(0, whole_within(0, 255), "entry of gaps, margins and empty cells", "ENTRY")
    bad: int = option(0, whole_within(0, 255), "entry of NaN and infinities", "ENTRY")
