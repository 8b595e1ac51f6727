"""How an image becomes a model's input, and how a layer's output becomes maps: the options of both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .declared import SelfChecking, option
from .parsers import choice, pixels, three, three_positive

MAX_PIXELS = 178_000_000
"""Images of more pixels are refused: where Pillow refuses them too, at twice 89,478,485 (half a GiB as RGB)."""

TOKEN_AXES = ("tokens", "tnc", "nct")
"""Tokens between images and channels, before both, behind both."""
AXES = ("auto", "nchw", "nhwc", *TOKEN_AXES, "ncthw", "nthwc", "nc", "matrix")
RESIZE_FILTERS = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")


def axes(name: str, value: Any) -> str:
    """Take the name of an order of axes; tokens may say more: tokens:PREFIX, tokens:PREFIX:[Tx]HxW[:SUFFIX]."""
    shown = str(value).strip().lower()
    if re.fullmatch(rf"({'|'.join(TOKEN_AXES)}):\d+(:([1-9]\d*x){{1,2}}[1-9]\d*(:\d+)?)?", shown):
        return shown
    return str(choice(*AXES)(name, shown if isinstance(value, str) else value))


@dataclass(frozen=True, kw_only=True)
class AxesOptions(SelfChecking):
    """How a layer's output is read; `activations/axes.py` says what each name means."""

    axes: str = option(
        "auto",
        axes,
        "of a layer's output: auto (default), nchw, nhwc, nc, ncthw, nthwc, matrix, or tokens, tnc, nct, which may say "
        "more: tokens:PREFIX:[Tx]HxW:SUFFIX",
        "AXES", "reading",
    )  # fmt: skip

    @property
    def parts(self) -> tuple[str, int | None, tuple[int, ...] | None]:
        """The name, the number of prefix tokens and the grid, its time steps first; None for what is not given."""
        name, *rest = self.axes.split(":")
        return name, int(rest[0]) if rest else None, tuple(map(int, rest[1].split("x"))) if len(rest) > 1 else None

    @property
    def suffix(self) -> int:
        """The number of tokens behind the grid."""
        return int(self.axes.split(":")[3]) if self.axes.count(":") > 2 else 0


@dataclass(frozen=True, kw_only=True)
class PreprocessOptions(SelfChecking):
    """How an image becomes a model's input; None leaves a step as the model's weights define it."""

    size: int | tuple[int, int] | None = option(
        None, pixels, "resize the whole image to N or HxW px, nothing cropped", "PX", "reading"
    )
    interpolation: str | None = option(
        None,
        choice(*RESIZE_FILTERS),
        "of that resize, such as nearest, bilinear or lanczos",
        "HOW", "reading",
    )  # fmt: skip
    mean: tuple[float, float, float] | None = option(
        None, three, "subtracted from the image's R,G,B in [0, 1]", "R,G,B", "reading"
    )
    std: tuple[float, float, float] | None = option(
        None, three_positive, "divisor after that; 1,1,1 with mean 0,0,0 does nothing", "R,G,B", "reading"
    )
