"""Class activation maps beside captum's, torchcam's and pytorch-grad-cam's, before any normalisation.

Run where these are installed: pip install captum torchcam grad-cam; pytest -m zoo tests/attribution/test_peers.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torchvision.models as zoo
from support.assertions import PEERS, assert_apart, assert_close
from support.heat import DEFINITIONS, activations_and_gradient
from torch import nn

import cnnviz_fast as cf

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore")]  # what peers have to say

PX = 64
CLASSES = [3, 7]


class Case(NamedTuple):
    """A network, its layer, and how pytorch-grad-cam is to read it; None for channels first."""

    make: Callable[[], nn.Module]
    layer: str
    reshape: Callable[[torch.Tensor], torch.Tensor] | None = None


def tokens(output: torch.Tensor) -> torch.Tensor:
    side = int((output.shape[1] - 1) ** 0.5)
    return output[:, 1:].mT.reshape(len(output), -1, side, side)


def channels_last(output: torch.Tensor) -> torch.Tensor:
    return output.permute(0, 3, 1, 2)


MODELS = {
    "resnet50": Case(zoo.resnet50, "layer4"),
    "vgg16_bn": Case(zoo.vgg16_bn, "features"),
    "densenet121": Case(zoo.densenet121, "features.denseblock4"),
    "mobilenet_v3_large": Case(zoo.mobilenet_v3_large, "features"),
    "convnext_tiny": Case(zoo.convnext_tiny, "features"),
    "vit_b_16": Case(lambda: zoo.vit_b_16(image_size=PX), "encoder.layers.encoder_layer_11.ln_1", tokens),
    "swin_t": Case(zoo.swin_t, "norm", channels_last),
}
SIGNED = ("convnext_tiny", "vit_b_16", "swin_t")
"""Layers with values of both signs: their sums, by which XGrad-CAM divides, are nearly 0."""


def made(name: str) -> tuple[nn.Module, torch.Tensor]:
    """Make a network and a batch. Scores are large, so that what peers add to a divisor does not show."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[name].make().eval()
        batch = torch.randn(2, 3, PX, PX)
        head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        nn.init.normal_(head.weight, std=1e5)
    return model, batch


def ours(method: str, name: str, model: nn.Module, batch: torch.Tensor, layer: str | None = None) -> torch.Tensor:
    heat = cf.attribute(model, batch, method, layer or MODELS[name].layer, torch.tensor(CLASSES))
    assert isinstance(heat, torch.Tensor)
    return heat


def assert_same(actual: Any, expected: Any) -> None:
    """Compare maps (N, h, w) on the scale of the largest value."""
    assert expected.any()
    largest = abs(expected).max()
    assert_close(actual / largest, expected / largest, PEERS)


def from_torchcam(kind: str, model: nn.Module, batch: torch.Tensor, layer: str) -> torch.Tensor:
    peer = pytest.importorskip("torchcam.methods")
    extractor = getattr(peer, kind)(model, layer)
    (heat,) = extractor(CLASSES, model(batch), normalized=False)
    extractor.remove_hooks()
    found: torch.Tensor = heat.detach()
    return found


def from_grad_cam(
    kind: str, model: nn.Module, batch: torch.Tensor, layer: str, reshape: Callable[..., Any] | None
) -> np.ndarray[Any, Any]:
    peer = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets, module = [ClassifierOutputTarget(index) for index in CLASSES], model.get_submodule(layer)
    with getattr(peer, kind)(model=model, target_layers=[module], reshape_transform=reshape) as cam:
        cam(batch, targets)
        (activations,), (gradients,) = (
            [each.detach().numpy() for each in of]
            for of in (cam.activations_and_grads.activations, cam.activations_and_grads.gradients)
        )
        found: np.ndarray[Any, Any] = cam.get_cam_image(batch, module, targets, activations, gradients)
    return found


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].reshape is None])
def test_gradcam_equals_captum(name: str) -> None:
    attr = pytest.importorskip("captum.attr")
    model, batch = made(name)
    layer = model.get_submodule(MODELS[name].layer)
    expected = attr.LayerGradCam(model, layer).attribute(batch, target=CLASSES, relu_attributions=True)
    assert_same(ours("gradcam", name, model, batch), expected[:, 0].detach())


TORCHCAM = {"gradcam": "GradCAM", "gradcam++": "GradCAMpp", "xgradcam": "XGradCAM", "layercam": "LayerCAM"}


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].reshape is None])
def test_equals_torchcam(name: str) -> None:
    for method, kind in TORCHCAM.items():
        if method != "xgradcam" or name not in SIGNED:
            model, batch = made(name)
            expected = from_torchcam(kind, model, batch, MODELS[name].layer)
            assert_same(ours(method, name, model, batch), expected)


GRAD_CAM = {
    "gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus", "xgradcam": "XGradCAM", "layercam": "LayerCAM",
    "hirescam": "HiResCAM",
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_equals_pytorch_grad_cam(name: str) -> None:
    for method, kind in GRAD_CAM.items():
        if method != "xgradcam" or name not in SIGNED:
            model, batch = made(name)
            expected = from_grad_cam(kind, model, batch, MODELS[name].layer, MODELS[name].reshape)
            rectified = expected if method == "hirescam" else np.maximum(expected, 0)
            assert_same(ours(method, name, model, batch), torch.from_numpy(rectified))


def test_cam_equals_torchcam() -> None:
    peer = pytest.importorskip("torchcam.methods")
    model, batch = made("resnet50")
    extractor = peer.CAM(model, "layer4", "fc")
    with torch.no_grad():
        (expected,) = extractor(CLASSES, model(batch), normalized=False)
    extractor.remove_hooks()
    assert_same(ours("cam", "resnet50", model, batch), expected)


@pytest.mark.parametrize("peer", ["torchcam", "pytorch-grad-cam"])
def test_layer_that_is_written_over_is_as_the_definition_has_it(peer: str) -> None:
    """DenseNet rectifies `features` in place: peers weight what is left, ours is what the layer put out."""
    model, batch = made("densenet121")
    pair = activations_and_gradient(model, batch, "features", CLASSES)
    expected = np.stack([DEFINITIONS["hirescam"](*(of[n].double().numpy() for of in pair)) for n in range(2)])
    assert_same(ours("hirescam", "densenet121", model, batch, "features"), torch.from_numpy(expected).float())
    rectified = np.stack([DEFINITIONS["layercam"](*(of[n].double().numpy() for of in pair)) for n in range(2)])
    assert_same(ours("layercam", "densenet121", model, batch, "features"), torch.from_numpy(rectified).float())
    if peer == "torchcam":
        theirs = from_torchcam("LayerCAM", model, batch, "features").numpy()
    else:
        theirs = np.maximum(from_grad_cam("LayerCAM", model, batch, "features", None), 0)
    largest = abs(rectified).max()
    assert_apart((theirs / largest).astype(np.float32), (rectified / largest).astype(np.float32))


def test_gradient_of_a_layer_is_the_slope_of_the_score() -> None:
    """Finite differences in float64: HiResCAM of one channel is the activation times the slope of the score there."""
    model, batch = made("resnet50")
    model, batch = model.double(), batch.double()
    heat = cf.attribute(model, batch[:1], "hirescam", "layer4", 3)
    maps = cf.capture(model, batch[:1], "layer4")["layer4"]
    module, step = model.get_submodule("layer4"), 1e-4

    def scored(y: int, x: int, by: float) -> float:
        changed = maps.clone()
        changed[:, :, y, x] *= 1 + by
        handle = module.register_forward_hook(lambda *seen: changed)
        with torch.no_grad():
            score = float(model(batch[:1])[0, 3])
        handle.remove()
        return score

    slopes = [[(scored(y, x, step) - scored(y, x, -step)) / (2 * step) for x in range(2)] for y in range(2)]
    assert_same(heat[0], torch.tensor(slopes))
