"""How the image patches that excite channels are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .declared import SelfChecking, option, takes_keywords
from .keywords import PatchKeywords
from .parsers import channel_list, choice, flag, template, text, whole

if TYPE_CHECKING:
    from typing_extensions import Unpack

DRAWS = ("top", "random", "bands")
PATCH_TITLE_FIELDS = ("model", "layer", "field", "draw")

PATCH_TILE_PX = 96
"""Longer side of a patch: ten of them stand side by side on a screen, and a label of a value and a name over each."""


@takes_keywords(PatchKeywords)
@dataclass(frozen=True, kw_only=True)
class PatchOptions(SelfChecking):
    """How patches are drawn: a row for each channel."""

    if TYPE_CHECKING:

        def __init__(self, **options: Unpack[PatchKeywords]) -> None: ...

    channels: tuple[int, ...] | None = option(
        None, channel_list, "channels, a row each, such as 0-63,128 (default: all)", "CHANNELS", "channels"
    )
    per_channel: int = option(9, whole(1), "most patches of a channel", "N", "channels")
    draw: str = option(
        "top", choice(*DRAWS), "top: the strongest (default), random, or bands: random ones of each band", "KIND",
        "channels",
    )  # fmt: skip
    mean_patch: bool = option(
        False, flag, "before them, the mean of a channel's patches, weighted by response", group="channels"
    )
    tile: int = option(PATCH_TILE_PX, whole(8), "px of a patch's longer side", "PX", "size")
    gap: int = option(4, whole(0), "px between patches", "PX", "size")
    margin: int = option(8, whole(0), "px around the grid", "PX", "size")
    background: str = option(
        "#202020", text, "colour around patches, and beyond what the model saw: name or #rrggbb", "COLOUR", "range"
    )
    label: bool = option(True, flag, "write response and image over each patch", group="text")
    title: str | None = option(
        None,
        template(*PATCH_TITLE_FIELDS),
        "may hold {model} {layer} {field} {draw} (default: all of them; '': none)",
        "TEXT", "text",
    )  # fmt: skip
    marks: bool = option(True, flag, "mark the unit in each patch", group="text")
    threads: int | None = option(None, whole(1), "workers that decode and encode (default: one a core)", "N", "running")
