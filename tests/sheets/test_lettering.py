"""Text as masks: the very pixels that Pillow draws, numbers put together from digits among them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from support.fonts import pillows
from support.looping import over

from cnnviz_fast.errors import OptionError
from cnnviz_fast.sheets import lettering
from cnnviz_fast.sheets.lettering import (
    FONT_VARIABLE,
    LARGEST_PX,
    SMALLEST_PX,
    capitals,
    draw_labels,
    draw_line,
    line_px,
    shortened,
    text_px,
)


def drawn_by_pillow(text: str, size: int, baseline: int, shape: tuple[int, int], x: int = 0) -> NDArray[np.bool_]:
    """Draw a line of text that begins in column `x`, (height, width) bool."""
    image = Image.new("1", shape[::-1])
    font = pillows(size)
    ImageDraw.Draw(image).text((x, baseline), text, fill=1, font=font, anchor="ls")
    return np.asarray(image)


@over(
    ("tile", "expected"),
    [((1, 1), 12), ((7, 7), 12), ((56, 56), 12), ((112, 112), 14), ((224, 224), 16), ((448, 448), 20), ((9, 448), 12),
     ((448, 9), 12), ((9999, 9999), 40)],
)  # fmt: skip
def test_text_px_grows_with_the_tile(tile: tuple[int, int], expected: int) -> None:
    assert (SMALLEST_PX, LARGEST_PX) == (12, 40)
    assert text_px(*tile) == expected


def test_smallest_px_is_where_digits_differ() -> None:
    def least_difference(size: int) -> int:
        digits = draw_labels("0123456789", size)
        return min(int((a != b).sum()) for a, b in combinations(digits, 2))

    assert least_difference(10) == 2, "a 3 and an 8"
    assert all(least_difference(size) >= 5 for size in range(SMALLEST_PX, LARGEST_PX + 1, 2))


@pytest.mark.parametrize("size", [12, 15, 16, 40])
@over(
    ("text", "shown"),
    [(text, text) for text in ("resnet50 (none)  layer4.2", "|Qgjpqy,", "-1.631", "Ärger πθ Ёж ≥ · ×", "x")]
    + [("a 猫", "a <U+732B>"), ("\udcff\x00", "<U+DCFF><U+0000>"), ("a\u202eb", "a<U+202E>b"), ("🐈", "<U+1F408>")],
)
def test_draw_line_equals_pillow(text: str, shown: str, size: int) -> None:
    mask = draw_line(text, size)
    ascent, descent = pillows(size).getmetrics()
    assert (mask.dtype, mask.shape[0]) == (np.bool_, line_px(size))
    assert line_px(size) == ascent + descent
    # Some letters, such as x, reach to the left of where they begin.
    expected = drawn_by_pillow(shown, size, ascent, (line_px(size), mask.shape[1] + 100), x=50)
    first = min(50, int(expected.any(axis=0).argmax()))
    assert (mask == expected[:, first : first + mask.shape[1]]).all()
    assert mask.sum() == expected.sum() > 0, "cut off"


def test_draw_line_breaks_are_blanks() -> None:
    assert (draw_line("a\nb", 12) == draw_line("a b", 12)).all()
    assert draw_line("a\nb", 12).shape[0] == line_px(12)


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_draw_line_of_nothing_is_empty(text: str) -> None:
    assert draw_line(text, 12).shape[0] == line_px(12)
    assert not draw_line(text, 12).any()


@over("size", range(SMALLEST_PX, LARGEST_PX + 1, 2))
def test_draw_labels_numbers_equal_pillow(size: int) -> None:
    # Every pair of digits at every size that is used, and numbers of every length.
    labels = [f"{n:02d}" for n in range(100)] + ["0", "7", "123", "2047", "1048575"]
    masks = draw_labels(labels, size)
    whole = np.stack([drawn_by_pillow(label, size, size, (size + 9, masks.shape[2] + 9)) for label in labels])
    rows = np.flatnonzero(whole.any(axis=(0, 2)))
    assert (masks == whole[:, rows[0] : rows[-1] + 1, : masks.shape[2]]).all()
    assert (masks.sum(axis=(1, 2)) == whole.sum(axis=(1, 2))).all(), "cut off"


def test_draw_labels_names_stand_on_the_baseline_of_numbers() -> None:
    labels = ["7", "strongest", "max", "2047"]
    masks = draw_labels(labels, 12)
    whole = [drawn_by_pillow(label, 12, 12, (30, masks.shape[2])) for label in labels]
    rows = np.flatnonzero(np.any(whole, axis=(0, 2)))
    assert (masks == np.stack(whole)[:, rows[0] : rows[-1] + 1]).all()


@over("labels", [[""], [" ", ""], ["", "5"], ["²", "٣"]])
def test_draw_labels_that_are_no_numbers(labels: Any) -> None:
    masks = draw_labels(labels, 12)
    assert len(masks) == len(labels)
    for label, mask in zip(labels, masks, strict=True):
        assert mask.any() == bool(label.strip())


@pytest.mark.parametrize("size", [12, 16, 40])
def test_capitals_are_the_rows_of_digits_in_a_line(size: int) -> None:
    rows = np.flatnonzero(draw_line("0", size).any(axis=1))
    assert (capitals(size).start, capitals(size).stop) == (rows[0], rows[-1] + 1)


@over("size", [12, 15])
@over("words", ["resnet18  ·  layer4  ·  a.jpg", "Tea. AVATAR YAWN j Ty 4WA", " two  spaces "])
def test_line_is_drawn_word_by_word(words: str, size: int) -> None:
    line, x = draw_line(words, size), 0
    for word in words.split(" "):
        mask = drawn_by_pillow(word, size, pillows(size).getmetrics()[0], (line_px(size), 400))
        seen = line[:, x : x + math.ceil(pillows(size).getlength(word, mode="1"))]
        assert np.array_equal(seen, mask[:, : seen.shape[1]]), word
        x += seen.shape[1] + int(pillows(size).getlength(" ", mode="1"))
    assert x >= line.shape[1]


def forget() -> None:
    """Forget everything that was drawn, and the font."""
    for kept in vars(lettering).values():
        if hasattr(kept, "cache_clear"):
            kept.cache_clear()


@pytest.fixture
def anew() -> Iterator[None]:
    forget()
    yield
    forget()


@pytest.mark.usefixtures("anew")
def test_another_font_has_other_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    before = draw_line("7", 12)
    forget()
    monkeypatch.setenv(FONT_VARIABLE, f"{matplotlib.get_data_path()}/fonts/ttf/STIXGeneral.ttf")
    assert draw_line("7", 12).shape != before.shape


@pytest.mark.usefixtures("anew")
@pytest.mark.parametrize(
    "named", [__file__, "no such font.ttf", str(Path(__file__).parent), os.devnull, " ", "x" * 5000]
)
def test_a_font_that_is_none_is_refused(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FONT_VARIABLE, named)
    with pytest.raises(OptionError, match=rf"CNNVIZ_FONT must be the path of a font file, got '{named[:40]}"):
        draw_line("7", 12)


@pytest.mark.usefixtures("anew")
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")
def test_a_font_that_is_a_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv(FONT_VARIABLE, str(tmp_path / "pipe"))
    with pytest.raises(OptionError, match=r"pipe': it must be a regular file, but is a pipe\.$"):
        draw_line("7", 12)


@pytest.mark.usefixtures("anew")
def test_without_the_font_of_the_package_the_error_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(FONT_VARIABLE, raising=False)
    monkeypatch.setattr("cnnviz_fast.sheets.lettering.FONT", tmp_path / "no such font.ttf")
    with pytest.raises(OptionError, match=r"the font of the package is missing: .*Install the package again"):
        draw_line("7", 12)


@over(
    ("text", "expected"),
    [
        ("", ""),
        ("abcdefghijkl", "abcdefghijkl"),
        ("abcdefghijklm", "abcde…ijklm"),
        ("\u732b\u732b\u732b", "…"),  # of eight characters each
        ("ab\u732bcdefgh", "ab…defgh"),
    ],
)
def test_shortened_keeps_both_ends_of_what_would_be_seen(text: str, expected: str) -> None:
    assert shortened(text, 12) == expected
