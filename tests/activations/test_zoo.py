"""torchvision's models: names, choice of weights, and what is built without any."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision

from cnnviz_fast.errors import ModelError
from cnnviz_fast.models.torchvision_zoo import (
    adapt_state,
    build_arguments,
    choose_weights,
    is_path,
    known_models,
    weights_of,
)

R50 = torchvision.models.ResNet50_Weights


def names_on_meta(name: str, state: dict[str, torch.Tensor] | None = None) -> list[str]:
    """List a model's parameters and buffers as built with `build_arguments`."""
    with torch.device("meta"):
        return list(torchvision.models.get_model(name, **build_arguments(name, state)).state_dict())


def test_known_models_are_torchvisions_float_models() -> None:
    known = set(known_models())
    assert {"resnet50", "inception_v3", "vit_b_16", "fasterrcnn_resnet50_fpn", "fcn_resnet50"} <= known
    assert {n for n in torchvision.models.list_models() if n not in known} == {
        n for n in torchvision.models.list_models() if n.startswith("quantized_")
    }


def test_weights_of_lists_the_enum_with_default() -> None:
    assert weights_of("resnet50") == dict(R50.__members__)
    assert weights_of("resnet50")["DEFAULT"] is R50.IMAGENET1K_V2


def test_weights_of_unknown_model_names_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"no model 'resnet5o' in torchvision .*\. Closest: 'resnet50'"):
        weights_of("resnet5o")


def test_weights_of_model_registered_by_the_user_without_an_enum_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import _api

    monkeypatch.setitem(_api.BUILTIN_MODELS, "cnnviz_own", lambda weights=None: torch.nn.Identity())
    assert weights_of("cnnviz_own") == {}
    assert choose_weights("cnnviz_own", "none") is None
    with pytest.raises(ModelError, match=r"no weights 'DEFAULT' for cnnviz_own\. There are none, and paths"):
        choose_weights("cnnviz_own", None)


@pytest.mark.parametrize(("weights", "member"), [
    (None, R50.IMAGENET1K_V2),
    ("DEFAULT", R50.IMAGENET1K_V2),
    ("IMAGENET1K_V1", R50.IMAGENET1K_V1),
    ("ResNet50_Weights.IMAGENET1K_V1", R50.IMAGENET1K_V1),
    (R50.IMAGENET1K_V1, R50.IMAGENET1K_V1),
    ("none", None),
    ("None", None),
    ("weights/best.pt", "weights/best.pt"),
    (Path("best"), "best"),
    ("best.safetensors", "best.safetensors"),
])  # fmt: skip
def test_choose_weights_names_none_and_paths(weights: object, member: object) -> None:
    assert choose_weights("resnet50", weights) == member


@pytest.mark.parametrize("weights", ["IMAGENET1K_V3", "default", "ResNet18_Weights.IMAGENET1K_V1", "", True])
def test_choose_weights_unknown_name_lists_the_valid_ones(weights: object) -> None:
    with pytest.raises(ModelError) as caught:
        choose_weights("resnet50", weights)
    assert "for resnet50. There are none, IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT, and paths" in str(caught.value)


def test_choose_weights_nearly_right_name_is_offered() -> None:
    with pytest.raises(ModelError, match=r"Closest: 'IMAGENET1K_V"):
        choose_weights("resnet50", "IMAGENET1K_V3")


def test_is_path_knows_files_separators_and_suffixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").write_bytes(b"x")
    for path in ("plain", "a/b", r"C:\a", "x.pt", "x.PTH", "x.safetensors", "x.ckpt", "x.bin", Path("IMAGENET1K_V1")):
        assert is_path(path), path
    for name in (None, "DEFAULT", "none", "IMAGENET1K_V1"):
        assert not is_path(name), name


def test_build_arguments_download_nothing_for_a_backbone() -> None:
    assert build_arguments("fasterrcnn_resnet50_fpn", None) == {"weights": None, "weights_backbone": None}
    assert build_arguments("resnet50", None) == {"weights": None}


def test_build_arguments_auxiliary_heads_are_those_of_default_weights() -> None:
    assert not any("aux" in name for name in names_on_meta("googlenet"))
    assert any(name.startswith("AuxLogits.") for name in names_on_meta("inception_v3"))
    assert any(name.startswith("aux_classifier.") for name in names_on_meta("fcn_resnet50"))


def test_build_arguments_auxiliary_heads_follow_the_checkpoint() -> None:
    weight = torch.ones(1)
    assert not any(name.startswith("AuxLogits.") for name in names_on_meta("inception_v3", {"fc.weight": weight}))
    with_aux = names_on_meta("inception_v3", {"module.AuxLogits.fc.weight": weight})
    assert any(name.startswith("AuxLogits.") for name in with_aux)
    assert not any("aux" in name for name in names_on_meta("fcn_resnet50", {"classifier.0.weight": weight}))
    assert any("aux" in name for name in names_on_meta("fcn_resnet50", {"aux_classifier.0.weight": weight}))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_build_arguments_input_is_transformed_as_for_pretrained_weights(name: str) -> None:
    with torch.device("meta"):
        assert torchvision.models.get_model(name, **build_arguments(name, None)).transform_input
        assert torchvision.models.get_model(name, **build_arguments(name, {})).transform_input


def test_adapt_state_densenet_file_gets_the_modules_names() -> None:
    wanted = names_on_meta("densenet121")
    # As in torchvision's file: the dot that its builder takes out.
    stored = [
        name.replace(".norm1.", ".norm.1.").replace(".norm2.", ".norm.2.")
        .replace(".conv1.", ".conv.1.").replace(".conv2.", ".conv.2.")
        for name in wanted
    ]  # fmt: skip
    assert stored != wanted
    state = {f"module.{name}": torch.full((1,), float(i)) for i, name in enumerate(stored)}
    adapt_state("densenet121", state)
    assert {name: value.item() for name, value in state.items()} == {f"module.{n}": i for i, n in enumerate(wanted)}


def test_adapt_state_googlenet_loses_the_training_heads() -> None:
    state = {name: torch.ones(1) for name in ("conv1.w", "aux1.fc1.w", "module.aux2.fc2.w", "inception3a.w")}
    adapt_state("googlenet", state)
    assert list(state) == ["conv1.w", "inception3a.w"]


def test_adapt_state_others_are_left_alone() -> None:
    state = {"aux1.fc1.w": torch.ones(1), "denselayer1.norm.1.w": torch.ones(1)}
    adapt_state("resnet50", state)
    assert list(state) == ["aux1.fc1.w", "denselayer1.norm.1.w"]
