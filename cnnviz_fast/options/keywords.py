"""The options as keyword arguments: what each of them takes, for type checkers, editors and `help`.

The records beside this file are the home of defaults, parsers and sentences; their fields have the types of values that
are checked. A test holds the names here to those of the fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, TypedDict

Pixels: TypeAlias = int | str | tuple[int, int] | list[int]
Names: TypeAlias = str | Sequence[str]
Numbers: TypeAlias = str | Sequence[float]


class SheetKeywords(TypedDict, total=False):
    """The options of `RenderOptions` that every drawing takes."""

    plain: bool
    tile: Pixels | None
    scale: float | str | None
    grid: str | tuple[int | None, int | None] | list[int]
    gap: int | str
    margin: int | str
    normalize: Literal["channel", "layer", "percentile", "symmetric", "sigmoid", "fixed", "dataset"]
    vmin: float | str | None
    vmax: float | str | None
    percentile: Numbers | None
    align: Literal["left", "center", "corners", "field"]
    upsampling: Literal["auto", "bilinear", "nearest"]
    colormap: str
    background: str
    bad: str
    channels: int | str | Sequence[int | str] | None
    label: bool | None
    title: str | None
    colorbar: bool
    marks: bool
    backend: Literal["auto", "reference", "torch", "numba", "native", "triton"]
    threads: int | str | None


class RenderKeywords(SheetKeywords, total=False):
    """The options of `RenderOptions`."""

    topk: int | str | None
    sort: bool
    rank: Literal["mean", "abs-mean", "max", "variance", "nonzero", "norm"] | None
    reduce: Names | None
    beside: bool
    report: bool


class EntryKeywords(TypedDict, total=False):
    """The options of `EntryOptions`."""

    levels: int | str
    background: int | str
    bad: int | str


class OwnRunKeywords(TypedDict, total=False):
    """The options of `RunOptions`."""

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
    array: bool
    top_k: int | str
    top_by: Literal["max", "mean", "min"]
    top_repeat: int | str
    top_random: int | str
    top_bands: int | str
    top_seed: int | str
    labels: str | None


class AttributionKeywords(TypedDict, total=False):
    """The options of `AttributionOptions`."""

    steps: int | str | None
    baseline: Any
    samples: int | str | None
    noise: float | str | None
    seed: int | str | None
    chunk: int | str | None
    query: tuple[int, int] | str | None


class RunKeywords(OwnRunKeywords, AttributionKeywords, RenderKeywords, total=False):
    """The options of `RunOptions`, of `AttributionOptions` and of `RenderOptions`."""


class AxesKeywords(TypedDict, total=False):
    """The options of `AxesOptions`."""

    axes: str
    planes: int | str | Sequence[int | str] | None


class ImageKeywords(TypedDict, total=False):
    """The options of `ImageOptions`."""

    truncated: Literal["refuse", "allow"]
    input_range: str | Sequence[float] | None


class PreprocessKeywords(TypedDict, total=False):
    """The options of `PreprocessOptions`."""

    size: int | str | Sequence[int] | None
    interpolation: Literal["nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos"] | None
    mean: float | Numbers | None
    std: float | Numbers | None
    channel_order: Literal["rgb", "bgr"] | None


class KernelKeywords(TypedDict, total=False):
    """The options of `KernelOptions`."""

    kernels: Literal["auto", "grid", "norm", "mean", "none"]
    scale: int | str | None
    colormap: str | None
    threads: int | str | None


class PatchKeywords(TypedDict, total=False):
    """The options of `PatchOptions`."""

    channels: int | str | Sequence[int | str] | None
    per_channel: int | str
    draw: Literal["top", "random", "bands"]
    mean_patch: bool
    tile: int | str
    gap: int | str
    margin: int | str
    background: str
    label: bool
    title: str | None
    marks: bool
    threads: int | str | None


class InvertKeywords(TypedDict, total=False):
    """The options of `InvertOptions`."""

    steps: int | str
    smooth: float | str


class MaximizeKeywords(TypedDict, total=False):
    """The options of `MaximizeOptions`."""

    at: str | tuple[int, int] | list[int]
    size: Pixels | None
    steps: int | str
    jitter: int | str
    stretch: float | str
    rotate: float | str
    rectified: bool
    chunk: int | str
