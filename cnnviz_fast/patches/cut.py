"""Patches cut from photos at their full resolution: each photo is decoded once, in the order of the files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from ..inputs.catalogue import ListedImage
from ..inputs.decode import decode_bytes
from ..models.views import Box
from ..options.reading import ImageOptions
from ..runtime.workers import in_order
from .photos import Photo, content_of, digest_of, find

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..activations.fields.record import ReceptiveField

Pixels = NDArray[np.uint8]

REDUCING_GAP = 2.0
"""Photos that shrink are first averaged in whole steps to this many times the size of the tile. Measured from 464 px to
96: 0.9 ms in place of 1.5, 0.3 levels apart in the mean and 4 at most; with 1.5 it is 0.5 ms, and 18 levels."""

_WHOLE_PX = 1e-6
"""Of a pixel of a tile: what a pixel may lie outside of the photo by, since boxes are computed in floats."""


class Place(NamedTuple):
    """Where a patch lies.

    box: y0, x0, y1, x1 in pixels of the upright photo; it may reach beyond the photo.
    seen: the part of it that is photo, and that the model saw.
    unit: (y, x) of the centre of the unit's receptive field, from 0 to 1 in the box; None where that is not known.
    """

    box: Box
    seen: Box
    unit: tuple[float, float] | None


def input_box(field: ReceptiveField, size: tuple[int, int], y: int, x: int) -> tuple[int, int, int, int]:
    """Return the receptive field of a unit in pixels of the input; along an axis that it covers, the whole input.

    Args:
        field: of the layer's units.
        size: (height, width) of the input, px.
        y: row of the unit.
        x: column of the unit.

    Returns:
        y0, x0, y1, x1, the ends exclusive. It may reach beyond the input.
    """
    y0, x0, y1, x1 = field.box(y, x)
    covers = [field.whole or field.size[axis] >= size[axis] for axis in (0, 1)]
    return (
        0 if covers[0] else y0, 0 if covers[1] else x0, size[0] if covers[0] else y1, size[1] if covers[1] else x1
    )  # fmt: skip


def place(
    field: ReceptiveField,
    photo: Photo,
    position: tuple[int, int],
    shape: tuple[int, int],
    maps: tuple[int, int],
) -> Place | None:
    """Find the patch of a unit in a photo.

    Args:
        field: of the layer's units.
        photo: the photo. Where its geometry is not known, all of it is the patch.
        position: (y, x) of the unit on its map.
        shape: (height, width) that the patch is drawn in; a patch of another shape is shown with room beside it.
        maps: (height, width) of the layer's maps; (0, 0) for vectors. Units that see the whole input are marked where
            they lie on the map.

    Returns:
        The place; None where the size of the photo is not known.
    """
    if photo.size is None:
        return None
    whole = (0.0, 0.0, float(photo.size[0]), float(photo.size[1]))
    if photo.view is None or photo.input is None:
        return Place(_in_shape(whole, shape), whole, None)
    y0, x0, y1, x1 = photo.view
    scale = (y1 - y0) / photo.input[0], (x1 - x0) / photo.input[1]
    box = _in_shape(tuple(map(float, input_box(field, photo.input, *position))), shape)  # type: ignore[arg-type]
    if field.whole:
        centre = [(position[axis] + 0.5) / max(maps[axis], 1) * photo.input[axis] for axis in (0, 1)]
    else:
        centre = [field.offset[axis] + position[axis] * field.stride[axis] + 0.5 for axis in (0, 1)]
    unit = (centre[0] - box[0]) / (box[2] - box[0]), (centre[1] - box[1]) / (box[3] - box[1])
    there = (y0 + box[0] * scale[0], x0 + box[1] * scale[1], y0 + box[2] * scale[0], x0 + box[3] * scale[1])
    return Place(there, _overlap(there, _overlap(photo.view, whole)), unit if min(maps) else None)


def _in_shape(box: Box, shape: tuple[int, int]) -> Box:
    """Extend a box on both sides to the shape in which it is drawn."""
    y0, x0, y1, x1 = box
    height, width = y1 - y0, x1 - x0
    scale = max(height / shape[0], width / shape[1])
    # A side is rounded to whole pixels of the tile, which is no reason for room beside it.
    down, across = (
        extra / 2 if extra > scale else 0.0 for extra in (shape[0] * scale - height, shape[1] * scale - width)
    )
    return y0 - down, x0 - across, y1 + down, x1 + across


def _overlap(a: Box, b: Box) -> Box:
    """Return the part that two boxes share; of no size where they share none."""
    y0, x0 = max(a[0], b[0]), max(a[1], b[1])
    return y0, x0, max(y0, min(a[2], b[2])), max(x0, min(a[3], b[3]))


def drawn_rows(place: Place, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of a tile, (height, width) px, that lie in what was seen of a patch, whole pixels."""
    found = []
    for axis in (0, 1):
        first, last = place.box[axis], place.box[axis + 2]
        step = (last - first) / shape[axis]
        start = math.ceil((place.seen[axis] - first) / step - _WHOLE_PX)
        stop = math.floor((place.seen[axis + 2] - first) / step + _WHOLE_PX)
        found.append(slice(max(start, 0), max(start, 0, min(stop, shape[axis]))))
    return found[0], found[1]


def draw(image: Image, photo: Photo, place: Place, background: Any, out: NDArray[Any]) -> None:
    """Draw a patch of a photo, or of a plane of floats.

    Args:
        image: the photo, upright, RGB; or in a fraction of its size, where that is a multiple of it; or the plane.
        photo: what is known of it.
        place: of the patch.
        background: (3,) uint8, RGB, or a float. Shown beyond what the model saw.
        out: (tile_h, tile_w, 3) uint8, or (tile_h, tile_w) float32. Every pixel is written. Where one of them is one of
            the photo it has its value.
    """
    from PIL.Image import Resampling

    rows, cols = drawn_rows(place, out.shape[:2])
    height, width = rows.stop - rows.start, cols.stop - cols.start
    if (height, width) != out.shape[:2]:
        out[:] = background
    if height <= 0 or width <= 0:
        return
    assert photo.size is not None
    y0, x0, y1, x1 = (edge * image.height / photo.size[0] for edge in place.box)
    down, across = (y1 - y0) / out.shape[0], (x1 - x0) / out.shape[1]
    box = (
        max(0.0, x0 + cols.start * across),
        max(0.0, y0 + rows.start * down),
        min(float(image.width), x0 + cols.stop * across),
        min(float(image.height), y0 + rows.stop * down),
    )
    # Both give a pixel that is neither enlarged nor reduced its own value. Hamming's reaches half as far.
    filter = Resampling.HAMMING if min(down, across) > 1 else Resampling.BICUBIC
    out[rows, cols] = np.asarray(image.resize((width, height), filter, box, reducing_gap=REDUCING_GAP))


@dataclass(frozen=True)
class Cut:
    """The patches of one photo: the number of the tile of each, and where it lies; None where that is not known."""

    photo: Photo
    places: Sequence[tuple[int, Place | None]]


class Missing(NamedTuple):
    """A photo whose patches cannot be cut: its name, why, and the numbers of their tiles."""

    name: str
    reason: str
    tiles: list[int]


def cut_all(
    cuts: Sequence[Cut],
    tiles: Pixels,
    background: Pixels,
    *,
    max_pixels: int,
    options: ImageOptions,
    threads: int,
    over: Sequence[Callable[[Image, Cut], None]] = (),
) -> list[Missing]:
    """Cut patches out of photos, each photo read and decoded once, in the order in which they lie on the disk.

    Args:
        cuts: the photos with what is wanted of each.
        tiles: (N, tile_h, tile_w, 3) uint8. The tile of each patch; those of photos that are missing stay as they are.
        background: (3,) uint8, RGB. Shown where a patch reaches beyond what the model saw.
        max_pixels: refuse larger photos.
        options: how files are decoded.
        threads: number of workers.
        over: called with each photo, upright and RGB, once its patches are drawn: they may be painted over.

    Returns:
        The photos that are gone, cannot be read, or have changed since the run.
    """
    lying = [cut for cut in cuts if cut.photo.path is not None]
    located = list(zip(lying, find([cut.photo for cut in lying]), strict=True))

    shape = tiles.shape[1], tiles.shape[2]

    def work(item: tuple[Cut, ListedImage | ImageError]) -> Missing | None:
        cut, image = item
        try:
            if isinstance(image, ImageError):
                raise image
            content = content_of(image, cut.photo.name)
            _refuse_changed(cut.photo, content)
            decoded = decode_bytes(
                content, cut.photo.name, max_pixels, options, shrink=1 if over else _shrink(cut, shape)
            )
        except ImageError as error:
            return Missing(cut.photo.name, str(error), [number for number, _ in cut.places])
        for number, place in cut.places:
            assert place is not None  # the photo's size is known
            draw(decoded, cut.photo, place, background, tiles[number])  # type: ignore[arg-type]  # no floats were asked for
        for paint in over:
            paint(decoded, cut)  # type: ignore[arg-type]
        return None

    located.sort(key=lambda item: (item[0].photo.path or "", getattr(item[1], "start", 0)))
    never = [
        Missing(cut.photo.name, f"image {cut.photo.name!r} was no file in the run.", [n for n, _ in cut.places])
        for cut in cuts
        if cut.photo.path is None
    ]
    return never + [missing for missing in in_order(work, located, threads) if missing is not None]


def _shrink(cut: Cut, shape: tuple[int, int]) -> int:
    """Return into how many times fewer rows and columns a photo may be decoded, as REDUCING_GAP allows: 1, 2, 4 or 8.

    Its sides are multiples of it, so that pixels of the smaller image are whole blocks of the photo.
    """
    least = min(
        (place.box[axis + 2] - place.box[axis]) / shape[axis]
        for _, place in cut.places
        if place is not None
        for axis in (0, 1)
    )
    fits = (n for n in (8, 4, 2) if least >= n * REDUCING_GAP and not any(side % n for side in cut.photo.size or (1,)))
    return next(fits, 1)


def _refuse_changed(photo: Photo, content: bytes) -> None:
    """Raise ImageError for a file that is not the one that the model saw, or that could not be read even then."""
    if photo.changed:
        raise ImageError(f"image {photo.name!r} had changed by the end of the run since the model read it.")
    if photo.size is None:
        raise ImageError(
            f"image {photo.name!r} could not be read at the end of the run: where its patches lie is not known."
        )
    if photo.bytes is not None and len(content) != photo.bytes:
        raise ImageError(
            f"image {photo.name!r} has changed since the run: it had {photo.bytes:,} bytes, and has {len(content):,}."
        )
    if photo.digest is not None and digest_of(content) != photo.digest:
        raise ImageError(f"image {photo.name!r} has changed since the run: its content is another.")
