"""Named workloads of real shapes. Maps are seeded, and smooth and sparse as activations after a ReLU are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True)
class Workload:
    """Maps of a layer and the tile they are drawn at.

    channels, map_px: the maps are (channels, map_px, map_px) float32.
    tile_px: side of a tile.
    dead: all maps are zero.
    """

    channels: int
    map_px: int
    tile_px: int
    dead: bool = False

    @property
    def name(self) -> str:
        """Name the workload, such as 2048x7x7 to 224 px."""
        return f"{self.channels}x{self.map_px}x{self.map_px} to {self.tile_px} px{', all zero' if self.dead else ''}"

    @property
    def sheet_px(self) -> int:
        """Pixels of its sheet, which is about as many tiles high as wide."""
        cols = math.isqrt(self.channels - 1) + 1
        return -(-self.channels // cols) * cols * self.tile_px**2


LAYER4 = Workload(2048, 7, 224)  # ResNet-50 layer4 at 224 px of input, x32
LAYER4_SMALL = Workload(2048, 7, 56)  # the same, x8
LAYER3 = Workload(1024, 14, 112)
LAYER2 = Workload(512, 28, 112)
LAYER1 = Workload(256, 56, 112)
CONV1 = Workload(64, 112, 448)
ARTICLE_003 = Workload(2048, 12, 96)  # layer4 at 384 px of input, x8
WORKLOADS = (
    LAYER4,
    LAYER4_SMALL,
    LAYER3,
    LAYER2,
    LAYER1,
    CONV1,
)
DEAD = Workload(2048, 7, 224, dead=True)
HUGE = Workload(2048, 7, 448)  # 45 x 46 tiles: a sheet of 20,160 x 20,608 px
TINY = Workload(4, 7, 56)  # what the reference, plain Python loops, can draw
IMAGES = 32  # of a batch; each has the maps of LAYER4_SMALL


@cache
def maps_of(workload: Workload, seed: int = 0) -> torch.Tensor:
    """Make the maps of a workload.

    Args:
        workload: which one.
        seed: of the noise; another one for each image of a batch.

    Returns:
        (C, H, W) float32: ReLU of smoothed noise, so that half of the values are 0, as in a trained network's maps.
    """
    shape = (workload.channels, workload.map_px, workload.map_px)
    if workload.dead:
        return torch.zeros(shape)
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1)
    return torch.relu(smooth[0]).contiguous()
