"""What a bar is: a figure of a record, what it is held against, and a limit. All bars there are: see `bars`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from benchmarks.harness.history import Record
from benchmarks.harness.measure import OURS, PEER


class Figure(NamedTuple):
    """A figure in a record: a field of a contender of a table."""

    table: str
    contender: str
    field: str = "median_s"

    def of(self, record: Record) -> float | None:
        """Look the figure up; None where the record has no such row."""
        value = record["tables"].get(self.table, {}).get(self.contender, {}).get(self.field)
        return None if value is None else float(value)


RELATIONS: dict[str, Callable[[float, float], float]] = {
    "times faster than": lambda ours, other: other / ours,
    "times": lambda ours, other: ours / other,
    "of": lambda ours, other: ours / other,
    "at the speed of": lambda ours, other: other / ours,
    "more than": lambda ours, other: ours - other,
    "": lambda ours, _: ours,
}
SCALES = {"x": 1.0, "s": 1.0, "ms": 1e3, "GB/s": 1.0, "MB": 1e-6, "%": 100.0}


@dataclass(frozen=True)
class Bar:
    """One bar.

    what: of ours is measured.
    ours: the figure.
    relation: of our figure to the other, a key of RELATIONS.
    other: the figure of a peer or floor; None where the bar is on our figure alone.
    beside: what that other figure is.
    at_least: whether the bar is a least value, not a greatest.
    limit: in `unit`.
    unit: a key of SCALES.
    head: whether the README shows it.
    note: where the time goes and what was tried; RESULTS.md shows it while the bar is missed.
    """

    what: str
    ours: Figure
    relation: str
    other: Figure | None
    beside: str
    at_least: bool
    limit: float
    unit: str
    head: bool = False
    note: str = ""

    def value(self, record: Record) -> float | None:
        """Return what was measured, in `unit`; None where the record lacks a figure."""
        ours, other = self.ours.of(record), self.other.of(record) if self.other else 1.0
        if ours is None or other is None:
            return None
        return RELATIONS[self.relation](ours, other) * SCALES[self.unit]

    def reached(self, value: float) -> bool:
        """Check whether a value reaches the bar."""
        return value >= self.limit if self.at_least else value <= self.limit

    def held_in(self, record: Record) -> Bar:
        """Return this bar."""
        return self


@dataclass(frozen=True)
class EveryPeer:
    """The bar that no peer in some tables is as fast as the fastest of ours that is held to as many threads.

    what: of ours is measured.
    tables: by name.
    head: whether the README shows it.
    """

    what: str
    tables: tuple[str, ...]
    head: bool = False
    relation: ClassVar = "times faster than"
    beside: ClassVar = "the peer that comes closest"
    unit: ClassVar = "x"

    def held_in(self, record: Record) -> Bar:
        """Return the bar on the peer that comes closest in a record, of all tables."""
        pairs = [pair for table in self.tables for pair in _pairs(table, record["tables"].get(table, {}))]
        if not pairs:
            nowhere = Figure(self.tables[0], "")
            return Bar(self.what, nowhere, self.relation, nowhere, self.beside, True, 1, self.unit, self.head)
        ours, peer = min(pairs, key=lambda pair: float(pair[1].of(record) or 0) / float(pair[0].of(record) or 1))
        beside = f"{peer.contender} ({peer.table})"
        return Bar(self.what, ours, self.relation, peer, beside, True, 1, self.unit, self.head)

    def value(self, record: Record) -> float | None:
        """Return how many times faster ours is than that peer; None where the record has none of the tables."""
        return self.held_in(record).value(record)


def _pairs(table: str, contenders: dict[str, Any]) -> Iterator[tuple[Figure, Figure]]:
    """Yield each peer of a table with the fastest of ours that is held to as many threads."""
    for peer, entry in contenders.items():
        threads = entry.get("threads", 1)
        ours = [
            (other["median_s"], name)
            for name, other in contenders.items()
            if other["role"] == OURS and other.get("threads", 1) == threads
        ]
        if entry["role"] == PEER and ours:
            yield Figure(table, min(ours)[1]), Figure(table, peer)
