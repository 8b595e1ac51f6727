"""The switch of the short form, and the fixture that measures a table once and reports it case by case."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.measure import FULL, SHORT, Table, play_back


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --short: fewer rounds, and only what is over within a minute."""
    parser.addoption("--short", action="store_true", help="benchmarks: the short form, under a minute")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave slow contenders and tables out of the short form."""
    if not config.getoption("--short"):
        return

    def too_slow(item: pytest.Item) -> bool:
        arguments = item.callspec.params if hasattr(item, "callspec") else {}
        table = arguments.get("table")
        return isinstance(table, Table) and (table.full_only or table.contender(arguments["name"]).slow)

    slow = [item for item in items if too_slow(item)]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]


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
