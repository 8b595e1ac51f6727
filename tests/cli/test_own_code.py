"""Options that name the user's own code, the shape of the input, and what is said of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnviz_fast.cli import main as cli

NET = """
import torch
from torch import nn
from torchvision import transforms as T

class Timed(nn.Module):
    def __init__(self, channels=1):
        super().__init__()
        self.stem = nn.Conv2d(channels, 4, 3, padding=1)
        self.after = nn.ReLU()
    def forward(self, x, time):
        return self.after(self.stem(x) + time)

small = T.Compose([T.Grayscale(), T.Resize((12, 10)), T.ToTensor()])
def both(batch):
    return batch, torch.full((len(batch), 1, 1, 1), 2.0)
number = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path


OWN = ["--preprocess", "net.py:small", "--inputs", "net.py:both"]


@pytest.mark.parametrize("command", ["render", "run"])
def test_own_preprocessing_and_inputs_are_used(command: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = ["photos/a.png", "photos/b.png"] if command == "render" else ["photos"]
    arguments = [command, "net.py:Timed", *images, "--layer", "stem", "--out", "out", "--scale", "1", "--format", "npy"]
    arguments.append("--plain")
    assert cli.main([*arguments, *OWN]) == 0
    assert np.load(here / "out" / "stem" / "b.npy").shape == (24, 20)
    assert "net.py:Timed, weights as built (seed 0), 1x12x10" in capsys.readouterr().err


def test_compare_uses_them_too(here: Path) -> None:
    arguments = ["compare", "net.py:Timed", "photos/a.png", "--against-seed", "1", "--layer", "stem", "--out", "out"]
    assert cli.main([*arguments, *OWN]) == 0
    assert (here / "out" / "stem" / "a_difference.png").exists()


def test_layers_takes_an_input_shape_of_any_axes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["layers", "net.py:Timed", "--input-shape", "1x9x8", "--inputs", "net.py:both"]) == 0
    assert "1x4x9x8" in capsys.readouterr().out
    assert cli.main(["layers", "net.py:Timed", "--input-shape", "1x9x8", "--size", "3"]) == 2
    assert "input-shape must not be given beside size" in capsys.readouterr().err
    assert cli.main(["layers", "net.py:Timed", "--input-shape", "1x9x8"]) != 0
    assert "missing 1 required positional argument: 'time'" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value", "said"), [
    ("--preprocess", "net.py:smal", "no function 'smal' in 'net.py'. Closest: 'small'"),
    ("--preprocess", "net.py", "preprocess must be file.py:function or package.module:function, got 'net.py'"),
    ("--preprocess", "net.py:number", "preprocess must be a function, got 'net.py:number'. It is of type int"),
    ("--inputs", "gone.py:both", "no model file 'gone.py'"),
    ("--inputs", ":both", "inputs must be file.py:function"),
])  # fmt: skip
def test_own_code_that_is_not_there_is_one_line(
    option: str, value: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["render", "net.py:Timed", "photos/a.png", "--layer", "stem", "--out", "out"]
    assert cli.main([*arguments, option, value]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_options_of_preprocessing_exclude_ones_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "render",
        "net.py:Timed",
        "photos/a.png",
        "--layer",
        "stem",
        "--out",
        "out",
        "--size",
        "20",
        "--std",
        "1",
    ]
    assert cli.main([*arguments, *OWN]) == 2
    said = capsys.readouterr().err
    assert "--size, --std must not be given beside preprocess, which makes the whole input. Do that in " in said


@pytest.mark.parametrize("command", ["render", "run", "weights"])
def test_random_weights_are_said(command: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = [] if command == "weights" else ["photos/a.png", "--layer", "features.0", "--out", "out"]
    assert cli.main([command, "squeezenet1_1", *more, "--weights", "none", "--seed", "7"]) == 0
    assert capsys.readouterr().err.splitlines()[0] == "cnnviz: squeezenet1_1, random weights (seed 7), 224x224"
