"""Text as masks, in the font of the package: one line, or the numbers of thousands of tiles at once."""

from __future__ import annotations

import math
import os
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError, reason_of
from ..runtime.untrusted import open_regular

Mask = NDArray[np.bool_]

FONT = Path(__file__).with_name("font") / "DejaVuSans.ttf"
"""Latin, Greek, Cyrillic and signs."""

FONT_VARIABLE = "CNNVIZ_FONT"
"""Environment variable with the path of another font, for letters that FONT lacks."""

SMALLEST_PX = 12
"""Without grey edges, a 3 and an 8 of 10 px would differ in only 2 pixels; of 12 px they differ in 5."""

LARGEST_PX = 40


def text_px(tile_h: int, tile_w: int) -> int:
    """Choose the size of text for a size of tile: 12 px, and 2 px more for every 112 px of its shorter side.

    It is always even: at odd sizes some pairs of digits overlap in Pillow's font.
    """
    return min(SMALLEST_PX + min(tile_h, tile_w) // 112 * 2, LARGEST_PX)


@cache
def line_px(size: int) -> int:
    """Return the height of a line of text in px, for a font of `size` px."""
    return sum(_font(size).getmetrics())


@cache
def capitals(size: int) -> slice:
    """Return the rows of a line of text that digits and capitals take up, for a font of `size` px."""
    inked = np.flatnonzero(draw_line("0", size).any(axis=1))
    return slice(int(inked[0]), int(inked[-1]) + 1)


def shortened(text: str, most: int) -> str:
    """Cut the middle out of a text of which more than `most` characters would be seen, and put an ellipsis there.

    A character that is written as its code counts as what is seen of it.
    """
    ends = list(accumulate(len(_shown(character)) for character in text))
    if not ends or ends[-1] <= most:
        return text
    half = (most - 1) // 2
    before, after = bisect_right(ends, half), bisect_left(ends, ends[-1] - half)
    return f"{text[:before]}…{text[after + 1 :]}"


def draw_line(text: str, size: int) -> Mask:
    """Draw a line of text, word by word: the titles of a run's sheets have most words in common, and those are kept.

    Args:
        text: what to draw. A character that the font lacks becomes its code, such as <U+732B>, a line break a space.
        size: of the font in px.

    Returns:
        (line_px(size), W) bool. True where the text is.
    """
    words = [_word(word, size) for word in "".join(map(_shown, " ".join(text.splitlines()))).split(" ")]
    origins = list(accumulate((word.advance + _advance(" ", size) for word in words), initial=words[0].before))
    starts = [origin - word.before for origin, word in zip(origins, words, strict=False)]
    width = max(start + word.mask.shape[1] for start, word in zip(starts, words, strict=True))
    line = np.zeros((line_px(size), width), dtype=np.bool_)
    for start, word in zip(starts, words, strict=True):
        line[:, start : start + word.mask.shape[1]] |= word.mask
    return line


class _Word(NamedTuple):
    """A word as a mask, (line_px(size), W) bool; what lies before its origin, and the way to what follows, in px."""

    mask: Mask
    before: int
    advance: int


@lru_cache(maxsize=1024)
def _word(text: str, size: int) -> _Word:
    from PIL import Image, ImageDraw

    font = _font(size)
    first, _, last, _ = font.getbbox(text, mode="1", anchor="ls")
    before, advance = max(0, -int(first)), _advance(text, size)
    image = Image.new("1", (before + max(int(last), advance), line_px(size)))
    ImageDraw.Draw(image).text((before, font.getmetrics()[0]), text, fill=1, font=font, anchor="ls")
    return _Word(np.asarray(image), before, advance)


def draw_labels(labels: Sequence[str], size: int) -> Mask:
    """Draw many short texts.

    Numbers are put together from ten digits, all of one width: 50 times as fast as Pillow, with the same result.

    Args:
        labels: what to draw.
        size: of the font in px.

    Returns:
        (N, H, W) bool. All start at column 0 on one baseline; rows that none of them needs are left out.
    """
    numbers: dict[int, list[int]] = {}
    others: dict[int, Mask] = {}
    for position, label in enumerate(labels):
        if label.isascii() and label.isdigit():
            numbers.setdefault(len(label), []).append(position)
        else:
            others[position] = draw_line(label, size)
    digits = _digits(size)
    digit_w = digits.shape[2]
    width = max([length * digit_w for length in numbers] + [mask.shape[1] for mask in others.values()])
    masks = np.zeros((len(labels), digits.shape[1], width), dtype=np.bool_)
    for length, positions in numbers.items():
        codes = np.frombuffer("".join(labels[p] for p in positions).encode(), dtype=np.uint8) - ord("0")
        glyphs = digits[codes].reshape(-1, length, *digits.shape[1:])
        masks[positions, :, : length * digit_w] = glyphs.swapaxes(1, 2).reshape(len(positions), -1, length * digit_w)
    for position, mask in others.items():
        masks[position, :, : mask.shape[1]] = mask
    rows = np.flatnonzero(masks.any(axis=(0, 2)))
    return masks[:, rows[0] : rows[-1] + 1] if len(rows) else masks


@cache
def _digits(size: int) -> Mask:
    """Return the ten digits, (10, line_px(size), width of a digit) bool."""
    return np.stack([draw_line(digit, size)[:, : _advance("0", size)] for digit in "0123456789"])


@lru_cache(maxsize=1024)
def _advance(text: str, size: int) -> int:
    """Return the distance in px from the start of `text` to the start of what follows it."""
    length: float = _font(size).getlength(text, mode="1")
    return math.ceil(length)


@cache
def _shown(character: str) -> str:
    """Return a character, or its code where it cannot be seen: where the font lacks it, and where it steers text."""
    if character.isascii() and character.isprintable():
        return character
    steers = unicodedata.category(character).startswith("C")
    return f"<U+{ord(character):04X}>" if steers or _drawn(character) == _drawn(NO_CHARACTER) else character


NO_CHARACTER = "\uffff"
"""What Unicode promises never to be a character, so that every font draws its sign for missing ones."""


def _drawn(character: str) -> bytes:
    """Return the pixels of a character."""
    return bytes(_font(LARGEST_PX).getmask(character, mode="1"))


@cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    named = os.environ.get(FONT_VARIABLE)
    path = named or FONT
    try:
        open_regular(path).close()  # a pipe would be waited for
        return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        if not named:
            raise OptionError(
                f"the font of the package is missing: {str(path)!r}. Install the package again, or name another font "
                f"file by {FONT_VARIABLE}."
            ) from error
        raise OptionError(
            f"{FONT_VARIABLE} must be the path of a font file, got {str(path)!r}: {reason_of(error)}."
        ) from error
