"""`cnnviz doctor`: which backends and encoders are active, and why another is not."""

from __future__ import annotations

import argparse
from typing import Any

from .arguments import add_command
from .exit_codes import DONE
from .terminal import print_json, print_table


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(commands, "doctor", run, "say which backends and encoders are active, and why another is not")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Say what was found."""
    from ..diagnostics.installation import examine

    findings = examine()
    if arguments.json:
        print_json(findings)
    else:
        print_table(["", "", ""], [[f["subject"], f["state"], f["detail"]] for f in findings])
    return DONE
