"""The test chart of `cnnviz demo`: an image made in code on which a channel's preference can be read off.

+-----------------+-----------------+
| gratings: 4 orientations in rows, | zone plate: every spatial frequency, |
| 4 spatial frequencies in columns  | every orientation                    |
+-----------------+-----------------+
| colour patches: hue x lightness   | edges, a disc, corners and text      |
+-----------------+-----------------+
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

Plane = NDArray[np.float64]


def draw_chart(size: int = 448) -> Image:
    """Draw the test chart.

    Args:
        size: px a side, a multiple of 16.

    Returns:
        An RGB image of (size, size) px.
    """
    from PIL import Image

    half = size // 2
    quarters = [[_gratings(half), _zone_plate(half)], [_patches(half), _shapes(half)]]
    pixels = np.concatenate([np.concatenate(row, axis=1) for row in quarters])
    return Image.fromarray(np.floor(pixels * 255 + 0.5).astype(np.uint8))


def _grid(size: int) -> tuple[Plane, Plane]:
    """Return the (y, x) of pixel centres, from -1 to 1 across `size` px."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return y, x


def _gray(plane: Plane) -> Plane:
    return np.repeat(plane[:, :, None], 3, axis=2)


def _gratings(size: int) -> Plane:
    """Draw sine gratings: rows are orientations of 0, 45, 90 and 135 degrees, columns periods of 32, 16, 8 and 4 px."""
    cell = size // 4
    y, x = np.meshgrid(np.arange(cell), np.arange(cell), indexing="ij")
    rows = []
    for angle in np.deg2rad([0, 45, 90, 135]):
        along = x * np.cos(angle) + y * np.sin(angle)
        rows.append(np.concatenate([0.5 + 0.5 * np.sin(2 * np.pi * along / p) for p in (32, 16, 8, 4)], axis=1))
    return _gray(np.concatenate(rows))


def _zone_plate(size: int) -> Plane:
    """Draw cos(k r^2), whose local frequency grows from 0 in the middle to half a cycle a px at the sides."""
    y, x = _grid(size)
    return _gray(0.5 + 0.5 * np.cos(np.pi * size / 4 * (x**2 + y**2)))


def _patches(size: int) -> Plane:
    """Draw an 8 x 8 board: hue to the right, and from pale through full to dark downwards; the last row is grey."""
    import colorsys

    board = np.empty((8, 8, 3))
    for row in range(8):
        for col in range(8):
            lightness = 0.9 - row * 0.11
            board[row, col] = (col / 7,) * 3 if row == 7 else colorsys.hls_to_rgb(col / 8, lightness, 1.0)
    return board.repeat(size // 8, axis=0).repeat(size // 8, axis=1)


def _shapes(size: int) -> Plane:
    """Draw a step edge, a slanted edge, a disc, a corner, dots and text."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (size, size), "#808080")
    draw = ImageDraw.Draw(image)
    third = size / 3
    draw.rectangle((0, 0, third / 2, third), fill="black")
    draw.rectangle((third / 2, 0, third, third), fill="white")
    draw.polygon([(third, 0), (third * 1.7, 0), (third * 1.3, third), (third, third)], fill="white")
    draw.ellipse((third * 2.1, third * 0.1, third * 2.9, third * 0.9), fill="black", outline="white", width=3)
    draw.polygon([(third * 0.1, third * 1.9), (third * 0.5, third * 1.1), (third * 0.9, third * 1.9)], fill="white")
    for i in range(4):
        for j in range(4):
            y, x = third * (1.15 + 0.22 * i), third * (1.15 + 0.22 * j)
            draw.ellipse((x, y, x + 2 + 2 * j, y + 2 + 2 * j), fill="white" if (i + j) % 2 else "black")
    for k in range(6):
        inset = third * 0.08 * k
        color = "black" if k % 2 else "white"
        draw.rectangle((third * 2 + inset, third + inset, third * 3 - inset, third * 2 - inset), fill=color)
    font = ImageFont.load_default(size=third * 0.36)
    draw.text((third * 0.1, third * 2.05), "CNN channels", fill="white", font=font)
    draw.text((third * 0.1, third * 2.5), "0123456789 aeg", fill="black", font=font)
    return np.asarray(image, dtype=np.float64) / 255
