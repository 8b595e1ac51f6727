"""cnnviz run over few images: what it prints where; runs themselves are tested in tests/runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.command_line import run

from cnnviz_fast.cli import main as cli


def test_run_one_bad_image_does_not_stop_the_others(
    model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (cat.parent / "zero.png").write_bytes(b"")
    (cat.parent / "cut.png").write_bytes(cat.read_bytes()[:200])
    assert run("run", model, cat.parent, "--layer", "conv", "--out", out, "--tile", "9") == cli.PARTLY
    captured = capsys.readouterr()
    assert captured.out == f"{out / 'conv' / 'cat.png'}\n"
    assert "zero.png" in captured.err
    assert "cut.png" in captured.err
    assert os.listdir(out / "conv") == ["cat.png"]


def test_run_takes_a_single_image(model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run", model, cat, "--layer", "conv", "--out", out, "--tile", "9") == cli.DONE
    captured = capsys.readouterr()
    assert captured.out == f"{out / 'conv' / 'cat.png'}\n"
    assert "1 images in" in captured.err
    assert len((out / "index.jsonl").read_text().splitlines()) == 1
