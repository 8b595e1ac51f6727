"""Model specs: what is taken apart, and what is said of files, folders and names that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.looping import over
from torch import nn

from cnnviz_fast.cli import main as cli
from cnnviz_fast.errors import ModelError, advising_flags
from cnnviz_fast.models.load import load_model
from cnnviz_fast.models.specs import spec_with, split_spec
from cnnviz_fast.runs.folder.fingerprint import fingerprint_of


@over(("spec", "parts"), [
    ("ResNet50", ("torchvision", "ResNet50")),
    ("timm:vit_tiny.augreg", ("timm", "vit_tiny.augreg")),
    ("cnnviz:small", ("cnnviz", "small")),
    ("hf:/models/a:b", ("hf", "/models/a:b")),
    ("hf:whole.pth", ("hf", "whole.pth")),
    ("pkg.net:make", ("pkg.net", "make")),
    ("C:\\models\\net.py:make", ("C:\\models\\net.py", "make")),
])  # fmt: skip
def test_split_spec_parts(spec: str, parts: tuple[str, str]) -> None:
    assert split_spec(spec) == parts


def test_spec_with_shows_the_arguments() -> None:
    assert spec_with("net.py:make", {"width": 8, "act": "relu"}) == "net.py:make(width=8, act='relu')"
    assert spec_with("net.py:make", {}) == spec_with("net.py:make", None) == "net.py:make"


def test_load_model_arguments_reach_every_source_and_the_record(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\ndef make(width=4):\n    return nn.Conv2d(3, width, 3)")
    model = load_model(f"{tmp_path / 'net.py'}:make", arguments={"width": 9}, device="cpu")
    assert model.module.out_channels == 9
    assert model.spec == f"{tmp_path / 'net.py'}:make(width=9)"
    model = load_model("squeezenet1_1", weights="none", arguments={"num_classes": 7}, device="meta")
    assert model.module.classifier[1].out_channels == 7
    assert model.spec == "torchvision:squeezenet1_1(num_classes=7)"


@pytest.mark.parametrize("spec", ["cat.png", "photos/Cat.JPG", "./cat.tiff"])
def test_load_model_image_in_its_place_says_the_order(spec: str) -> None:
    with pytest.raises(ModelError, match=r"an image\. The model comes first: visualize\(model, images, layers"):
        load_model(spec)
    with advising_flags(), pytest.raises(ModelError, match=r"The model comes first: cnnviz render MODEL IMAGE\.$"):
        load_model(spec)


@pytest.mark.parametrize(("spec", "weights", "said"), [
    ("squeezenet1_1", "none", r"torchvision:squeezenet1_1 cannot be built: TypeError: .*'depht'"),
    (nn.Identity(), None, r"arguments must not be given with a module\. Give them to what makes it\."),
])  # fmt: skip
def test_load_model_arguments_that_do_not_fit_are_one_line(spec: Any, weights: str | None, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        load_model(spec, weights=weights, arguments={"depht": 7})
    assert "\n" not in str(caught.value)


def test_load_model_ready_module_is_seeded_where_its_file_runs(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\nmodel = nn.Conv2d(3, 4, 3)")
    first, again, other = (load_model(f"{tmp_path / 'net.py'}:model", seed=seed, device="cpu") for seed in (3, 3, 4))
    assert torch.equal(first.module.weight, again.module.weight)
    assert not torch.equal(first.module.weight, other.module.weight)


class Net(nn.Module):
    """A model that a user pickles whole."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def _saved(folder: Path, kind: str) -> Path:
    """Write a file of one kind as its users do."""
    model = Net().eval()
    path = folder / kind.replace(" ", "_")
    if kind == "state.pth":
        torch.save(model.state_dict(), path)
    elif kind == "old.pth":
        torch.save({"state_dict": model.state_dict(), "epoch": 3}, path, _use_new_zipfile_serialization=False)
    elif kind in ("whole.pth", "whole.ckpt"):
        torch.save(model, path)
    elif kind == "script.pt":
        torch.jit.freeze(torch.jit.trace(model, torch.zeros(1, 3, 8, 8))).save(path)
    elif kind == "exported.pt2":
        torch.export.save(torch.export.export(model, (torch.zeros(1, 3, 8, 8),)), path)
    elif kind == "weights.safetensors":
        save_file(model.state_dict(), path)
    else:
        path.write_bytes(b"ONNX or anything else")
    return path


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(("kind", "said"), [
    ("state.pth", r"a checkpoint: weights without the model\. Name the model that they .* weights='.*state\.pth'\.$"),
    ("old.pth", r"a checkpoint: weights without the model"),
    ("weights.safetensors", r"a checkpoint: weights without the model"),
    ("whole.pth", r"pickled objects \(.*\.Net\), which hold code and are never loaded\. If you trust the file,"),
    ("whole.ckpt", r"pickled objects \(.*\.Net\)"),
    ("script.pt", r"a TorchScript archive, which runs no hooks inside\. Pass the module that it was made of"),
    ("exported.pt2", r"a program of torch\.export\. Load it in Python and pass it: load_model\(torch\.export\.load\("),
    ("broken.pth", r"a file that is no checkpoint of torch"),
    ("net.onnx", r"an ONNX graph, which has no modules of PyTorch\. Name the model that it was made from,"),
    ("net.tflite", r"a TensorFlow Lite graph"),
    ("net.h5", r"weights without the model. Name the model that they belong to, and the file with weights=PATH"),
])  # fmt: skip
def test_load_model_file_that_builds_nothing_says_what_it_is(tmp_path: Path, kind: str, said: str) -> None:
    path = _saved(tmp_path, kind)
    with pytest.raises(ModelError, match=rf"^model must be a model that can be built, got '.*', {said}") as caught:
        load_model(str(path))
    assert "\n" not in str(caught.value)


def test_load_model_file_that_is_not_there_is_said() -> None:
    with pytest.raises(ModelError, match=r"got 'whole\.pth', the name of a file of weights, and there is no such file"):
        load_model("whole.pth")


def test_load_model_folders_say_what_to_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "vit"
    there.mkdir()
    with pytest.raises(ModelError, match=r"got the folder '.*vit'\. It has no config\.json of transformers"):
        load_model(str(there))
    (there / "config.json").write_text(json.dumps({"model_type": "vit"}))
    save_file(Net().state_dict(), there / "model.safetensors")
    for spec in (f"{there}", f"{there}/"):
        with pytest.raises(ModelError, match=rf"Name it as a model of transformers: hf:{spec}\.$"):
            load_model(spec)
    with pytest.raises(ModelError, match=rf"The folder has its configuration: hf:{there}\.$"):
        load_model(str(there / "model.safetensors"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"no model 'vit' in torchvision .* It is a folder here: .* hf:vit\.$"):
        load_model("vit")
    (tmp_path / "squeezenet1_1").mkdir()  # a folder of results, say
    assert load_model("squeezenet1_1", weights="none", device="meta").spec == "torchvision:squeezenet1_1"


@pytest.mark.parametrize(("name", "said"), [
    ("convnextv2_tiny", r"timm has one: timm:convnextv2_tiny\.$"),
    ("resnet50.a1_in1k", r"timm has one: timm:resnet50\.a1_in1k\.$"),
    ("timm/resnet50.a1_in1k", r"It is timm's: timm:resnet50\.a1_in1k\.$"),
    ("Google/ViT-Base-16", r"A model of the Hugging Face hub is hf:Google/ViT-Base-16\.$"),
])  # fmt: skip
def test_load_model_name_of_another_zoo_is_suggested(name: str, said: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ModelError, match=rf"^no model '{name}' in torchvision .*\. {said}"):
        load_model(name)


def test_load_model_file_of_weights_is_advised_as_the_caller_calls(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "w.pth")
    for path in (tmp_path / "w.pth", tmp_path / "missing.pth"):
        with pytest.raises(ModelError, match="and the file with weights="):
            load_model(str(path))
        with advising_flags(), pytest.raises(ModelError, match="and the file with --weights"):
            load_model(str(path))


def test_layers_model_args_are_read_as_python_or_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def make(width, bias=True, kernel=(3, 3), act=None):\n"
        "    assert (bias, act) == (False, 'relu'), (bias, act)\n"
        "    return nn.Sequential(nn.Conv2d(3, width, kernel, bias=bias))"
    )
    argv = ["layers", f"{tmp_path / 'net.py'}:make", "--json", "--model-args", "width=8", "bias=false", "kernel=(1, 3)"]
    assert cli.main([*argv, "act=relu"]) == cli.DONE
    assert json.loads(capsys.readouterr().out)[0]["parameters"] == 8 * 3 * 3
    assert cli.main([*argv[:4], "relu"]) == cli.USAGE
    assert capsys.readouterr().err.startswith("cnnviz: model-args must be NAME=VALUE, got 'relu'.")


def test_fingerprint_of_tells_arguments_apart_that_no_weight_shows(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, gain=1.0):\n"
        "        super().__init__()\n"
        "        self.gain, self.conv = gain, nn.Conv2d(3, 4, 3)\n"
        "    def forward(self, x):\n"
        "        return self.conv(x) * self.gain\n"
    )
    spec = f"{tmp_path / 'net.py'}:Net"
    models = [load_model(spec, arguments={"gain": gain}, device="cpu") for gain in (1.0, 2.0, 2.0)]
    prints = [fingerprint_of(model, ["conv"], {}) for model in models]
    assert prints[0] != prints[1]
    assert prints[1] == prints[2]


def test_run_model_args_are_part_of_what_a_run_is(
    tmp_path: Path, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make(width=4):\n    return nn.Sequential(nn.Conv2d(3, width, 3))"
    )
    argv = ["run", f"{tmp_path / 'net.py'}:make", str(photo), "--layer", "0", "--out", str(tmp_path / "out")]
    argv += ["--workers", "0", "--model-args"]
    assert cli.main([*argv, "width=5"]) == cli.DONE
    assert cli.main([*argv, "width=5"]) == cli.DONE
    assert "1 were done before" in capsys.readouterr().err
    assert cli.main([*argv, "width=6"]) == cli.USAGE
    assert "make(width=5)" in capsys.readouterr().err
