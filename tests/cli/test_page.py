"""`cnnviz page`: pages of models and of what runs have kept, and what is refused."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load
from support.command_line import error_of, run, without_notes

import cnnviz_fast as cf
from cnnviz_fast.cli import main as cli
from cnnviz_fast.formats.atlas import parse_atlas


def catalogue_in(path: Path) -> dict[str, Any]:
    found = re.search(r'id="catalogue">(.*?)</script>', path.read_text(), re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def _plain(page: Path) -> str:
    """Return all text of a page, that in its payloads too."""
    blocks = re.findall(r'type="text/plain" id="a[^"]*">([^<]*)<', page.read_text())
    return page.read_text() + "".join(zlib.decompress(base64.b64decode(block)).decode("latin-1") for block in blocks)


def test_page_takes_methods_without_a_target(model: str, cat: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert run("page", model, cat, "--layer", "conv", "--attribute", "eigencam", "--out", path) == cli.DONE
    (image,) = catalogue_in(path)["runs"][0]["images"]
    assert [each["name"] for each in image["attribution"]] == ["eigencam: all targets"]


def test_page_of_a_model_shows_layers_photo_kernels_and_attribution(
    model: str, cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "page.html"
    argv = ["--layer", "conv", "--name", "a cat", "--attribute", "gradcam", "--target", "1", "3", "--similarity"]
    assert run("page", model, cat, *argv, "--out", path) == cli.DONE
    assert capsys.readouterr().out == f"{path}\n"
    catalogue = catalogue_in(path)
    assert catalogue["title"] == "a cat"
    (shown,) = catalogue["runs"]
    (layer,), (image,) = shown["layers"], shown["images"]
    assert (layer["name"], layer["channels"], layer["height"]) == ("conv", 6, 28)
    assert layer["field"] == {"size": [3, 3], "stride": [8, 8], "offset": [0, 0]}
    assert layer["kernels"]
    assert layer["similarity"]
    assert (image["name"], image["width"], image["photo"]) == (cat.name, 224, "p-0-0")
    assert str(cat) not in _plain(path)
    assert [each["name"] for each in image["attribution"]] == ["gradcam: 1", "gradcam: 3"]
    assert shown["command"]["shell"].startswith("cnnviz render tiny.py:make ")  # without the folder


@pytest.mark.parametrize("image", ["/home/somebody/cat.jpg", r"C:\Users\somebody\cat.jpg"])
def test_page_of_maps_in_memory_does_not_tell_where_their_images_lay(image: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    cf.save_page(torch.rand(2, 3, 4), path, provenance=cf.Provenance(layer="conv", image=image))
    assert [each["name"] for each in catalogue_in(path)["runs"][0]["images"]] == ["cat.jpg"]
    assert "somebody" not in _plain(path)


@pytest.mark.parametrize("out", ["page.html", "page"])
def test_page_of_atlases_does_not_tell_where_their_images_lay(out: str, tmp_path: Path) -> None:
    maps = torch.arange(24.0).reshape(2, 3, 4)
    atlas = tmp_path / "a.atlas"
    cf.save_atlas(maps, atlas, provenance=cf.Provenance(layer="conv", image="/home/somebody/cat.jpg"))
    assert run("page", atlas, "--out", tmp_path / out) == cli.DONE
    if out == "page.html":
        text = _plain(tmp_path / out)
        (payload,) = re.findall(r'type="text/plain" id="a[^"]*">([^<]*)<', text)
    else:
        text = (tmp_path / out / "index.html").read_text()
        (payload,) = re.findall(r'"a-0-0-0","([^"]*)"', (tmp_path / out / "data" / "a-0-0-0.js").read_text())
    packed = base64.b64decode(payload)
    assert "somebody" not in text + zlib.decompress(packed).decode("latin-1")
    read = parse_atlas(packed, "a")
    assert read.provenance.image == "cat.jpg"
    assert torch.equal(read.index, cf.read_atlas(atlas).index)


def test_kernels_of_a_model_that_takes_blue_first_are_shown_in_their_colours(
    model: str, cat: Path, tmp_path: Path
) -> None:
    kernels = []
    for order in ("rgb", "bgr"):
        path = tmp_path / f"{order}.html"
        assert run("page", model, cat, "--layer", "conv", "--channel-order", order, "--out", path) == cli.DONE
        (packed,) = re.findall(r'type="text/plain" id="k-0-0">([^<]*)<', path.read_text())
        kernels.append(load(zlib.decompress(base64.b64decode(packed)))["kernel"])
    assert (kernels[0][:, ::-1] == kernels[1]).all()
    assert (kernels[0] != kernels[1]).any()


def test_command_in_a_page_has_the_size_of_its_images(model: str, cat: Path, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    assert run("page", model, cat, "--layer", "conv", "--size", "64x96", "--out", path) == cli.DONE
    command = catalogue_in(path)["runs"][0]["command"]
    assert " --size 64x96{options}" in command["shell"]


def test_page_of_a_run_and_of_its_atlases_are_told_from_models(model: str, cat: Path, tmp_path: Path) -> None:
    folder, page = tmp_path / "run", tmp_path / "page.html"
    assert run("run", model, cat, "--layer", "conv", "--save", "atlases", "--out", folder, "-q") == cli.DONE
    for what in (folder, folder / "conv", folder / "conv" / "cat.atlas"):
        assert run("page", what, "--out", page) == cli.DONE
        (shown,) = catalogue_in(page)["runs"]
        assert [layer["name"] for layer in shown["layers"]] == ["conv"]
    assert run("page", folder, "--photos", tmp_path, "--out", tmp_path / "pages") == cli.DONE
    (shown,) = catalogue_in(tmp_path / "pages" / "index.html")["runs"]
    assert shown["images"][0]["photo"] == "p-0-0"
    assert (tmp_path / "pages" / "data" / "p-0-0.js").is_file()


def test_page_names_what_cannot_be_shown_and_shows_the_rest(
    model: str, cat: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, broken = tmp_path / "page.html", tmp_path / "broken.png"
    broken.write_bytes(cat.read_bytes()[:100])
    assert run("page", model, cat, broken, "--layer", "conv", "--out", page, "--json") == cli.PARTLY
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["page"] == str(page)
    assert "broken.png" in document["failed"][0]
    assert "broken.png" in without_notes(said.err)
    catalogue = catalogue_in(page)
    assert catalogue["notes"] == [document["failed"][0].replace(str(broken), broken.name)]
    assert len(catalogue["runs"][0]["images"]) == 1


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["{model}"], cli.FAILED, "no image for"),
        (["{model}", "nothing.png"], cli.FAILED, "no file 'nothing.png'"),
        (["{model}", "{cat}", "--target", "1"], cli.USAGE, "target must go with attribute"),
        (["{model}", "{cat}", "--photos", "."], cli.USAGE, "photos and patches go with a run"),
        (["{model}", "{cat}", "--out", "{taken}"], cli.FAILED, "is no page of the viewer"),
        (["{atlas}", "--size", "64"], cli.USAGE, "size must go with a model"),
        (["{atlas}", "--weights", "x", "--layer", "a"], cli.USAGE, "layer, weights must go with a model"),
        (["{atlas}", "--patches"], cli.USAGE, "Say where they lie: --photos DIR"),
        (["{atlas}", "--photos", "nothing"], cli.USAGE, "photos must be a folder"),
        (["{folder}"], cli.FAILED, "holds no atlases"),
    ],
)
def test_page_refuses_in_one_line(
    argv: list[str],
    code: int,
    said: str,
    model: str,
    cat: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "taken.html").write_text("mine")
    (tmp_path / "folder").mkdir()
    atlas = cf.save_atlas(torch.ones(2, 3, 3), tmp_path / "a.atlas")
    known = {"model": model, "cat": cat, "taken": tmp_path / "taken.html", "folder": tmp_path / "folder"}
    out = [] if "--out" in argv else ["--out", str(tmp_path / "page.html")]
    assert run("page", *(part.format(**known, atlas=atlas) for part in argv), *out) == code
    assert said in error_of(capsys)
    assert not (tmp_path / "page.html").exists()
