"""The command line as tests run it: in this process, and what it said."""

from __future__ import annotations

import pytest

from cnnviz_fast.cli import main as cli

TINY = """
import torch

class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 6, 3, stride=8, padding=1)
        self.mean = torch.nn.Conv2d(3, 1, 3)
        self.head = torch.nn.Linear(6, 4)

    def forward(self, x):
        self.mean(x)
        return self.head(self.conv(x).mean((2, 3)))

def make():
    torch.manual_seed(0)
    return Tiny()

def broken():
    raise OSError("no such thing")
"""
"""A module with a model of three layers, and a function that fails."""


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
