"""Where files go: a folder, the default one, or the one file that is named; shown in a viewer; or nothing printed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command_line import error_of, run

import cnnviz_fast as cf
from cnnviz_fast.activations.stages import default_layers
from cnnviz_fast.cli import main as cli
from cnnviz_fast.cli import viewer
from cnnviz_fast.models.load import load_model


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_render_without_layer_and_out_draws_the_stages(
    model: str, cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("render", model, cat, "--tile", 9) == cli.DONE
    captured = capsys.readouterr()
    assert captured.out.split() == ["cnnviz_out/mean/cat.png", "cnnviz_out/conv/cat.png"]
    assert "cnnviz: no --layer given: drawing the stages mean, conv\n" in captured.err


def test_compare_and_run_without_layer_and_out(model: str, cat: Path, tmp_path: Path) -> None:
    other = cat.with_name("dog.png")
    Image.new("RGB", (96, 64)).save(other)
    assert run("compare", model, cat, other, "--tile", 9) == cli.DONE
    assert sorted(path.name for path in tmp_path.glob("cnnviz_out/*")) == ["conv", "mean"]
    assert run("run", model, cat, "--tile", 9, "--readers", 0) == cli.DONE
    assert sorted(path.parent.name for path in tmp_path.glob("cnnviz_out/run/*/cat.png")) == ["conv", "mean"]
    assert run("render", model, cat, "--tile", 9) == cli.DONE, "a run beside it is no hindrance"


@pytest.mark.parametrize(("name", "layers"), [
    ("resnet18", ["conv1", "layer1", "layer2", "layer3", "layer4"]),
    pytest.param("resnet50", ["conv1", "layer1", "layer2", "layer3", "layer4"], marks=pytest.mark.zoo),
    ("vgg11", ["features.0", "features.3", "features.8", "features.13", "features.18", "features"]),
    pytest.param("vit_b_16", ["conv_proj", "encoder"], marks=pytest.mark.zoo),
    ("timm:resnet18", ["act1", "layer1", "layer2", "layer3", "layer4"]),
    ("timm:convnext_atto", [f"stages.{n}" for n in range(4)]),
])  # fmt: skip
def test_default_layers_are_the_stages(name: str, layers: list[str]) -> None:
    assert default_layers(load_model(name, weights="none", device="meta")) == layers


def test_default_layers_of_a_model_without_maps_are_refused() -> None:
    import torch

    model = load_model(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 224 * 224, 2)))
    with pytest.raises(cf.CnnvizError, match="layer must be given, as no layer of this model puts out maps"):
        default_layers(model)


@pytest.mark.parametrize("name", ["sheet.png", "sheet.webp", "deep/folder/sheet.jpg", "sheet.npy"])
def test_render_out_writes_the_file_that_is_named(
    name: str, model: str, cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("render", model, cat, "-l", "conv", "-o", name, "--tile", 9) == cli.DONE
    assert capsys.readouterr().out == f"{name}\n"
    assert Path(name).stat().st_size > 0
    assert json.loads(Path(name).with_suffix(".json").read_text())["layer"] == "conv"


def test_render_out_file_holds_what_the_folder_would(model: str, cat: Path) -> None:
    for out in ("sheet.png", "folder"):
        assert run("render", model, cat, "-l", "conv", "-o", out, "--tile", 9) == cli.DONE
    with Image.open("sheet.png") as one, Image.open("folder/conv/cat.png") as other:
        assert np.array_equal(one, other)


def test_render_out_folder_with_an_ending_that_is_there_stays_a_folder(model: str, cat: Path, tmp_path: Path) -> None:
    (tmp_path / "sheets.png").mkdir()
    for out in ("sheets.png", "others.png/"):
        assert run("render", model, cat, "-l", "conv", "-o", out, "--tile", 9) == cli.DONE
        assert (tmp_path / out / "conv" / "cat.png").exists()


@pytest.mark.parametrize(("more", "said"), [
    (["-l", "conv", "mean"], "out must be a folder for 2 sheets, got 'sheet.png'. Give a folder, or name one image"),
    (["dog.png", "-l", "conv"], "out must be a folder for 2 sheets, got 'sheet.png'."),
    (["-l", "conv", "--each"], "out must be a folder with each, got 'sheet.png'."),
    (["-l", "conv", "--format", "webp"], "out must end as format 'webp' does, got 'sheet.png'. Leave format out."),
    (["-l", "conv", "-o", "sheet.gif"], "the file's suffix must be one of .png, .jpg, .jpeg, .webp, .npy, got"),
])  # fmt: skip
def test_render_out_file_that_cannot_be_is_refused(
    more: list[str], said: str, model: str, cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dog.png").write_bytes(cat.read_bytes())
    assert run("render", model, cat, "-o", "sheet.png", "--tile", 9, *more) == cli.USAGE
    assert said in error_of(capsys)
    assert not list(tmp_path.glob("sheet*"))


def test_run_out_must_be_a_folder(model: str, cat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run", model, cat, "-l", "conv", "-o", "sheet.png") == cli.USAGE
    assert "out must be a folder for a run, got 'sheet.png'" in error_of(capsys)


def test_compare_out_file_names_both_sheets(model: str, cat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (96, 64)).save("dog.png")
    assert run("compare", model, cat, "dog.png", "-l", "conv", "-o", "both.png", "--tile", 9) == cli.DONE
    assert capsys.readouterr().out.split() == ["both_compare.png", "both_difference.png"]


def test_quiet_prints_errors_alone(model: str, cat: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [model, cat, "-l", "conv", "-o", "sheets", "--tile", 9, "--report", "-q"]
    assert run("render", *given) == cli.DONE
    assert run("run", model, cat, "-l", "conv", "-o", "run", "--tile", 9, "--readers", 0, "--quiet") == cli.DONE
    assert capsys.readouterr() == ("", "")
    assert run("render", *given, "--json") == cli.DONE
    assert json.loads(capsys.readouterr().out)["files"]
    Path("bad.png").write_text("no image")
    assert run("render", *given, "bad.png") == cli.PARTLY
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line for line in captured.err.splitlines() if not line.startswith("cnnviz: ")] == []
    assert "1 of 2 images failed." in captured.err


@pytest.mark.parametrize(("layers", "shown"), [(["conv"], "sheets/conv/cat.png"), (["conv", "mean"], "sheets")])
def test_open_shows_the_sheet_or_the_folder_of_several(
    layers: list[str], shown: str, model: str, cat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []
    monkeypatch.setattr(viewer.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setattr(viewer.subprocess, "Popen", lambda command, **_: called.append(command))
    for platform, program in (("linux", "xdg-open"), ("darwin", "open")):
        monkeypatch.setattr(viewer.sys, "platform", platform)
        assert run("render", model, cat, "-l", *layers, "-o", "sheets", "--tile", 9, "--open") == cli.DONE
        assert called.pop() == [f"/bin/{program}", str(tmp_path / shown)]


def test_open_starts_the_viewer_of_the_desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = tmp_path / "xdg-open"
    stand_in.write_text('#!/bin/sh\necho "$@"\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(viewer.sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(viewer.subprocess, "Popen", lambda *a, **o: started.append(popen(*a, **o, text=True)))
    monkeypatch.setattr(viewer.subprocess, "DEVNULL", subprocess.PIPE)
    viewer.open_path(tmp_path / "a b.png")
    assert started[0].communicate()[0] == f"{tmp_path / 'a b.png'}\n"


def test_open_without_a_viewer_says_where_the_files_are(
    model: str, cat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(viewer.sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run("render", model, cat, "-l", "conv", "-o", "sheet.png", "--tile", 9, "--open") == cli.DONE
    assert f"cnnviz: no viewer opens {tmp_path / 'sheet.png'}: xdg-open is not installed" in capsys.readouterr().err
