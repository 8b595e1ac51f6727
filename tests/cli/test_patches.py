"""`cnnviz patches` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command_line import error_of, run
from support.planted import BLUE, VERTICAL, planted, planted_network, saved, top_file
from torchvision.transforms._presets import ObjectDetection

import cnnviz_fast as cf
from cnnviz_fast.cli import main as cli
from cnnviz_fast.patches.top_files import read_top, write_top


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        saved(planted(80, 100, {BLUE: (30 + 5 * i, 40), VERTICAL: (50, 70 - 8 * i)}), folder / f"p{i}.png")
    return folder


@pytest.fixture
def kept(photos: Path, tmp_path: Path) -> Path:
    """The folder of a run that kept two layers, 1 and 2."""
    folder = tmp_path / "run"
    folder.mkdir()
    path = top_file(planted_network(ObjectDetection()), str(photos), folder / "top.safetensors", random=2)
    file = read_top(path)
    write_top(path, {"1": file["1"], "2": file["1"]}, file.facts, file.photos, {"1": file.fields["1"]})
    return folder


def test_patches_draws_a_sheet_of_each_layer(kept: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("patches", kept, "--out", out) == cli.DONE
    assert capsys.readouterr().out.split() == [f"{out}/1/patches.png", f"{out}/2/patches.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(out / "1" / "patches.png")), cf.patch_sheet(kept, "1").rgb())
    assert json.loads((out / "2" / "patches.json").read_text())["layer"] == "2"


def test_options_are_those_of_patch_sheet(kept: Path, tmp_path: Path) -> None:
    options = [
        "--layer", "1", "--channels", "0-1", "--per-channel", "2", "--draw", "random", "--mean-patch", "--tile", "40",
        "--gap", "3", "--margin", "5", "--background", "navy", "--no-label", "--title", "of {layer}", "--no-marks",
        "--threads", "1",
    ]  # fmt: skip
    assert run("patches", kept / "top.safetensors", *options, "--out", tmp_path / "one.png") == cli.DONE
    expected = cf.patch_sheet(
        kept, "1", channels=[0, 1], per_channel=2, draw="random", mean_patch=True, tile=40, gap=3, margin=5,
        background="navy", label=False, title="of {layer}", marks=False,
    )  # fmt: skip
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "one.png")), expected.rgb())


def test_each_and_parquet_write_files_beside(kept: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("patches", kept, "--layer", "1", "--channels", BLUE, "--each", "--parquet", "--out", out, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    tiles = [f"{out}/1/tiles/patches/0_{rank}.png" for rank in range(3)]
    assert document == {
        "files": [{"layer": "1", "path": path} for path in [*tiles, f"{out}/1/patches.parquet"]],
        "failed": [],
    }
    assert all(Path(file["path"]).exists() for file in document["files"])


def test_photo_that_is_gone_is_named_once_and_the_rest_drawn(
    kept: Path, photos: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "p1.png").unlink()
    assert run("patches", kept, "--out", out) == cli.PARTLY
    said = capsys.readouterr()
    assert said.err.count("p1.png") == 1
    assert (out / "1" / "patches.png").exists()
    for i in (0, 2):
        (photos / f"p{i}.png").write_bytes(b"nothing")
    assert run("patches", kept, "--out", out, "--json") == 1
    assert len(json.loads(capsys.readouterr().out)["failed"]) == 3


def test_photos_that_were_moved_are_one_line_and_drawn_from_where_they_are(
    kept: Path, photos: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos.rename(photos.with_name("elsewhere"))
    assert run("patches", kept, "--out", out) == cli.FAILED
    assert "--photos" in error_of(capsys)
    assert not list(out.rglob("*.png"))
    assert run("patches", kept, "--out", out, "--photos", photos.with_name("elsewhere")) == cli.DONE


def test_wrong_use_is_refused_in_one_line(
    kept: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = {
        ("--layer", "layer1"): "no layer 'layer1' in this run",
        ("--layer", "1", "--channels", "99"): "channels must be below 4",
        ("--tile", "2"): "tile must be a whole number of at least 8",
        ("--draw", "bands"): "--top-bands",
        ("--format", "npy"): "format must be png, jpg or webp",
        ("--layer", "1", "--each", "--out", str(tmp_path / "one.png")): "out must be a folder with each",
        ("--out", str(tmp_path / "one.png")): "out must be a folder for 2 sheets",
    }
    for options, reason in cases.items():
        assert run("patches", kept, "--out", out, *options) == 2, options
        assert reason in error_of(capsys)
    assert run("patches", tmp_path / "photos", "--out", out) == 2
    assert "is not the folder of a run. Make one: cnnviz run MODEL" in error_of(capsys)


def test_command_that_is_named_for_a_run_without_responses_makes_them(
    photos: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, other = tmp_path / "of_small", tmp_path / "other"
    arguments = ["cnnviz:small", photos, "-l", "stage1", "stage5", "--readers", "0", "--out", folder]
    assert run("run", *arguments, "--save", "statistics") == cli.DONE
    capsys.readouterr()
    assert run("patches", folder, "--out", out) == 2
    said = error_of(capsys).strip()
    assert said.endswith("cnnviz run cnnviz:small SOURCE --layer stage1 stage5 --save top --out ANOTHER_FOLDER")
    named = {"SOURCE": photos, "ANOTHER_FOLDER": other}
    words = [named.get(word, word) for word in said.partition(": cnnviz ")[2].split()]
    assert run(*words, "--readers", "0") == cli.DONE
    assert run("patches", other, "--channels", "0", "--out", out) == cli.DONE
    (other / "top.safetensors").unlink()
    capsys.readouterr()
    assert run("patches", other, "--out", out, "--overwrite") == 2
    assert "has not ended" in error_of(capsys)


MODULE = """
from support.planted import planted_network
from torchvision.transforms._presets import ObjectDetection

def make():
    return planted_network(ObjectDetection()).module

def preprocess(image):
    return ObjectDetection()(image)
"""


def test_overlay_runs_the_model_of_the_run_or_one_that_is_named(
    kept: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("patches", kept, "--layer", "1", "--overlay", "--out", out) == 1
    assert "planted" in error_of(capsys)  # which is no spec, since the run had a module
    (tmp_path / "net.py").write_text(MODULE)
    options = ["--layer", "1", "--overlay", f"{tmp_path / 'net.py'}:make"]
    assert run("patches", kept, *options, "--out", tmp_path / "other.png") == 1
    assert "sees another part of" in capsys.readouterr().err
    same = ["--preprocess", f"{tmp_path / 'net.py'}:preprocess", "--alpha", "0.7"]
    assert run("patches", kept, *options, *same, "--out", tmp_path / "over.png") == cli.DONE
    expected = cf.patch_sheet(kept, "1", overlay=planted_network(ObjectDetection()), alpha=0.7).rgb()
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "over.png")), expected)


def test_deconvolve_is_what_python_draws_by_the_method_that_is_named(
    kept: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text(MODULE)
    spec = f"{tmp_path / 'net.py'}:make"
    options = ["--layer", "1", "--preprocess", f"{tmp_path / 'net.py'}:preprocess", "--method", "deconvolution"]
    sheet = tmp_path / "back.png"
    assert run("patches", kept, *options, "--deconvolve", spec, "--overlay", spec, "--out", sheet) == cli.DONE
    model = planted_network(ObjectDetection())
    expected = cf.patch_sheet(kept, "1", overlay=model, deconvolve=model, method="deconvolution").rgb()
    np.testing.assert_array_equal(np.asarray(Image.open(sheet)), expected)
    capsys.readouterr()
    assert run("patches", kept, *options, "--out", out) == cli.USAGE
    assert "must go with overlay or deconvolve" in error_of(capsys)
    assert run("patches", kept, *options, "--deconvolve", spec, "--overlay=resnet18", "--out", out) == cli.USAGE
    assert "deconvolve must be the model of overlay" in error_of(capsys)


def test_what_belongs_to_a_model_is_refused_without_overlay(
    kept: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, value in (("--weights", "none"), ("--size", 64), ("--device", "cpu"), ("--preprocess", "x.py:f")):
        assert run("patches", kept, option, value, "--out", out) == 2
        assert f"{option[2:]} must go with overlay or deconvolve" in error_of(capsys)
    assert run("patches", kept, "--alpha", "0.5", "--out", out) == 2
    assert "alpha goes with overlay" in error_of(capsys)


@pytest.mark.parametrize(
    "options",
    [
        ("--size", "48x64", "--mean", "0,0,0.1", "--channel-order", "bgr", "--interpolation", "lanczos"),
        pytest.param(("--size", "48x64", "--mean", "0,0,0.1"), marks=pytest.mark.long),
        pytest.param(("--channel-order", "bgr"), marks=pytest.mark.long),
        pytest.param(("--size", 64, "--interpolation", "lanczos"), marks=pytest.mark.long),
    ],
)
def test_overlay_of_the_run_has_its_preprocessing(
    options: tuple[str, ...], photos: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "of_small"
    arguments = ["cnnviz:small", photos, "-l", "stage1", "--save", "top", "--readers", "0", "--out", folder]
    assert run("run", *arguments, *options) == cli.DONE
    assert run("patches", folder, "--channels", "0-3", "--overlay", "--out", out) == cli.DONE
    other = ("--channels", "0-3", "--overlay", "--mean", "0,0,0", "--overwrite")
    assert run("patches", folder, *other, "--out", out) == cli.FAILED
