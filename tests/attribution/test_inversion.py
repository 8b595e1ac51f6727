"""`invert`: how near the images of maps come, layer by layer and step by step, and that the model comes back."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from support.assertions import FLOAT32_RATIO, TWO_LEVELS, assert_close, assert_equal_tensors
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.attribution.priors import Colours, Statistics
from cnnviz_fast.diagnostics.demo import PHOTOS
from cnnviz_fast.errors import CaptureError, InputError, OptionError, ShapeError
from cnnviz_fast.models.loaded import as_given

LAYERS = ["stage1.conv1", "stage2", "stage3", "stage5"]


@cache
def small() -> cf.LoadedModel:
    return cf.load_model("cnnviz:small")


@cache
def cat() -> torch.Tensor:
    return cf.load_images(PHOTOS / "cat.jpg", small())[:, :, 64:144, 24:104]


@cache
def inverted() -> cf.Inverted:
    return cf.invert(small(), cat(), LAYERS, steps=40)


def test_psnr_falls_with_depth() -> None:
    last = [float(inverted().psnr[layer][-1, 0]) for layer in LAYERS]
    assert last == sorted(last, reverse=True)
    assert last[0] > 25


def test_psnr_rises_with_steps() -> None:
    for layer in LAYERS:
        course = inverted().psnr[layer][:, 0]
        # From the second checkpoint on: before that the contrast of deep layers' images overshoots.
        assert (course[2:].diff() > 0).all(), layer
        assert course[-1] > course[0], layer
        assert inverted().errors[layer][-1, 0] < inverted().errors[layer][0, 0] / 10


def test_psnr_is_that_of_the_images() -> None:
    a, b = (inverted().pixels["stage3"][0], small_pixels(cat())[0])
    assert_close(inverted().psnr["stage3"][-1, 0], -10 * (a - b).square().mean().log10(), FLOAT32_RATIO)


def small_pixels(inputs: torch.Tensor) -> torch.Tensor:
    preprocess = small().preprocess
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (preprocess.mean, preprocess.std))
    return (inputs * std + mean).clamp(0, 1)


def test_maps_alone_give_the_same_images() -> None:
    maps = cf.capture(small(), cat(), ["stage2"])
    found = cf.invert(small(), maps, size="80x80", steps=4)
    assert found.original is None
    assert found.psnr["stage2"].isnan().all()
    assert_equal_tensors(found.images["stage2"], cf.invert(small(), cat(), "stage2", steps=4).images["stage2"])


def test_each_image_of_a_batch_is_found_by_itself() -> None:
    batch = torch.cat([cat(), cat().flip(3)])
    found = cf.invert(small(), batch, ["stage1", "stage2"], steps=3)
    assert found.images["stage2"].shape == batch.shape
    assert found.psnr["stage1"].shape == (4, 2)
    assert_equal_tensors(found.images["stage2"][1:], cf.invert(small(), batch[1:], "stage2", steps=3).images["stage2"])


def test_quick_look_minimises_the_error_of_a_linear_layer_along_its_transpose() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2))
    colours = Colours.of(as_given(model))
    plain = colours.inputs(Statistics.usual(3).mean[None, :, None, None].expand(1, 3, 24, 24))
    target = plain + torch.randn(1, 3, 24, 24) / 10
    found = cf.invert(model, target, "0", steps=0)
    assert found.steps == (0,)
    errors = []
    for share in (0.8, 1.0, 1.2):
        there = plain + share * (found.images["0"] - plain)
        errors.append(float((model(there) - model(target)).square().mean().detach()))
    assert errors[1] == min(errors)


def test_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4)).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.inference_mode():
        cf.invert(model, torch.rand(1, 3, 16, 16), ["0", "2"], steps=2)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None and parameter.is_leaf for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    for name, value in model.state_dict().items():
        assert_equal_tensors(value, state[name])


def test_half_precision_models_run() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3)).to(torch.bfloat16)
    found = cf.invert(model, torch.rand(1, 3, 16, 16), "0", steps=4)
    assert found.errors["0"][-1, 0] < found.errors["0"][0, 0]


@pytest.mark.parametrize(
    ("of", "layers", "options", "error", "says"),
    [
        (torch.zeros(1, 3, 8, 8), None, {}, OptionError, "layers must be named"),
        (torch.zeros(3, 8, 8), "0", {}, ShapeError, r"\(N, C, H, W\)"),
        (torch.zeros(1, 3, 8, 8), "0", {"size": 8}, OptionError, "size must be left out"),
        ({"0": torch.zeros(1, 2, 9, 9)}, None, {"size": 8}, ShapeError, "Give the size"),
        ({"0": torch.zeros(1, 2, 8, 8)}, "0", {"size": 8}, OptionError, "layers must be left out"),
        ([1], None, {}, InputError, "images or maps by layer"),
        (torch.zeros(1, 3, 8, 8), "1", {}, CaptureError, "cuts them before"),
    ],
)
def test_what_cannot_be_inverted_is_said(
    of: object, layers: str | None, options: dict[str, object], error: type[Exception], says: str
) -> None:
    class Cut(nn.Module):
        def forward(self, maps: torch.Tensor) -> torch.Tensor:
            return maps.detach()

    with pytest.raises(error, match=says):
        cf.invert(nn.Sequential(nn.Conv2d(3, 2, 1), Cut()), of, layers, steps=1, **options)


def test_sheet_has_the_image_and_the_psnr_of_each_layer() -> None:
    sheet = inverted().sheet(name="cat", tile=80)
    assert [tile["layer"] for tile in sheet.manifest["tiles"]] == [None, *LAYERS]
    box = sheet.manifest["tiles"][0]["box"]
    shown = torch.from_numpy(sheet.rgb()[box[0] : box[2], box[1] : box[3]]).permute(2, 0, 1)
    assert_close(shown, small_pixels(cat())[0] * 255, TWO_LEVELS)
