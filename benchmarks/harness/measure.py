"""Measure: the contenders of a table take turns, and pytest-benchmark reports the times, one case a contender.

What counts is the ratio of two times, and machines drift. So contenders run A B C A B C and not A A A B B B. Since
pytest-benchmark runs one case after the other, the first case of a table measures all of it, and each case then plays
its contender's times back through `replayed_time`, the timer that its marker names.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch

from benchmarks.harness import installed, outputs
from cnnviz_fast.diagnostics.stopwatch import in_turns

OURS, PEER, FLOOR = "ours", "peer", "floor"


def held_to(name: str, threads: int) -> str:
    """Name a contender after the threads that it is held to."""
    return f"{name}, {threads} thread{'s' * (threads > 1)}"


@dataclass(frozen=True)
class Effort:
    """How often contenders run: until they have spent `budget_s`, at most `most` times, and at least `least` times.

    What takes SLOW_S or longer runs once more at least, besides its checked run, which counts then.
    """

    budget_s: float
    most: int
    least: int = 1


FULL, SHORT = Effort(2.5, 25, least=3), Effort(0.3, 9)
SLOW_S = 4.0  # a run that takes this long needs no warm-up: the checked run counts as one of its rounds


@dataclass(frozen=True)
class Inside:
    """What a run returns that was timed in a process of its own. facts: other figures, such as peak_bytes."""

    seconds: float
    facts: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Contender:
    """One way to do what a table is about.

    name: its row in the table.
    run: does it once. Whatever is cached or imported on the way was so in the checked run already.
    check: gets what `run` returned and asserts that it is right. Runs before anything is timed.
    role: OURS, PEER (another tool), or FLOOR (moving the same bytes, which nothing can beat by much).
    bytes: of the pixels it makes or moves, for GB/s; 0 where that means nothing.
    threads: that it may use; OpenCV and torch are held to as many.
    output: the file or folder it writes, removed before each run, and measured for `file_bytes`.
    size: the size of what `run` returned in bytes, where that is a file in memory.
    ran, of: it ran on so many channels (or images) of so many; its times are extrapolated.
    slow: left out of the short form, where faster peers and floors show as well whether ours became slower.
    packages: installed distributions whose versions stand in its row.
    load: imports and compiles what it needs, on something small; never timed, also where the checked run counts.
    """

    name: str
    run: Callable[[], Any]
    check: Callable[[Any], None]
    role: str
    bytes: int
    threads: int = 1
    output: Callable[[], Path] | None = None
    size: Callable[[Any], int] | None = None
    ran: int = 1
    of: int = 1
    slow: bool = False
    packages: tuple[str, ...] = ()
    load: Callable[[], object] = dict

    @property
    def factor(self) -> float:
        """What its times are multiplied by to stand for the whole."""
        return self.of / self.ran

    def once(self) -> tuple[Any, float]:
        """Run once, after what is left of the run before is cleared away; return the result and the seconds."""
        if self.output:
            outputs.remove(self.output())
        cv2.setNumThreads(self.threads)
        torch.set_num_threads(self.threads)
        start = time.perf_counter()
        result = self.run()
        seconds = time.perf_counter() - start
        return result, (result.seconds if isinstance(result, Inside) else seconds) * self.factor

    def seconds(self) -> float:
        """Run once and return the seconds."""
        return self.once()[1]

    def facts(self, result: Any) -> dict[str, float]:
        """Return what else is known of a run: the size of its file, or what a process of its own reported."""
        if isinstance(result, Inside):
            return result.facts
        if self.output:
            return {"file_bytes": round(outputs.size(self.output()) * self.factor)}
        return {"file_bytes": self.size(result)} if self.size else {}


@dataclass
class Measured:
    """What became of a contender: the seconds of each round, and other figures, or the error of its check."""

    seconds: list[float] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    error: BaseException | None = None


@dataclass(eq=False)
class Table:
    """Contenders on the same input.

    prepare: makes what several contenders share, such as their input, before the first of them is checked.
    full_only: left out of the short form.
    device: type of the torch device that it needs; left out where there is none.
    """

    name: str
    contenders: Sequence[Contender]
    prepare: Callable[[], object] = dict
    full_only: bool = False
    device: str = "cpu"
    results: dict[str, Measured] = field(default_factory=dict)

    def contender(self, name: str) -> Contender:
        """Return a contender by its name."""
        return next(c for c in self.contenders if c.name == name)

    def measure(self, effort: Effort | None, leave_out_slow: bool) -> None:
        """Check every contender, then time those that are right; with no effort, check only."""
        self.prepare()
        for contender in self.contenders:
            measured = self.results[contender.name] = Measured()
            if contender.slow and leave_out_slow:
                continue
            try:
                contender.load()
                result, seconds = contender.once()
                contender.check(result)
            except Exception as error:  # shown by the contender's own case; the others go on
                measured.error = error
                continue
            measured.facts = contender.facts(result)
            if seconds / contender.factor >= SLOW_S:
                measured.seconds.append(seconds)
        if effort:
            right = [c for c in self.contenders if not self.results[c.name].error and not (c.slow and leave_out_slow)]
            self._take_turns(right, effort)

    def _take_turns(self, contenders: Sequence[Contender], effort: Effort) -> None:
        """Time contenders in turns, each until it has spent its share of time."""

        def goes_on(position: int, taken: list[float]) -> bool:
            factor = contenders[position].factor
            seconds = [*self.results[contenders[position].name].seconds, *taken]
            least = effort.least if seconds[-1] / factor < SLOW_S else 1
            return len(seconds) < least or (sum(seconds) / factor < effort.budget_s and len(seconds) < effort.most)

        for contender, taken in zip(contenders, in_turns([c.seconds for c in contenders], goes_on), strict=True):
            self.results[contender.name].seconds += taken


_now_s = 0.0


def replayed_time() -> float:
    """Return the time as it was while the contender now reported was measured: pytest-benchmark's timer."""
    return _now_s


def cases(tables: Sequence[Table]) -> pytest.MarkDecorator:
    """Make one pytest-benchmark case of each contender, grouped by table; takes `report`, see conftest."""
    return pytest.mark.parametrize(
        ("table", "name"),
        [
            pytest.param(
                table,
                contender.name,
                id=f"{table.name}-{contender.name}",
                marks=pytest.mark.benchmark(group=table.name, timer=replayed_time),
            )
            for table in tables
            for contender in table.contenders
        ],
    )


def play_back(benchmark: Any, table: Table, name: str) -> None:
    """Hand the times of a contender to pytest-benchmark, with everything that a record holds beside them."""
    measured, contender = table.results[name], table.contender(name)
    if measured.error:
        raise measured.error
    benchmark.extra_info.update(
        table=table.name, contender=name, role=contender.role, bytes=contender.bytes, threads=contender.threads,
        ran=contender.ran, of=contender.of, version=installed.versions_of(contender.packages), **measured.facts,
    )  # fmt: skip
    remaining = iter(measured.seconds)

    def round_again() -> None:
        global _now_s
        _now_s += next(remaining, 0.0)

    benchmark.pedantic(round_again, rounds=max(1, len(measured.seconds)))
