"""The rows of `cnnviz bench`: each is ours, beside a floor or a peer on the same input in the same run."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..activations.capture import capture, capture_stream
from ..formats import png
from ..geometry import cut_strips
from ..models.load import load_model
from ..operators import render_index
from ..sheets.render import save_sheet
from ..sheets.tiles import save_tiles
from .stopwatch import Row, Way, timed

CHANNELS, MAP_PX = 2048, 7  # ResNet-50's layer4 at 224 px of input
TILE_PX, FILE_TILE_PX, STAGE_TILE_PX = 224, 112, 56
FILES = 512
STAGES = ("conv1", "layer1", "layer2", "layer3", "layer4")
CPU_IMAGES, DEVICE_IMAGES = 2, 64

LIMIT_S = 22.0
"""After this nothing is run again, and no row is begun: on a busy machine too the benchmark is over in 30 s."""


@dataclass(frozen=True)
class BenchSetup:
    """Where it is measured: the device, workers and torch threads on the CPU, a folder for files, and since when.

    began_s: when the command began, by time.monotonic().
    """

    device: torch.device
    threads: int
    folder: Path
    began_s: float

    def left_s(self) -> float:
        """Return how many seconds are left for what is not yet measured."""
        return self.began_s + LIMIT_S - time.monotonic()

    @property
    def images(self) -> int:
        """The size of a batch that keeps the device busy."""
        return CPU_IMAGES if self.device.type == "cpu" else DEVICE_IMAGES

    def wait(self) -> None:
        """Return when the device has done all it was given."""
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)

    def maps(self, *batch: int) -> torch.Tensor:
        """Make (*batch, 2048, 7, 7) float32: half of the values 0 and the others smooth, as behind a ReLU."""
        noise = torch.randn(*batch, CHANNELS, MAP_PX, MAP_PX, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1).relu().to(self.device)


def draw(setup: BenchSetup) -> Row:
    """Draw all channels of a deep layer into a plane on the device."""
    maps, cols = setup.maps(), math.ceil(math.sqrt(CHANNELS))
    fill = torch.empty((math.ceil(CHANNELS / cols) * TILE_PX, cols * TILE_PX), dtype=torch.uint8, device=setup.device)
    ends = {0, CHANNELS // cols - 1}  # the first and the last full row of tiles: the peer takes long for all
    rows = torch.cat([torch.arange(row * TILE_PX, (row + 1) * TILE_PX) for row in ends])
    began = time.perf_counter()
    expected = torch.cat([_entries(_grid_of(maps[row * cols : (row + 1) * cols], cols)) for row in ends])
    setup.wait()
    peer_s = (time.perf_counter() - began) * fill.numel() / expected.numel()
    peer = Way(
        "F.interpolate + make_grid", lambda: _grid_of(maps, cols),
        lambda grid: _is_close(_entries(grid[:, rows]), expected),
    )  # fmt: skip
    ways = [
        Way("render_index", lambda: render_index(maps, tile=TILE_PX), lambda plane: _is_close(plane[rows], expected)),
        Way("a plain fill", lambda: torch.full_like(fill, 1), lambda plane: bool((plane == 1).all())),
        *([peer] if peer_s < setup.left_s() else []),
    ]
    row = _row(setup, f"render {CHANNELS}x7x7 to tiles of {TILE_PX} px", ways, fill.numel() / 1e9, "GB")
    return row if peer in ways else replace(row, beside={**row.beside, peer.name: None})


def draw_batch(setup: BenchSetup) -> Row:
    """Draw a batch, as many sheets of it as a third of the device's free memory holds."""
    sheet_bytes = CHANNELS * TILE_PX**2
    free_bytes, _ = torch.cuda.mem_get_info(setup.device)
    count = max(1, min(DEVICE_IMAGES, free_bytes // (3 * sheet_bytes)))
    batch = setup.maps(count)
    expected = _entries(_grid_of(batch[-1], math.ceil(math.sqrt(CHANNELS))))
    ways = [
        Way("render_index", lambda: render_index(batch, tile=TILE_PX), lambda planes: _is_close(planes[-1], expected)),
        Way(
            "a plain fill", lambda: expected.new_full((count, *expected.shape), 1),
            lambda planes: bool((planes[-1] == 1).all()),
        ),
    ]  # fmt: skip
    return _row(setup, f"render {count} images of it", ways, count * expected.numel() / 1e9, "GB")


def write_sheet(setup: BenchSetup) -> Row:
    """Draw the layer into a PNG file."""
    maps, plane = setup.maps(), _plane(setup)
    ours, theirs = setup.folder / "sheet.png", setup.folder / "pillow.png"
    ways = [
        Way(
            "save_sheet",
            lambda: save_sheet(maps, ours, tile=FILE_TILE_PX, plain=True, colormap="gray", threads=setup.threads),
            lambda path: _is_close(_decoded(path), plane),
        ),
        Way("Pillow, level 1, drawn beforehand", lambda: _pillow(plane, theirs), lambda path: path.exists()),
    ]
    return _row(setup, f"save_sheet of {CHANNELS}x7x7, tiles of {FILE_TILE_PX} px", ways, plane.size / 1e6, "MB")


def encode(setup: BenchSetup) -> Row:
    """Encode the sheet on one thread, drawn beforehand, in the strips of a file."""
    plane, scratch = _plane(setup), png.Scratch()
    height, width = plane.shape
    strips = [plane[start:stop] for start, stop in cut_strips(height, width, png.STRIP_PX)]
    ways = [
        Way("encoder", lambda: [png.encode_strip(strip, 1, scratch) for strip in strips], _is_whole),
        Way(
            "zlib, level 1",
            lambda: [zlib.compress(strip.data, 1) for strip in strips],
            lambda streams: bool(streams[0]),
        ),
    ]
    return _row(setup, "encode that sheet, one thread", ways, plane.size / 1e6, "MB")


def write_tiles(setup: BenchSetup) -> Row:
    """Draw channels into a file each."""
    maps, plane = setup.maps()[:FILES], _plane(setup)
    cols = plane.shape[1] // FILE_TILE_PX
    grid = plane.reshape(-1, FILE_TILE_PX, cols, FILE_TILE_PX).swapaxes(1, 2)
    tiles = np.ascontiguousarray(grid.reshape(-1, FILE_TILE_PX, FILE_TILE_PX)[:FILES])
    ours, theirs = setup.folder / "tiles", setup.folder / "pillow"
    theirs.mkdir(exist_ok=True)
    ways = [
        Way(
            "save_tiles",
            lambda: save_tiles(maps, ours, tile=FILE_TILE_PX, plain=True, colormap="gray", threads=setup.threads),
            lambda paths: len(paths) == FILES and _is_close(_decoded(paths[-1]), tiles[-1]),
        ),
        Way(
            "Pillow, level 1, drawn beforehand",
            lambda: [_pillow(tile, theirs / f"{number}.png") for number, tile in enumerate(tiles)],
            lambda paths: len(paths) == FILES,
        ),
    ]
    return _row(setup, f"save_tiles, {FILE_TILE_PX} px", ways, FILES, "files")


def look_into(setup: BenchSetup) -> Row | None:
    """Run ResNet-50 and draw all of its stages, beside the pass alone."""
    model = load_model("resnet50", weights="none", device=setup.device)
    images = torch.randn(setup.images, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(setup.device)

    def planes() -> dict[str, torch.Tensor]:
        drawn: dict[str, torch.Tensor] = {}

        def consume(layer: str, maps: torch.Tensor) -> None:
            drawn[layer] = render_index(maps, tile=STAGE_TILE_PX)

        capture_stream(model, images, STAGES, consume)
        return drawn

    def forward() -> torch.Tensor:
        with torch.no_grad():
            result: torch.Tensor = model.module(images)
        return result

    began = time.perf_counter()
    expected = render_index(capture(model, images, "layer4")["layer4"][0], tile=STAGE_TILE_PX)
    if setup.left_s() < 2 * (time.perf_counter() - began):
        return None
    ways = [
        Way("planes", planes, lambda drawn: len(drawn) == len(STAGES) and _is_close(drawn["layer4"][0], expected)),
        Way("the forward pass alone", forward, lambda result: result.shape == (setup.images, 1000)),
    ]
    return _row(setup, f"ResNet-50 and index planes of 5 stages, batch {setup.images}", ways, setup.images, "images")


def cases(setup: BenchSetup) -> list[Callable[[BenchSetup], Row | None]]:
    """List what is measured on a device, what takes longest at the end."""
    batches = [draw_batch] if setup.device.type == "cuda" else []
    return [draw, *batches, write_sheet, write_tiles, encode, look_into]


def _row(setup: BenchSetup, what: str, ways: list[Way], amount: float, unit: str) -> Row:
    """Time ways, of which the first is ours."""
    ours, *others = timed(ways, setup.wait, left_s=setup.left_s)
    beside: dict[str, float | None] = {way.name: median(seconds) for way, seconds in zip(ways[1:], others, strict=True)}
    return Row(what, median(ours), amount, unit, beside, len(ours))


def _grid_of(maps: torch.Tensor, cols: int) -> torch.Tensor:
    """Draw as it is done with torch and torchvision: (3, height, width) float32 in [0, 1]."""
    from torchvision.utils import make_grid

    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    values = (maps - low) / (high - low).clamp(min=1e-12)
    tiles = torch.nn.functional.interpolate(values[:, None], size=(TILE_PX, TILE_PX), mode="bilinear")
    grid: torch.Tensor = make_grid(tiles, nrow=cols, padding=0)
    return grid


def _entries(grid: torch.Tensor) -> torch.Tensor:
    """Round a grid to the entries of a plane."""
    return (grid[0] * 255 + 0.5).to(torch.uint8)


def _plane(setup: BenchSetup) -> NDArray[np.uint8]:
    """Draw the sheet that files are made of, on the CPU."""
    plane: NDArray[np.uint8] = render_index(setup.maps(), tile=FILE_TILE_PX).cpu().numpy()
    return plane


def _is_close(actual: Any, expected: Any) -> bool:
    """Check whether two planes are within 1 level of each other."""
    ours, theirs = torch.as_tensor(actual), torch.as_tensor(expected)
    return ours.shape == theirs.shape and bool((torch.maximum(ours, theirs) - torch.minimum(ours, theirs) <= 1).all())


def _is_whole(strips: list[png.EncodedStrip]) -> bool:
    """Check by length and checksum whether strips inflate to what went in; a chunk has 8 bytes before, 4 behind."""
    raw = [zlib.decompressobj(-zlib.MAX_WBITS).decompress(strip.chunk[8:-4]) for strip in strips]
    return all(
        len(found) == strip.filtered_bytes and zlib.adler32(found) == strip.adler
        for found, strip in zip(raw, strips, strict=True)
    )


def _pillow(plane: NDArray[np.uint8], path: Path) -> Path:
    from PIL import Image

    Image.fromarray(plane).save(path, compress_level=1)
    return path


def _decoded(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(path) as image:
        return np.array(image)
