"""`cnnviz bench`: a short benchmark on this machine."""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import add_device, add_json
from .parser import CommandParser, add_command
from .terminal import DONE, everything_is_loaded, note, print_json, print_table

if TYPE_CHECKING:
    from ..diagnostics.bench_cases import BenchSetup
    from ..diagnostics.stopwatch import Row


def add(commands: Any) -> None:
    """Add the command."""
    add_command(
        commands, "bench", run, "measure in 20 s how fast this machine draws and writes",
        declare=_declare,
        usage="[options]",
        examples=["cnnviz bench", "cnnviz bench --device cpu --threads 1 --json"],
    )  # fmt: skip


def _declare(parser: CommandParser) -> None:
    add_device(parser)
    parser.add("running", "--threads", metavar="N", text="workers on the CPU (default: one a core)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, and print a table."""
    began_s = time.monotonic()  # on a busy machine torch alone takes seconds to be imported

    from ..diagnostics import bench

    with tempfile.TemporaryDirectory() as folder:
        setup = bench.setup_of(arguments.device, arguments.threads, Path(folder), began_s)
        machine = bench.machine(setup)
        everything_is_loaded()
        rows = _measured(setup)
    if arguments.json:
        print_json({"machine": machine, "rows": [dataclasses.asdict(row) for row in rows]})
        return DONE
    print_table(["", ""], list(machine.items()))
    print()
    print_table(["what", "median", "rate", "beside"], [line for row in rows for line in _lines(row)])
    return DONE


def _measured(setup: BenchSetup) -> list[Row]:
    """Measure the rows for which there is time, the first one always, and print on stderr which is done."""
    from ..diagnostics import bench

    rows: list[Row] = []
    for number, case in enumerate(cases := bench.cases(setup), 1):
        label = f"row {number} of {len(cases)}"
        note(f"{label}: {(case.__doc__ or '').splitlines()[0]}")
        if (not rows or setup.left_s() > 0) and (row := bench.measure(setup, case)):
            rows.append(row)
        else:
            note(f"{label} is left out: this machine is slow or busy, and the time is over.")
    return rows


def _lines(row: Row) -> list[list[str]]:
    """Return a row as lines of a table, one for each of its ratios."""
    from ..diagnostics.stopwatch import LEAST

    rate = f"{row.rate:.2f} {row.unit}/s" if row.rate < 100 else f"{row.rate:,.0f} {row.unit}/s"
    median = f"{row.seconds * 1e3:.3g} ms" if row.seconds < 1 else f"{row.seconds:.3g} s"
    if row.runs < LEAST:
        median += f" ({row.runs} run{'s' if row.runs > 1 else ''})"
    first, *more = (_ratio(row.seconds, seconds, name) for name, seconds in row.beside.items())
    return [[row.what, median, rate, first], *(["", "", "", ratio] for ratio in more)]


def _ratio(ours: float, other: float | None, name: str) -> str:
    """Return the ratio of two times in words, as a number above 1."""
    if other is None:
        return f"{name} left out, as it takes long"
    return f"{other / ours:.3g} x faster than {name}" if ours < other else f"{ours / other:.3g} x the time of {name}"
