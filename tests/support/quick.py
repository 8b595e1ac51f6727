"""Which cases of a test the default run has: those that cover its rule. All others are marked `long`."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import pytest


def quick(every: Iterable[Any], chosen: Collection[Any]) -> list[Any]:
    """Return parameters of a test, of which those not chosen are marked `long`."""
    marks = pytest.mark.long
    return [
        case if case in chosen else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=marks)
        for case in every
    ]


def in_turns(*values: Collection[Any]) -> list[Any]:
    """Return every combination of values as parameters; by default each value of each is in one of them at least."""
    lists: list[Sequence[Any]] = [list(each) for each in values]
    longest = max(map(len, lists))
    chosen = {tuple(at % len(each) for each in lists) for at in range(longest)}
    return [
        pytest.param(
            *(each[i] for each, i in zip(lists, at, strict=True)), marks=() if at in chosen else pytest.mark.long
        )
        for at in itertools.product(*(range(len(each)) for each in lists))
    ]
