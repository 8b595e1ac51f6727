"""How an image becomes a model's input, and how a layer's output becomes maps."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .declared import SelfChecking, option
from .parsers import (
    choice,
    pixels,
    three,
    three_positive,
)

MAX_PIXELS = 178_000_000
"""Pictures of more pixels are refused: where Pillow refuses them too, at twice 89,478,485 (half a GiB as RGB)."""


AXES = ("auto", "nchw", "nhwc", "tokens", "ncthw", "nthwc", "nc")


RESIZE_FILTERS = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")


def axes(name: str, value: Any) -> str:
    """Take the name of an activation layout; tokens may say more: tokens:PREFIX or tokens:PREFIX:[Tx]HxW."""
    shown = str(value).strip().lower()
    if re.fullmatch(r"tokens:\d+(:([1-9]\d*x){1,2}[1-9]\d*)?", shown):
        return shown
    return str(choice(*AXES)(name, shown if isinstance(value, str) else value))


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
