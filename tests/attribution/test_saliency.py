"""Saliency: every method as its article has it, by finite differences and plain loops; and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.assertions import BFLOAT16, COMPLETE, COMPLETE_OF_A_FEW, FLOAT32_SUMS, SLOPES, assert_close
from support.heat import Residual, images, made
from support.quick import quick
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.attribution.api import attribution
from cnnviz_fast.errors import CaptureError, DTypeError, OptionError, ShapeError
from cnnviz_fast.options.attribution import AttributionOptions

OF_PIXELS = [
    "gradient", "input-x-gradient", "smoothgrad", "integrated-gradients", "guided", "deconvolution", "guided-gradcam",
]  # fmt: skip
FEW: dict[str, dict[str, int]] = {"smoothgrad": {"samples": 4}, "integrated-gradients": {"steps": 60}}


def attributed(model: nn.Module, method: str, target: Any = 2, batch: torch.Tensor | None = None, **how: Any) -> Any:
    return cf.attribute(model, images() if batch is None else batch, method, target=target, **how)


def gradient(model: nn.Module, batch: torch.Tensor, target: int = 2) -> torch.Tensor:
    batch = batch.detach().requires_grad_()
    return torch.autograd.grad(model(batch)[:, target].sum(), batch)[0]


def test_gradient_is_the_slope_of_the_score() -> None:
    model, batch = made(Residual).double(), images(2, 16).double()
    found = attributed(model, "gradient", batch=batch)
    assert found.dtype == torch.float32
    step = 1e-5
    for at in [(0, 0, 3, 4), (1, 2, 15, 0), (1, 1, 8, 8)]:
        moved = torch.zeros_like(batch)
        moved[at] = step
        with torch.no_grad():
            slope = (model(batch + moved) - model(batch - moved))[at[0], 2] / (2 * step)
        assert_close(found[at], slope.float(), SLOPES)


def test_input_x_gradient_is_the_product() -> None:
    model = made(Residual)
    assert torch.equal(attributed(model, "input-x-gradient"), images() * gradient(model, images()))


def test_smoothgrad_is_the_mean_over_noisy_images() -> None:
    model, batch = made(Residual), images()
    expected = torch.zeros_like(batch)
    for n, image in enumerate(batch):
        for k in range(5):
            noise = np.random.default_rng((7, k)).standard_normal(image.shape, np.float32)
            noisy = image + 0.2 * (image.max() - image.min()) * torch.from_numpy(noise)
            expected[n] += gradient(model, noisy[None])[0] / 5
    found = attributed(model, "smoothgrad", samples=5, noise=0.2, seed=7)
    assert_close(found, expected, FLOAT32_SUMS)
    assert_close(attributed(model, "smoothgrad", samples=5, noise=0.2, seed=7, chunk=2), expected, FLOAT32_SUMS)
    assert not torch.equal(attributed(model, "smoothgrad", samples=5, noise=0.2, seed=8), found)
    assert_close(attributed(model, "smoothgrad", samples=3, noise=0), gradient(model, batch), FLOAT32_SUMS)


def test_smoothgrad_top_is_that_of_the_image_without_noise() -> None:
    model = made(Residual)
    top = model(images()).argmax(1)
    many = attributed(model, "smoothgrad", "top", samples=4, noise=1)
    assert torch.equal(many, attributed(model, "smoothgrad", top, samples=4, noise=1))


def test_integrated_gradients_is_the_mean_on_the_way() -> None:
    model, batch, start = made(Residual), images(), images().flip(0) / 2
    nodes, weights = np.polynomial.legendre.leggauss(9)
    expected = sum(
        w / 2 * gradient(model, (start + (node + 1) / 2 * (batch - start)).float())
        for node, w in zip(nodes.tolist(), weights.tolist(), strict=True)
    )
    with pytest.warns(UserWarning, match="add up to the difference of the scores within .*% only. Take more steps"):
        found = attributed(model, "integrated-gradients", steps=9, baseline=start, chunk=4)
    assert_close(found, (batch - start) * expected, FLOAT32_SUMS)


@pytest.mark.parametrize(
    "baseline", [0.0, pytest.param(-1.5, marks=pytest.mark.long), images(1)[0] / 2], ids=["black", "dark", "a photo"]
)
def test_integrated_gradients_add_up_to_the_difference_of_the_scores(baseline: float | torch.Tensor) -> None:
    model, options = made(Residual), AttributionOptions(steps=256, baseline=baseline)
    found, _ = attribution(model, images(), "integrated-gradients", None, [0, 3], options=options)
    start = torch.as_tensor(baseline).expand_as(images())
    difference = (model(images()) - model(start))[:, [0, 3]]
    total = found.maps["input"].sum((2, 3, 4))
    assert_close(total, difference, COMPLETE if isinstance(baseline, float) and not baseline else COMPLETE_OF_A_FEW)
    assert_close(found.facts["completeness"]["difference"], difference, FLOAT32_SUMS)
    assert_close(found.facts["completeness"]["gap"], difference - total, FLOAT32_SUMS)


def test_integrated_gradients_of_a_linear_model_take_one_step() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 4))
    batch = images(2, 4)
    expected = batch * model[1].weight[2].reshape(3, 4, 4)
    assert_close(attributed(model, "integrated-gradients", batch=batch, steps=1), expected.detach(), FLOAT32_SUMS)


class Limited(Residual):
    """Has memory for so many images only, and counts how many come at once."""

    most = 3

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        self.seen.append(len(x))
        return super().forward(x)


@pytest.mark.parametrize("method", ["smoothgrad", "integrated-gradients"])
def test_chunks_are_halved_where_memory_runs_out(method: str) -> None:
    expected = attributed(made(Residual), method, batch=images(2), **FEW[method])
    assert_close(attributed(made(Limited), method, batch=images(2), **FEW[method]), expected, FLOAT32_SUMS)
    Limited.most = 0
    try:
        with pytest.raises((MemoryError, cf.CnnvizError), match="memory"):
            attributed(made(Limited), method, batch=images(2), **FEW[method])
    finally:
        Limited.most = 3


@pytest.mark.parametrize("method", ["smoothgrad", "integrated-gradients"])
def test_memory_does_not_grow_with_the_number_of_variants(method: str) -> None:
    sizes: list[int] = []

    class Counting(Residual):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            return super().forward(x)

    option = "samples" if method == "smoothgrad" else "steps"
    attributed(made(Counting), method, batch=images(1), **{option: 100})
    assert max(sizes) == 8
    assert sum(sizes) >= 100


def test_guided_gradcam_is_the_product_resized_to_the_input() -> None:
    model = made(Residual)
    found = attributed(model, "guided-gradcam", [1, 2], layer=["second", "third"])
    assert list(found) == ["second", "third"]
    guided = attributed(model, "guided", [1, 2])
    heat = attributed(model, "gradcam", [1, 2], layer="third")
    resized = nn.functional.interpolate(heat, (32, 32), mode="bilinear")
    assert torch.equal(found["third"], guided * resized[:, :, None])
    one = cf.attribute(model, images(), "guided-gradcam", "third", 2)
    assert isinstance(one, torch.Tensor)
    assert torch.equal(one, found["third"][:, 1])


@pytest.mark.parametrize("method", quick(OF_PIXELS, ["gradient", "smoothgrad", "guided-gradcam"]))
def test_targets_have_an_axis_where_there_are_several(method: str) -> None:
    model, how = made(Residual), {**FEW.get(method, {}), **({"layer": "third"} if "cam" in method else {})}
    several = attributed(model, method, [2, "top", lambda output: output[:, 5]], **how)
    assert several.shape == (3, 3, 3, 32, 32)
    for t, one in enumerate([2, "top", 5]):
        assert_close(attributed(model, method, one, **how), several[:, t], FLOAT32_SUMS)
    rows = attributed(model, method, torch.tensor([[0], [2], [2]]), **how)
    assert_close(rows[1:, 0], several[1:, 0], FLOAT32_SUMS)


@pytest.mark.parametrize("method", quick(OF_PIXELS, ["gradient", "integrated-gradients", "guided-gradcam"]))
def test_frozen_weights_and_every_caller_work(method: str) -> None:
    how = {**FEW.get(method, {}), **({"layer": "third"} if "cam" in method else {})}
    model = made(Residual)
    expected = attributed(model, method, **how)
    with torch.inference_mode():
        assert torch.equal(attributed(model, method, **how), expected)
    with torch.no_grad():
        assert torch.equal(attributed(model.requires_grad_(False), method, **how), expected)
    linked = attributed(model, method, batch=images().requires_grad_(), **how)
    assert torch.equal(linked, expected)
    assert not linked.requires_grad


@pytest.mark.parametrize("method", [method for method in OF_PIXELS if "cam" not in method])
def test_halves_are_added_up_in_float32(method: str) -> None:
    """In a network without borders between slopes, which rounding would cross."""
    model, how = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(48, 4)), FEW.get(method, {})
    batch = images(2, 4).abs() + 1
    expected = attributed(model, method, batch=batch, **how)
    with torch.autocast("cpu", torch.bfloat16):
        found = [attributed(model, method, batch=batch, **how)]
    found.append(attributed(model.bfloat16(), method, batch=batch, **how))
    for each in found:
        assert each.dtype == torch.float32
        assert_close(each, expected, BFLOAT16)


REFUSED: dict[str, tuple[str, dict[str, Any], type[Exception], str]] = {
    "a layer": ("gradient", {"layer": "third"}, OptionError, "layer must be left out for gradient"),
    "integers": ("guided", {"batch": torch.ones(1, 3, 8, 8, dtype=torch.uint8)}, DTypeError, "must be float"),
    "a baseline of another size": (
        "integrated-gradients", {"baseline": torch.ones(3, 8, 8)}, ShapeError, r"shape \(3, 32, 32\) or one for each",
    ),
    "a baseline that is none": ("integrated-gradients", {"baseline": "black"}, OptionError, "must be a number"),
    "no steps": ("integrated-gradients", {"steps": 0}, OptionError, "steps must be"),
    "too many": ("integrated-gradients", {"steps": 10**6}, OptionError, "steps must be .* 1 to 1000"),
    "steps of another method": ("smoothgrad", {"steps": 3}, OptionError, "steps goes with integrated-gradients"),
    "noise below 0": ("smoothgrad", {"noise": -1}, OptionError, "noise must be a number from 0 to 1"),
    "a target without pixels": (
        "gradient", {"target": lambda output: output[:, 0].detach()}, CaptureError, "does not depend on the pixels",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_misuse_is_refused_in_one_line(case: str) -> None:
    method, how, error, said = REFUSED[case]
    with pytest.raises(error, match=said) as raised:
        attributed(made(Residual), method, **how)
    assert "\n" not in str(raised.value)


def test_target_that_nothing_matters_to_is_named() -> None:
    with pytest.warns(UserWarning, match="nothing in the input matters to 1 of 2 targets, such as 'nothing'"):
        found = attributed(made(Residual), "gradient", [2, nothing])
    assert found[:, 0].any()
    assert not found[:, 1].any()


def nothing(output: torch.Tensor) -> torch.Tensor:
    return output[:, 0] * 0
