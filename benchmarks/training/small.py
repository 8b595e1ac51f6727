"""The training of the small network: which category each place belongs to, and which views are of one window."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch.nn import functional

from cnnviz_fast.models.small_networks import SmallNetwork

from . import filters
from .photos import UNNAMED, windows

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, as the usual preprocessing has them."""

WINDOWS, WINDOW_PX, SIDES_PX = 3300, 136, (64, 420)
"""Windows that are cut once, the side that they are resampled to, and the smallest and largest side in a photo."""

VIEW_PX = 96
PLACES = VIEW_PX // 16
"""Side of the last maps of a view."""

TEMPERATURE = 0.2
CONTRAST, REDUNDANCY = 0.5, 10.0
"""Weights of the second and the third loss."""


def train(steps: int, batch: int, seed: int) -> SmallNetwork:
    """Train the network, and print how it goes.

    The first loss is the cross-entropy of the category at each place of the last maps. The second one asks that the
    mean activations of two views of a window are alike, and those of other windows are not. They are not negative, so
    that alike means: the same channels are active. That makes single channels meaningful. The third one is the mean
    squared correlation of two channels over all places: it keeps many channels from showing the same.

    Args:
        steps: of the optimiser.
        batch: windows of a step; each gives two views.
        seed: of everything random.

    Returns:
        The network in eval mode.

    Source:
        Wang et al., Non-negative Contrastive Learning, 2024, and Zbontar et al., Barlow Twins, 2021.
    """
    torch.manual_seed(seed)
    cut = windows(WINDOWS, SIDES_PX, WINDOW_PX, held_out=False, seed=seed)
    images, labels = torch.from_numpy(cut[0]).permute(0, 3, 1, 2), torch.from_numpy(cut[1])
    network = SmallNetwork().to(memory_format=torch.channels_last)
    with torch.no_grad():
        network.stage1.conv1.weight.copy_(torch.from_numpy(filters.learn(filters.patches(3000, 7, seed), 48, seed)))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1.0, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.15)
    start = time.process_time()
    for step in range(steps):
        chosen = torch.randint(len(images), (batch,)).repeat(2)
        views, places = augment(images[chosen], labels[chosen])
        maps = features(network, views)
        scores = functional.conv2d(maps, network.head.weight[:, :, None, None], network.head.bias)
        category = functional.cross_entropy(scores, places, ignore_index=UNNAMED, label_smoothing=0.05)
        contrast, redundancy = alike(maps.mean((2, 3))), correlation(maps)
        optimizer.zero_grad()
        (category + CONTRAST * contrast + REDUNDANCY * redundancy).backward()
        optimizer.step()
        schedule.step()
        if step % 25 == 24:
            print(
                f"step {step + 1} of {steps}, {time.process_time() - start:.0f} s of CPU: "
                f"categories {category.item():.3f}, views {contrast.item():.3f}, channels {redundancy.item():.4f}",
                flush=True,
            )
    return network.to(memory_format=torch.contiguous_format).eval()


def features(network: SmallNetwork, images: torch.Tensor) -> torch.Tensor:
    """Return the maps of the last stage."""
    maps: torch.Tensor = network.stage5(network.stage4(network.stage3(network.stage2(network.stage1(images)))))
    return maps


def alike(vectors: torch.Tensor) -> torch.Tensor:
    """Return the contrastive loss of vectors, (2 B, C), of which b and b + B belong together."""
    directions = functional.normalize(vectors, dim=1)
    similar = directions @ directions.T / TEMPERATURE
    similar.fill_diagonal_(-math.inf)
    return functional.cross_entropy(similar, torch.arange(len(vectors)).roll(len(vectors) // 2))


def correlation(maps: torch.Tensor) -> torch.Tensor:
    """Return the mean squared correlation of two channels of maps, (N, C, H, W), over all their places."""
    channels = maps.transpose(0, 1).flatten(1)
    centred = channels - channels.mean(1, keepdim=True)
    unit = functional.normalize(centred, dim=1)
    squares = (unit @ unit.T) ** 2
    return (squares.sum() - squares.diagonal().sum()) / (len(squares) * (len(squares) - 1))


def augment(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Make a view of each window: turned, zoomed, moved, mirrored, in other colours or grey, and normalised.

    Args:
        images: (N, 3, H, W) uint8.
        labels: (N, H, W) uint8.

    Returns:
        (N, 3, VIEW_PX, VIEW_PX) float32 views, and the labels at the places of the last maps.
    """
    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, *shape)

    zoom, angle = uniform(0.55, 0.85), uniform(-0.35, 0.35)
    mirror = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    shift = (1 - zoom)[:, None] * uniform(-1, 1, 2)
    matrix = torch.stack([cos * mirror, -sin, shift[:, 0], sin * mirror, cos, shift[:, 1]], 1).view(n, 2, 3)
    grid = functional.affine_grid(matrix, [n, 3, VIEW_PX, VIEW_PX], align_corners=False)
    views = functional.grid_sample(images.float() / 255, grid, padding_mode="reflection", align_corners=False)
    places = functional.affine_grid(matrix, [n, 1, PLACES, PLACES], align_corners=False)
    seen = functional.grid_sample(labels[:, None].float(), places, "nearest", "reflection", align_corners=False)

    views = (views * uniform(0.75, 1.25, 1, 1, 1) * uniform(0.85, 1.15, 3, 1, 1)).clamp(0, 1)
    mean = views.mean((1, 2, 3), keepdim=True)
    views = ((views - mean) * uniform(0.7, 1.3, 1, 1, 1) + mean).clamp(0, 1)
    grey = views.mean(1, keepdim=True)
    saturation = torch.where(torch.rand(n) < 0.25, 0.0, uniform(0.6, 1.2))[:, None, None, None]
    views = grey + (views - grey) * saturation
    return normalized(views).contiguous(memory_format=torch.channels_last), seen[:, 0].round().long()


def normalized(images: torch.Tensor) -> torch.Tensor:
    """Return images, (N, 3, H, W) in [0, 1], with ImageNet's mean and deviation."""
    return (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def as_input(images: np.ndarray) -> torch.Tensor:
    """Return windows, (N, H, W, 3) uint8, as the network takes them, without augmentation."""
    return normalized(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
