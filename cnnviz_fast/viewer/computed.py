"""What is computed of what a run holds, with torch: sheets, arrangements of channels by similarity, patches.

A server has these called in another process (server/apart.py): they are functions of a module, and take files by name.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import AtlasError, OptionError, reason_of
from ..formats.atlas_files import AtlasFile
from ..geometry import tile_size
from ..options.drawing import RenderOptions
from ..patches.top_files import read_top
from ..runtime.run_files import collected_name
from .payloads import as_jpeg, patches_payload, similarity_payload
from .photos import Photos
from .shown import inside

if TYPE_CHECKING:
    from ..models.own_preprocess import ArrayPreprocess
    from ..patches.sheet import PatchSheet
    from ..patches.top_files import TopFile

Compute: TypeAlias = Callable[..., bytes | None]
"""(one of these functions, its arguments) -> what it returns."""

MOST_SHEET_PX = 100_000_000
"""Of a sheet that is drawn."""

SIMILAR_VALUES = 20_000
"""Values of each channel by which channels are compared: of so many images as have them."""

PATCH_PX, PATCHES = 64, 8
"""Longer side of a patch, and how many of a channel are shown."""


def directly(function: Compute, *arguments: Any) -> bytes | None:
    """Call a function here; see Compute."""
    return function(*arguments)


def sheet(packed: bytes, name: str, options: RenderOptions) -> bytes:
    """Return a sheet as PNG.

    Args:
        packed: bytes of an atlas; they need not be trusted.
        name: of it, for messages.
        options: of the sheet.

    Raises:
        CnnvizError: the atlas is damaged, or the sheet cannot be drawn or is too large.
    """
    from ..formats.atlas import parse_atlas
    from ..sheets.plan import plan_sheet
    from ..sheets.render import draw_sheet

    atlas = parse_atlas(packed, name)
    too_large = OptionError(f"a sheet may have at most {MOST_SHEET_PX // 1_000_000} megapixels here.")
    map_h, map_w = atlas.index.shape[1:]
    if math.prod(tile_size(map_h, map_w, options.tile, options.scale)) > MOST_SHEET_PX:
        raise too_large  # planned, each column and row of a tile takes memory
    plan = plan_sheet(atlas.maps, options, atlas.provenance)
    if plan.grid.height * plan.grid.width > MOST_SHEET_PX:
        raise too_large
    file = io.BytesIO()
    draw_sheet(plan).pil().save(file, "PNG")
    return file.getvalue()


def similarity(files: Sequence[AtlasFile], layer: str, channels: int) -> bytes:
    """Return an arrangement of the channels of a layer; see similarity_payload.

    Args:
        files: atlases of it, of some images. What is damaged is left out.
        layer: its name.
        channels: that the layer has.

    Raises:
        AtlasError: none can be read.
    """
    found: list[Any] = []
    for file in files:
        with suppress(AtlasError):
            if (maps := file.read().maps).shape[0] == channels:
                found.append(maps)
        if sum(maps[0].numel() for maps in found) >= SIMILAR_VALUES:
            break
    if not found:
        raise AtlasError(f"no atlas of {layer} can be read.")
    return similarity_payload(found)


def patches(folder: Path, photos: Photos, cut_at_once: int, layer: str, channel: int) -> bytes | None:
    """Return the patches of a channel as JPEG; None for one that never responded.

    Args:
        folder: of the run.
        photos: from which they are cut: those that lie where the user says.
        cut_at_once: channels whose patches are cut together, for which each photo is decoded once.
        layer: name of the layer.
        channel: of it.

    Raises:
        CnnvizError: the strongest images of the run cannot be read.
    """
    path = inside(folder, collected_name("top"))
    try:
        written = os.path.getmtime(path)
    except OSError as error:
        raise AtlasError(f"the strongest images of run {folder.name!r} are gone: {reason_of(error)}.") from error
    row = channel % cut_at_once
    cut = _cut(path, written, photos, layer, channel - row, cut_at_once)
    count = sum(record["channel"] == channel for record in cut.table)
    return patches_payload(cut, row, count) if count else None


def view_of_array(path: Path, preprocess: ArrayPreprocess, most_values: int, plane: int | None, planes: int) -> bytes:
    """Return what a model saw of an array as JPEG: of a volume or a clip a frame.

    Args:
        path: of the file.
        preprocess: how it became the model's input.
        most_values: of the array.
        plane: of a layer, under which the frame lies; None for the first frame.
        planes: that the layer has.

    Raises:
        ImageError: it cannot be read.
    """
    from PIL.Image import fromarray

    from ..activations.maps import frame_of
    from ..inputs.images import InputSpec
    from ..models.preprocess import as_image

    sample = InputSpec(preprocess, preprocess.expected, most_values).read(path)[0]
    return as_jpeg(fromarray(as_image(frame_of(sample, plane, planes), preprocess)))


@lru_cache(1)
def _top(path: Path, written: float, photos: Photos) -> TopFile:
    return photos.of_top(read_top(path))


@lru_cache(1)
def _cut(path: Path, written: float, photos: Photos, layer: str, first: int, count: int) -> PatchSheet:
    """Cut the patches of channels that follow each other; they are kept until further ones are."""
    from ..patches.api import patch_sheet

    top = _top(path, written, photos)
    channels = range(first, min(first + count, top[layer].channels))
    return patch_sheet(
        top, layer, channels=channels, per_channel=PATCHES, tile=PATCH_PX, label=False, title="", threads=1
    )
