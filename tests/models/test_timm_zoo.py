"""timm's models: names, weights, and each model's own preprocessing."""

from __future__ import annotations

import functools
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.assertions import assert_equal_tensors
from support.looping import over

import cnnviz_fast as cf
from cnnviz_fast.cli import main as cli
from cnnviz_fast.errors import ModelError
from cnnviz_fast.models import timm_zoo
from cnnviz_fast.models.load import load_model
from cnnviz_fast.models.loaded import example_input
from cnnviz_fast.options.reading import PreprocessOptions

timm = pytest.importorskip("timm")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the hub's client from its server and its cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def test_load_model_random_weights_follow_the_seed() -> None:
    first, again = (load_model("timm:resnet10t", weights="none", seed=3, device="cpu") for _ in range(2))
    other = load_model("timm:resnet10t", weights="none", seed=4, device="cpu")
    assert torch.equal(first.module.conv1[0].weight, again.module.conv1[0].weight)
    assert not torch.equal(first.module.conv1[0].weight, other.module.conv1[0].weight)
    assert (first.spec, first.weights) == ("timm:resnet10t", "random, seed 3")
    assert not first.module.training


def test_load_model_preprocessing_is_that_of_the_data_config(photo: Path) -> None:
    model = load_model("timm:mobilevit_xxs", weights="none", device="meta")
    config = timm.data.resolve_model_data_config(model.module)
    assert config["mean"] == (0.0, 0.0, 0.0)  # unlike ImageNet's
    expected = timm.data.create_transform(**config, is_training=False)
    with Image.open(photo) as image:
        assert torch.equal(model.preprocess(image), expected(image))
        assert torch.equal(pickle.loads(pickle.dumps(model.preprocess))(image), expected(image))
    assert example_input(model).shape == (1, 3, 256, 256)


def test_load_model_preprocessing_takes_options(photo: Path) -> None:
    options = PreprocessOptions(mean=(0, 0, 0), std=(1, 1, 1), interpolation="nearest")
    model = load_model("timm:resnet10t", weights="none", device="meta", preprocess=options)
    config = {**timm.data.resolve_model_data_config(model.module), "mean": (0, 0, 0), "std": (1, 1, 1)}
    expected = timm.data.create_transform(**{**config, "interpolation": "nearest"}, is_training=False)
    with Image.open(photo) as image:
        assert torch.equal(model.preprocess(image), expected(image))


def test_load_model_checkpoint_is_loaded(tmp_path: Path) -> None:
    trained = timm.create_model("resnet10t", pretrained=False)
    torch.save(trained.state_dict(), tmp_path / "net.pth")
    model = load_model("timm:resnet10t", weights=tmp_path / "net.pth", device="cpu")
    assert torch.equal(model.module.fc.weight, trained.fc.weight)
    assert model.weights == "net.pth"


@pytest.mark.parametrize(("classes", "count"), [(1000, 1000), (21843, 21843), (7, None)])
def test_load_model_pretrained_weights_name_their_classes(
    classes: int, count: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = timm.create_model("resnet10t", num_classes=classes)
    monkeypatch.setattr(timm_zoo, "pretrained", lambda name, arguments: trained)
    categories = load_model("timm:resnet10t", device="cpu").categories
    assert categories is None if count is None else len(categories) == count
    if count == 1000:
        assert "golden retriever" in categories[207]


@over(("spec", "weights", "said"), [
    ("timm:resnet5o", "none", r"no model 'resnet5o' in timm .*Closest: 'resnet50'"),
    ("timm:resnet50.nothing", "none", r"no weights 'nothing' of resnet50 in timm .* There are .*a1_in1k"),
    ("timm:resnet50", "a1_in2k", r"no weights 'a1_in2k' of resnet50"),
    ("timm:", "none", r"no model '' in timm"),
])  # fmt: skip
def test_load_model_unknown_name_is_one_line(spec: str, weights: str, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        load_model(spec, weights=weights)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("weights", [None, "DEFAULT", "a1_in1k"])
def test_load_model_weights_that_cannot_be_downloaded_name_the_way_out(weights: str | None) -> None:
    with pytest.raises(ModelError, match=r"weights of timm:resnet18\S* cannot be loaded: .* Use weights='none'"):
        load_model("timm:resnet18", weights=weights)


def test_layers_input_is_the_models_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["layers", "timm:swinv2_cr_tiny_ns_224", "--json", "--match", "patch_embed"]) == cli.DONE
    assert json.loads(capsys.readouterr().out)[0]["shape"][0] == 1
    assert cli.main(["layers", "timm:mobilevit_xxs", "--json", "--match", "stem"]) == cli.DONE
    assert json.loads(capsys.readouterr().out)[0]["shape"] == [1, 16, 128, 128]


def test_load_model_arguments_reach_create_model() -> None:
    model = load_model("timm:resnet10t", weights="none", arguments={"num_classes": 7, "in_chans": 1}, device="cpu")
    assert model.spec == "timm:resnet10t(num_classes=7, in_chans=1)"
    assert model.module.fc.out_features == 7
    assert model.module.conv1[0].in_channels == 1
    with pytest.raises(ModelError, match=r"timm:resnet10t\(depht=7\) cannot be built: TypeError: .*'depht'\.$"):
        load_model("timm:resnet10t", weights="none", arguments={"depht": 7})


@over(("name", "arguments", "shape"), [
    ("resnet18", {"in_chans": 1}, (1, 1, 224, 224)), ("vit_tiny_patch16_224", {"in_chans": 1}, (1, 1, 224, 224)),
    ("vit_tiny_patch16_224", {"img_size": 96}, (1, 3, 96, 96)), ("resnet18", {"num_classes": 3}, (1, 3, 224, 224)),
])  # fmt: skip
def test_load_model_preprocessing_fits_what_arguments_have_built(
    name: str, arguments: dict[str, int], shape: tuple[int, ...]
) -> None:
    model = cf.load_model(f"timm:{name}", weights="none", arguments=arguments)
    batch = cf.load_images(np.zeros((300, 400, 3), np.uint8), model)
    assert batch.shape == shape
    cf.capture(model, batch, -1)


def test_load_model_of_six_channels_takes_arrays() -> None:
    model = cf.load_model("timm:resnet18", weights="none", arguments={"in_chans": 6})
    assert cf.load_images(np.zeros((6, 64, 64), np.float32), model).shape == (1, 6, 64, 64)


def older_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Name the weights of a ConvNeXt as its authors' files do."""
    names = [
        (r"stem\.", "downsample_layers.0."),
        (r"stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
        (r"stages\.(\d)\.blocks\.", r"stages.\1."),
        ("conv_dw", "dwconv"), (r"mlp\.fc(\d)", r"pwconv\1"), (r"head\.norm", "norm"), (r"head\.fc", "head"),
    ]  # fmt: skip
    return {functools.reduce(lambda name, pair: re.sub(*pair, name), names, key): one for key, one in state.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_load_model_takes_the_older_names_of_weights_that_timm_takes(tmp_path: Path, prefix: str) -> None:
    state = timm.create_model("convnext_atto").state_dict()
    older = older_names(state)
    assert "downsample_layers.0.0.weight" in older
    torch.save({"model": {f"{prefix}{name}": one for name, one in older.items()}}, tmp_path / "w.pth")
    loaded = load_model("timm:convnext_atto", weights=tmp_path / "w.pth", device="cpu", strict_weights=True)
    found = loaded.module.state_dict()
    for name, one in state.items():
        assert_equal_tensors(found[name], one)


def test_load_model_makes_no_values_that_timm_would_resample(tmp_path: Path) -> None:
    larger = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=1).state_dict()
    torch.save(larger, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"pos_embed is \(1, 17, 192\), must be \(1, 5, 192\)"):
        load_model("timm:vit_tiny_patch16_224", weights=tmp_path / "w.pth", arguments={"img_size": 32, "depth": 1})
