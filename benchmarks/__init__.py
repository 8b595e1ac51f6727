"""Benchmarks: named workloads, peers on the same input in the same run, and the bars that the project is held to."""

import sys
from pathlib import Path

# `python -m benchmarks.run` puts the checkout first on the path; what is measured is the installed package, with its
# compiled parts, so the checkout goes to the end.
_ROOT = str(Path(__file__).resolve().parents[1])
sys.path[:] = [*(entry for entry in sys.path if entry not in ("", _ROOT)), _ROOT]
