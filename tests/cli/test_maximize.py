"""`cnnviz maximize` and `cnnviz invert`: what they write and print, and what they refuse before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from support.assertions import FLOAT32_RATIO, close_to
from support.command_line import error_of, run

from cnnviz_fast.cli import main as cli

QUICK = ("--steps", 1, "--size", 32)


def test_sheet_of_channels_and_its_manifest(model: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("maximize", model, "--layer", "conv", "--channels", "0-2", *QUICK, "--out", out) == cli.DONE
    path = out / "conv" / "maximized.png"
    assert capsys.readouterr().out.splitlines() == [str(path)]
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert [tile["channel"] for tile in manifest["tiles"]] == [0, 1, 2]
    assert manifest["options"]["seed"] == 0
    with Image.open(path) as image:
        assert image.size == (manifest["sheet"]["width"], manifest["sheet"]["height"])


def test_digests_depend_on_the_seed_alone(model: str, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = []
    for seed in (1, 1, 2):
        capsys.readouterr()
        command = ("maximize", model, "--classes", "0,2-3", *QUICK, "--seed", seed, "--json", "--overwrite")
        assert run(*command, "--out", out) == cli.DONE
        said.append(json.loads(capsys.readouterr().out)["layers"][0])
    assert said[0]["channels"] == [0, 2, 3]
    assert said[0]["digests"] == said[1]["digests"] != said[2]["digests"]


def test_inverted_layers_stand_side_by_side(
    model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("--size", "32", "--steps", 2, "--like", cat, "--json")
    assert run("invert", model, cat, "--layer", "conv", "mean", *given, "--out", out) == cli.DONE
    (entry,) = json.loads(capsys.readouterr().out)["images"]
    assert entry["path"] == str(out / "cat_inverted.png")
    manifest = json.loads((out / "cat_inverted.json").read_text())
    assert [tile["layer"] for tile in manifest["tiles"]] == [None, "conv", "mean"]
    assert manifest["tiles"][1]["psnr"][-1] == close_to(entry["psnr"]["conv"], FLOAT32_RATIO)
    assert (manifest["image"], manifest["shows"]) == (str(cat), "inverted")


def test_single_file(model: str, cat: Path, tmp_path: Path) -> None:
    file = tmp_path / "one.jpg"
    assert run("invert", model, cat, "--layer", "conv", "--size", 32, "--steps", 0, "--out", file) == cli.DONE
    assert file.exists()
    assert run("maximize", model, "--layer", "conv", "mean", *QUICK, "--out", file) == cli.USAGE


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("maximize", "no_such_model"), "--layer L with --channels, or --classes"),
        (("maximize", "no_such_model", "--layer", "conv", "--at", "corner"), "at must be"),
        (("maximize", "no_such_model", "--layer", "conv", "--format", "npy"), "Take png"),
        (("invert", "no_such_model", "cat.png", "--smooth", "2"), "smooth must be"),
        (("invert", "no_such_model", "cat.png", "--tile", "0"), "tile must be"),
    ],
)
def test_what_is_wrong_shows_before_a_model_is_loaded(
    command: tuple[str, ...], says: str, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command, "--out", out) == cli.USAGE
    assert says in error_of(capsys)
