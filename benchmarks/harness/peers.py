"""How the same sheets are made with torch, OpenCV and Pillow, written as their users write them, at their best."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
Plane = NDArray[np.uint8]


def interpolate_make_grid(maps: torch.Tensor, tile_px: int, cols: int) -> torch.Tensor:
    """Draw with torch: min-max per channel, F.interpolate, make_grid; returns (3, H, W) float32 in [0, 1]."""
    from torchvision.utils import make_grid

    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    values = (maps - low) / (high - low).clamp(min=1e-12)
    tiles = torch.nn.functional.interpolate(values[:, None], size=(tile_px, tile_px), mode="bilinear")
    return make_grid(tiles, nrow=cols, padding=0)


def make_grid_save_image(maps: torch.Tensor, tile_px: int, cols: int, path: Path) -> None:
    """Draw with torch and write the file with torchvision."""
    from torchvision.utils import save_image

    save_image(interpolate_make_grid(maps, tile_px, cols), path)


def cv2_loop(maps: Floats, tile_px: int, cols: int, out: Plane) -> Plane:
    """Draw with OpenCV, all in float32: min-max, resize, conversion, tile by tile into `out`."""
    out[(len(maps) - 1) // cols * tile_px :] = 0  # the last row has empty cells
    for c, channel in enumerate(maps):
        values = cv2.normalize(channel, None, 0, 255, cv2.NORM_MINMAX)
        tile = cv2.resize(values, (tile_px, tile_px), interpolation=cv2.INTER_LINEAR)
        y, x = c // cols * tile_px, c % cols * tile_px
        out[y : y + tile_px, x : x + tile_px] = cv2.convertScaleAbs(tile)
    return out


def cv2_uint8_loop(maps: Floats, tile_px: int, cols: int, out: Plane) -> Plane:
    """Draw with OpenCV, rounded to uint8 before it is enlarged: faster, and one pixel in eight is off by one level."""
    out[(len(maps) - 1) // cols * tile_px :] = 0
    for c, channel in enumerate(maps):
        values = cv2.normalize(channel, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
        y, x = c // cols * tile_px, c % cols * tile_px
        tile = cv2.resize(values, (tile_px, tile_px), interpolation=cv2.INTER_LINEAR)
        out[y : y + tile_px, x : x + tile_px] = tile
    return out


def cv2_sheet(maps: Floats, tile_px: int, cols: int, out: Plane, path: Path) -> Path:
    """Draw with OpenCV and write the sheet with its default settings."""
    assert cv2.imwrite(str(path), cv2_loop(maps, tile_px, cols, out))
    return path


def cv2_files(tiles: Iterable[Plane], folder: Path, settings: tuple[int, ...] = ()) -> Path:
    """Write finished tiles with OpenCV, one after the other."""
    for c, tile in enumerate(tiles):
        assert cv2.imwrite(str(folder / f"{c}.png"), tile, settings)
    return folder


def pillow_sheet(sheet: Plane, path: Path, level: int | None = None) -> Path:
    """Write a finished sheet with Pillow, by default at zlib's level 6."""
    Image.fromarray(sheet).save(path, **({} if level is None else {"compress_level": level}))
    return path


def pillow_files(tiles: Iterable[Plane], folder: Path, level: int | None = None) -> Path:
    """Write finished tiles with Pillow, one after the other."""
    for c, tile in enumerate(tiles):
        pillow_sheet(tile, folder / f"{c}.png", level)
    return folder


def raw_files(tiles: Iterable[Plane], folder: Path) -> Path:
    """Write the bytes of finished tiles into a file each, not encoded at all."""
    for c, tile in enumerate(tiles):
        tile.tofile(folder / f"{c}.raw")
    return folder
