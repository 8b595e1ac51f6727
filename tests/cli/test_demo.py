"""cnnviz demo: one page on what a network sees, without a network connection."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from support.command_line import error_of, run
from support.pages import Page
from support.runs import digests

from cnnviz_fast.cli import main as cli

Captured = pytest.CaptureFixture[str]

NETS = """
import torch
from torch import nn

class Flat(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool, self.head = nn.AvgPool2d(32), nn.Linear(3 * 7 * 7, 5)

    def forward(self, x):
        return self.head(self.pool(x).flatten(1))

def flat():
    return Flat()

def hostile():
    net = nn.Sequential(nn.AvgPool2d(32))
    for name in ('<b>&"conv', "<i>'conv"):
        net.add_module(name, nn.Conv2d(3, 3, 3, padding=1))
    return net

def few():
    return nn.Sequential(nn.AvgPool2d(32), nn.Conv2d(3, 2, 3))
"""
"""Models that differ from what is usual, each in one way."""


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name a proxy that nobody serves, so that nothing is fetched whether or not there is a network."""
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))


@pytest.fixture
def nets(tmp_path: Path) -> str:
    """Write a file of models; return what comes before the name of one."""
    (tmp_path / "nets.py").write_text(NETS)
    return f"{tmp_path / 'nets.py'}:"


def page_of(out: Path) -> Page:
    """Read the page of sheets of a demo, whose figures are all there, in its folder, and can be opened."""
    page = Page(out / "sheets.html")
    assert page.images == page.links
    for path in page.images:
        assert path.resolve().is_relative_to(out.resolve())
        with Image.open(path) as image:
            image.load()
        assert path.with_suffix(".json").is_file()
    return page


def test_demo_shows_the_trained_network(out: Path, capsys: Captured) -> None:
    assert run("demo", "--out", out) == cli.DONE
    captured = capsys.readouterr()
    layers, images = ("stage1", "stage3", "stage5"), ("chart", "cat", "coffee")
    names = ["filters.png", *(f"{layer}/{image}.png" for layer in layers for image in images)]
    names += [
        "patches.png",
        "overlay/cat.png",
        "overlay/coffee.png",
        "gradcam/cat.png",
        "gradcam/coffee.png",
        "cat_coffee_compare.png",
        "cat_coffee_difference.png",
    ]
    assert captured.out.splitlines() == [str(out / name) for name in [*names, "sheets.html", "index.html"]]
    said = captured.err.splitlines()
    assert said[0] == "cnnviz: cnnviz:small with weights: PHOTOS_V1"
    assert said[1] == f"cnnviz: open {out / 'index.html'} in a browser; then try your own:"
    assert all(line.startswith("cnnviz: cnnviz ") for line in said[2:])

    page = page_of(out)
    assert page.images == [out / name for name in names]
    found = re.search(r'id="catalogue">(.*?)</script>', (out / "index.html").read_text(), re.DOTALL)
    assert found is not None
    (shown,) = json.loads(found[1])["runs"]
    assert [layer["name"] for layer in shown["layers"]] == list(layers)
    assert [image["name"] for image in shown["images"]] == ["cat.jpg", "coffee.jpg", "test chart"]
    assert page.texts["h1"] == ["What cnnviz:small sees"]
    assert page.texts["h2"][:3] == [
        "What the first layer looks for",
        "Every channel of stage1",
        "Every channel of stage3",
    ]
    assert page.texts["pre"] == ["\n".join(line.removeprefix("cnnviz: ") for line in said[2:])]
    manifest = json.loads((out / "stage5" / "cat.json").read_text())
    assert (manifest["model"], manifest["layer"], manifest["image"]) == ("cnnviz:small", "stage5", "cat.jpg")
    with Image.open(out / "stage5" / "cat.png") as sheet:
        assert max(sheet.size) <= 2560


@pytest.mark.parametrize("model", ["few", pytest.param("cnnviz:small", marks=pytest.mark.long)])
def test_demo_can_be_repeated(model: str, nets: str, out: Path, capsys: Captured) -> None:
    chosen = ("--model", f"{nets}few", "--layer", "1") if model == "few" else ()
    assert run("demo", *chosen, "--out", out) == cli.DONE
    *files, page = capsys.readouterr().out.splitlines()
    before = digests(out.parent)
    assert run("demo", *chosen, "--out", out, "--json") == cli.DONE
    assert json.loads(capsys.readouterr().out) == {"page": page, "files": files}
    assert digests(out.parent) == before


def test_demo_draws_another_model_with_random_weights_where_there_are_no_others(out: Path, capsys: Captured) -> None:
    assert run("demo", "--model", "squeezenet1_1", "--layer", "features.5", "--out", out) == cli.DONE
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("cnnviz: trained weights cannot be had: ")
    assert said[1] == "cnnviz: torchvision:squeezenet1_1 with weights: random, seed 0"
    page = page_of(out)
    assert "random, seed 0" in page.texts["p"][0]
    assert [path.parent.name for path in page.images[1:4]] == ["features.5"] * 3


def test_demo_of_an_unknown_model_is_one_line(out: Path, capsys: Captured) -> None:
    assert run("demo", "--model", "resnet5O", "--out", out) == cli.FAILED
    assert "no model 'resnet5O'" in error_of(capsys)
    assert list(out.iterdir()) == []


def test_demo_of_a_model_without_convolutions_has_no_filters(nets: str, out: Path) -> None:
    assert run("demo", "--model", f"{nets}flat", "--layer", "pool", "head", "--out", out) == cli.DONE
    page = page_of(out)
    assert page.images[0] == out / "pool" / "chart.png"
    assert page.texts["h2"][:4] == [
        "Every channel of pool", "Every channel of head", "What channels of pool look for",
        "Where pool answers in the photo",
    ]  # fmt: skip


def test_demo_of_vectors_alone_lays_nothing_over_the_photos(nets: str, out: Path) -> None:
    assert run("demo", "--model", f"{nets}flat", "--layer", "head", "--out", out) == cli.DONE
    assert [path.name for path in page_of(out).images] == ["chart.png", "cat.png", "coffee.png"]


def test_demo_of_a_model_of_which_no_layer_makes_maps_says_so(nets: str, out: Path, capsys: Captured) -> None:
    assert run("demo", "--model", f"{nets}flat", "--out", out, "--quiet") == cli.USAGE
    assert "layer must be given" in error_of(capsys)
    assert not (out / "index.html").exists()
    assert not (out / "sheets.html").exists()


def test_demo_escapes_names_of_layers_and_takes_patterns(nets: str, out: Path) -> None:
    assert run("demo", "--model", f"{nets}hostile", "--layer", "*conv", "--out", out) == cli.DONE
    page = page_of(out)
    assert not {"b", "i"} & set(page.tags)
    assert page.texts["h2"][1:5] == [
        "Every channel of <b>&\"conv", "Every channel of <i>'conv", "What channels of <i>'conv look for",
        "Where <i>'conv answers in the photo",
    ]  # fmt: skip


def test_demo_of_few_channels_draws_those(nets: str, out: Path) -> None:
    assert run("demo", "--model", f"{nets}few", "--layer", "1", "--out", out) == cli.DONE
    assert "The 2 channels that vary most, over what the model saw." in page_of(out).texts["p"]


@pytest.mark.parametrize("name", ["file", "file/demo", "file.png"])
def test_demo_into_a_folder_that_cannot_be_written_is_one_line(name: str, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / Path(name).parts[0]).write_text("in the way")
    before = sorted(tmp_path.rglob("*"))
    assert run("demo", "--out", tmp_path / name) == cli.FAILED
    assert str(tmp_path / name) in error_of(capsys)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("name", "kind"), [("index.html", "viewer"), ("sheets.html", "demo")])
def test_demo_leaves_a_page_of_somebody_else_alone(name: str, kind: str, out: Path, capsys: Captured) -> None:
    out.mkdir()
    (out / name).write_text("<h1>mine</h1>")
    assert run("demo", "--out", out) == cli.FAILED
    assert f"it is no page of the {kind}, and would be lost" in error_of(capsys)
    assert [path.name for path in out.iterdir()] == [name]
    assert (out / name).read_text() == "<h1>mine</h1>"


@pytest.mark.parametrize("option", ["--plain", "--no-label", "--no-marks", "--title=", "--input", "--tile=9"])
def test_demo_has_no_options_of_sheets(option: str, out: Path, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        run("demo", option, "--out", out)
    assert ended.value.code == cli.USAGE
    assert f"cnnviz demo has no option {option.rstrip('=9')}: it belongs to 'cnnviz render'" in capsys.readouterr().err
    assert not out.exists()
