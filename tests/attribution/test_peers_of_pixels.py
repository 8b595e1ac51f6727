"""Gradients of pixels beside captum's, to the last bit on networks of modules; and where captum is wrong, who is right.

Run where it is installed: pip install captum; pytest -m long tests/attribution/test_peers_of_pixels.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision.models as zoo
from support.assertions import COMPLETE, PEERS, SLOPES_OF_A_ZOO, assert_apart, assert_close
from torch import nn
from torch.nn import functional as F

import cnnviz_fast as cf
from cnnviz_fast.errors import CaptureError

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]  # what peers have to say

PX = 64
CLASSES = [3, 7]
MODELS: dict[str, Callable[[], nn.Module]] = {
    "resnet50": zoo.resnet50,
    "vgg16_bn": zoo.vgg16_bn,
    "densenet121": zoo.densenet121,
    "mobilenet_v3_large": zoo.mobilenet_v3_large,
    "convnext_tiny": zoo.convnext_tiny,
    "vit_b_16": lambda: zoo.vit_b_16(image_size=PX),
    "swin_t": zoo.swin_t,
}
FUNCTIONAL = ["densenet121"]
"""Networks that call a rectifier as a function."""
SMOOTH = ["convnext_tiny", "vit_b_16", "swin_t"]
"""Networks without rectifiers."""
RULES = {"guided": "GuidedBackprop", "deconvolution": "Deconvolution"}


def made(make: Callable[[], nn.Module]) -> tuple[nn.Module, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, batch = make().eval(), torch.randn(2, 3, PX, PX)
        head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        nn.init.normal_(head.weight)  # which is 0 in a new ViT
    return model, batch


def ours(model: nn.Module, batch: torch.Tensor, method: str, **how: Any) -> torch.Tensor:
    maps = cf.attribute(model, batch, method, target=torch.tensor(CLASSES), **how)
    assert isinstance(maps, torch.Tensor)
    return maps


def captums(kind: str, model: nn.Module, batch: torch.Tensor, **how: Any) -> torch.Tensor:
    attr = pytest.importorskip("captum.attr")
    found: torch.Tensor = getattr(attr, kind)(model).attribute(batch.clone().requires_grad_(), target=CLASSES, **how)
    return found.detach()


@pytest.mark.parametrize("name", MODELS)
def test_gradients_equal_captums(name: str) -> None:
    model, batch = made(MODELS[name])
    assert torch.equal(ours(model, batch, "gradient"), captums("Saliency", model, batch, abs=False))
    assert torch.equal(ours(model, batch, "input-x-gradient"), captums("InputXGradient", model, batch))
    expected = captums("IntegratedGradients", model, batch, n_steps=12).float()
    scale = expected.abs().max()
    assert_close(ours(model, batch, "integrated-gradients", steps=12) / scale, expected / scale, PEERS)


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("name", [name for name in MODELS if name not in (*FUNCTIONAL, *SMOOTH)])
def test_rules_equal_captums_on_modules(name: str, method: str) -> None:
    model, batch = made(MODELS[name])
    assert torch.equal(ours(model, batch, method), captums(RULES[method], model, batch))


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("name", SMOOTH)
def test_rules_are_refused_where_captum_gives_the_plain_gradient(name: str, method: str) -> None:
    model, batch = made(MODELS[name])
    with pytest.raises(CaptureError, match="GELU"):
        ours(model, batch, method)
    assert torch.equal(captums(RULES[method], model, batch), ours(model, batch, "gradient"))


class Rewritten(nn.Module):
    """DenseNet with its last rectifier as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.of = zoo.densenet121()
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.of.classifier(self.relu(self.of.features(x)).mean((2, 3)))


@pytest.mark.parametrize("method", RULES)
def test_rules_on_a_functional_network_equal_captums_on_the_same_of_modules(method: str) -> None:
    model, batch = made(zoo.densenet121)
    rewritten, _ = made(Rewritten)
    expected, scale = captums(RULES[method], rewritten, batch), captums(RULES[method], rewritten, batch).abs().max()
    assert_close(ours(model, batch, method) / scale, expected / scale, PEERS)
    assert_apart(captums(RULES[method], model, batch) / scale, expected / scale)


class Functional(nn.Module):
    """Rectifiers as functions only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 5, 2), nn.Conv2d(8, 16, 3, 2), nn.Linear(16, 9)
        self.rectifier: Callable[[torch.Tensor], torch.Tensor] = F.relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rectifier(self.second(self.rectifier(self.first(x)))).mean((2, 3)))


class OfModules(Functional):
    """The same with a module."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.rectifier = self.relu


@pytest.mark.parametrize("method", RULES)
def test_rules_on_functions_alone_where_captum_gives_the_plain_gradient(method: str) -> None:
    model, batch = made(Functional)
    of_modules, _ = made(OfModules)
    plain = captums(RULES[method], model, batch)
    assert torch.equal(plain, ours(model, batch, "gradient"))
    assert torch.equal(ours(model, batch, method), ours(of_modules, batch, method))
    assert torch.equal(ours(model, batch, method), captums(RULES[method], of_modules, batch))


@pytest.mark.parametrize("name", MODELS)
def test_gradient_is_the_slope_of_the_score(name: str) -> None:
    """Finite differences in float64 along the gradient, in which it is its own norm."""
    model, batch = made(MODELS[name])
    model, batch = model.double(), batch.double()
    gradient = ours(model, batch, "gradient").double()
    norm = gradient.flatten(1).norm(dim=1)
    step = 1e-7 * gradient / norm[:, None, None, None]
    with torch.no_grad():
        slope = (model(batch + step) - model(batch - step))[torch.arange(2), CLASSES] / 2e-7
    assert_close(slope, norm, SLOPES_OF_A_ZOO)


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16"])
def test_integrated_gradients_of_256_steps_are_complete(name: str) -> None:
    model, batch = made(MODELS[name])
    maps = ours(model, batch, "integrated-gradients", steps=256)
    with torch.no_grad():
        difference = (model(batch) - model(torch.zeros_like(batch)))[torch.arange(2), CLASSES]
    assert_close(maps.sum((1, 2, 3)), difference, COMPLETE)
