"""Class activation maps beside captum's, torchcam's and pytorch-grad-cam's, before any normalisation.

Run where these are installed: pip install captum torchcam grad-cam; pytest -m long tests/attribution/test_peers.py
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

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore")]  # what peers have to say

PX = 64


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
SIGNED = ("mobilenet_v3_large", "convnext_tiny", "vit_b_16", "swin_t")
"""Layers with values of both signs. Of these XGrad-CAM and Grad-CAM++ divide by sums that are nearly 0."""

DIVIDING = ("xgradcam", "gradcam++")


class Made(NamedTuple):
    """A network, a batch of two images, and the highest class of each."""

    model: nn.Module
    batch: torch.Tensor
    classes: list[int]


def made(name: str) -> Made:
    """Make a network and a batch. Scores are large, so that what peers add to a divisor does not show."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[name].make().eval()
        batch = torch.randn(2, 3, PX, PX)
        head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        nn.init.normal_(head.weight, std=1e5)
    with torch.no_grad():
        return Made(model, batch, model(batch).argmax(1).tolist())


def ours(method: str, layer: str, of: Made) -> torch.Tensor:
    heat = cf.attribute(of.model, of.batch, method, layer, torch.tensor(of.classes))
    assert isinstance(heat, torch.Tensor)
    return heat


def assert_same(actual: Any, expected: Any) -> None:
    """Compare maps (N, h, w) on the scale of the largest value."""
    assert expected.any()
    largest = abs(expected).max()
    assert_close(actual / largest, expected / largest, PEERS)


def from_torchcam(kind: str, layer: str, of: Made, *more: str) -> torch.Tensor:
    peer = pytest.importorskip("torchcam.methods")
    extractor = getattr(peer, kind)(of.model, layer, *more)
    (heat,) = extractor(of.classes, of.model(of.batch), normalized=False)
    extractor.remove_hooks()
    found: torch.Tensor = heat.detach()
    return found


def from_grad_cam(kind: str, layer: str, of: Made, reshape: Callable[..., Any] | None = None) -> np.ndarray[Any, Any]:
    peer = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    targets, module = [ClassifierOutputTarget(index) for index in of.classes], of.model.get_submodule(layer)
    with getattr(peer, kind)(model=of.model, target_layers=[module], reshape_transform=reshape) as cam:
        cam(of.batch, targets)
        (activations,), (gradients,) = (
            [each.detach().numpy() for each in of]
            for of in (cam.activations_and_grads.activations, cam.activations_and_grads.gradients)
        )
        found: np.ndarray[Any, Any] = cam.get_cam_image(of.batch, module, targets, activations, gradients, False)
    return found


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].reshape is None])
def test_gradcam_equals_captum(name: str) -> None:
    attr = pytest.importorskip("captum.attr")
    of, layer = made(name), MODELS[name].layer
    peer = attr.LayerGradCam(of.model, of.model.get_submodule(layer))
    expected = peer.attribute(of.batch, target=of.classes, relu_attributions=True)
    assert_same(ours("gradcam", layer, of), expected[:, 0].detach())


TORCHCAM = {"gradcam": "GradCAM", "xgradcam": "XGradCAM", "layercam": "LayerCAM"}


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].reshape is None])
def test_equals_torchcam(name: str) -> None:
    of, layer = made(name), MODELS[name].layer
    for method, kind in TORCHCAM.items():
        if method not in DIVIDING or name not in SIGNED:
            assert_same(ours(method, layer, of), from_torchcam(kind, layer, of))


def test_gradcam_plus_plus_of_torchcam_does_not_divide() -> None:
    """It divides a copy, which it drops: its weights are the sums of cubes. The definition tells who is right."""
    of = made("resnet50")
    pair = activations_and_gradient(of.model, of.batch, "layer4", of.classes)
    defined = np.stack([DEFINITIONS["gradcam++"](*(each[n].double().numpy() for each in pair)) for n in range(2)])
    assert_same(ours("gradcam++", "layer4", of), torch.from_numpy(defined).float())
    activations, gradient = pair
    cubes = (gradient.relu() ** 3).sum((2, 3), keepdim=True)
    assert_same(from_torchcam("GradCAMpp", "layer4", of), (cubes * activations).sum(1).relu())


GRAD_CAM = {
    "gradcam": "GradCAM", "gradcam++": "GradCAMPlusPlus", "xgradcam": "XGradCAM", "layercam": "LayerCAM",
    "hirescam": "HiResCAM",
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_equals_pytorch_grad_cam(name: str) -> None:
    of, (_, layer, reshape) = made(name), MODELS[name]
    for method, kind in GRAD_CAM.items():
        if method not in DIVIDING or name not in SIGNED:
            expected = from_grad_cam(kind, layer, of, reshape)
            rectified = expected if method == "hirescam" else np.maximum(expected, 0)
            assert_same(ours(method, layer, of), torch.from_numpy(rectified))


def test_cam_equals_torchcam() -> None:
    of = made("resnet50")
    assert_same(ours("cam", "layer4", of), from_torchcam("CAM", "layer4", of, "fc"))


@pytest.mark.parametrize("peer", ["torchcam", "pytorch-grad-cam"])
def test_layer_that_is_written_over_is_as_the_definition_has_it(peer: str) -> None:
    """DenseNet rectifies `features` in place: peers weight what is left, ours is what the layer put out."""
    of = made("densenet121")
    pair = activations_and_gradient(of.model, of.batch, "features", of.classes)
    for method in ("hirescam", "gradcam"):
        maps = [DEFINITIONS[method](*(each[n].double().numpy() for each in pair)) for n in range(2)]
        expected = torch.from_numpy(np.stack(maps)).float()
        assert_same(ours(method, "features", of), expected)
    if peer == "torchcam":
        theirs = from_torchcam("GradCAM", "features", of)
    else:
        theirs = torch.from_numpy(from_grad_cam("GradCAM", "features", of)).relu()
    assert_apart(theirs / expected.max(), expected / expected.max())


def test_gradient_of_a_layer_is_the_slope_of_the_score() -> None:
    """Finite differences in float64: HiResCAM is what the score changes by as a place of all channels grows."""
    model, batch, (index, _) = made("resnet50")
    model, batch = model.double(), batch[:1].double()
    heat = cf.attribute(model, batch, "hirescam", "layer4", index)
    maps = cf.capture(model, batch, "layer4")["layer4"]
    module, step = model.get_submodule("layer4"), 1e-4

    def scored(y: int, x: int, by: float) -> float:
        changed = maps.clone()
        changed[:, :, y, x] *= 1 + by
        handle = module.register_forward_hook(lambda *seen: changed)
        with torch.no_grad():
            score = float(model(batch)[0, index])
        handle.remove()
        return score

    slopes = [[(scored(y, x, step) - scored(y, x, -step)) / (2 * step) for x in range(2)] for y in range(2)]
    assert_same(heat[0], torch.tensor(slopes))
