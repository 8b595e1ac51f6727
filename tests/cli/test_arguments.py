"""Arguments that several commands take: each command refuses the same output folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cases import noise
from support.command_line import error_of, run, without_notes
from support.runs import NET, digests, make_images

import cnnviz_fast as cf
from cnnviz_fast.cli import main as cli
from cnnviz_fast.cli.arguments import drawing_options

OLDER = json.loads((Path(__file__).parents[1] / "formats" / "older_outputs.json").read_text())


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, list[object]]:
    """Return the arguments of every command that writes files, without --out."""
    (tmp_path / "net.py").write_text(NET)
    model = f"{tmp_path / 'net.py'}:make"
    first, second = make_images(tmp_path / "in", 2)
    atlas = cf.save_atlas(noise(2, 3, 3), tmp_path / "p0000.atlas", provenance=cf.Provenance(layer="0"))
    size = ["--size", 24, "--tile", 9]
    return {
        "render": [model, first, "--layer", "0", *size],
        "atlas": [atlas, "--tile", 9],
        "attribute": [model, first, "--layer", "0", "--target", "0@0", *size],
        "compare": [model, first, second, "--layer", "0", *size],
        "weights": [model],
        "demo": ["--layer", "stage1"],
        "run": [model, first, "--layer", "0", *size, "--readers", 0],
    }


@pytest.mark.parametrize("name", ["render", "atlas", "compare", "attribute", "weights", "demo"])
def test_output_folder_of_a_run_takes_no_other_files(
    name: str, commands: dict[str, list[object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert run("run", *commands["run"], "--out", out) == cli.DONE
    before = digests(out)
    capsys.readouterr()
    assert run(name, *commands[name], "--out", out) == cli.USAGE
    assert "out must not be the folder of a run" in error_of(capsys)
    assert run("run", *commands["run"], "--out", out) == cli.DONE
    (said,) = without_notes(capsys.readouterr().err).splitlines()  # and nothing of the time that nothing took
    assert said.endswith("; 1 were done before")
    assert digests(out) == before


def test_output_folder_of_render_takes_no_run(
    commands: dict[str, list[object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sheets"
    assert run("render", *commands["render"], "--out", out) == cli.DONE
    before = digests(tmp_path)
    capsys.readouterr()
    assert run("run", *commands["run"], "--out", out) == cli.USAGE
    assert "where another command wrote '0/p0000'" in error_of(capsys)
    assert digests(tmp_path) == before


@pytest.mark.parametrize("name", ["render", "atlas", "compare", "attribute", "weights", "demo", "run"])
def test_output_folder_of_the_older_layout_is_refused_by_every_command(
    name: str, commands: dict[str, list[object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = tmp_path / "out" / "cat_conv1" / "manifest.json"
    older.parent.mkdir(parents=True)
    older.write_text(json.dumps(OLDER["each/cat_conv1/manifest.json"]))
    assert run(name, *commands[name], "--out", tmp_path / "out") == cli.USAGE
    assert "is an output folder of the older layout" in error_of(capsys)
    assert list((tmp_path / "out").rglob("*")) == [older.parent, older]


@pytest.mark.parametrize(("given", "same"), [
    (["--vmin", "-1", "--vmax", "1"], ["--normalize", "fixed"]),
    (["--percentile", "10,90"], ["--normalize", "percentile"]),
    (["--rank", "max"], ["--sort"]),
    (["--rank", "max", "--reduce", "sum", "--beside"], ["--sort"]),
])  # fmt: skip
def test_options_imply_their_mode(
    given: list[str], same: list[str], commands: dict[str, list[object]], tmp_path: Path
) -> None:
    options = [cli._parser().parse_args(["atlas", "x", *given, *more]) for more in ([], same)]
    assert drawing_options(options[0]) == drawing_options(options[1])


def test_options_that_are_given_are_not_replaced_by_what_others_imply(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("atlas", "x", "--percentile", "10,90", "--normalize", "layer") == cli.USAGE
    assert "percentile goes with normalize 'percentile' or 'dataset', got normalize 'layer'." in error_of(capsys)
    assert run("atlas", "x", "--vmin", "1") == cli.USAGE
    assert "normalize 'fixed' needs vmin and vmax. Give both." in error_of(capsys)


WRONG = {
    "tile": "0", "scale": "-1", "grid": "0x0", "gap": "-1", "margin": "x", "align": "top", "upsampling": "cubic",
    "normalize": "none", "vmin": "x", "vmax": "nan", "percentile": "9", "colormap": "nosuchmap",
    "background": "nocolor", "bad": "nocolor", "channels": "5-2", "topk": "0", "rank": "size", "reduce": "median",
    "title": "{nothing}", "backend": "cpu", "threads": "0", "axes": "chw", "planes": "x", "size": "0",
    "interpolation": "sinc", "mean": "x", "std": "0", "alpha": "2", "format": "gif", "overlay": "nowhere.png",
    "name": "{nothing}.png", "suffix": "x", "device": "nothing", "seed": "-1", "preprocess": "nowhere.py:f",
    "inputs": "nowhere.py:f", "model-args": "x",
}  # fmt: skip


@pytest.mark.parametrize("name", [*WRONG, "image"])
def test_render_values_are_checked_before_the_model_is_built(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image,) = make_images(tmp_path / "in", 1)
    (tmp_path / "net.py").write_text("def make():\n    raise SystemExit('the model was built')\n")
    companions = {"name": ["--each"], "suffix": ["--each"], "alpha": [f"--overlay={image}"]}
    wrong = ["nowhere.jpg"] if name == "image" else [image, f"--{name}={WRONG[name]}"]
    argv = [f"{tmp_path / 'net.py'}:make", *wrong, *companions.get(name, []), "--out", tmp_path / "out"]
    assert run("render", *argv) in (cli.USAGE, cli.FAILED)
    error_of(capsys)


def test_device_that_is_not_there_is_refused_in_plain_words(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.backends.mps.is_available():
        pytest.skip("MPS is there")
    assert run("demo", "--device", "mps") == cli.USAGE
    wanted = "device must be auto, cpu or a device that is there, got 'mps': torch finds no MPS here."
    assert error_of(capsys) == f"cnnviz: {wanted}\n"
