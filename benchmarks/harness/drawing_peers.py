"""How the same plane is drawn with tools that enlarge many maps at once or in a loop, each as its users would call it.

All take (maps, tile_px, cols, out): (C, h, w) float32 on the CPU, the side of a tile, the tiles in a row, and a plane
of uint8 to draw into, which they return. Maps are min-maxed to 0..255 first; those whose tool enlarges bytes round them
then, so that some pixels are off by one level.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.harness import peers

Plane = NDArray[np.uint8]
Draw = Callable[[torch.Tensor, int, int, Plane], Plane]


def scaled(maps: torch.Tensor) -> torch.Tensor:
    """Bring each channel to 0..255, float32."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) * (255 / (high - low).clamp(min=1e-12))


def rounded(values: torch.Tensor) -> torch.Tensor:
    """Round values in 0..255, which are lost, to uint8."""
    return values.add_(0.5).to(torch.uint8)


def lay_out(tiles: Plane, cols: int, out: Plane) -> Plane:
    """Copy (C, tile_px, tile_px) tiles into the grid of a plane; cells that are left are 0."""
    tile_px = tiles.shape[-1]
    cells = out.reshape(-1, tile_px, cols, tile_px).swapaxes(1, 2)
    full, rest = divmod(len(tiles), cols)
    cells[:full] = tiles[: full * cols].reshape(full, cols, tile_px, tile_px)
    if rest:
        cells[full, :rest] = tiles[full * cols :]
        cells[full, rest:] = 0
    return out


def torch_interpolate(maps: torch.Tensor, tile_px: int, cols: int, out: Plane) -> Plane:
    """Draw with torch: F.interpolate on all maps at once."""
    tiles = torch.nn.functional.interpolate(scaled(maps)[:, None], size=(tile_px, tile_px), mode="bilinear")
    return lay_out(rounded(tiles[:, 0]).numpy(), cols, out)


def torchvision_resize(maps: torch.Tensor, tile_px: int, cols: int, out: Plane) -> Plane:
    """Draw with torchvision: resize of uint8 maps, for which torch has vector code."""
    from torchvision.transforms.v2 import functional

    tiles = functional.resize(rounded(scaled(maps))[:, None], [tile_px, tile_px], antialias=True)
    return lay_out(tiles[:, 0].numpy(), cols, out)


def kornia_resize(maps: torch.Tensor, tile_px: int, cols: int, out: Plane) -> Plane:
    """Draw with kornia's resize."""
    from kornia.geometry.transform import resize

    tiles = resize(scaled(maps)[:, None], (tile_px, tile_px), interpolation="bilinear", align_corners=False)
    return lay_out(rounded(tiles[:, 0]).numpy(), cols, out)


def albumentations_resize(maps: torch.Tensor, tile_px: int, cols: int, out: Plane) -> Plane:
    """Draw with albumentations: the maps are the channels of one (h, w, C) image of uint8."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # or it asks a server for a newer version when it is imported
    import albumentations

    image = rounded(scaled(maps)).permute(1, 2, 0).contiguous().numpy()
    resize = albumentations.Resize(tile_px, tile_px, interpolation=cv2.INTER_LINEAR)
    return lay_out(resize(image=image)["image"].transpose(2, 0, 1), cols, out)


def pillow_resize(maps: torch.Tensor, tile_px: int, cols: int, out: Plane) -> Plane:
    """Draw with Pillow: resize and paste, map by map, in uint8."""
    sheet = Image.new("L", (out.shape[1], out.shape[0]))
    for c, channel in enumerate(rounded(scaled(maps)).numpy()):
        tile = Image.fromarray(channel).resize((tile_px, tile_px), Image.Resampling.BILINEAR)
        sheet.paste(tile, (c % cols * tile_px, c // cols * tile_px))
    return np.asarray(sheet)


def vips_join(maps: torch.Tensor, tile_px: int, cols: int) -> Any:
    """Put a sheet together with libvips: a pipeline that is computed when its pixels are asked for.

    `resize` of an image that is enlarged is this `affine`, but with another alignment.
    """
    import pyvips

    pyvips.cache_set_max(0)  # or the second call is answered with the result of the first
    pyvips.vips_lib.vips_concurrency_set(torch.get_num_threads())
    height, width = maps.shape[1:]
    scale, bilinear = tile_px / width, pyvips.Interpolate.new("bilinear")
    tiles = [
        pyvips.Image.new_from_memory(channel.data, width, height, 1, "uchar").affine(
            [scale, 0, 0, scale], interpolate=bilinear, oarea=[0, 0, tile_px, tile_px], extend="copy",
            odx=(scale - 1) / 2, ody=(scale - 1) / 2,
        )
        for channel in rounded(scaled(maps)).numpy()
    ]  # fmt: skip
    return pyvips.Image.arrayjoin(tiles, across=cols)


def vips_affine(maps: torch.Tensor, tile_px: int, cols: int, out: Plane) -> Plane:
    """Draw with libvips, through pyvips."""
    return vips_join(maps, tile_px, cols).numpy()


def cv2_loop(maps: torch.Tensor, tile_px: int, cols: int, out: Plane) -> Plane:
    """Draw with OpenCV, see peers."""
    return peers.cv2_loop(maps.numpy(), tile_px, cols, out)


def cv2_uint8_loop(maps: torch.Tensor, tile_px: int, cols: int, out: Plane) -> Plane:
    """Draw with OpenCV on bytes, see peers."""
    return peers.cv2_uint8_loop(maps.numpy(), tile_px, cols, out)


@dataclass(frozen=True)
class Drawer:
    """A peer that draws a plane.

    packages: distributions that it needs beyond those of the extra `test`, which rows name with their versions.
    threads: what it is held to, a row each; one thread only where it uses no more.
    short: whether it is fast enough for the short form.
    """

    name: str
    draw: Draw
    packages: tuple[str, ...] = ()
    threads: tuple[int, ...] = (1, 2)
    short: bool = False


DRAWERS = (
    Drawer("cv2.resize loop", cv2_loop),
    Drawer("cv2.resize loop on uint8", cv2_uint8_loop, short=True),
    Drawer("F.interpolate", torch_interpolate),
    Drawer("torchvision's resize of uint8", torchvision_resize),
    Drawer("Pillow's resize of uint8, a loop", pillow_resize, threads=(1,)),
    Drawer("kornia's resize", kornia_resize, ("kornia",)),
    Drawer("albumentations' Resize of uint8", albumentations_resize, ("albumentations",), threads=(1,)),
    Drawer("libvips: affine of uint8, arrayjoin", vips_affine, ("pyvips", "pyvips-binary"), threads=(2,)),
)
