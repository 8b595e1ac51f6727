"""How times are measured: ways take turns, since machines drift and what counts is the ratio of two times."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..errors import KernelError

BUDGET_S = 0.5
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
    beside: floor or peer -> its median time for the same; None where that would have taken too long.
    runs: timed runs of ours.
    """

    what: str
    seconds: float
    amount: float
    unit: str
    beside: dict[str, float | None] = field(default_factory=dict)
    runs: int = 1

    @property
    def rate(self) -> float:
        """How much is made in a second, in `unit`."""
        return self.amount / self.seconds


def in_turns(runs: Sequence[Callable[[], float]], goes_on: Callable[[int, list[float]], bool]) -> list[list[float]]:
    """Run in turns, A B C A B C and not A A A B B B, with the garbage collector off.

    Args:
        runs: each runs once and returns its seconds.
        goes_on: told the position of a run and its seconds so far, after each of its turns: whether it has another.

    Returns:
        The seconds of each run, in the order of its turns.
    """
    seconds: list[list[float]] = [[] for _ in runs]
    going = list(range(len(runs)))
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        while going:
            for position in going:
                seconds[position].append(runs[position]())
            going = [position for position in going if goes_on(position, seconds[position])]
    finally:
        if enabled:
            gc.enable()
    return seconds


def timed(
    ways: Sequence[Way],
    wait: Callable[[], None],
    budget_s: float = BUDGET_S,
    left_s: Callable[[], float] = lambda: math.inf,
) -> list[list[float]]:
    """Check ways, and time them in turns.

    Args:
        ways: what to run. Each runs once to be checked, which warms it up.
        wait: returns when the device has done all it was given.
        budget_s: see BUDGET_S.
        left_s: returns the seconds that are left for all; once they are over no way runs again.

    Returns:
        The seconds of the runs of each. Where there is no time for a run more, they are those of the first.

    Raises:
        KernelError: the result of a way is wrong; nothing was timed.
    """
    first = [_seconds(way.run, wait, partial(_check, way)) for way in ways]
    if left_s() < sum(first):
        return [[seconds] for seconds in first]

    def goes_on(_: int, taken: list[float]) -> bool:
        return left_s() > 0 and (len(taken) < LEAST or (sum(taken) < budget_s and len(taken) < MOST))

    return in_turns([partial(_seconds, way.run, wait) for way in ways], goes_on)


def _check(way: Way, result: Any) -> None:
    if not way.check(result):
        raise KernelError(f"{way.name} gives a wrong result on this machine, so nothing was timed.")


def _seconds(run: Callable[[], Any], wait: Callable[[], None], look: Callable[[Any], object] = id) -> float:
    """Time one run. What it returned is looked at and let go of afterwards: that is no part of its time."""
    wait()
    start = time.perf_counter()
    result = run()
    wait()
    seconds = time.perf_counter() - start
    look(result)
    return seconds
