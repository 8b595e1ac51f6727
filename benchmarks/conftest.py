"""The switch of the short form, and the fixture that measures a table once and reports it case by case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.harness.measure import FULL, SHORT, Table, play_back


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --short: fewer rounds, and only what is over within 20 seconds."""
    parser.addoption("--short", action="store_true", help="benchmarks: the short form, 20 seconds")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a device that is not there; of the short form, slow contenders and tables."""
    short, has_cuda = config.getoption("--short"), torch.cuda.is_available()

    def is_left_out(item: pytest.Item) -> bool:
        arguments = item.callspec.params if hasattr(item, "callspec") else {}
        table = arguments.get("table")
        if not isinstance(table, Table):
            return False
        slow = table.full_only or table.contender(arguments["name"]).slow
        return (short and slow) or (table.device == "cuda" and not has_cuda)

    left_out = [item for item in items if is_left_out(item)]
    config.hook.pytest_deselected(items=left_out)  # which pytest counts and prints
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def report(request: pytest.FixtureRequest, benchmark: Any) -> Callable[[Table, str], None]:
    """Return what a case does: have its table measured, once for all of its contenders, and report its own times.

    Where pytest-benchmark is switched off, contenders are checked and nothing is timed.
    """
    short = request.config.getoption("--short")
    effort = SHORT if short else FULL

    def measure_and_report(table: Table, name: str) -> None:
        if not table.results:
            table.measure(effort if benchmark.enabled else None, leave_out_slow=short)
        play_back(benchmark, table, name)

    return measure_and_report
