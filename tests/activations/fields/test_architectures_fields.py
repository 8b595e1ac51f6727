"""Receptive fields of architectures of torchvision and timm, against brute force.

The default run takes two quick ones; `-m zoo` takes all, and prints what each gave (with -s).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.architectures import RepeatedWeights
from support.nan_fields import judged
from torch import nn

import cnnviz_fast as cf

TORCHVISION = (
    "alexnet vgg11 vgg16_bn resnet18 resnet50 wide_resnet50_2 resnext50_32x4d squeezenet1_0 squeezenet1_1 densenet121 "
    "googlenet inception_v3 mobilenet_v2 mobilenet_v3_small mnasnet0_5 mnasnet1_3 shufflenet_v2_x0_5 "
    "shufflenet_v2_x1_0 efficientnet_b0 efficientnet_v2_s regnet_x_400mf regnet_y_400mf convnext_tiny fcn_resnet50 "
    "deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large vit_b_32 swin_t maxvit_t"
)
TIMM = (
    "resnetv2_50 mobilenetv3_small_050 hrnet_w18_small ghostnet_100 mixnet_s dla34 cspresnet50 rexnet_100 vovnet39a "
    "nfnet_l0 convnext_atto repvgg_a0 hgnet_tiny starnet_s1 res2net50_14w_8s mobilenetv4_conv_small poolformer_s12 "
    "convmixer_768_32 dpn48b fasternet_t0 hardcorenas_b inception_next_atto inception_resnet_v2 inception_v4 "
    "nasnetalarge pnasnet5large repghostnet_050 resnest14d selecsls42 skresnet18 tresnet_m legacy_xception xception41p "
    "rdnet_tiny resnetblur50 resnet26d mambaout_femto tf_efficientnet_b0 tf_mobilenetv3_small_minimal_100"
)
SPECS = [f"{zoo}:{name}" for zoo, names in (("torchvision", TORCHVISION), ("timm", TIMM)) for name in names.split()]
QUICK = {"torchvision:squeezenet1_1", "torchvision:shufflenet_v2_x0_5"}
NATIVE = {"torchvision:vit_b_32": 224, "torchvision:maxvit_t": 224, "torchvision:swin_t": 224}
"""Sizes of those that take no other one."""
SMALL_PX = (96, 128)
"""Height and width for the others; Inception's stem needs 75 px."""

_rows: list[tuple[str, int, int, int, int, str]] = []


@pytest.fixture(scope="module", autouse=True)
def _table() -> Any:
    """Print what each model gave, after the last."""
    yield
    print(f"\n{'model':45} exact inside whole overclaimed, and why")  # noqa: T201
    for model, exact, inside, whole, overclaimed, why in _rows:
        print(f"{model:45} {exact:5} {inside:5} {whole:5} {overclaimed:5} {why}")  # noqa: T201


def watched_in(model: nn.Module, batch: torch.Tensor) -> list[str]:
    """List layers with maps: convolutions, poolings and what stands at the top, the first call of each."""
    listed = cf.list_layers(model, batch)
    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.Upsample)
    return [
        layer.name if layer.calls == 1 else f"{layer.name}:0"
        for layer in listed
        if layer.calls and layer.shape is not None and len(layer.shape) == 4
        if layer.name.count(".") < 2 or isinstance(model.get_submodule(layer.name), kinds)
    ]


@pytest.mark.parametrize("spec", [pytest.param(s, marks=() if s in QUICK else pytest.mark.zoo) for s in SPECS])
def test_fields_of_an_architecture_are_those_that_nan_shows(spec: str) -> None:
    if spec.startswith("timm:"):
        pytest.importorskip("timm")
    with RepeatedWeights():
        model = cf.load_model(spec, weights="none", device="cpu").module
    size = (NATIVE[spec],) * 2 if spec in NATIVE else SMALL_PX
    names = watched_in(model, torch.zeros(1, 3, *size))
    fields = cf.receptive_field(model, names, size)
    assert isinstance(fields, dict)
    verdict = judged(model, (3, *size), names)
    reasons = dict.fromkeys(reason for field in fields.values() for reason in field.reasons)
    counts = verdict.exact, verdict.inside, len(verdict.whole), len(verdict.overclaimed)
    _rows.append((spec, *counts, "; ".join(reasons)))
    assert verdict.wrong == []
    assert verdict.exact
