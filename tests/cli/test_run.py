"""cnnviz run over few images: what it prints where; runs themselves are tested in tests/runs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
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


def test_run_folder_says_what_it_passed_over_and_takes_the_options_of_reading(
    model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = cat.parent / "photos"
    folder.mkdir()
    with Image.open(cat) as image:
        image.save(folder / "cut.bmp")
    (folder / "cut.bmp").write_bytes((folder / "cut.bmp").read_bytes()[:9000])
    Image.fromarray(np.full((3, 3), 4095, np.uint16)).save(folder / "dark.png")
    for name in ("a.heic", "b.heic", "c"):
        (folder / name).write_bytes(b"")
    options = ("--truncated", "allow", "--input-range", "0:4095")
    assert run("run", model, folder, "--layer", "conv", "--out", out, "--tile", "9", *options) == cli.DONE
    said = capsys.readouterr().err
    assert "cnnviz: 3 files are no images and were passed over: 2 .heic, 1 without an extension.\n" in said
    assert "UserWarning" not in said
    assert "near black" not in said
    assert sorted(os.listdir(out / "conv")) == ["cut.png", "dark.png"]
    assert json.loads((out / "manifest.json").read_text())["passed_over"] == 3
