"""Evidence beside a pass: torch's own classes and declared widths count, names of classes do not."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from cnnviz_fast.activations.axes.evidence import Evidence, channels_position, known_grids, may_be_last


def named(name: str, base: type[nn.Module] = nn.Identity, **declared: object) -> nn.Module:
    """Make a module of a class of this name, with these attributes."""
    module = type(name, (base,), {})()
    for attribute, value in declared.items():
        setattr(module, attribute, value)
    return module


@pytest.mark.parametrize("name", ["LSTM2d", "SS2D", "PatchMerging2D", "Anything3d", "GroupNorm", "LayerNorm", "Linear"])
def test_channels_position_name_alone_says_nothing(name: str) -> None:
    assert channels_position(named(name), (2, 8, 8, 8)) is None


@pytest.mark.parametrize("module", [
    nn.Conv2d(8, 8, 1), nn.ConvTranspose2d(8, 8, 1), nn.BatchNorm2d(8), nn.InstanceNorm2d(8), nn.GroupNorm(2, 8),
    nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2), nn.Upsample(8), nn.PixelShuffle(2), nn.Conv3d(8, 8, 1),
    type("Renamed", (nn.Conv2d,), {})(8, 8, 1),
], ids=lambda module: type(module).__name__)  # fmt: skip
def test_channels_position_torchs_own_convolutions_and_pools_are_first(module: nn.Module) -> None:
    assert channels_position(module, (2, 8, 8, 8)) == "first"


def test_channels_position_torchs_own_norm_and_linear_are_last_by_their_width() -> None:
    assert channels_position(nn.LayerNorm(8), (2, 8, 8, 8)) == "last"
    assert channels_position(nn.Linear(4, 8), (2, 8, 8, 8)) == "last"
    assert channels_position(nn.LayerNorm(9), (2, 9, 8, 8)) is None


def test_channels_position_norm_with_a_forward_of_its_own_is_told_by_its_width() -> None:
    first = torchvision.models.convnext.LayerNorm2d(9)
    assert channels_position(first, (2, 9, 8, 8)) == "first"
    assert channels_position(first, (2, 8, 8, 9)) == "last"
    assert channels_position(first, (2, 9, 9, 9)) is None


@pytest.mark.parametrize("attribute", ["embed_dim", "normalized_shape", "num_features", "out_features", "out_channels"])
def test_channels_position_declared_width_decides_where_one_axis_has_it(attribute: str) -> None:
    for width in (9, (9,)):
        module = named("Anything2d", **{attribute: width})
        assert channels_position(module, (2, 9, 8, 8)) == "first"
        assert channels_position(module, (2, 8, 8, 9)) == "last"
        assert channels_position(module, (2, 9, 9, 9)) is None
        assert channels_position(module, (2, 7, 7, 7)) is None


def test_channels_position_stated_format_counts() -> None:
    assert channels_position(named("Norm", data_format="channels_first"), (2, 8, 8, 8)) == "first"
    assert channels_position(named("Patches", output_fmt="NHWC"), (2, 8, 8, 8)) == "last"
    assert channels_position(None, (2, 8, 8, 8)) is None


def test_may_be_last_norms_made_for_channels_first_do_not_count() -> None:
    first = nn.Sequential(nn.Conv2d(3, 8, 3), torchvision.models.convnext.LayerNorm2d(8))
    assert not may_be_last(Evidence(model=first))
    assert may_be_last(Evidence(model=nn.Sequential(first, nn.LayerNorm(8))))
    assert not may_be_last(Evidence())


def test_known_grids_strides_of_the_modules_before_count() -> None:
    class Strided(nn.Module):
        """A patch size of 7 that is not its stride."""

        patch_size = 7

        def __init__(self) -> None:
            super().__init__()
            self.cut = nn.Conv2d(3, 8, 7, 4, padding=3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            maps: torch.Tensor = self.cut(x)
            return maps

    assert known_grids(Evidence(model=Strided(), input_shape=(1, 3, 28, 28))) == [(4, 4), (7, 7)]
    assert known_grids(Evidence(model=Strided())) == []
