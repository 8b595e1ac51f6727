"""The one place that words somebody else's exception, the nearest names, and the tree of errors."""

from __future__ import annotations

import pickle

import pytest

from cnnviz_fast import errors
from cnnviz_fast.errors import (
    MOST_CHARACTERS,
    CnnvizError,
    advice,
    advising_flags,
    closest,
    reason_of,
    repr_of,
    shown,
)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


@pytest.mark.parametrize(("error", "said"), [
    (FileNotFoundError(2, "No such file or directory", "/a"), "No such file or directory"),
    (OSError("plain text."), "plain text"),
    (ValueError("one\ntwo"), "one"),
    (RuntimeError("Error(s) in loading state_dict for Net:\n\tsize mismatch for a.b"), "size mismatch for a.b"),
    (ValueError("  spaced.  \n"), "spaced"),
    (ValueError("is that so?"), "is that so"),
    (ValueError("First. Second. Third."), "First. Second. Third"),
    (ValueError("First. " + "x" * 200 + ". Third."), "First"),
    (ValueError("x" * 200 + ". Second."), "x" * 200),
    (ValueError(), "ValueError"),
    (ValueError("\n \n"), "ValueError"),
    (Unspeakable(), "Unspeakable"),
    (KeyError("width"), "'width'"),
])  # fmt: skip
def test_reason_of_is_one_line_without_a_full_stop(error: BaseException, said: str) -> None:
    assert reason_of(error) == said
    name = type(error).__name__
    assert reason_of(error, named=True) == (said if said == name else f"{name}: {said}")


def test_closest_names_the_nearest_first_and_nothing_that_is_far() -> None:
    layers = [f"layer{i}" for i in range(1, 5)] + ["conv1", "fc"]
    assert closest("layer4", layers).startswith(" Closest: 'layer4', ")
    assert closest("layer4", layers, 1) == " Closest: 'layer4'."
    assert closest("layer4", iter(layers), 2).count("'") == 4
    assert closest("something else", layers) == ""
    assert closest("layer4", []) == ""


@pytest.mark.parametrize(("name", "said"), [
    ("layer4.0.conv1", "layer4.0.conv1"),
    ("\u00e9\u4e2d", "\u00e9\u4e2d"),
    ("a\nb\r\x1b[31m\0", r"a\nb\r\x1b[31m\x00"),
    ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),
    ("\ud800", r"\ud800"),
    ("x" * 120, "x" * 120),
    ("x" * 5000, f"{'x' * 57} ... {'x' * 57}"),
])  # fmt: skip
def test_shown_is_one_line_of_bounded_length_that_prints(name: str, said: str) -> None:
    assert shown(name) == said
    assert shown(name).isprintable()


def test_shown_of_a_long_name_of_unprintable_letters_is_bounded_too() -> None:
    text = shown("\U000e0001" * 120)
    assert text.isprintable()
    assert len(text) <= 120


ALL = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_errors_are_one_tree_that_pickles_and_is_drawn_in_the_docstring(kind: type[Exception]) -> None:
    assert issubclass(kind, CnnvizError)
    again = pickle.loads(pickle.dumps(kind("a line.")))
    assert (type(again), str(again)) == (kind, "a line.")
    (line,) = (line for line in errors.__doc__.splitlines() if line.split("(")[0].split()[:1] == [kind.__name__])
    depth = (len(line) - len(line.lstrip()) - 4) // 2
    assert depth == sum(each in ALL for each in kind.__mro__) - 1


def test_message_is_one_printable_line_of_bounded_length() -> None:
    error = CnnvizError("cannot read 'a\n\x1b[2J\u202eb\ud800'. " + "x" * 10**6 + " Do this.")
    assert str(error).startswith(r"cannot read 'a\n\x1b[2J\u202eb\ud800'. xxx")
    assert str(error).endswith("xxx Do this.")
    assert len(str(error)) <= MOST_CHARACTERS
    assert str(error).isprintable()
    assert str(CnnvizError(str(error))) == str(error)
    assert str(CnnvizError("café, 層, ½")) == "café, 層, ½"


class Silent:
    """A value that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(("value", "text"), [
    (5, "5"), ("a\nb", r"'a\nb'"), (None, "None"), ((1, "a"), "(1, 'a')"), (10**5000, "a very long int"),
    (Silent(), "<Silent instance at"), ([Silent()], "[<Silent instance at"),
], ids=range(7))  # fmt: skip
def test_repr_of_shows_values_as_repr_does(value: object, text: str) -> None:
    assert repr_of(value).startswith(text)


@pytest.mark.parametrize(
    "value", [list(range(10**6)), "x" * 10**6, {n: n for n in range(999)}, b"x" * 999, [[[[[1]]]]]]
)
def test_repr_of_large_values_is_short(value: object) -> None:
    assert 0 < len(repr_of(value)) <= 80


def test_closest_does_not_compare_megabytes() -> None:
    assert closest("layer4" * 10**6, ["layer4"]) == ""


def test_advice_is_in_the_words_of_who_reads_it() -> None:
    assert advice("size=...", "--size") == "size=..."
    with advising_flags():
        assert advice("size=...", "--size") == "--size"
        with advising_flags():
            pass
        assert advice("size=...", "--size") == "--size"
    assert advice("size=...", "--size") == "size=..."
