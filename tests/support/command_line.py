"""The command line as tests run it: in this process, and what it said."""

from __future__ import annotations

import pytest

from cnnviz_fast.cli import main as cli


def run(*argv: object) -> int:
    """Run a command; return its exit code."""
    return cli.main([str(a) for a in argv])


def without_notes(text: str) -> str:
    """Return what was said on stderr, without the lines on weights that nobody trained."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if "random weights (seed " not in line and "weights as built" not in line)


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was said on stderr: one line."""
    text = capsys.readouterr().err
    assert text.startswith("cnnviz: ")
    assert text.count("\n") == 1, text
    assert "Traceback" not in text
    return text
