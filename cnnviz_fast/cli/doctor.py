"""`cnnviz doctor`: which backends and encoders are active, and why another is not."""

from __future__ import annotations

import argparse
from typing import Any

from .arguments import add_json
from .parser import add_command
from .terminal import DONE, print_json, print_table


def add(commands: Any) -> None:
    """Add the command."""
    add_command(
        commands, "doctor", run, "show which backends and encoders work here, and why others do not",
        declare=add_json,
        usage="[--json]",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Print what was found."""
    from ..diagnostics.installation import examine

    findings = examine()
    if arguments.json:
        print_json(findings)
    else:
        print_table(["", "", ""], [[f["subject"], f["state"], f["detail"]] for f in findings])
    return DONE
