"""The image that a model ran on, shown above the grid of a sheet, in palette entries of its own.

A sheet stays an index plane: the colormap gives up COLORS of its 256 entries, and the image is dithered to as many.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

COLORS = 64
"""Palette entries of the image. Dithered to 64 colours of its own, a photo of some 200 px looks like itself."""

LEAST_PX = 112
"""Its longer side, or a tile's where that is more."""

SAMPLE_PX = 64
"""Longer side of the copy from which its colours are chosen: of all pixels of a tile of 224 px that takes 13 times as
long, with colours no nearer to those of the image."""


class InputImage(NamedTuple):
    """An image in few colours.

    pixels: (H, W) uint8. Entry of `colors` of each pixel.
    colors: (COLORS, 3) uint8, RGB.
    """

    pixels: NDArray[np.uint8]
    colors: NDArray[np.uint8]


def in_few_colors(image: NDArray[np.uint8], tile_px: int) -> InputImage:
    """Bring an image to the size and the number of colours in which a sheet shows it.

    Args:
        image: (H, W, 3) uint8, RGB.
        tile_px: longer side of the sheet's tiles.

    Returns:
        The image, in its own shape.

    Source:
        Colours: median cut, then k-means; dithering: Floyd and Steinberg; both by Pillow.
    """
    from PIL import Image
    from PIL.Image import Dither, Quantize, Resampling

    height, width = image.shape[:2]
    factor = max(tile_px, LEAST_PX) / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    shown = Image.fromarray(image).resize(size, Resampling.LANCZOS)
    sample = shown.copy()
    sample.thumbnail((SAMPLE_PX, SAMPLE_PX), Resampling.NEAREST)  # which makes no colours that are not in it
    reduced = sample.quantize(COLORS, method=Quantize.MEDIANCUT, kmeans=1)
    index = np.asarray(shown.quantize(palette=reduced, dither=Dither.FLOYDSTEINBERG))
    colors = np.zeros((COLORS, 3), dtype=np.uint8)
    found = np.array(reduced.getpalette(), dtype=np.uint8).reshape(-1, 3)[:COLORS]
    colors[: len(found)] = found
    return InputImage(index, colors)
