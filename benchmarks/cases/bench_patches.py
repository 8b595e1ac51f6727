"""Sheets of the strongest patches of 512 channels out of 1,000 photos, beside decoding those photos once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import cnnviz_fast as cf
from benchmarks.harness import outputs
from benchmarks.harness.drawing import anything
from benchmarks.harness.measure import FLOOR, OURS, Contender, Table, cases
from benchmarks.harness.photo_runs import PHOTO_PX, cut_photos
from cnnviz_fast.inputs.decode import decode_bytes
from cnnviz_fast.inputs.sources import list_images
from cnnviz_fast.options.reading import MAX_PIXELS
from cnnviz_fast.patches.photos import describe
from cnnviz_fast.patches.top import TopResponses
from cnnviz_fast.patches.top_files import write_top
from cnnviz_fast.runtime.workers import in_order

PHOTOS = 1000
DIFFERENT = 100  # photos that are cut; the others are copies of them, which take as long to decode
CAMERA_PX = (1600, 1200)  # width, height: as a camera's photos are passed on
CHANNELS = 512
PATCHES = 9
TILE_PX = 96
THREADS = 2
MAPS_PX = 28  # of layer2 of ResNet-18, whose units see 99 px
FIELD = {"size": [99, 99], "stride": [8.0, 8.0], "offset": [0.0, 0.0]}
CHECKED = 5  # channels whose patches are cut one by one
BATCH = 50

Size = tuple[int, int]


@cache
def photos(size: Size) -> list[Path]:
    """Cut the photos out of samples, as those of the runs."""
    cut = cut_photos(DIFFERENT, outputs.path(f"photos-of-{size[0]}"), size)
    copies = [cut[n % DIFFERENT].with_name(f"{n:04d}.jpg") for n in range(DIFFERENT, PHOTOS)]
    return [*cut, *(Path(shutil.copyfile(cut[n % DIFFERENT], copy)) for n, copy in enumerate(copies))]


@cache
def top(size: Size) -> Path:
    """Write the strongest of random maps, so that every photo holds patches of a few channels."""
    images = list_images(list(map(str, photos(size))))
    keys = list(images.keys())
    record, random = TopResponses(CHANNELS, PATCHES), torch.Generator().manual_seed(0)
    for start in range(0, PHOTOS, BATCH):
        maps = torch.rand((BATCH, CHANNELS, MAPS_PX, MAPS_PX), generator=random)
        record.update(maps, keys[start : start + BATCH])
    model = cf.load_model("resnet18", weights="none", seed=0)
    path = outputs.path(f"top-of-{size[0]}.safetensors")
    return write_top(path, {"layer2": record}, None, describe(images, keys, model), {"layer2": FIELD})


def sheet() -> Path:
    """Return the file of the sheet."""
    return outputs.path("patches.png")


def ours(size: Size) -> None:
    """Cut the patches and write the sheet with its manifest."""
    cf.patch_sheet(top(size), "layer2", per_channel=PATCHES, tile=TILE_PX, threads=THREADS).save(sheet())


def check(size: Size) -> None:
    """Assert that the sheet has every patch, and that some are those that Pillow cuts out of their files."""
    manifest = json.loads(sheet().with_suffix(".json").read_text())
    assert len(manifest["patches"]) == CHANNELS * PATCHES
    file = cf.read_top(top(size))
    made = cf.patch_sheet(file, "layer2", channels=range(CHECKED), tile=TILE_PX)
    for number, record in enumerate(made.table):
        box = tuple(record[edge] for edge in ("x0", "y0", "x1", "y1"))
        y0, x0, y1, x1 = file.photos[record["image"]]["view"]
        if box[0] >= x0 and box[1] >= y0 and box[2] <= x1 and box[3] <= y1:  # all of it is photo
            with Image.open(record["path"]) as photo:
                expected = np.asarray(photo.resize((TILE_PX, TILE_PX), Image.Resampling.BICUBIC, box))
            apart = made.patch(*divmod(number, PATCHES)).astype(int) - expected
            assert np.abs(apart).mean() <= 2


def decoded(size: Size) -> None:
    """Read and decode every photo once."""

    def work(path: Path) -> None:
        decode_bytes(path.read_bytes(), path.name, MAX_PIXELS)

    for _ in in_order(work, photos(size), THREADS):
        pass


def table_of(size: Size) -> Table:
    """Make the table of photos of one size."""
    return Table(
        f"{CHANNELS} channels x {PATCHES} patches of {TILE_PX} px from {PHOTOS} photos of {size[0]}x{size[1]} px",
        [
            Contender(
                "patch_sheet, 2 threads", lambda: ours(size), lambda _: check(size), OURS, 0, threads=THREADS,
                output=sheet,
            ),
            Contender(
                "decoding the photos, 2 threads", lambda: decoded(size), anything, FLOOR, 0, threads=THREADS
            ),
        ],
        prepare=lambda: top(size),
        full_only=True,
    )  # fmt: skip


TABLES = [table_of(CAMERA_PX), table_of(PHOTO_PX)]


@cases(TABLES)
def bench_patches(report: Callable[[Table, str], None], table: Table, name: str) -> None:
    report(table, name)
