"""Benchmarks: named workloads, peers on the same input in the same run, and the bars that the project is held to."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# `python -m` and pytest put the checkout first. Last, it gives way to the installed package with its compiled parts.
sys.path[:] = [*(entry for entry in sys.path if Path(entry).resolve() != ROOT), str(ROOT)]

import cnnviz_fast  # noqa: E402, F401  # from here on its modules come from where it was found now
