"""`cnnviz compare`: what it writes and prints, and what it refuses before anything is written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.assertions import assert_equal_planes
from support.command_line import error_of, run, without_notes

import cnnviz_fast as cf
from cnnviz_fast.cli import main as cli

MODELS = """
import collections
import torch

def net(seed=0, channels=6, last="last", stride=4):
    torch.manual_seed(seed)
    return torch.nn.Sequential(collections.OrderedDict({
        "conv": torch.nn.Conv2d(3, channels, 3, stride=stride, padding=1),
        last: torch.nn.Conv2d(channels, 2, 3),
    }))

def alike():
    model = net()
    model.add_module("a b", torch.nn.Identity())
    model.add_module("a/b", torch.nn.Identity())
    model.add_module("A-b", torch.nn.Identity())
    return model

def changed():
    model = net()
    model.conv.bias.data[4] += 3
    return model

def wide():
    return net(channels=7)

def renamed():
    return net(last="final")
"""


@pytest.fixture
def models(tmp_path: Path) -> str:
    """Write a file of models; return what comes before the name of one."""
    path = tmp_path / "models.py"
    path.write_text(MODELS)
    return f"{path}:"


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / "photos" / name for name in ("cat.png", "dog.png")]
    paths[0].parent.mkdir()
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "sheets"


def test_compare_against_args_makes_the_second_model_of_the_same_factory(
    tmp_path: Path, images: list[Path], out: Path
) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make(bias=True):\n    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=bias))"
    )
    argv = ["--layer", "0", "--out", out, "--against-args", "bias=false"]
    assert run("compare", f"{tmp_path / 'net.py'}:make", images[0], *argv) == cli.DONE
    manifest = json.loads(next(out.rglob("*_compare.json")).read_text())
    assert [manifest[side]["model"].rpartition(":")[2] for side in "ab"] == ["make", "make(bias=False)"]


def test_compare_two_models_writes_two_files_a_layer(
    models: str, images: list[Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--against", f"{models}changed", "--layer", "conv", "last", "--out", out, "--tile", "20"]
    assert run("compare", f"{models}net", images[0], *argv) == cli.DONE
    captured = capsys.readouterr()
    names = [f"{layer}/cat_{kind}.png" for layer in ("conv", "last") for kind in ("compare", "difference")]
    assert captured.out.splitlines() == [str(out / name) for name in names]
    said = without_notes(captured.err).splitlines()
    assert said[0] == "cnnviz: conv: most changed channels: 4"
    assert said[1].startswith("cnnviz: last: most changed channels: ")
    assert len(said) == 2
    written = [path.relative_to(out).as_posix() for path in out.rglob("*.*") if path.is_file()]
    assert sorted(written) == sorted([*names, *(name.replace(".png", ".json") for name in names)])

    # The pixels and the manifest are those of cf.compare on what cf.capture gives.
    both = [cf.load_model(f"{models}{name}") for name in ("net", "changed")]
    a, b = (cf.capture(model, cf.load_images(images[0], model), ["conv"])["conv"][0] for model in both)
    origins = [cf.Provenance(model.spec, model.weights, "conv", str(images[0])) for model in both]
    expected = cf.compare(a, b, tile=20, provenance_a=origins[0], provenance_b=origins[1])
    for kind, sheet in (("compare", expected.pair), ("difference", expected.difference)):
        with Image.open(out / "conv" / f"cat_{kind}.png") as image:
            assert_equal_planes(np.asarray(image.convert("RGB")), sheet.rgb())
        manifest = json.loads((out / "conv" / f"cat_{kind}.json").read_text())
        assert [manifest[side]["model"] for side in "ab"] == [f"{models}net", f"{models}changed"]
        assert [manifest[side]["image"] for side in "ab"] == [str(images[0])] * 2
        assert manifest["a"]["layer"] == manifest["b"]["layer"] == "conv"


def test_compare_two_images_json_has_every_figure(
    models: str, images: list[Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--layer", "conv", "--out", out, "--tile", "20", "--json"]
    assert run("compare", f"{models}net", *images, *argv) == cli.DONE
    captured = capsys.readouterr()
    assert without_notes(captured.err) == ""
    (layer,) = json.loads(captured.out)["layers"]
    assert layer["layer"] == "conv"
    assert [layer["compare"], layer["difference"]] == [
        str(out / "conv" / f"cat_dog_{kind}.png") for kind in ("compare", "difference")
    ]
    assert [layer[side]["image"] for side in "ab"] == list(map(str, images))
    assert len(layer["channels"]) == 6
    assert sorted(layer["most_changed"]) == list(range(6))
    assert set(layer["channels"][0]) == {
        "channel", "vmin", "vmax", "mean_abs", "max_abs", "rms", "correlation", "lost",
    }  # fmt: skip


def test_compare_checkpoints_and_seeds(
    models: str, images: list[Path], out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = cf.load_model(f"{models}changed").module.state_dict()
    torch.save(weights, tmp_path / "changed.pth")
    common = [images[0], "--layer", "conv", "--out", out, "--tile", "9"]
    assert run("compare", f"{models}net", *common, "--against-weights", tmp_path / "changed.pth") == cli.DONE
    assert without_notes(capsys.readouterr().err) == "cnnviz: conv: most changed channels: 4\n"
    common[2] = "features.0"
    assert run("compare", "squeezenet1_1", *common, "--weights", "none", "--against-seed", "1") == cli.DONE
    manifest = json.loads((out / "features.0" / "cat_difference.json").read_text())
    assert [manifest[side]["weights"] for side in "ab"] == ["random, seed 0", "random, seed 1"]


def test_compare_two_sets_of_weights_in_one_file(
    models: str, images: list[Path], out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "both.pth"
    plain, averaged = (cf.load_model(f"{models}{name}").module.state_dict() for name in ("net", "changed"))
    torch.save({"state_dict": plain, "state_dict_ema": {**averaged, "queue": torch.ones(2)}}, file)
    argv = ["compare", f"{models}net", images[0], "--layer", "conv", "--out", out, "--tile", "9", "--weights", file]
    argv += ["--weights-key", "state_dict", "--against-weights", file]
    assert run(*argv, "--against-key", "state_dict_ema") == cli.DONE
    said = without_notes(capsys.readouterr().err).splitlines()
    assert said == [f"cnnviz: checkpoint {str(file)!r}: left over: 'queue'.", "cnnviz: conv: most changed channels: 4"]
    assert run(*argv, "--strict-weights", "--against-key", "state_dict_ema") == cli.FAILED
    assert "1 unexpected (queue)" in capsys.readouterr().err


def test_compare_equal_models_says_so(
    models: str, images: list[Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--against", f"{models}renamed", "--layer", "conv", "--out", out, "--tile", "9"]
    assert run("compare", f"{models}net", images[0], *argv) == cli.DONE
    assert without_notes(capsys.readouterr().err) == "cnnviz: conv: most changed channels: none, both are equal\n"


def test_compare_options_reach_the_sheets(models: str, images: list[Path], out: Path) -> None:
    argv = ["compare", f"{models}net", *images, "--layer", "conv", "--out", out, "--tile", "20"]
    plain = ["--plain", "--format", "npy", "--channels", "1,5"]
    assert run(*argv, *plain, "--grid", "1x2", "--gap", "12", "--size", "40x40") == 0
    assert np.load(out / "conv" / "cat_dog_compare.npy").shape == (20, 52 + 24 + 52)
    assert run(*argv, "--diverging", "gray", "--colormap", "gray", "--max-pixels", 64 * 96) == cli.DONE
    for kind in ("compare", "difference"):
        with Image.open(out / "conv" / f"cat_dog_{kind}.png") as image:
            assert image.mode == "L"
    assert run(*argv, "--max-pixels", 64 * 96 - 1) == cli.FAILED


MODEL, IMAGE, IMAGE_2 = "{models}net", "{cat}", "{dog}"
WAYS = "Give two images, or one image and --against, --against-weights, --against-args or --against-seed."
REFUSED = {
    "nothing differs": ([MODEL, IMAGE], f"two images or two models, got images: 1, models: 1. {WAYS}"),
    "the same image twice": ([MODEL, IMAGE, IMAGE], "got images: 1, models: 1."),
    "the same model twice": ([MODEL, IMAGE, "--against", MODEL], "got images: 1, models: 1."),
    "both differ": ([MODEL, IMAGE, IMAGE_2, "--against", "{models}changed"], f"got images: 2, models: 2. {WAYS}"),
    "three images": ([MODEL, IMAGE, IMAGE_2, "third.png"], "got images: 3, models: 1."),
    "a folder of two": ([MODEL, "{folder}", "--against", "{models}changed"], "must be one image, got 2 from 1."),
    "another shape": (
        [MODEL, IMAGE, "--against", "{models}wide"],
        "layer 'conv' must have the same shape in both, got (6, 56, 56) from {models}net (as built, seed 0) and "
        "(7, 56, 56) from {models}wide (as built, seed 0).",
    ),
    "no such layer in the second": (
        [MODEL, IMAGE, "--against", "{models}renamed", "--layer", "last"],
        "{models}renamed (as built, seed 0): no layer 'last' in the model.",
    ),
    "no such layer in either": (
        [MODEL, IMAGE, IMAGE_2, "--layer", "layer9"],
        "cnnviz: no layer 'layer9' in the model.",
    ),
    "a pattern that finds other layers": (
        [MODEL, IMAGE, "--against", "{models}renamed", "--layer", "type:Conv2d"],
        "layer 'last' must be in both, got it from {models}net (as built, seed 0) but not from "
        "{models}renamed (as built, seed 0). Name layers that both have.",
    ),
    "channels that are not there": ([MODEL, IMAGE, IMAGE_2, "--channels", "6"], "channels must lie in 0..5, got 6."),
    "unknown colormap": ([MODEL, IMAGE, IMAGE_2, "--diverging", "coolwar"], "Closest: 'coolwarm'"),
    "unknown format": ([MODEL, IMAGE, IMAGE_2, "--format", "gif"], "must be one of .png"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_compare_wrong_usage_says_so_in_one_line(
    case: str, models: str, images: list[Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv, said = REFUSED[case]
    known = {"models": models, "cat": images[0], "dog": images[1], "folder": images[0].parent}
    layer = [] if "--layer" in argv else ["--layer", "conv"]
    assert run("compare", *(part.format(**known) for part in argv), *layer, "--out", out) == cli.USAGE
    assert said.format(**known) in error_of(capsys)
    assert not out.exists() or os.listdir(out) == []


def test_compare_missing_image_fails(
    models: str, images: list[Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("compare", f"{models}net", images[0], "nowhere.png", "--layer", "conv", "--out", out) == cli.FAILED
    assert "nowhere.png" in error_of(capsys)


def test_compare_options_of_single_sheets_do_not_exist(
    models: str, images: list[Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        run("compare", f"{models}net", *images, "--layer", "conv", "--out", out, "--topk", "3")
    assert exit_.value.code == cli.USAGE
    said = "cnnviz compare has no option --topk: it belongs to 'cnnviz render', 'cnnviz run' and 'cnnviz atlas'."
    assert capsys.readouterr().err.splitlines()[0] == said


def test_compare_layers_of_one_file_name_get_folders_of_their_own(models: str, images: list[Path], out: Path) -> None:
    argv = [*images, "--layer", "a b", "a/b", "A-b", "--out", out, "--tile", "9"]
    assert run("compare", f"{models}alike", *argv) == cli.DONE
    folders = sorted(os.listdir(out), key=str.casefold)
    assert [folder.casefold()[:4] for folder in folders] == ["a b", "a-b-", "a-b-"]
    layers = [json.loads((out / folder / "cat_dog_compare.json").read_text())["a"]["layer"] for folder in folders]
    assert sorted(layers) == ["A-b", "a b", "a/b"]
