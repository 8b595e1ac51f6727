"""`cnnviz bench`: a short benchmark on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import add_command
from .exit_codes import DONE
from .terminal import everything_is_loaded, print_json, print_table

if TYPE_CHECKING:
    from ..diagnostics.stopwatch import Row


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(commands, "bench", run, "measure on this machine how fast it draws and writes, in about 20 s")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda|mps", help="where maps lie and are drawn")
    parser.add_argument("--threads", metavar="N", help="workers on the CPU (default: one a core)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables, times in s")


def run(arguments: argparse.Namespace) -> int:
    """Measure, and print a table."""
    from ..diagnostics import bench
    from ..runtime.progress import with_bar

    with tempfile.TemporaryDirectory() as folder:
        place = bench.place_of(arguments.device, arguments.threads, Path(folder))
        machine = bench.machine(place)
        everything_is_loaded()
        rows = [bench.measure(place, case) for case in with_bar(bench.cases(place), "row")]
    if arguments.json:
        print_json({"machine": machine, "rows": [dataclasses.asdict(row) for row in rows]})
        return DONE
    print_table(["", ""], list(machine.items()))
    print()
    print_table(["what", "median", "rate", "beside"], [line for row in rows for line in _lines(row)])
    return DONE


def _lines(row: Row) -> list[list[str]]:
    """Write a row in as many lines as it has ratios."""
    rate = f"{row.rate:.2f} {row.unit}/s" if row.rate < 100 else f"{row.rate:,.0f} {row.unit}/s"
    median = f"{row.seconds * 1e3:.3g} ms" if row.seconds < 1 else f"{row.seconds:.3g} s"
    first, *more = (_ratio(row.seconds, seconds, name) for name, seconds in row.beside.items())
    return [[row.what, median, rate, first], *(["", "", "", ratio] for ratio in more)]


def _ratio(ours: float, other: float, name: str) -> str:
    """Say a ratio of two times so that it is a number above 1."""
    return f"{other / ours:.3g} x faster than {name}" if ours < other else f"{ours / other:.3g} x the time of {name}"
