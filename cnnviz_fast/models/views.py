"""Which part of a photo a model's input shows: followed through the steps of its preprocessing, or else measured.

Resizing, cropping and padding move the edges of an image along its two axes and do nothing else, so that what an input
shows is a box of the photo. The steps of torchvision and timm are followed by their own arithmetic. Any other
preprocessing is measured: it is run on images whose brightness tells where each pixel lies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from .bounds import bounded
from .hf_preprocess import HfPreprocess
from .own_preprocess import ArrayPreprocess, OwnPreprocess
from .preprocess import Bare, Clip, Grey, Preprocess, Preprocessing, Still, TimmPreprocess

Box = tuple[float, float, float, float]
Floats = NDArray[np.float64]

_FOLLOWED = ("torch", "torchvision", "timm")
"""Packages whose steps are known by the names of their classes."""

_STILL = {
    "ToTensor", "PILToTensor", "ConvertImageDtype", "Normalize", "MaybeToTensor", "MaybePILToTensor", "ToImage",
    "ToDtype", "ToPureTensor", "Grayscale", "RGB", "Identity",
}  # fmt: skip
"""Steps that move nothing."""

_SWING = 50
"""Levels by which each of the two slopes of an image that is measured goes up and down from grey. With them and noise
no filter overshoots black or white."""

_NOISE, _MOST_NOISE = 0.5, 12.0
"""Levels up and down for each pixel of the photo that one of the input is made of, and at most: enough of it is left to
make the rounding of levels even out."""

_BEYOND = 1.1
"""How far planes go on beyond the part that is measured, of half of it: filters read there."""

_LEAST_PX, _MOST_TIMES = 100_000, 8
"""Pixels that a plane is laid through: those of a small photo come several times, each time with other noise."""

_MOST_TURN = 0.005
"""Of a pixel a pixel: what a measured slope may lean towards the other axis. A turn of a third of a degree."""

_MOST_LEVELS = 0.75
"""Root mean square of what is left beside a plane, and beside the noise, where levels are rounded twice."""

_SAME_LEVELS = 0.25
"""Mean difference of what is made twice of one image, where nothing is left to chance."""


class View(NamedTuple):
    """What an input shows.

    box: y0, x0, y1, x1 of its edges in pixels of the photo, whose own edges are 0, 0, height, width. It reaches beyond
        them where the photo was padded.
    size: (height, width) of the input, px.
    """

    box: Box
    size: tuple[int, int]


@dataclass(frozen=True)
class Region:
    """An image that preprocessing works on, without its pixels. It is asked and cropped as Pillow's images are.

    Attributes:
        height: px.
        width: px.
        box: y0, x0, y1, x1 of its edges in pixels of the photo.
    """

    height: int
    width: int
    box: Box

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height, px."""
        return self.width, self.height

    def resized(self, height: int, width: int) -> Region:
        """Return it in another size: its edges stay where they are in the photo."""
        return replace(self, height=height, width=width)

    def crop(self, box: tuple[int, int, int, int]) -> Region:
        """Return the part from left, top to right, bottom, px; beyond its edges it is padded."""
        left, top, right, bottom = box
        y0, x0, y1, x1 = self.box
        dy, dx = (y1 - y0) / self.height, (x1 - x0) / self.width
        return Region(bottom - top, right - left, (y0 + top * dy, x0 + left * dx, y0 + bottom * dy, x0 + right * dx))


def view_of(preprocess: Preprocess, height: int, width: int, max_pixels: int) -> View | None:
    """Return which part of a photo the input of a model shows.

    Args:
        preprocess: the model's own.
        height: of the upright photo, px.
        width: of the upright photo, px.
        max_pixels: that preprocessing may make of an image; see `bounded`.

    Returns:
        The view; None where it is no box: what is turned, mirrored, warped or left to chance.
    """
    whole = Region(height, width, (0.0, 0.0, float(height), float(width)))
    try:
        photo: Region = bounded(whole, preprocess, max_pixels, "image")  # type: ignore[type-var]
    except ImageError:
        return None
    seen = _followed(preprocess, photo)
    if seen is None:
        return _measured(preprocess, photo)
    return View(seen.box, (seen.height, seen.width))


def view_as_described(described: Any, height: int, width: int) -> View | None:
    """Return which part of a photo an input shows, by what a run says of its preprocessing; `view_of` for a model.

    Args:
        described: JSON of `runs.folder.fingerprint`, which may be anybody's.
        height: of the upright photo, px.
        width: of the upright photo, px.

    Returns:
        The view; None for anything but resizing to a size, and torchvision's presets.
    """
    image = Region(height, width, (0.0, 0.0, float(height), float(width)))
    step = described
    while isinstance(step, dict):
        rule = _RULES.get(str(step.get("is")).rpartition(".")[2])
        try:
            seen = image.resized(*step["size"]) if step.get("size") else rule and rule(SimpleNamespace(**step), image)
            if seen is not None and min(seen.size) > 0:
                return View(seen.box, (int(seen.height), int(seen.width)))
        except (TypeError, ValueError, AttributeError, ZeroDivisionError, OverflowError):
            return None
        step = step.get("frame") or step.get("preset")
    return None


def _followed(step: Any, image: Region) -> Region | None:
    """Return what a preprocessing, or a step of one, makes of an image; None where it is not known."""
    if isinstance(step, Grey | Bare | Preprocessing):
        size = getattr(step, "size", None)
        return _followed(step.preset, image) if size is None else image.resized(*size)
    if isinstance(step, ArrayPreprocess):
        return image if step.size is None else image.resized(*step.size) if len(step.size) == 2 else None
    if isinstance(step, HfPreprocess):
        return None if step.size is None else image.resized(*step.size)
    for kind, inner in ((Clip, "frame"), (Still, "preset"), (OwnPreprocess, "function")):
        if isinstance(step, kind):
            return _followed(getattr(step, inner), image)
    if isinstance(step, TimmPreprocess):
        return _followed(step.transform(), image)
    if type(step).__module__.partition(".")[0] not in _FOLLOWED:
        return None
    name = type(step).__name__
    if name in _STILL:
        return image
    if name in ("Compose", "Sequential"):
        return _one_by_one(getattr(step, "transforms", step), image)
    rule = _RULES.get(name)
    return None if rule is None else rule(step, image)


def _one_by_one(steps: Iterable[Any], image: Region | None) -> Region | None:
    for step in steps:
        image = None if image is None else _followed(step, image)
    return image


def _resized(image: Region, size: Any, max_size: int | None = None) -> Region:
    """Resize as torchvision does: to a height and a width, or the shorter side to a number, or the longer at most."""
    lengths = tuple(size) if isinstance(size, Sequence) else (size,)
    if len(lengths) == 2:
        return image.resized(*lengths)
    short, long = sorted(image.size)
    if size is not None:
        short, long = lengths[0], int(lengths[0] * long / short)
    if max_size is not None and (size is None or long > max_size):
        short, long = int(max_size * short / long), max_size
    return image.resized(short, long) if image.width > image.height else image.resized(long, short)


def _center_cropped(image: Region, size: Any) -> Region:
    """Cut the middle out as torchvision does: what is too small is padded first."""
    lengths = tuple(size) if isinstance(size, Sequence) else (size,)
    height, width = lengths * 2 if len(lengths) == 1 else lengths
    if width > image.width or height > image.height:
        down, across = max(height - image.height, 0), max(width - image.width, 0)
        image = image.crop(
            (-(across // 2), -(down // 2), image.width + (across + 1) // 2, image.height + (down + 1) // 2)
        )
    top, left = round((image.height - height) / 2.0), round((image.width - width) / 2.0)
    return image.crop((left, top, left + width, top + height))


def _padded(image: Region, padding: Any) -> Region:
    """Pad by one number, by those of left and right and of top and bottom, or by left, top, right, bottom."""
    sides = tuple(padding) if isinstance(padding, Sequence) else (padding,)
    left, top, right, bottom = sides if len(sides) == 4 else (sides * 4)[:4]
    return image.crop((-left, -top, image.width + right, image.height + bottom))


def _kept_in_shape(step: Any, image: Region) -> Region | None:
    """Resize as timm does to keep the shape: between what fills a size and what fits into it."""
    if step.random_scale_prob or step.random_aspect_prob:
        return None
    ratios = image.height / step.size[0], image.width / step.size[1]
    ratio = max(ratios) * step.longest + min(ratios) * (1.0 - step.longest)
    return image.resized(round(image.height / ratio), round(image.width / ratio))


def _trimmed(step: Any, image: Region) -> Region:
    """Take a border off as timm does; its left is held to the height, too."""
    border = step.border_size
    top, left = min(border, image.height), min(border, image.height)
    height, width = max(0, image.height - 2 * border), max(0, image.width - 2 * border)
    return image.crop((left, top, left + width, top + height))


def _preset(step: Any, image: Region) -> Region:
    """Resize and crop as torchvision's presets do, each as far as it has that."""
    size, cut = getattr(step, "resize_size", None), getattr(step, "crop_size", None)
    image = image if size is None else _resized(image, size)
    return image if cut is None else _center_cropped(image, cut)


_RULES: dict[str, Callable[[Any, Region], Region | None]] = {
    "Resize": lambda step, image: _resized(image, step.size, step.max_size),
    "CenterCrop": lambda step, image: _center_cropped(image, step.size),
    "CenterCropOrPad": lambda step, image: _center_cropped(image, step.size),
    "Pad": lambda step, image: _padded(image, step.padding),
    "ResizeKeepRatio": _kept_in_shape,
    "TrimBorder": _trimmed,
    **dict.fromkeys(("ImageClassification", "VideoClassification", "SemanticSegmentation", "ObjectDetection"), _preset),
}


def _measured(preprocess: Preprocess, photo: Region) -> View | None:
    """Find out what a preprocessing shows of a photo: roughly, and then of that part alone, which is more exact."""
    whole = (0.0, 0.0, float(photo.height), float(photo.width))
    found = _measured_over(preprocess, photo.height, photo.width, whole)
    if found is not None and (part := _overlap(found.box, whole)) != whole:
        found = _measured_over(preprocess, photo.height, photo.width, part)
    if found is None:
        return None
    y, x = photo.box[:2]
    return View((found.box[0] + y, found.box[1] + x, found.box[2] + y, found.box[3] + x), found.size)


def _overlap(a: Box, b: Box) -> Box:
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def _measured_over(preprocess: Preprocess, height: int, width: int, part: Box) -> View | None:
    """Measure a preprocessing by what it makes of images of a size.

    Three are planes, bright towards three corners of a part of them. Their differences tell column and row of each
    pixel, and what rounding up adds is in all of them. Noise makes levels that are rounded right on average: a plane is
    laid through thousands. Black and white tell how bright a level comes out, and what is padding. The first plane goes
    through twice, to tell chance.
    """
    try:
        black, white = (_values(preprocess, np.full((height, width, 1), level)) for level in (0.0, 255.0))
        contrast = white - black
        weight = np.square(contrast).sum(0)
        shown = weight > 0
        if not shown.any():
            return None
        # What averages over more pixels leaves less of the noise.
        noise = min(_NOISE * max(1, height / shown.shape[0], width / shown.shape[1]), _MOST_NOISE)
        scale = contrast / np.where(shown, weight, 1)
        rows, cols = _middle(shown)

        def seen(number: int) -> Floats:
            """Return the levels in which a plane comes out; of small images, of several with other noise."""
            times = min(max(_LEAST_PX // (height * width), 1), _MOST_TIMES)
            planes = (_plane_of(number, height, width, part, noise, seed) for seed in range(times))
            made = sum(((_values(preprocess, plane) - black) * scale).sum(0)[rows, cols] for plane in planes)
            return 255 / times * np.asarray(made)

        parts = [seen(number) for number in (0, 1, 2, 0)]
    except Exception:  # a user's own may raise anything, and make any shape
        return None
    fits = [_plane(each, rows.start, cols.start) for each in parts]
    # A filter that takes the nearest pixel is off by up to half of one, and averages no noise.
    tolerance = _MOST_LEVELS + noise + _SWING / min(part[2] - part[0], part[3] - part[1])
    if max(left for _, left in fits) > tolerance or np.abs(parts[0] - parts[3]).mean() > _SAME_LEVELS:
        return None
    first, second, third, _ = (fit for fit, _ in fits)
    across = ((first - second) / (2 * _SWING) + [0, 0, 1]) * (part[3] - part[1]) / 2
    down = ((second - third) / (2 * _SWING) + [0, 0, 1]) * (part[2] - part[0]) / 2
    if abs(across[0]) >= _MOST_TURN * across[1] or abs(down[1]) >= _MOST_TURN * down[0]:
        return None
    y0, x0 = part[0] + float(down[2]), part[1] + float(across[2])
    size = shown.shape[0], shown.shape[1]
    return View((y0, x0, y0 + float(down[0]) * size[0], x0 + float(across[1]) * size[1]), size)


_CORNERS = ((1, 1), (-1, 1), (-1, -1))
"""Towards which planes are bright: right and down, left and down, left and up."""


def _plane_of(number: int, height: int, width: int, part: Box, noise: float, seed: int) -> Floats:
    """Return a plane over a part of an image, level beside it, (height, width, 3) levels."""
    y, x = (
        (2 * (np.arange(count) + 0.5 - first) / (last - first) - 1).clip(-_BEYOND, _BEYOND)
        for count, first, last in ((height, part[0], part[2]), (width, part[1], part[3]))
    )
    across, down = _CORNERS[number]
    random = np.random.default_rng((number, seed))
    plane = 127.5 + _SWING * (across * x + down * y[:, None])
    return np.asarray(plane[..., None] + noise * random.uniform(-1, 1, (height, width, 3)))


def _values(preprocess: Preprocess, levels: Floats) -> Floats:
    """Return what a preprocessing makes of an image, (height, width, 1 or 3) levels, as (channels, height, width)."""
    from PIL import Image

    pixels = np.floor(levels + 0.5).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))
    made: Floats = preprocess(image).double().numpy(force=True)
    made = made[None] if made.ndim == 2 else made.mean(1) if made.ndim == 4 else made
    if made.ndim != 3 or not np.isfinite(made).all():
        raise ImageError(f"an input must have channels, rows and columns, got {made.shape}.")
    return made


def _middle(shown: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns in the middle of what is no padding, three quarters: filters end at its edges."""
    rows, cols = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
    return tuple(slice(part[0] + len(part) // 8, part[-1] + 1 - len(part) // 8) for part in (rows, cols))  # type: ignore[return-value]


def _plane(levels: Floats, top: int, left: int) -> tuple[Floats, float]:
    """Lay a plane through levels, (rows, cols) float64, the first of which lies at (top, left).

    Returns:
        (3,) float64, levels a row, a column and at the corner of the input; and the root mean square of what is left.
    """
    rows, cols = levels.shape
    y, x = np.arange(rows) + top + 0.5, np.arange(cols) + left + 0.5
    mean, dy, dx = levels.mean(), y - y.mean(), x - x.mean()
    down = float((levels.mean(1) * dy).sum() / max(np.square(dy).sum(), 1e-9))
    across = float((levels.mean(0) * dx).sum() / max(np.square(dx).sum(), 1e-9))
    left_over = levels - (mean + down * dy[:, None] + across * dx)
    corner = float(mean) - down * float(y.mean()) - across * float(x.mean())
    return np.array([down, across, corner]), math.sqrt(float(np.square(left_over).mean()))
