"""`cnnviz attribute`: what it writes and prints, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.assertions import FLOAT32_SUMS, assert_close
from support.command_line import error_of, run, without_notes

import cnnviz_fast as cf
from cnnviz_fast.cli import main as cli

PHOTOS = Path(cf.__file__).parent / "diagnostics" / "photos"


def test_attribute_writes_a_sheet_for_each_layer_and_image(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = [PHOTOS / "cat.jpg", PHOTOS / "coffee.jpg"]
    assert run("attribute", "cnnviz:small", *photos, "--layer", "stage4", "stage5", "--target", "top2", "cup",
               "--tile", 56, "--out", out) == cli.DONE  # fmt: skip
    written = [out / f"gradcam/{layer}/{name}.png" for name in ("cat", "coffee") for layer in ("stage4", "stage5")]
    assert capsys.readouterr().out.split() == list(map(str, written))
    manifest = json.loads(written[0].with_suffix(".json").read_text())
    targets = manifest["attribution"]["targets"]
    assert manifest["attribution"]["method"] == "gradcam"
    assert [target["target"] for target in targets][::2] == ["2 cat", "4 cup"]
    model = cf.load_model("cnnviz:small")
    batch = cf.load_images(photos[0], model)
    heat = cf.attribute(model, batch, "gradcam", "stage4", ["top2", 4])
    assert isinstance(heat, torch.Tensor)
    ends = torch.tensor([[tile["min"], tile["max"]] for tile in manifest["tiles"]])
    assert_close(ends[:, 1], heat[0].amax((1, 2)), FLOAT32_SUMS)
    assert_close(ends[:, 0], heat[0].amin((1, 2)), FLOAT32_SUMS)


def test_attribute_lies_over_the_photo_in_colours_of_its_sign(out: Path) -> None:
    assert run("attribute", "cnnviz:small", PHOTOS / "cat.jpg", "--method", "hirescam", "--layer", "stage3",
               "--target", "cat", "--tile", 56, "--out", out) == cli.DONE  # fmt: skip
    assert run("attribute", "cnnviz:small", PHOTOS / "cat.jpg", "--layer", "stage5", "--colormap", "gray",
               "--target", "cat", "--tile", 56, "--out", out) == cli.DONE  # fmt: skip
    signed, chosen = (
        json.loads((out / path).read_text()) for path in ("hirescam/stage3/cat.json", "gradcam/stage5/cat.json")
    )
    assert signed["overlay"]["source"] == chosen["overlay"]["source"] == "input"
    assert (signed["options"]["colormap"], signed["options"]["normalize"]) == ("coolwarm", "symmetric")
    assert (chosen["options"]["colormap"], chosen["options"]["normalize"]) == ("gray", "channel")
    assert np.asarray(Image.open(out / "hirescam/stage3/cat.png")).ndim == 3


def test_attribute_heat_lies_at_the_receptive_fields_where_it_is_asked_to(model: str, cat: Path, out: Path) -> None:
    argv = ["attribute", model, cat, "--size", 64, "--tile", 64, "--plain"]
    for align in ("center", "field"):
        for more in (("--layer", "conv"), ("--method", "gradient")):
            assert run(*argv, *more, "--align", align, "--out", out / align) == cli.DONE
    of_layers, of_pixels = (
        [(out / align / path).read_bytes() for align in ("center", "field")]
        for path in ("gradcam/conv/cat.png", "gradient/cat.png")
    )
    assert of_layers[0] != of_layers[1]
    assert of_pixels[0] == of_pixels[1]


def test_attribute_one_file_and_json(model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = out.with_suffix(".png")
    argv = ["attribute", model, cat, "--layer", "conv", "--method", "scorecam", "--chunk", 4, "--size", 64]
    assert run(*argv, "--out", file, "--json") == cli.DONE
    assert json.loads(capsys.readouterr().out)["files"] == [{"image": str(cat), "layer": "conv", "path": str(file)}]


VIT = """
from torchvision.models import VisionTransformer

def make():
    return VisionTransformer(64, 16, 2, 2, 32, 64, num_classes=4)
"""


def test_attribute_attention_is_a_tile_for_each_head_and_with_targets_for_each_of_these(
    cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = cat.with_name("vit.py")
    file.write_text(VIT)
    argv = ["attribute", f"{file}:make", cat, "--size", 64, "--weights", "none", "--out", out]
    last = "encoder.layers.encoder_layer_1"
    assert run(*argv, "--method", "attention", "--layer", last, "--query", "1,2") == cli.DONE
    assert run(*argv, "--method", "rollout", "--target", "1", "3") == cli.DONE
    written = [out / method / f"{last}.self_attention" / "cat.png" for method in ("attention", "rollout")]
    assert capsys.readouterr().out.split() == list(map(str, written))
    attention, rollout = (json.loads(each.with_suffix(".json").read_text()) for each in written)
    assert attention["maps"]["shape"] == [2, 4, 4]
    assert attention["attribution"] == {"method": "attention", "targets": None}
    assert [target["target"] for target in rollout["attribution"]["targets"]] == ["1", "3"]
    assert attention["overlay"]["source"] == rollout["overlay"]["source"] == "input"


def test_attribute_image_that_cannot_be_read_does_not_stop_the_others(
    model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = cat.with_name("broken.png")
    broken.write_bytes(cat.read_bytes()[:60])
    assert run("attribute", model, broken, cat, "--layer", "conv", "--size", 64, "--out", out) == cli.PARTLY
    said = capsys.readouterr()
    assert said.out.split() == [str(out / "gradcam/conv/cat.png")]
    assert "broken.png" in said.err
    assert without_notes(said.err).endswith("1 of 2 images failed.\n")


REFUSED = {
    "no such method": (["--method", "grad"], "method must be one of gradcam"),
    "a name without names": (["--target", "tabby"], "as this model's classes have no names, got 'tabby'"),
    "a class that is not there": (["--target", "4"], "target must be a class from 0 to 3 for this model, got 4"),
    "no such layer": (["--layer", "convv"], "no layer 'convv'"),
    "another method's option": (["--chunk", "2"], "chunk goes with scorecam, ablationcam, gradient, "),
    "no patch": (["--method", "attention", "--query", "7"], "query must be the row and column of a patch"),
    "no chunk": (["--chunk", "0"], "chunk must be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_attribute_bad_input_is_one_line(
    case: str, model: str, cat: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, message = REFUSED[case]
    argv = ["attribute", model, cat, "--layer", "conv", "--size", 64, "--out", out, "--weights", "none"]
    assert run(*argv, *given) == cli.USAGE
    assert message in without_notes(capsys.readouterr().err)


def test_attribute_missing_image_is_refused_before_the_model(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("attribute", "resnet50", "nowhere.jpg", "--out", out) == cli.FAILED
    assert "no file 'nowhere.jpg'" in error_of(capsys)
