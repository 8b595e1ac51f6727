"""The two small networks of the package: a bank of filters, and five stages with a head."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

CATEGORIES = (
    "brick", "buildings", "cat", "coat", "cup", "face", "flag", "galaxies", "grass", "gravel", "handwriting", "helmet",
    "lights", "retina", "rocket", "shuttle", "sky", "spacesuit", "tower", "tripod", "wood",
)  # fmt: skip
"""What the head of `SmallNetwork` tells apart: regions of the photos that it was trained on."""


class FilterBank(nn.Module):
    """One convolution and what of it is positive."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = _convolution(3, 64, 11, 2)
        self.relu = nn.ReLU()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Turn (N, 3, H, W) images into (N, 64, H / 2, W / 2) maps."""
        maps: torch.Tensor = self.relu(self.conv(images))
        return maps


class SmallNetwork(nn.Module):
    """Five stages, the mean over all places, and a linear head.

    Maps have a side of 112, 56, 28, 14 and 14 for images of 224 px.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = _stage((3, 48, 7, 2))
        self.stage2 = _stage((48, 64, 3, 2))
        self.stage3 = _stage((64, 96, 3, 2), (96, 96, 3, 1))
        self.stage4 = _stage((96, 128, 3, 2), (128, 128, 3, 1))
        self.stage5 = _stage((128, 192, 3, 1))
        self.feature_info = [{"module": f"stage{number}"} for number in range(1, 6)]  # as timm's models declare stages
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(192, len(CATEGORIES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Turn (N, 3, H, W) images into (N, categories) scores."""
        maps = self.stage5(self.stage4(self.stage3(self.stage2(self.stage1(images)))))
        scores: torch.Tensor = self.head(self.flatten(self.pool(maps)))
        return scores


def _stage(*convolutions: tuple[int, int, int, int]) -> nn.Sequential:
    """Make a stage of (input channels, output channels, side, stride), each with its normalisation and ReLU."""
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for number, (inputs, outputs, side, stride) in enumerate(convolutions, 1):
        modules[f"conv{number}"] = _convolution(inputs, outputs, side, stride)
        modules[f"norm{number}"] = nn.BatchNorm2d(outputs)
        modules[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(modules)


def _convolution(inputs: int, outputs: int, side: int, stride: int) -> nn.Conv2d:
    """Make a convolution that repeats the border of its input: zeros there would look like an edge in every map."""
    return nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False, padding_mode="replicate")
