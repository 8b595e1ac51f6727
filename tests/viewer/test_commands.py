"""The lines that pages copy: run, they draw what the page shows, whatever was done to the images on the way."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.assertions import assert_plane_within_a_level
from support.command_line import run as cnnviz
from support.viewer_pages import catalogue_in, payload_in

import cnnviz_fast as cf
from cnnviz_fast.formats.atlas import parse_atlas
from cnnviz_fast.models.expected import ExpectedInput
from cnnviz_fast.models.hf_preprocess import HfPreprocess
from cnnviz_fast.models.own_preprocess import ArrayPreprocess
from cnnviz_fast.models.preprocess import Clip, imagenet_preset, options_in, with_options
from cnnviz_fast.runs.folder.fingerprint import described
from cnnviz_fast.viewer.commands import recipe_of
from cnnviz_fast.viewer.opening import open_collection
from cnnviz_fast.viewer.told import told_in, told_model

NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self, width=4, last=False):
        super().__init__()
        self.conv, self.last = torch.nn.Conv2d(3, width, 3, bias=False), last

    def forward(self, x):
        maps = self.conv(x)
        return maps

    def mirrored(self, x):
        return self.conv(x.flip(-1))

def half(image):
    from torchvision.transforms.functional import pil_to_tensor
    return pil_to_tensor(image)[:, ::2, ::3] / 255
"""
LOOK = {"tile": "12", "channels": "2,0", "normalize": "layer", "plain": ""}
"""Options as the page puts them in, with some that make sheets small."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and an image of 16 bits."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "net.py").write_text(NET)
    pixels = np.random.default_rng(0).integers(0, 65536, (40, 30), np.uint16)
    Image.fromarray(pixels).save(folder / "it's.png")
    return folder


def filled(template: str, image: str, layer: str, *, shell: bool) -> str:
    """Fill a line in as the page does."""
    quoted = shlex.quote if shell else json.dumps
    written = "".join(
        (f" --{name}" + (f" {quoted(value)}" if value else ""))
        if shell
        else f", {name}={quoted(value) if value else True}"
        for name, value in LOOK.items()
    )
    return template.replace("{image}", quoted(image)).replace("{layer}", quoted(layer)).replace("{options}", written)


def assert_lines_draw(command: dict[str, str | None], atlas: cf.Atlas, image: str, folder: Path) -> None:
    """Run the lines of a page in the folder of its model, and compare with its atlas."""
    assert atlas.provenance.layer is not None
    options: dict[str, Any] = {name: value or True for name, value in LOOK.items()}
    expected = cf.render(atlas.maps, **options, provenance=atlas.provenance).index
    line = filled(str(command["shell"]), image, atlas.provenance.layer, shell=True)
    assert cnnviz(*shlex.split(line)[1:], "--out", folder / "drawn.npy", "--format", "npy", "--overwrite") == 0
    assert_plane_within_a_level(np.load(folder / "drawn.npy"), expected)
    if command["python"] is not None:
        line = filled(command["python"], image, atlas.provenance.layer, shell=False)
        (sheet,) = eval(line, {"cf": cf})
        assert_plane_within_a_level(sheet.index, expected)


@pytest.mark.parametrize(
    ("given", "has_python"),
    [
        ("--size 20x24 --interpolation nearest --mean=-0.5,0.1,0.3 --std 0.2,0.4,0.8 --channel-order bgr", True),
        ("--size 20 --input-range 1000:60000", True),
        ("--model-args width=7 last=True --seed 3", True),
        ("--forward mirrored --axes nchw --max-pixels 9999999", True),
        ("--preprocess net.py:half", False),
        ("--weights net.safetensors", True),
    ],
)
def test_lines_of_a_page_draw_what_it_shows(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, has_python: bool
) -> None:
    monkeypatch.chdir(place)
    weights = cf.load_model("net.py:Net", seed=9).module.state_dict()
    from safetensors.torch import save_file

    save_file(weights, "net.safetensors")
    arguments = ["it's.png", "--layer", "conv", *given.split(), "--out", tmp_path / "page.html"]
    assert cnnviz("page", "net.py:Net", *arguments) == 0
    (run,) = catalogue_in(tmp_path / "page.html")["runs"]
    assert (run["command"]["python"] is not None) == has_python
    atlas = parse_atlas(payload_in(tmp_path / "page.html", "a-0-0-0"), "")
    assert_lines_draw(run["command"], atlas, run["images"][0]["name"], tmp_path)


@pytest.mark.parametrize(
    "preprocess",
    [None, cf.PreprocessOptions(size=(20, 24), interpolation="nearest", std=(0.2, 0.4, 0.8), channel_order="bgr")],
)
def test_lines_of_a_run_draw_what_it_holds(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preprocess: cf.PreprocessOptions | None
) -> None:
    monkeypatch.chdir(place)
    model = cf.load_model("net.py:Net", arguments={"width": 5}, seed=2, preprocess=preprocess)
    cf.run(
        model, "it's.png", ["conv"], tmp_path / "run", save="atlases", axes="nchw", input_range="1000:60000", readers=0,
        progress="none",
    )  # fmt: skip
    (run,) = open_collection([tmp_path / "run"]).catalogue("server")["runs"]
    atlas = cf.read_atlas(tmp_path / "run" / "conv" / "it's.atlas")
    assert_lines_draw(run["command"], atlas, run["images"][0]["name"], tmp_path)


OWN = {"is": "a.Preprocessing", "size": [2, 3], "order": None, "preset": {}, "mean": [0], "std": [1]}
OWN |= {"interpolation": "InterpolationMode.BILINEAR"}


@pytest.mark.parametrize(
    "facts",
    [
        {"preprocess": OWN | {"size": ["1; touch x", 2]}},
        {"preprocess": OWN | {"mean": ["; touch x"]}},
        {"preprocess": OWN | {"interpolation": "x.; touch x"}},
        {"preprocess": {"is": "cnnviz_fast.models.own_preprocess.OwnPreprocess", "function": {"is": "net.half"}}},
        {"axes": "nchw; touch x"},
        {"truncated": "; touch x"},
        {"forward": {"is": "net.f"}},
        {"forward": "{image}"},
        {"inputs": {"is": "net.f"}},
    ],
)
def test_run_that_does_not_say_how_has_no_lines(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any]
) -> None:
    monkeypatch.chdir(place)
    run = tmp_path / "run"
    cf.run(cf.load_model("net.py:Net"), "it's.png", ["conv"], run, save="atlases", readers=0, progress="none")
    document = json.loads((run / "run.json").read_text())
    document["fingerprint"] |= facts
    (run / "run.json").write_text(json.dumps(document))
    assert open_collection([run]).catalogue("server")["runs"][0]["command"] is None


@pytest.mark.parametrize(
    ("model", "weights", "shell"),
    [
        ("resnet50", "IMAGENET1K_V2", "resnet50 {image} --layer {layer} --weights IMAGENET1K_V2{options}"),
        ("a.py:f(n=3)", "as built, seed 0", "a.py:f {image} --layer {layer} --model-args n=3{options}"),
        ("net; touch x", "-x '.pth", "'net; touch x' {image} --layer {layer} --weights='-x '\"'\"'.pth'{options}"),
        ("a.py:f(n=b.c)", "as built, seed 0", None),
        ("Sequential", "as given", None),
        ("{image}", "DEFAULT", None),
    ],
)
def test_lines_of_atlases_name_model_and_weights(model: str, weights: str, shell: str | None) -> None:
    recipe = recipe_of(cf.Provenance(model=model, weights=weights))
    lines = recipe and recipe.lines()
    assert (lines and lines["shell"]) == (shell and f"cnnviz render {shell}")


def test_options_that_made_a_preprocessing_are_read_back() -> None:
    array = ArrayPreprocess(ExpectedInput(4, 2, is_known=True))
    processor = HfPreprocess(object(), (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), (2, 1, 0))
    shift = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.1, 0.3)}
    for preset, options in [
        (array, {"size": (9, 8), "mean": (1.0, 2.0, 3.0, 4.0)}),
        (processor, {"size": (9, 8), "interpolation": "nearest"}),
        (processor, shift),
        (imagenet_preset(), {"size": (9, 8), "channel_order": "bgr"} | shift),
        (Clip(imagenet_preset()), {"interpolation": "bicubic"}),
    ]:
        for given in (cf.PreprocessOptions(), cf.PreprocessOptions(**options)):
            made = with_options(preset, given)
            assert described(with_options(preset, options_in(described(made)))) == described(made)


def test_pages_name_no_folders() -> None:
    for sentence, said in [
        ("photo 'a.png' is not in '/home/me/my photos/'.", "photo 'a.png' is not in 'my photos'."),
        ('atlas "/home/me/it\'s.atlas" is damaged: 3/4 of it.', 'atlas "it\'s.atlas" is damaged: 3/4 of it.'),
        ("cannot read /home/me/a.tar: no such file", "cannot read a.tar: no such file"),
        (r"cannot read 'C:\me\a.tar'", "cannot read 'a.tar'"),
        ("see https://pytorch.org/a/b and a/b.png", "see https://pytorch.org/a/b and a/b.png"),
    ]:
        assert told_in(sentence) == said
    for spec, name in [
        ("resnet50", "resnet50"), ("/home/me/net.py:make(n=3)", "net.py:make(n=3)"), ("hf:/data/vit", "hf:vit"),
        ("net.py:make(w='/home/me/w.pth')", "net.py:make(w='w.pth')"),
    ]:  # fmt: skip
        assert told_model(spec) == name
