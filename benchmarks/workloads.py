"""Named workloads of real shapes. Maps are seeded, and smooth and sparse as activations after a ReLU are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True)
class Workload:
    """Maps of a layer and the tile they are drawn at.

    channels, map_px: the maps are (channels, map_px, map_px) float32.
    tile_px: side of a tile.
    """

    channels: int
    map_px: int
    tile_px: int

    @property
    def name(self) -> str:
        """Name the workload, such as 2048x7x7 to 224."""
        return f"{self.channels}x{self.map_px}x{self.map_px} to {self.tile_px}"


LAYER4 = Workload(2048, 7, 224)  # ResNet-50 layer4 at 224 px of input
LAYER4_SMALL = Workload(2048, 7, 56)
WORKLOADS = (
    LAYER4,
    LAYER4_SMALL,
    Workload(2048, 12, 96),  # layer4 at 384 px
    Workload(1024, 14, 112),  # layer3
    Workload(512, 28, 112),  # layer2
    Workload(256, 56, 112),  # layer1
    Workload(64, 112, 448),  # conv1
)
HUGE = Workload(2048, 7, 434)  # 45 x 46 tiles: a sheet of 19,530 x 19,964 px


@cache
def maps_of(workload: Workload, dead: bool = False) -> torch.Tensor:
    """Make the maps of a workload.

    Args:
        workload: which one.
        dead: all zero instead.

    Returns:
        (C, H, W) float32: ReLU of smoothed noise, so that half of the values are 0, as in a trained network's maps.
    """
    shape = (workload.channels, workload.map_px, workload.map_px)
    if dead:
        return torch.zeros(shape)
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1)
    return torch.relu(smooth[0]).contiguous()
