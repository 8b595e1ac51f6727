"""How images are found by optimisation: those of given maps, and those that excite channels most."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .declared import SelfChecking, option, takes_keywords
from .keywords import InvertKeywords, MaximizeKeywords
from .parsers import flag, float32, pixels, refuse, share, whole, whole_within

if TYPE_CHECKING:
    from typing_extensions import Unpack

PLACES = ("mean", "center")
"""What of a channel is maximised, unless a unit is named by its row and column."""


def place(name: str, value: Any) -> str | tuple[int, int]:
    """Take mean, center, or the row and column of a unit: 'Y,X' or (y, x)."""
    if value in PLACES:
        return str(value)
    if isinstance(value, str) and (found := re.fullmatch(r"(\d{1,9}),(\d{1,9})", value.strip())):
        return int(found[1]), int(found[2])
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return whole(0)(name, value[0]), whole(0)(name, value[1])
    raise refuse(name, "mean, center, or the row and column of a unit such as '3,5'", value)


def degrees(name: str, value: Any) -> float:
    """Take angles from 0 to 180 degrees."""
    number = float32(name, value)
    if not 0 <= number <= 180:
        raise refuse(name, "degrees from 0 to 180", value)
    return number


@takes_keywords(InvertKeywords)
@dataclass(frozen=True, kw_only=True)
class InvertOptions(SelfChecking):
    """How maps are turned back into images."""

    if TYPE_CHECKING:

        def __init__(self, **options: Unpack[InvertKeywords]) -> None: ...

    steps: int = option(
        100, whole(0), "steps of the optimisation; 0 for the quick look, one step in closed form", "N", "search"
    )
    smooth: float = option(0.02, share, "weight of the total variation, 0 to 1", "W", "search")


@takes_keywords(MaximizeKeywords)
@dataclass(frozen=True, kw_only=True)
class MaximizeOptions(SelfChecking):
    """How images are found that excite a channel, unit or class most."""

    if TYPE_CHECKING:

        def __init__(self, **options: Unpack[MaximizeKeywords]) -> None: ...

    at: str | tuple[int, int] = option(
        "mean",
        place,
        "what is excited: mean of the channel's map, center: its middle unit, or a unit Y,X",
        "PLACE",
        "search",
    )
    size: int | tuple[int, int] | None = option(
        None, pixels, "size of the images, N or HxW px (default: 96, or what the model needs)", "PX", "search"
    )
    steps: int = option(64, whole(1), "steps of the optimisation", "N", "search")
    jitter: int = option(8, whole_within(0, 4096), "most px by which images are moved at random", "PX", "search")
    stretch: float = option(0.1, share, "most by which images are scaled at random, as a share", "SHARE", "search")
    rotate: float = option(10.0, degrees, "most degrees by which images are turned at random", "DEGREES", "search")
    rectified: bool = option(
        False, flag, "maximise what comes out of a layer's last rectifier, not what goes in", group="search"
    )
    chunk: int = option(32, whole(1), "most images optimised at once; halved where memory runs out", "N", "running")
