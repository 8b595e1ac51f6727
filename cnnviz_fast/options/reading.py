"""How an image becomes a model's input, and how a layer's output becomes maps: the options of both."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from .declared import SelfChecking, option, takes_keywords
from .keywords import AxesKeywords, ImageKeywords, PreprocessKeywords
from .parsers import channel_list, choice, lengths, numbers_of, positive_numbers, value_range

if TYPE_CHECKING:
    from typing_extensions import Unpack

MAX_PIXELS = 178_000_000
"""Images of more pixels are refused: where Pillow refuses them too, at twice 89,478,485 (half a GiB as RGB)."""

TOKEN_AXES = ("tokens", "tnc", "nct")
"""Tokens between images and channels, before both, behind both."""
AXES = (
    "auto", "nchw", "nhwc", *TOKEN_AXES, "ncthw", "nthwc", "ncdhw", "ncl", "nlc", "nhw", "nc", "matrix",
)  # fmt: skip
RESIZE_FILTERS = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")


def axes(name: str, value: Any) -> str:
    """Take the name of an order of axes; tokens may say more: tokens:PREFIX, tokens:PREFIX:[Tx]HxW[:SUFFIX]."""
    shown = str(value).strip().lower()
    if re.fullmatch(rf"({'|'.join(TOKEN_AXES)}):\d+(:([1-9]\d*x){{1,2}}[1-9]\d*(:\d+)?)?", shown):
        return shown
    return str(choice(*AXES)(name, shown if isinstance(value, str) else value))


@takes_keywords(AxesKeywords)
@dataclass(frozen=True, kw_only=True)
class AxesOptions(SelfChecking):
    """How a layer's output is read; `activations/axes/find.py` says what each name means."""

    if TYPE_CHECKING:

        def __init__(self, **options: Unpack[AxesKeywords]) -> None: ...

    axes: str = option(
        "auto",
        axes,
        "auto (default), nchw, nhwc, nc, ncl, nlc, nhw, ncdhw, ncthw, nthwc, matrix, "
        "tokens:PREFIX:HxW:SUFFIX, tnc, nct",
        "AXES", "reading",
    )  # fmt: skip

    planes: tuple[int, ...] | None = option(
        None, channel_list, "planes of volumes and steps of clips, such as 0,8-15", "PLANES", "reading"
    )

    @property
    def parts(self) -> tuple[str, int | None, tuple[int, ...] | None]:
        """The name, the number of prefix tokens and the grid, its time steps first; None for what is not given."""
        name, *rest = self.axes.split(":")
        return name, int(rest[0]) if rest else None, tuple(map(int, rest[1].split("x"))) if len(rest) > 1 else None

    @property
    def suffix(self) -> int:
        """The number of tokens behind the grid."""
        return int(self.axes.split(":")[3]) if self.axes.count(":") > 2 else 0


@takes_keywords(ImageKeywords)
@dataclass(frozen=True, kw_only=True)
class ImageOptions(SelfChecking):
    """How files of images are decoded."""

    if TYPE_CHECKING:

        def __init__(self, **options: Unpack[ImageKeywords]) -> None: ...

    truncated: str = option(
        "refuse", choice("refuse", "allow"), "allow: damaged images as far as they go", "HOW", "reading"
    )
    input_range: tuple[float, float] | None = option(
        None, value_range, "values that become black and white, such as 0:4095", "A:B", "reading"
    )


AS_USUAL = ImageOptions()
"""Damage is refused, and values are scaled by what their file says."""


@takes_keywords(PreprocessKeywords)
@dataclass(frozen=True, kw_only=True)
class PreprocessOptions(SelfChecking):
    """How an image becomes a model's input; None leaves a step as the model's weights define it."""

    if TYPE_CHECKING:

        def __init__(self, **options: Unpack[PreprocessKeywords]) -> None: ...

    size: int | tuple[int, ...] | None = option(
        None, lengths, "resize to N or HxW px (volumes DxHxW), nothing cropped", "PX", "reading"
    )
    interpolation: str | None = option(
        None,
        choice(*RESIZE_FILTERS),
        "how to resize, such as nearest, bilinear or lanczos",
        "HOW", "reading",
    )  # fmt: skip
    mean: tuple[float, ...] | None = option(
        None, numbers_of, "subtracted from each channel, such as R,G,B in [0, 1]", "R,G,B", "reading"
    )
    std: tuple[float, ...] | None = option(
        None, positive_numbers, "divisor after that; 1,1,1 with mean 0,0,0 does nothing", "R,G,B", "reading"
    )
    channel_order: str | None = option(
        None, choice("rgb", "bgr"), "bgr: blue goes in first, as for weights of Caffe", "ORDER", "reading"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size is not None:
            _check_sides(*((self.size,) if isinstance(self.size, int) else self.size))

    @property
    def image_size(self) -> tuple[int, int] | None:
        """The size as a height and a width; raise OptionError where it has another number of lengths."""
        if self.size is None:
            return None
        if isinstance(self.size, int):
            _check_sides(self.size, self.size)
            return self.size, self.size
        if len(self.size) != 2:
            raise OptionError(f"size must be a height and a width for this model's input, got {self.size}.")
        return self.size[0], self.size[1]


def _check_sides(*sides: int) -> None:
    """Refuse an input of more pixels than an image that is read."""
    if math.prod(sides) > MAX_PIXELS:
        raise OptionError(f"size must make at most {MAX_PIXELS:,} px, got {'x'.join(map(str, sides))}.")
