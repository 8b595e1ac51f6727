"""transformers' models: local folders, their image processor, and what is said where the network is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.assertions import FLOAT32_PIXELS, assert_close

import cnnviz_fast as cf
from cnnviz_fast.cli import main as cli
from cnnviz_fast.errors import ModelError
from cnnviz_fast.models import download
from cnnviz_fast.models.loaded import example_input

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny ViT and its image processor, as `save_pretrained` writes them."""
    path = tmp_path_factory.mktemp("hf") / "vit"
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=64, patch_size=16
    )
    transformers.AutoModel.from_config(config).save_pretrained(path)
    transformers.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(path)
    return path


def test_load_model_folder_brings_weights_and_preprocessing(folder: Path, photo: Path) -> None:
    model = cf.load_model(f"hf:{folder}", device="cpu")
    independent = transformers.AutoModel.from_pretrained(folder).eval()
    assert all(torch.equal(p, q) for p, q in zip(model.module.parameters(), independent.parameters(), strict=True))
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    with Image.open(photo) as image:
        expected = processor(images=image, return_tensors="pt")["pixel_values"][0]
        assert_close(model.preprocess(image), expected, FLOAT32_PIXELS)
    assert example_input(model).shape == (1, 3, 64, 64)
    assert (model.spec, model.weights) == (f"hf:{folder}", "DEFAULT")


def test_load_model_folder_without_weights_or_processor(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(ModelError, match=r"weights of hf:.* cannot be loaded: .* Use --weights none"):
        cf.load_model(f"hf:{tmp_path}")
    model = cf.load_model(f"hf:{tmp_path}", weights="none", seed=5, device="cpu")
    assert model.weights == "random, seed 5"
    assert example_input(model).shape == (1, 3, 64, 64)


def test_render_folder_draws_tokens_without_their_prefix(folder: Path, photo: Path, tmp_path: Path) -> None:
    argv = ["render", f"hf:{folder}", str(photo), "--layer", "layers.1", "--tile", "16", "--out", str(tmp_path)]
    model = cf.load_model(f"hf:{folder}", device="cpu")
    names = [layer.name for layer in cf.list_layers(model, example_input(model))]
    # transformers 5 calls its blocks layers.1, 4 called them encoder.layer.1.
    argv[4] = next(name for name in ("layers.1", "encoder.layer.1") if name in names)
    assert cli.main(argv) == cli.DONE
    manifest = json.loads(next(tmp_path.glob("*/*.json")).read_text())
    assert (manifest["axes"], manifest["prefix_tokens"]) == ("tokens", 1)
    assert manifest["maps"]["shape"] == [32, 4, 4]


def test_layers_folder_needs_no_weights(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert cli.main(["layers", f"hf:{tmp_path}", "--match", "type:Conv2d", "--json"]) == cli.DONE
    assert json.loads(capsys.readouterr().out)[0]["shape"] == [1, 32, 4, 4]


def test_load_model_name_that_needs_the_network_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def knock(url: str) -> None:
        raise OSError("no route")

    monkeypatch.setattr(download, "knock", knock)
    with pytest.raises(ModelError, match=r"hf model 'nobody/nothing' cannot be read: .* a local folder .* offline"):
        cf.load_model("hf:nobody/nothing", weights="none")


def test_load_model_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        cf.load_model(f"hf:{tmp_path}")


def test_load_model_that_takes_no_images_is_refused(tmp_path: Path) -> None:
    transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
    ).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"takes no images: BertModel has no input pixel_values"):
        cf.load_model(f"hf:{tmp_path}", weights="none")
