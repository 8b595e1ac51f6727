"""How the same pictures are made without this package, written as their users write them, at their best."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

Plane = NDArray[np.uint8]


def interpolate_make_grid(maps: torch.Tensor, tile_px: int, cols: int) -> torch.Tensor:
    """Draw with torch: min-max per channel, F.interpolate, make_grid; returns (3, H, W) uint8."""
    from torchvision.utils import make_grid

    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    values = (maps - low) / (high - low).clamp(min=1e-12)
    tiles = torch.nn.functional.interpolate(values[:, None], size=(tile_px, tile_px), mode="bilinear")
    return make_grid(tiles, nrow=cols, padding=0).mul_(255).add_(0.5).clamp_(0, 255).to(torch.uint8)


def cv2_loop(maps: NDArray[np.float32], tile_px: int, cols: int, out: Plane) -> Plane:
    """Draw with OpenCV: a loop of min-max, resize and conversion, tile by tile, into `out`."""
    for c, channel in enumerate(maps):
        low, high = channel.min(), channel.max()
        values = (channel - low) * (255.0 / max(high - low, 1e-12))
        tile = cv2.resize(values, (tile_px, tile_px), interpolation=cv2.INTER_LINEAR)
        y, x = c // cols * tile_px, c % cols * tile_px
        out[y : y + tile_px, x : x + tile_px] = np.rint(tile)
    return out


def save_image(maps: torch.Tensor, tile_px: int, cols: int, path: Path) -> None:
    """Draw with torch and write the file as torchvision.utils.save_image does."""
    from PIL import Image

    grid = interpolate_make_grid(maps, tile_px, cols)
    Image.fromarray(grid.permute(1, 2, 0).numpy()).save(path)


def matplotlib_subplots(maps: NDArray[np.float32], tile_px: int, cols: int, path: Path) -> None:
    """Draw with matplotlib: a subplot a channel, saved at a size that gives each about `tile_px`."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    rows = -(-len(maps) // cols)
    figure = plt.figure(figsize=(cols * tile_px / 100, rows * tile_px / 100), dpi=100)
    for c, channel in enumerate(maps):
        axes = figure.add_subplot(rows, cols, c + 1)
        axes.imshow(channel, cmap="viridis", interpolation="bilinear")
        axes.axis("off")
    figure.savefig(path)
    plt.close(figure)


def python_loop(channel: NDArray[np.float32], tile_px: int) -> Plane:
    """Enlarge one channel in a Python loop over pixels, as articles on the subject do."""
    n = channel.shape[0]
    low, high = float(channel.min()), float(channel.max())
    out = np.zeros((tile_px, tile_px), np.uint8)
    for i in range(tile_px):
        y = min(max((i + 0.5) * n / tile_px - 0.5, 0), n - 1)
        y0 = int(y)
        y1 = min(y0 + 1, n - 1)
        for j in range(tile_px):
            x = min(max((j + 0.5) * n / tile_px - 0.5, 0), n - 1)
            x0 = int(x)
            x1 = min(x0 + 1, n - 1)
            top = channel[y0, x0] * (x0 + 1 - x) + channel[y0, x1] * (x - x0)
            bottom = channel[y1, x0] * (x0 + 1 - x) + channel[y1, x1] * (x - x0)
            value = top * (y0 + 1 - y) + bottom * (y - y0)
            out[i, j] = int((value - low) / max(high - low, 1e-12) * 255 + 0.5)
    return out
