"""Warnings for the caller: where they point to, and how often they are said."""

from __future__ import annotations

import warnings

from cnnviz_fast.runtime.caller import each_note_once, warn_caller


def notes_of(said: set[object] | None) -> list[str]:
    """Return what is said of three images, of which each is told of from the same line, and then from another one."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for image in range(3):
            if said is None:
                warn_caller(f"one {image}")
                continue
            with each_note_once(said):
                warn_caller(f"one {image}")
                warn_caller(f"other {image}")
        warn_caller("outside")
    return [str(each.message) for each in caught]


def test_each_note_once_passes_on_the_first_of_each_line() -> None:
    assert notes_of(None) == ["one 0", "one 1", "one 2", "outside"]
    said: set[object] = set()
    assert notes_of(said) == ["one 0", "other 0", "outside"]
    assert notes_of(said) == ["outside"]
