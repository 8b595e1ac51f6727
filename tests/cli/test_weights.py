"""`cnnviz weights` as a user meets it."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.command_line import error_of, without_notes

from cnnviz_fast.cli import main as cli

NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("stem", nn.Conv2d(3, 6, 5))
    model.add_module("norm", nn.BatchNorm2d(6))
    model.add_module("deep", nn.Conv2d(6, 4, 3))
    model.add_module("histograms", nn.Identity())
    model.add_module("head", nn.Linear(4, 2))
    return model

def odd():
    model = make()
    model.head.bias.data[0] = float("nan")
    return model

class Colliding(nn.Module):
    def __init__(self):
        super().__init__()
        self.histograms = nn.Parameter(torch.randn(4, 3))
        self.Histograms = nn.Parameter(torch.randn(5, 3))
        self.line = nn.Parameter(torch.randn(5))
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "net.py"
    path.write_text(NET)
    return f"{path}:make"


def run(*argv: object) -> int:
    return cli.main(["weights", *map(str, argv)])


def test_weights_prints_a_table(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(model) == cli.DONE
    captured = capsys.readouterr()
    lines = [line.split() for line in captured.out.splitlines()]
    assert without_notes(captured.err) == ""
    assert lines[0] == ["name", "shape", "mean", "std", "min", "max", "zeros"]
    rows = {line[0]: line[1:] for line in lines[1:]}
    assert list(rows) == [
        "stem.weight", "stem.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var",
        "deep.weight", "deep.bias", "head.weight", "head.bias",
    ]  # fmt: skip
    assert rows["norm.weight"] == ["6", "1", "0", "1", "1", "0.0%"]
    assert rows["norm.bias"] == ["6", "0", "0", "0", "0", "100.0%"]
    shape, _, _, least, greatest, _ = rows["deep.weight"]
    assert shape == "4x6x3x3"
    assert float(least) < 0 < float(greatest)


def test_weights_shows_what_is_not_finite_only_where_there_is_some(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model.replace(":make", ":odd")) == cli.DONE
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][-2:] == ["nan", "inf"]
    assert [line[-2:] for line in lines[1:]] == [["0", "0"]] * 9 + [["1", "0"]]


def test_weights_out_writes_histograms_and_a_sheet_of_each_weight(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "weights"
    assert run(model, "--out", out) == cli.DONE
    stems = ["histograms", "stem.weight", "deep.weight", "head.weight"]
    assert capsys.readouterr().out.splitlines()[-4:] == [str(out / f"{stem}.png") for stem in stems]
    assert sorted(os.listdir(out)) == sorted(stem + suffix for stem in stems for suffix in (".png", ".json"))
    shows = [json.loads((out / f"{stem}.json").read_text()).get("shows") for stem in stems]
    assert shows == [None, "rgb", "grid", "matrix"]
    manifest = json.loads((out / "histograms.json").read_text())
    assert (manifest["model"], len(manifest["tiles"])) == (model, 10)
    assert manifest["weights"] == "as built, seed 0"


def test_weights_json_is_one_document_with_histograms(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model, "--json", "--out", tmp_path / "out", "--layer", "deep", "--layer", "head") == cli.DONE
    document = json.loads(capsys.readouterr().out)
    assert [p["name"] for p in document["parameters"]] == ["deep.weight", "deep.bias", "head.weight", "head.bias"]
    assert all(len(p["histogram"]) == 50 and sum(p["histogram"]) == p["count"] for p in document["parameters"])
    assert [f["parameter"] for f in document["files"]] == [None, "deep.weight", "head.weight"]
    assert all(Path(f["path"]).is_file() for f in document["files"])
    assert run(model, "--json") == cli.DONE
    assert json.loads(capsys.readouterr().out)["files"] == []


def test_weights_of_a_checkpoint_are_those_measured(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cnnviz_fast import load_model

    state = load_model(model, device="cpu").module.state_dict()
    state["head.bias"] = torch.tensor([2.0, 4.0])
    torch.save(state, tmp_path / "net.pth")
    assert run(model, "--weights", tmp_path / "net.pth", "--layer", "head", "--json") == cli.DONE
    bias = json.loads(capsys.readouterr().out)["parameters"][1]
    assert (bias["mean"], bias["std"], bias["min"], bias["max"]) == (3, 2**0.5, 2, 4)


def test_weights_seed_makes_other_weights(capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for seed in (0, 0, 1):
        assert run("squeezenet1_1", "--weights", "none", "--seed", seed, "--layer", "features.0") == cli.DONE
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1] != tables[2]


@pytest.mark.parametrize(
    ("option", "value", "key"),
    [("kernels", "norm", "shows"), ("scale", "3", "sheet"), ("colormap", "gray", None), ("threads", "1", None)],
)
def test_weights_option_reaches_the_sheet(option: str, value: str, key: str | None, model: str, tmp_path: Path) -> None:
    def sheet(folder: str, *more: str) -> tuple[dict[str, object], bytes]:
        assert run(model, "--out", tmp_path / folder, "--layer", "deep", *more) == cli.DONE
        with Image.open(tmp_path / folder / "deep.weight.png") as image:
            return json.loads((tmp_path / folder / "deep.weight.json").read_text()), image.convert("RGB").tobytes()

    before, pixels_before = sheet("before")
    after, pixels_after = sheet("after", f"--{option}", value)
    if key:
        assert before[key] != after[key]
    assert (pixels_before == pixels_after) is (option == "threads")


def test_weights_kernels_none_draws_histograms_only(model: str, tmp_path: Path) -> None:
    assert run(model, "--out", tmp_path / "out", "--kernels", "none") == cli.DONE
    assert sorted(os.listdir(tmp_path / "out")) == ["histograms.json", "histograms.png"]


def test_weights_names_that_collide_get_files_of_their_own(model: str, tmp_path: Path) -> None:
    assert run(model.replace(":make", ":Colliding"), "--out", tmp_path / "out") == cli.DONE
    digits = {name: hashlib.sha256(name.encode()).hexdigest()[:8] for name in ("Histograms", "histograms")}
    wanted = {"histograms.png", *(f"{name}-{each}.png" for name, each in digits.items())}
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == wanted
    with Image.open(tmp_path / "out" / f"Histograms-{digits['Histograms']}.png") as image:
        assert np.asarray(image).shape == (5 * 16, 3 * 16)


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (["--layer", "heda"], cli.USAGE, "no layer 'heda' in the model. Closest: 'head'"),
        (["--layer", "histograms"], cli.USAGE, "layers must name a layer with parameters"),
        (["--kernels", "rgb"], cli.USAGE, "kernels must be one of auto, grid, norm, mean, none"),
        (["--scale", "0"], cli.USAGE, "scale must be a whole number of at least 1"),
        (["--out", "{model_file}"], cli.FAILED, "net.py"),
        (["--weights", "nowhere.pth"], cli.FAILED, "nowhere.pth"),
        (["--colormap", "virids", "--out", "{folder}"], cli.USAGE, "Closest: 'viridis'"),
    ],
)
def test_weights_wrong_usage_says_so_in_one_line(
    more: list[str], code: int, said: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"model_file": tmp_path / "net.py", "folder": tmp_path / "out"}
    assert run(model, *(part.format(**known) for part in more)) == code
    assert said in error_of(capsys)
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []


def test_weights_that_a_checkpoint_lacks_are_marked_and_not_drawn(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(
        {"stem.weight": torch.ones(6, 3, 5, 5), **NORM, "deep.weight": torch.ones(4, 6, 3, 3)}, tmp_path / "w.pt"
    )
    assert run(model, "--weights", tmp_path / "w.pt", "--layer", "deep", "head", "--out", tmp_path / "o") == cli.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[-1] == "checkpoint"
    assert {line.split()[0] for line in lines if line.endswith("lacks it")} == {"deep.bias", "head.weight", "head.bias"}
    assert sorted(path.name for path in (tmp_path / "o").glob("*.png")) == ["deep.weight.png", "histograms.png"]
    manifest = json.loads((tmp_path / "o/histograms.json").read_text())
    assert [tile["name"] for tile in manifest["tiles"]] == ["deep.weight"]
    assert run(model, "--weights", tmp_path / "w.pt", "--layer", "head", "--out", tmp_path / "n", "--json") == cli.DONE
    told = json.loads(capsys.readouterr().out)
    assert [info["missing"] for info in told["parameters"]] == [True, True]
    assert told["files"] == []


NORM = {f"norm.{name}": torch.ones(6) for name in ("weight", "bias", "running_mean", "running_var")}
