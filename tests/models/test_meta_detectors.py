"""Detectors on the meta device: the same layers and shapes as in a real pass, where values do not decide."""

from __future__ import annotations

import copy

import pytest
import torch
from support.architectures import RepeatedWeights, shrunk
from torch import nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD

from cnnviz_fast.activations.listing import LayerInfo, list_layers
from cnnviz_fast.models.load import load_model
from cnnviz_fast.models.meta_detectors import run_without_values


@pytest.mark.parametrize("name", [
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    pytest.param("ssdlite320_mobilenet_v3_large", marks=pytest.mark.zoo),
    pytest.param("retinanet_resnet50_fpn", marks=pytest.mark.zoo),
    pytest.param("fcos_resnet50_fpn", marks=pytest.mark.zoo),
    pytest.param("maskrcnn_resnet50_fpn", marks=pytest.mark.zoo),
    pytest.param("keypointrcnn_resnet50_fpn", marks=pytest.mark.zoo),
])  # fmt: skip
def test_list_layers_without_values_is_as_with_them(name: str) -> None:
    batch = torch.zeros(1, 3, 96, 128)
    with RepeatedWeights():
        models = [load_model(name, weights="none", device=device) for device in ("meta", "cpu")]
    assert_listed_alike(*(list_layers(shrunk(model.module), batch) for model in models))


def test_list_layers_of_a_small_ssd_without_values_is_as_with_them() -> None:
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3, stride=32))
    detector = SSD(trunk, DefaultBoxGenerator([[2]]), (64, 64), num_classes=3).eval()
    on_meta = copy.deepcopy(detector).to("meta")
    run_without_values(on_meta)
    assert_listed_alike(*(list_layers(each, torch.zeros(1, 3, 96, 128)) for each in (on_meta, detector)))


def assert_listed_alike(on_meta: list[LayerInfo], for_real: list[LayerInfo]) -> None:
    assert [(layer.name, layer.calls) for layer in on_meta] == [(layer.name, layer.calls) for layer in for_real]
    for ours, truth in zip(on_meta, for_real, strict=True):
        # From the proposals on, the first axis counts boxes, which values decide.
        regions = ours.name == "rpn" or ours.name.startswith("roi_heads")
        assert (ours.shape or ())[regions:] == (truth.shape or ())[regions:], ours.name


def test_run_without_values_leaves_other_modules_alone() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3))
    before = dict(vars(module))
    run_without_values(module)
    assert vars(module) == before
