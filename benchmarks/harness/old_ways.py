"""The ways that take long: matplotlib, mmengine's way of drawing with it, and Python loops over pixels.

They run on some of the channels and are extrapolated in proportion. That favours them: a figure with more subplots
takes longer for each, and a figure that is drawn on again and again, never cleared, grows slower with every file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Plane = NDArray[np.uint8]

DPI = 100


def pyplot() -> Any:
    """Return matplotlib.pyplot, drawing into memory and never on a screen."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    return plt


def matplotlib_subplots(maps: Floats, tile_px: int, cols: int, path: Path) -> Path:
    """Draw with matplotlib: one figure with a subplot for each channel, saved so that each has about `tile_px`."""
    plt = pyplot()
    rows = -(-len(maps) // cols)
    figure = plt.figure(figsize=(cols * tile_px / DPI, rows * tile_px / DPI), dpi=DPI)
    for c, channel in enumerate(maps):
        axes = figure.add_subplot(rows, cols, c + 1)
        axes.imshow(channel, cmap="gray", interpolation="bilinear")
        axes.axis("off")
    figure.savefig(path)
    plt.close(figure)
    return path


def matplotlib_files(maps: Floats, tile_px: int, folder: Path) -> Path:
    """Draw with matplotlib: a figure and a file for each channel."""
    plt = pyplot()
    for c, channel in enumerate(maps):
        figure = plt.figure(figsize=(tile_px / DPI, tile_px / DPI), dpi=DPI)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.imshow(channel, cmap="gray", interpolation="bilinear")
        axes.axis("off")
        figure.savefig(folder / f"{c}.png")
        plt.close(figure)
    return folder


def mmengine_way(maps: Floats, tile_px: int, cols: int, path: Path) -> Path:
    """Draw as mmengine's draw_featmap does for topk channels in an arrangement, and write the sheet with OpenCV.

    The channels of the largest sums, each min-maxed, enlarged and coloured by OpenCV's JET, shown in a titled subplot;
    the figure is read back as an array.
    """
    plt = pyplot()
    strongest = np.argsort(-maps.sum(axis=(1, 2)), kind="stable")
    rows = -(-len(maps) // cols)
    figure = plt.figure(frameon=False, figsize=(cols * tile_px / DPI, rows * tile_px / DPI), dpi=DPI)
    figure.subplots_adjust(left=0, right=1, bottom=0, top=1, wspace=0, hspace=0)
    for place, c in enumerate(strongest):
        gray = cv2.normalize(maps[c], None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
        heat = cv2.applyColorMap(cv2.resize(gray, (tile_px, tile_px)), cv2.COLORMAP_JET)
        axes = figure.add_subplot(rows, cols, place + 1)
        axes.axis("off")
        axes.text(2, 15, f"channel: {c}", fontsize=10)
        axes.imshow(heat[..., ::-1])
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    plt.close(figure)
    assert cv2.imwrite(str(path), drawn[..., ::-1])
    return path


def article_001(maps: Floats, cols: int) -> Floats:
    """Join maps at their own size as article 001 does: min-max a map, hstack it to its row, vstack the row.

    Unlike there, a dead channel is not divided by 0, and the last row is filled up instead of left out.
    """
    blank = np.zeros_like(maps[0])
    sheet: Floats | None = None
    for first in range(0, len(maps), cols):
        line: Floats | None = None
        for c in range(first, first + cols):
            tile = blank
            if c < len(maps):
                tile = (maps[c] - maps[c].min()) / max(maps[c].max() - maps[c].min(), 1e-12)
            line = tile if line is None else np.hstack((line, tile))
        sheet = line if sheet is None else np.vstack((sheet, line))
    assert sheet is not None
    return sheet


def article_003(channel: Floats, tile_px: int) -> Plane:
    """Enlarge one channel as article 003 does: a Python loop over pixels, numpy arithmetic on one value at a time.

    Unlike there, values are brought to 0..255 first, and positions at the border have weights that sum to 1.
    """
    n = channel.shape[0]
    low, high = channel.min(), channel.max()
    source = (channel[..., None] - low) * (255 / max(high - low, 1e-12))
    tile = np.zeros((tile_px, tile_px, 1), np.uint8)
    for i in range(tile_px):
        y = min(max((i + 0.5) * n / tile_px - 0.5, 0.0), n - 1.0)
        y0 = int(y)
        y1 = min(y0 + 1, n - 1)
        for j in range(tile_px):
            x = min(max((j + 0.5) * n / tile_px - 0.5, 0.0), n - 1.0)
            x0 = int(x)
            x1 = min(x0 + 1, n - 1)
            upper = source[y0, x0] * (x0 + 1 - x) + source[y0, x1] * (x - x0)
            lower = source[y1, x0] * (x0 + 1 - x) + source[y1, x1] * (x - x0)
            tile[i, j] = upper * (y0 + 1 - y) + lower * (y - y0) + 0.5
    return tile[..., 0]


def article_003_sheet(maps: Floats, tile_px: int) -> Plane:
    """Enlarge channels as article 003 does; returns them side by side."""
    return np.hstack([article_003(channel, tile_px) for channel in maps])


def article_003_files(maps: Floats, tile_px: int, folder: Path) -> Path:
    """Enlarge channels as article 003 does and save each by the one figure that is never cleared."""
    plt = pyplot()
    figure = plt.figure()
    for c, channel in enumerate(maps):
        plt.imshow(article_003(channel, tile_px))
        plt.axis("off")
        figure.savefig(folder / f"{c}.jpg")
    plt.close(figure)
    return folder


def article_004_files(parameters: Iterable[torch.Tensor], folder: Path) -> Path:
    """Measure parameters with numpy as article 004 does, and draw a histogram of each in a figure and a file."""
    plt = pyplot()
    for position, parameter in enumerate(parameters):
        values = parameter.numpy()
        mean, std, low, high = values.mean(), values.std(ddof=1), values.min(), values.max()
        plt.close()
        plt.hist(values.reshape(-1), bins=50)
        plt.title(f"mean {mean}, std {std}, min {low}, max {high}")
        plt.savefig(folder / f"{position}.png")
    plt.close()
    return folder
