"""What is an option, a value of one, or neither: an option takes only what is its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.command_line import run

from cnnviz_fast.cli import main as cli


@pytest.mark.parametrize("given", [
    "MODEL cat.jpg --layer layer4",
    "MODEL --layer layer4 cat.jpg",
    "--layer layer4 MODEL cat.jpg",
    "--layer layer4 -- MODEL cat.jpg",
    "-l layer4 -o sheets MODEL cat.jpg",
    "-llayer4 -osheets MODEL cat.jpg",
    "MODEL --layer=layer4 cat.jpg",
    "MODEL --tile 9 cat.jpg --layer layer4",
    "--quiet MODEL --layer layer4 cat.jpg --label",
])  # fmt: skip
@pytest.mark.parametrize("model", ["resnet18", "net.py:make", "hf:org/name", "./net.py:make"])
def test_render_layer_leaves_model_and_image(given: str, model: str) -> None:
    arguments = cli._parser().parse_args(["render", *given.replace("MODEL", model).split()])
    assert (arguments.model, arguments.images, arguments.layer) == (model, ["cat.jpg"], ["layer4"])


@pytest.mark.parametrize(("given", "images", "layers"), [
    ("resnet18 --layer layer1 layer4 a.jpg b.png", ["a.jpg", "b.png"], ["layer1", "layer4"]),
    ("--layer layer1 layer4 resnet18 a.jpg b.png", ["a.jpg", "b.png"], ["layer1", "layer4"]),
    ("resnet18 a.jpg --layer -1 2 type:Conv2d#0,6 re:x/y.png", ["a.jpg"], ["-1", "2", "type:Conv2d#0,6", "re:x/y.png"]),
    ("resnet18 a.jpg --layer layer1 --layer layer4 b.JPG", ["a.jpg", "b.JPG"], ["layer1", "layer4"]),
    ("resnet18 --layer a/b conv -", ["-"], ["a/b", "conv"]),
    ("resnet18 --layer conv ./cat ../dog ~/bird", ["./cat", "../dog", "~/bird"], ["conv"]),
    ("resnet18 --layer conv .\\cat C:\\dog C:/bird photos\\", [".\\cat", "C:\\dog", "C:/bird", "photos\\"], ["conv"]),
    ("--layer conv fc resnet18 C:\\cat.jpg D:\\dog.jpg", ["C:\\cat.jpg", "D:\\dog.jpg"], ["conv", "fc"]),
    ("resnet18 --layer conv -- conv", ["conv"], ["conv"]),
    ("resnet18 a.jpg --gap 2 b.jpg --each c.jpg", ["a.jpg", "b.jpg", "c.jpg"], None),
])  # fmt: skip
def test_render_layers_end_where_images_begin(given: str, images: list[str], layers: list[str] | None) -> None:
    arguments = cli._parser().parse_args(["render", *given.split()])
    assert (arguments.model, arguments.images, arguments.layer) == ("resnet18", images, layers)


@pytest.mark.parametrize(("given", "model"), [
    ("run/ --deconvolve resnet18", "resnet18"),
    ("--deconvolve cnnviz:small run/", "cnnviz:small"),
    ("run/ --overlay --deconvolve timm:vit --each", "timm:vit"),
    ("run/ --deconvolve", True),
    ("--deconvolve run/", True),
])  # fmt: skip
def test_patches_deconvolve_takes_a_model_and_leaves_the_run(given: str, model: str | bool) -> None:
    arguments = cli._parser().parse_args(["patches", *given.split()])
    assert (arguments.folder, arguments.deconvolve) == ("run/", model)


def test_run_layers_end_where_a_folder_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "layer4").mkdir()
    for given in ("run resnet18 --layer layer4 photos", "run resnet18 photos --layer layer4"):
        arguments = cli._parser().parse_args(given.split())
        assert (arguments.images, arguments.layer) == (["photos"], ["layer4"])


@pytest.mark.parametrize(("given", "overlay", "images"), [
    ("resnet18 --overlay a.jpg", True, ["a.jpg"]),
    ("--overlay resnet18 a.jpg", True, ["a.jpg"]),
    ("resnet18 a.jpg --overlay", True, ["a.jpg"]),
    ("resnet18 a.jpg --overlay b.jpg", "b.jpg", ["a.jpg"]),
    ("--overlay b.jpg resnet18 a.jpg", "b.jpg", ["a.jpg"]),
    ("resnet18 --overlay=b.jpg a.jpg", "b.jpg", ["a.jpg"]),
    ("resnet18 --overlay --layer conv1 a.jpg", True, ["a.jpg"]),
    ("resnet18 --layer conv1 --overlay a.jpg --tile 9", True, ["a.jpg"]),
    ("resnet18 --overlay -- a.jpg b.jpg", True, ["a.jpg", "b.jpg"]),
])  # fmt: skip
def test_render_overlay_leaves_the_image(given: str, overlay: str | bool, images: list[str]) -> None:
    arguments = cli._parser().parse_args(["render", *given.split()])
    assert (arguments.model, arguments.overlay, arguments.images) == ("resnet18", overlay, images)


def test_render_overlay_that_may_be_an_image_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        run("render", "resnet18", "--overlay", "a.jpg", "b.jpg", "--layer", "conv1")
    assert exit_.value.code == cli.USAGE
    said = capsys.readouterr().err.splitlines()[0]
    assert said.endswith(
        "'a.jpg' behind --overlay could be its image or one to draw. Write --overlay=a.jpg, or name all images before "
        "--overlay."
    )


def test_arguments_of_models_end_where_images_begin() -> None:
    arguments = cli._parser().parse_args(["render", "net.py:make", "--model-args", "width=8", "bias=a.jpg", "cat.jpg"])
    assert (arguments.model_args, arguments.images) == (["width=8", "bias=a.jpg"], ["cat.jpg"])
    given = "compare net.py:make --against-args width=8 x=2 cat.jpg --against-args y=3"
    arguments = cli._parser().parse_args(given.split())
    assert (arguments.against_args, arguments.images) == (["width=8", "x=2", "y=3"], ["cat.jpg"])


def test_values_may_begin_with_a_dash() -> None:
    given = ["render", "resnet18", "a.jpg", "--vmin", "-1", "--mean", "-0.1,0,.5"]
    for title in (["--title", "- {layer}"], ["--title=- {layer}"]):
        arguments = cli._parser().parse_args([*given, *title])
        assert (arguments.vmin, arguments.mean, arguments.title) == ("-1", "-0.1,0,.5", "- {layer}")


@pytest.mark.parametrize("given", ["resnet18 a.jpg --tile", "resnet18 a.jpg --out --label", "resnet18 --layer layer4"])
def test_what_is_missing_is_refused_with_short_usage(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        run("render", *given.split())
    assert exit_.value.code == cli.USAGE
    said, usage = capsys.readouterr().err.splitlines()
    assert said.startswith("cnnviz render cannot read its arguments: ")
    assert usage == "usage: cnnviz render MODEL IMAGE... [options]"
