"""The one place that words somebody else's exception, the nearest names, and the tree of errors."""

from __future__ import annotations

import pickle

import pytest

from cnnviz_fast import errors
from cnnviz_fast.errors import CnnvizError, closest, reason_of, shown


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
    ("x" * 5000, "x" * 120 + "..."),
    ("\U000e0001" * 120, r"\U000e0001" * 24 + "..."),
])  # fmt: skip
def test_shown_is_one_line_of_bounded_length_that_prints(name: str, said: str) -> None:
    assert shown(name) == said
    assert shown(name).isprintable()


ALL = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_errors_are_one_tree_that_pickles_and_is_drawn_in_the_docstring(kind: type[Exception]) -> None:
    assert issubclass(kind, CnnvizError)
    again = pickle.loads(pickle.dumps(kind("a line.")))
    assert (type(again), str(again)) == (kind, "a line.")
    (line,) = (line for line in errors.__doc__.splitlines() if line.split("(")[0].split()[:1] == [kind.__name__])
    depth = (len(line) - len(line.lstrip()) - 4) // 2
    assert depth == sum(each in ALL for each in kind.__mro__) - 1
