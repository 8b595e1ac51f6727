"""Optional packages: what is said where one is missing, and a hub that cannot be reached."""

from __future__ import annotations

import sys

import pytest

from cnnviz_fast.errors import ModelError
from cnnviz_fast.models import download
from cnnviz_fast.models.load import load_model


@pytest.mark.parametrize(("spec", "package", "extra"), [
    ("timm:resnet18", "timm", "timm"),
    ("hf:google/vit-base-patch16-224", "transformers", "hf"),
])  # fmt: skip
def test_load_model_missing_extra_names_its_install_command(
    spec: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError) as caught:
        load_model(spec, weights="none")
    assert f"{extra}: models need the package {package}, which is not installed." in str(caught.value)
    assert f'pip install "cnnviz_fast[{extra}]"' in str(caught.value)


@pytest.mark.parametrize("reachable", [True, False])
def test_hub_or_cache_is_offline_only_while_the_hub_does_not_answer(
    reachable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def knock(url: str) -> None:
        if not reachable:
            raise OSError("no route")

    monkeypatch.setattr(download, "knock", knock)
    with download.hub_or_cache():
        assert constants.HF_HUB_OFFLINE is not reachable
    assert constants.HF_HUB_OFFLINE is False
