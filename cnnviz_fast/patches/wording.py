"""What is written on a sheet of patches: its title, the lines beside a channel, the label over a patch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..sheets.annotation import SEPARATOR
from ..sheets.lettering import Mask, draw_line, shortened

if TYPE_CHECKING:
    from ..activations.fields.record import ReceptiveField
    from ..options.patches import PatchOptions
    from .classes import ClassResponses
    from .top import TopResponses

CLASS_CHARACTERS = 16
"""Of the name of a class beside a row."""

LEAST_CHARACTERS = 3
"""Of a longer name, which says nothing in fewer: a letter and the last one, with an ellipsis between."""


def lines_beside(
    responses: TopResponses, channels: Sequence[int], classes: ClassResponses | None
) -> list[tuple[str, ...]]:
    """Return the lines below the number of each channel: dead, not finite, and the class that it tells apart best."""
    lines: list[tuple[str, ...]] = []
    best = [] if classes is None else classes.best_class
    apart = np.empty(0) if classes is None else classes.selectivity()
    for channel in channels:
        if responses.dead[channel]:
            lines.append(("dead",))
            continue
        nan = (f"{responses.nonfinite[channel]:,} not finite",) if responses.nonfinite[channel] else ()
        known = best and best[channel]
        lines.append(
            (*nan, *((shortened(best[channel], CLASS_CHARACTERS), f"d' {apart[channel]:.2g}") if known else ()))
        )
    return lines


def label_of(value: float, image: str, of_class: str | None, tile_w: int, size: int) -> str:
    """Return what stands over a patch: the response, and as much of the image's name as there is room for.

    Args:
        value: the response.
        image: name of the image.
        of_class: its class, which stands beside the response, and the name below; None for one line.
        tile_w: width of a patch, px.
        size: of the text, px.

    Returns:
        The label.
    """
    number = f"{value:.3g} "
    first = (number + _fitting(of_class or image, tile_w - _width(number, size), size)).strip()
    return first if of_class is None else f"{first}\n{_fitting(image, tile_w, size)}".strip()


def _fitting(text: str, room: int, size: int) -> str:
    """Return as much of a text as fits into so many px; nothing where that is too little to say anything."""
    most = len(text)
    while most and _width(shortened(text, most), size) > room:
        most -= 1
    return shortened(text, most) if most >= min(LEAST_CHARACTERS, len(text)) else ""


def _width(text: str, size: int) -> int:
    """Return how wide a text of glyphs is, px."""
    return sum(glyph(character, size).shape[1] for character in text)


@cache
def glyph(character: str, size: int) -> Mask:
    """Return a character as (H, W) bool: put together, they make thousands of labels in a tenth of the time."""
    return draw_line(character, size)


def title_of(wanted: PatchOptions, facts: Mapping[str, Any]) -> str:
    """Return the title: what is known, or as the option says."""
    if wanted.title is None:
        return SEPARATOR.join(str(fact) for fact in facts.values() if fact)
    return wanted.title.format(**{name: fact or "" for name, fact in facts.items()})


def field_text(field: ReceptiveField) -> str:
    """Return a receptive field in words."""
    if field.whole:
        return "whole images"
    height, width = field.size
    return f"fields of {height} px" if height == width else f"fields of {height} x {width} px"


def draw_text(wanted: PatchOptions, responses: TopResponses) -> str:
    """Return in words which entries are drawn."""
    if wanted.draw == "top":
        return f"strongest by {responses.by} of {responses.seen:,} images"
    return "drawn at random" if wanted.draw == "random" else f"drawn from {responses.bands} bands, weak to strong"
