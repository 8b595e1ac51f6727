"""Effective receptive fields, measured by gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.errors import CaptureError


class Gated(nn.Module):
    """A convolution whose output is scaled by its own mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return y * y.mean((2, 3), keepdim=True).sigmoid()


def effective(model: nn.Module, layer: str, share: float, images: torch.Tensor | None = None) -> cf.ReceptiveField:
    """Measure the effective field of one layer."""
    found = cf.receptive_field(model.eval(), layer, 32, effective=share, images=images)
    assert isinstance(found, cf.ReceptiveField)
    return found


def test_kernel_with_its_energy_in_the_middle_is_that_small() -> None:
    conv = nn.Conv2d(1, 1, 7, padding=3, bias=False)
    with torch.no_grad():
        conv.weight.fill_(0.1)
        conv.weight[..., 2:5, 2:5] = 1.0
    # 9 of 9.4 units of energy lie in the middle 3 x 3 pixels, 9.16 in 5 x 5.
    model = nn.Sequential(conv)
    assert effective(model, "0", 0.95).size == (3, 3)
    assert effective(model, "0", 0.96).size == (5, 5)
    assert effective(model, "0", 1.0).size == (7, 7)
    assert effective(model, "0", 0.0).size == (1, 1)
    field = effective(model, "0", 0.95)
    assert (field.stride, field.offset, field.effective, field.whole) == ((1.0, 1.0), (0.0, 0.0), 0.95, False)


def test_trained_network_sees_less_than_its_exact_field() -> None:
    model = cf.load_model("cnnviz:small")
    found = cf.receptive_field(model, ["stage2", "stage4"], effective=0.95)
    exact = cf.receptive_field(model, ["stage2", "stage4"])
    assert isinstance(found, dict)
    assert isinstance(exact, dict)
    for layer, field in found.items():
        assert field.size < exact[layer].size
        assert (field.stride, field.offset) == (exact[layer].stride, exact[layer].offset)


def test_layer_whose_field_is_whole_gets_a_size_and_the_stride_of_its_map() -> None:
    model = Gated()
    assert cf.receptive_field(model, "output", 32).whole  # type: ignore[union-attr]
    field = effective(model, "output", 0.9)
    assert not field.whole
    assert field.reasons == ("mean over rows and columns",)
    assert (field.stride, field.offset) == ((2.0, 2.0), (0.5, 0.5))
    assert field.size < (32, 32)


def test_given_images_decide_and_are_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.Conv2d(1, 1, 5, padding=2, bias=False))
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[2].weight.fill_(1)
    dark = -torch.ones(1, 1, 32, 32)
    dark[..., 16, 16] = 1
    before = dark.clone()
    assert effective(model, "2", 0.95, dark).size == (1, 1)
    assert effective(model, "2", 0.95, torch.ones(1, 1, 32, 32)).size == (5, 5)
    assert torch.equal(dark, before)
    assert dark.grad is None
    with pytest.raises(CaptureError, match="a gradient of zero by the input"):
        effective(model, "2", 0.95, -torch.ones(1, 1, 32, 32))


def test_layer_without_gradient_is_refused() -> None:
    class NoGradient(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.relu(self.conv(x)).detach()

    with pytest.raises(CaptureError, match="no gradient by the input"):
        effective(NoGradient(), "output", 0.95)
