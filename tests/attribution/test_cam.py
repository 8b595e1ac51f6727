"""Class activation maps by their definitions, with autograd on the whole network."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from support.assertions import FLOAT32_SUMS, assert_close
from support.heat import DEFINITIONS, ClassToken, Residual, activations_and_gradient, eigencam, images, made
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.attribution.api import METHODS
from cnnviz_fast.errors import CaptureError, OptionError, ShapeError
from cnnviz_fast.options.attribution import METHOD_NAMES, AttributionOptions


def by_definition(method: str, model: nn.Module, batch: torch.Tensor, layer: str, classes: list[int]) -> torch.Tensor:
    pair = activations_and_gradient(model, batch, layer, classes)
    maps = [DEFINITIONS[method](*each) for each in zip(*(of.double().numpy() for of in pair), strict=True)]
    return torch.from_numpy(np.stack(maps)).float()


@pytest.mark.parametrize("layer", ["first", "second", "third", "norm"])
@pytest.mark.parametrize("method", DEFINITIONS)
def test_attribute_equals_the_definition(method: str, layer: str) -> None:
    model, batch, classes = made(Residual), images(), [2, 0, 5]
    heat = cf.attribute(model, batch, method, layer, torch.tensor(classes))
    assert_close(heat, by_definition(method, model, batch, layer, classes), FLOAT32_SUMS)


@pytest.mark.parametrize("layer", ["first", "third"])
def test_attribute_eigencam_is_the_first_singular_vector(layer: str) -> None:
    # `first` has more positions than channels, `third` with an image of 8 px fewer.
    model, batch = made(Residual), images(px=32 if layer == "first" else 8)
    activations, _ = activations_and_gradient(model, batch, layer, [0, 0, 0])
    expected = np.stack([eigencam(each) for each in activations.double().numpy()])
    assert_close(cf.attribute(model, batch, "eigencam", layer), expected.astype(np.float32), FLOAT32_SUMS)


def test_attribute_cam_is_the_sum_with_the_weights_of_the_class() -> None:
    model, batch = made(Residual), images()
    heat = cf.attribute(model, batch, "cam", "relu:2", [4, "top"])
    maps = cf.capture(model, batch, "relu:2")["relu:2"]
    scores = model(batch)
    for n in range(len(batch)):
        for t, index in enumerate([4, int(scores[n].argmax())]):
            expected = sum(model.head.weight[index, c] * maps[n, c] for c in range(8))
            assert_close(heat[n, t], expected, FLOAT32_SUMS)
            # What CAM is: its mean is the score of the class, but for the bias.
            assert_close(heat[n, t].mean(), scores[n, index] - model.head.bias[index], FLOAT32_SUMS)


def test_attribute_cam_of_another_layer_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"global mean goes into 'head'.* and 'third' is none. Take gradcam"):
        cf.attribute(made(Residual), images(), "cam", "third", 1)
    with pytest.raises(CaptureError, match="ends in a linear layer"):
        cf.attribute(
            nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(1), nn.Linear(3600, 2), nn.Tanh()), images(), "cam", 0
        )
    with pytest.raises(OptionError, match="target must be classes for cam"):
        cf.attribute(made(Residual), images(), "cam", "relu:2", lambda output: output[:, 0])


def test_attribute_several_layers_and_targets_take_one_pass() -> None:
    model, batch = made(Residual), images()
    passes: list[int] = []
    model.register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    layers = ["first", "norm", "third"]
    heat = cf.attribute(model, batch, "gradcam", layers, [1, 3, "top2"])
    assert passes == [3]
    assert list(heat) == layers
    assert {name: maps.shape for name, maps in heat.items()} == {
        "first": (3, 4, 16, 16), "norm": (3, 4, 8, 8), "third": (3, 4, 8, 8),
    }  # fmt: skip
    for layer in layers:
        for t, index in enumerate([1, 3]):
            assert_close(heat[layer][:, t], by_definition("gradcam", model, batch, layer, [index] * 3), FLOAT32_SUMS)


def test_attribute_result_is_detached_float32_and_alone() -> None:
    model, batch = made(Residual), images()
    alone = cf.attribute(model, batch[1:2], "layercam", "second", 1)
    heat = cf.attribute(model, batch, "layercam", "second", 1)
    assert not heat.requires_grad
    assert heat.dtype == torch.float32
    assert_close(heat[1:2], alone, FLOAT32_SUMS)


def test_attribute_layer_is_the_last_stage_where_none_is_named() -> None:
    model = cf.load_model("resnet18", weights="none")
    heat = cf.attribute(model, images(1, 64))
    assert_close(heat, cf.attribute(model, images(1, 64), "gradcam", "layer4", "top"), FLOAT32_SUMS)


# Not xgradcam: the channels of normalised tokens add up to nearly 0, by which it divides.
@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "hirescam", "layercam"])
def test_attribute_tokens_are_read_as_maps(method: str) -> None:
    model, batch = made(ClassToken), images()
    heat = cf.attribute(model, batch, method, "blocks.0", 3)
    pair = activations_and_gradient(model, batch, "blocks.0", [3] * 3)
    maps = [each[:, 1:].mT.reshape(3, 16, 4, 4).double().numpy() for each in pair]
    expected = np.stack([DEFINITIONS[method](*each) for each in zip(*maps, strict=True)]).astype(np.float32)
    assert_close(heat, expected, FLOAT32_SUMS)


@pytest.mark.parametrize("layer", ["blocks.1", "blocks.1.linear2", "blocks.1.norm2", "blocks"])
def test_attribute_of_patches_that_the_head_does_not_read_names_the_layer_that_works(layer: str) -> None:
    # What goes into the attention of a torch layer is the output of the block before.
    with pytest.raises(CaptureError, match=r"their gradient is 0, as where .* This one works: 'blocks.0'\."):
        cf.attribute(made(ClassToken), images(), "gradcam", layer, 3)
    assert cf.attribute(made(ClassToken), images(), "gradcam", "blocks.0", 3).any()


def test_attribute_without_a_layer_takes_the_one_that_works() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2, num_classes=4).eval()
    torch.nn.init.normal_(model.head.weight)
    with pytest.warns(
        UserWarning, match="'blocks.1', the last stage, has no gradient at its places; taking 'blocks.1.n"
    ):
        heat = cf.attribute(model, images(1, 64), target=2)
    assert torch.equal(heat, cf.attribute(model, images(1, 64), "gradcam", "blocks.1.norm1", 2))


def test_attribute_without_a_layer_looks_at_the_images_that_are_given() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 15 * 15, 6)).eval()  # of 32 px
    assert torch.equal(cf.attribute(model, images(), target=1), cf.attribute(model, images(), "gradcam", "0", 1))


def test_attribute_layer_that_nothing_comes_of_is_refused() -> None:
    class Aside(Residual):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.relu(self.third(self.relu(self.second(self.first(x)))))
            return super().forward(x)

    with pytest.raises(CaptureError, match="target '3' is not computed from layer 'third:0'"):
        cf.attribute(made(Aside), images(), "gradcam", "third:0", 3)


def test_attribute_gradient_that_is_0_everywhere_is_a_note() -> None:
    model = made(Residual)
    with torch.no_grad():
        model.norm.bias.fill_(-100)
    with pytest.warns(UserWarning, match="gradient of target '3' is 0 throughout layer 'third': it is dead or satur"):
        assert not cf.attribute(model, images(), "gradcam", "third", 3).any()


def test_attribute_signals_and_volumes_keep_their_axes() -> None:
    signals = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))
    batch = torch.randn(2, 2, 40, generator=torch.Generator().manual_seed(0))
    heat = cf.attribute(signals.eval(), batch, "gradcam", "0", [0, 2])
    assert heat.shape == (2, 2, 1, 38)
    volumes = nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3))
    batch = torch.randn(2, 1, 6, 10, 12, generator=torch.Generator().manual_seed(0))
    activations, gradient = activations_and_gradient(volumes.eval(), batch, "0", [1, 1])
    expected = (gradient.mean((2, 3, 4), keepdim=True) * activations).sum(1).relu()
    assert_close(cf.attribute(volumes, batch, "gradcam", "0", 1), expected, FLOAT32_SUMS)


def test_methods_are_those_of_the_command_line() -> None:
    assert tuple(METHODS) == METHOD_NAMES
    takers = {name for method in METHODS.values() for name in method.options}
    assert takers == {field.name for field in dataclasses.fields(AttributionOptions)}


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no such method": ({"method": "grad-cam"}, OptionError, "method must be one of gradcam, .* Closest: 'gradcam'"),
    "a vector": ({"layer": "head"}, ShapeError, r"layer 'head' puts out \(3, 6\), vectors without maps"),
    "an option of others": ({"chunk": 2}, OptionError, "chunk goes with scorecam, ablationcam, gradient, "),
    "a target of none": ({"method": "eigencam", "target": 1}, OptionError, "target must be left out for eigencam"),
    "a layer behind the unit": ({"target": ("first", 1)}, CaptureError, "'third' must run before that of the target"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_attribute_bad_input_is_refused(case: str) -> None:
    options, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        cf.attribute(made(Residual), images(), **{"method": "gradcam", "layer": "third", **options})


def test_attribute_cam_of_an_operation_of_another_forward() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.relu(self.conv(x)).mean((2, 3)))

    model, batch = made(Encoder), images()
    heat = cf.attribute(model, batch, "cam", "relu", 1, forward="encode")
    assert torch.equal(heat, cf.attribute(model, batch, "cam", "relu", [1], forward="encode")[:, 0])
    assert heat.shape == (3, 30, 30)


@pytest.mark.parametrize("method", ["eigencam", "cam"])
def test_attribute_an_image_that_is_not_finite_costs_the_others_nothing(method: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    batch = torch.rand(3, 3, 8, 8)
    expected = cf.attribute(model, batch, method, "0")
    batch[0, 0, 0, 0] = torch.nan
    found = cf.attribute(model, batch, method, "0")
    assert isinstance(found, torch.Tensor)
    assert isinstance(expected, torch.Tensor)
    assert found[0].isnan().any()
    assert torch.equal(found[1:], expected[1:])
