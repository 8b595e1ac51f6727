"""What has to be measured in a process of its own: start-up, first calls, peak memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cnnviz_fast
from benchmarks import ROOT
from benchmarks.harness import outputs
from benchmarks.harness.measure import Inside


def variables() -> dict[str, str]:
    """Return the variables under which other processes find the package that is measured."""
    found = os.pathsep.join([str(Path(cnnviz_fast.__file__).parents[1]), str(ROOT)])
    return {**os.environ, "PYTHONPATH": found}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this Python with arguments, on the package that is measured; a failure is an error with what it said."""
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=outputs.path("").parent,  # not the checkout, which would come first
        env={**variables(), **environment},
    )
    assert done.returncode == 0, done.stderr
    return done


def measured_child(*arguments: str, **environment: str) -> Inside:
    """Run `python -m benchmarks.harness.child ...`, which times itself."""
    report: dict[str, Any] = json.loads(run("-m", "benchmarks.harness.child", *arguments, **environment).stdout)
    return Inside(report.pop("seconds"), report)
