"""The options as keyword arguments, for type checkers and editors: what each of them takes.

The records beside this file are the home of defaults, parsers and sentences; a test holds the names here to theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from typing import TypeAlias

    Pixels: TypeAlias = int | str | tuple[int, int] | list[int]
    Names: TypeAlias = str | Sequence[str]


class SheetKeywords(TypedDict, total=False):
    """The options of `RenderOptions` that every drawing takes."""

    tile: Pixels | None
    scale: float | str | None
    grid: str | tuple[int | None, int | None]
    gap: int | str
    margin: int | str
    normalize: Literal["channel", "layer", "percentile", "symmetric", "sigmoid", "fixed", "dataset"]
    vmin: float | str | None
    vmax: float | str | None
    percentile: str | tuple[float, float] | None
    align: Literal["left", "center", "corners"]
    upsampling: Literal["bilinear", "nearest"]
    colormap: str
    background: str
    bad: str
    channels: int | str | Sequence[int] | None
    backend: Literal["auto", "reference", "torch", "numba", "triton"]
    threads: int | str | None


class RenderKeywords(SheetKeywords, total=False):
    """The options of `RenderOptions`."""

    topk: int | str | None
    sort: bool
    rank: Literal["mean", "abs-mean", "max", "variance", "nonzero", "norm"] | None
    reduce: Names | None
    beside: bool
    label: bool
    title: str | None
    colorbar: bool
    report: bool


class RunKeywords(RenderKeywords, total=False):
    """The options of `RunOptions` and of `RenderOptions`."""

    save: Names
    batch: int | str | None
    readers: int | str | None
    timeout: float | str
    strict: bool
    shards: int | str | None
    parquet: bool
    statistics: str | None
    progress: Literal["auto", "bar", "json", "none"]
    engine: Literal["local", "ray"]
    address: str | None
