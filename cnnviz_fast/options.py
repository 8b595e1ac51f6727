"""Options: the only home of defaults. Frozen records that check themselves; the command line is generated from them."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from .errors import OptionError
from .parsers import (
    Parser,
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
    three,
    three_positive,
    whole,
    whole_within,
)

DEFAULT_TILE_PX = 224
"""Longer side of a tile where neither `tile` nor `scale` is given: the input size of most classification models."""

DEFAULT_ALPHA = 0.5
"""Weight of the maps' colours where they lie over a picture."""

MAX_PIXELS = 178_000_000
"""Pictures of more pixels are refused: where Pillow refuses them too, at twice 89,478,485 (half a GiB as RGB)."""

NORMALIZATIONS = ("channel", "layer", "percentile", "symmetric", "sigmoid", "fixed", "dataset")
REDUCTIONS = ("sum", "mean", "max", "strongest")
RANKS = ("mean", "abs-mean", "max", "variance", "nonzero", "norm")
ALIGNMENTS = ("left", "center", "corners")
UPSAMPLINGS = ("bilinear", "nearest")
BACKENDS = ("auto", "reference", "torch", "numba", "triton")
AXES = ("auto", "nchw", "nhwc", "tokens", "ncthw", "nthwc", "nc")
TITLE_FIELDS = ("model", "weights", "layer", "image")
KERNEL_PICTURES = ("auto", "grid", "norm", "mean", "none")
SAVES = ("sheets", "tiles", "atlases", "maps", "sum", "mean", "max", "statistics")
PROGRESS = ("auto", "bar", "json", "none")
ENGINES = ("local", "ray")
RESIZE_FILTERS = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")

SINGLE_SHEETS = ("topk", "sort", "rank", "reduce", "beside", "label", "title", "colorbar", "report")
"""Render options that a comparison of two layers does not take."""

T = TypeVar("T")


def axes(name: str, value: Any) -> str:
    """Take the name of an activation layout; tokens may say more: tokens:PREFIX or tokens:PREFIX:[Tx]HxW."""
    shown = str(value).strip().lower()
    if re.fullmatch(r"tokens:\d+(:([1-9]\d*x){1,2}[1-9]\d*)?", shown):
        return shown
    return str(choice(*AXES)(name, shown if isinstance(value, str) else value))


def option(default: Any, parse: Parser, description: str, metavar: str | None = None) -> Any:
    """Declare an option as a dataclass field.

    Args:
        default: its value when left out. None is a state of its own; any other default is parsed like a given value.
        parse: checks a value and brings it into the form that the field holds.
        description: its sentence, for docstrings and the help of the command line.
        metavar: how the help shows its value.

    Returns:
        The field.
    """
    return dataclasses.field(default=default, metadata={"parse": parse, "description": description, "metavar": metavar})


class SelfChecking:
    """Base of the option records: every field goes through its parser, so a record that exists is valid."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses
            value = getattr(self, field.name)
            if value is not None or field.default is not None:
                object.__setattr__(self, field.name, field.metadata["parse"](field.name, value))


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


@dataclass(frozen=True, kw_only=True)
class AxesOptions(SelfChecking):
    """Say how a layer's output is to be read; `layouts.py` says what each name means."""

    axes: str = option(
        "auto",
        axes,
        "axes of a layer's output: nchw, nhwc, tokens (or tokens:PREFIX:HxW, such as tokens:1:14x14; of a video, "
        "tokens:PREFIX:TxHxW), ncthw or nthwc for video, nc for vectors, or auto: told from the model and the shapes",
        "|".join(AXES),
    )

    @property
    def parts(self) -> tuple[str, int | None, tuple[int, ...] | None]:
        """The name, the number of prefix tokens and the grid, its time steps first; None for what is not given."""
        name, *rest = self.axes.split(":")
        return name, int(rest[0]) if rest else None, tuple(map(int, rest[1].split("x"))) if len(rest) > 1 else None


@dataclass(frozen=True, kw_only=True)
class PreprocessOptions(SelfChecking):
    """Say how a picture becomes a model's input; None leaves a step as the model's weights define it."""

    size: int | tuple[int, int] | None = option(
        None, pixels, "resize the whole picture to this many px, N or HxW, nothing cropped", "PX"
    )
    interpolation: str | None = option(None, choice(*RESIZE_FILTERS), "filter of that resize", "|".join(RESIZE_FILTERS))
    mean: tuple[float, float, float] | None = option(
        None, three, "subtracted from the picture's R,G,B in [0, 1]; 0,0,0 with std 1,1,1 turns it off", "R,G,B"
    )
    std: tuple[float, float, float] | None = option(
        None, three_positive, "divisor of the picture's R,G,B in [0, 1] after that", "R,G,B"
    )


@dataclass(frozen=True, kw_only=True)
class KernelOptions(SelfChecking):
    """Say how weights are drawn; `kernel_sheets.py` says what each picture shows."""

    kernels: str = option(
        "auto",
        choice(*KERNEL_PICTURES),
        "pictures of weights: a grid of output channels by input channels (grid), a tile for each output channel with "
        "the norm or mean over its inputs (norm, mean), what suits the shape, with 3 inputs in colour (auto), or none",
        "|".join(KERNEL_PICTURES),
    )
    scale: int | None = option(None, whole(1), "px a side of each weight (default: as many as fit the screen)", "PX")
    colormap: str | None = option(
        None, text, "name of a colormap (default: coolwarm with 0 in the middle, for norms viridis)", "NAME"
    )
    threads: int | None = option(None, whole(1), "workers that measure, draw and encode (default: one a core)", "N")


@dataclass(frozen=True, kw_only=True)
class RunOptions(SelfChecking):
    """Say what a run over many pictures makes, and how it goes about it."""

    save: tuple[str, ...] = option(
        "sheets",
        choices(*SAVES),
        "what comes out of each picture and layer: sheets, a file for each channel (tiles), small files that are drawn "
        "later at any size (atlases), the maps themselves (maps) or their sum, mean or max over the channels; and of "
        "all pictures together statistics. Several as sheets,statistics",
        "|".join(SAVES),
    )
    batch: int | None = option(
        None, whole(1), "pictures that go through the model at once (default 16, on CUDA 64); fewer where memory ends",
        "N",
    )  # fmt: skip
    workers: int | None = option(
        None,
        whole(0),
        "processes that read pictures (default: half the cores, at most 8); 0 reads in a thread. With engine ray, "
        "actors (default: one for each GPU of the cluster, or else for every two CPUs, at most 8)",
        "N",
    )
    timeout: float = option(60.0, positive, "seconds that a picture may take to be read", "SECONDS")
    strict: bool = option(False, flag, "stop at the first picture that fails")
    shards: int | None = option(
        None, whole(1), "write tar files instead of loose ones, each ended with the batch that makes it so large", "MB"
    )
    parquet: bool = option(False, flag, "write the index as index.parquet too")
    statistics: str | None = option(
        None, text, "file of the statistics of an earlier run, for normalize dataset (default: run over them first)",
        "FILE",
    )  # fmt: skip
    progress: str = option(
        "auto",
        choice(*PROGRESS),
        "what is said meanwhile on stderr: a bar, a line of JSON a second, or nothing (auto: a bar where somebody sees "
        "it)",
        "|".join(PROGRESS),
    )
    engine: str = option("local", choice(*ENGINES), "what runs it: this process, or Ray's actors", "|".join(ENGINES))
    address: str | None = option(None, text, "of a Ray cluster, with engine ray (default: one on this machine)", "HOST")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.address is not None and self.engine != "ray":
            raise OptionError(f"address goes with engine 'ray', got engine {self.engine!r}.")


def takes(*records: type, without: Sequence[str] = ()) -> Callable[[T], T]:
    """Show the fields of option records in the signature and docstring of a function that takes them as **options.

    So `help(render)` and editors see every option, and each is written down once, in its record.

    Args:
        records: whose fields.
        without: names of fields that the function refuses.

    Returns:
        The decorator.
    """

    def decorate(function: T) -> T:
        own = inspect.signature(function)  # type: ignore[arg-type]
        kept = [p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        fields = [f for record in records for f in dataclasses.fields(record) if f.name not in without]
        shown = [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type)
            for f in fields
        ]
        function.__signature__ = own.replace(parameters=kept + shown)  # type: ignore[attr-defined]
        lines = "".join(f"        {f.name}: {f.metadata['description']}.\n" for f in fields)
        function.__doc__ = (function.__doc__ or "").replace("        **options: see below.\n", lines)
        return function

    return decorate
