"""How `cnnviz bench` measures: every way is checked, then they take turns, and the medians of their times count."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import KernelError

BUDGET_S = 1.0
"""A way runs again until it has taken so long, so that the benchmark is over in about 20 s on two cores."""

LEAST, MOST = 3, 25
"""Timed runs of a way; the slow ones have the least."""


@dataclass(frozen=True)
class Way:
    """One way to do what a row of the benchmark is about.

    name: what it is called where it stands beside another.
    run: does it once.
    check: tells whether what `run` returned is right; asked before anything is timed.
    """

    name: str
    run: Callable[[], Any]
    check: Callable[[Any], bool]


@dataclass(frozen=True)
class Row:
    """A row of the table.

    what: was measured.
    seconds: the median time of ours.
    amount: how much was made in that time, in `unit`.
    beside: floor or peer -> its median time for the same.
    """

    what: str
    seconds: float
    amount: float
    unit: str
    beside: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """How much is made in a second, in `unit`."""
        return self.amount / self.seconds


def take_turns(ways: Sequence[Way], wait: Callable[[], None], budget_s: float = BUDGET_S) -> list[float]:
    """Time ways in turns, since machines drift and what counts is the ratio of two times.

    Args:
        ways: what to run. Each runs once to be checked, which warms it up.
        wait: returns when the device has done all it was given.
        budget_s: see BUDGET_S.

    Returns:
        The median seconds of each.

    Raises:
        KernelError: the result of a way is wrong; nothing was timed.
    """
    for way in ways:
        if not way.check(way.run()):
            raise KernelError(f"{way.name} gives a wrong result on this machine, so nothing was timed.")
    seconds: list[list[float]] = [[] for _ in ways]
    going = list(range(len(ways)))
    while going:
        for position in going:
            seconds[position].append(_seconds(ways[position].run, wait))
        going = [
            position
            for position in going
            if len(seconds[position]) < LEAST or (sum(seconds[position]) < budget_s and len(seconds[position]) < MOST)
        ]
    return [statistics.median(taken) for taken in seconds]


def _seconds(run: Callable[[], Any], wait: Callable[[], None]) -> float:
    """Time one run. What it returned is let go of afterwards: that takes time too, and is no part of it."""
    wait()
    start = time.perf_counter()
    result = run()
    wait()
    seconds = time.perf_counter() - start
    del result
    return seconds
