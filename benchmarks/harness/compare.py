"""Compare two runs: `python -m benchmarks.harness.compare OLD NEW [--slack 1.25]` fails on a ratio that became worse.

A ratio is our time to that of a peer or floor in the same table of the same run, so that machines and their moods
cancel out. It is taken of the fastest rounds: noise only ever makes a round slower. Sizes of files are compared alike.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import calm
from benchmarks.harness.history import Record, load
from benchmarks.harness.measure import OURS

SLACK = 1.25
FIELDS = ("min_s", "file_bytes")


class Ratio(NamedTuple):
    """Our figure to another contender's, in the old run and in the new."""

    table: str
    contender: str
    other: str
    field: str
    old: float
    new: float

    def __str__(self) -> str:
        kind = "time" if self.field == "min_s" else "size"
        return f"{self.table}: {kind} of {self.contender} to {self.other}: {self.old:.3g} -> {self.new:.3g}"


def ratios(old: Record, new: Record) -> Iterator[Ratio]:
    """Yield every ratio that both runs have."""
    for table, contenders in new["tables"].items():
        before = old["tables"].get(table, {})
        known = [name for name in contenders if name in before]
        for ours in (name for name in known if contenders[name]["role"] == OURS):
            for other in (name for name in known if contenders[name]["role"] != OURS):
                for field in FIELDS:
                    figures = [run[name].get(field) for run in (before, contenders) for name in (ours, other)]
                    if all(figures):
                        yield Ratio(table, ours, other, field, figures[0] / figures[1], figures[2] / figures[3])


def worse(old: Record, new: Record, slack: float = SLACK) -> list[Ratio]:
    """Return the ratios that are worse in the new run by more than the factor `slack`.

    Raises:
        ValueError: the runs have no ratio in common, so that nothing was compared.
    """
    found = list(ratios(old, new))
    if not found:
        raise ValueError("the two runs have no table and contenders in common")
    return [ratio for ratio in found if ratio.new > ratio.old * slack]


def best_of(first: Record, second: Record) -> Record:
    """Join two runs of the same code: of each contender the one with the faster round."""
    tables = {
        table: {
            name: min(entry, second["tables"].get(table, {}).get(name, entry), key=lambda e: float(e["min_s"]))
            for name, entry in contenders.items()
        }
        for table, contenders in first["tables"].items()
    }
    return {**first, "tables": tables, "second_core": [*first["second_core"], *second["second_core"]]}


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two files; 0 when nothing is worse, 1 when something is."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.harness.compare", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--slack", type=float, default=SLACK, help=f"factor by which a ratio may be worse ({SLACK})")
    arguments = parser.parse_args(argv)
    old, new = load(arguments.old), load(arguments.new)
    found = worse(old, new, arguments.slack)
    print(f"{sum(1 for _ in ratios(old, new))} ratios, {len(found)} worse by more than {arguments.slack} x")
    for ratio in found:
        print(f"worse: {ratio}")
    if min(*old["second_core"], *new["second_core"]) < calm.BUSY:
        print("the machine was busy during one of the runs: what 2 threads do may only look worse")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
