"""How large preprocessing makes an image: where it resizes the shorter side, a narrow image grows without bound."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import ImageError

if TYPE_CHECKING:
    from .float_images import AnyImage
KEPT_ASPECT = 16
"""How many times as long as wide the part in the middle is that is kept of an image of which only the middle is shown:
far more than any square crop of it, with what the filters at the crop's edges read."""


class _Resize(NamedTuple):
    """A resize of the shorter side, and whether the middle is cut out afterwards."""

    side_px: int
    crops: bool


def bounded(image: AnyImage, preprocess: Any, max_pixels: int, label: str) -> AnyImage:
    """Return an image that a preprocessing makes no larger than allowed.

    Args:
        image: of any size. Not modified.
        preprocess: what it is meant for.
        max_pixels: most pixels that may come out.
        label: names the image in messages.

    Returns:
        The image; or its middle, where it would grow beyond and only the middle is shown anyway.

    Raises:
        ImageError: all of it would be shown.
    """
    resize = _resize_in(preprocess)
    if resize is None:
        return image
    short, long = sorted(image.size)
    length_px = math.ceil(resize.side_px * long / short)
    if resize.side_px * length_px <= max_pixels:
        return image
    if not resize.crops:
        raise ImageError(
            f"{label} of {image.width} x {image.height} px would become {resize.side_px} x {length_px:,} px for this "
            f"model, more than {max_pixels:,} pixels. Crop it, or set the size."
        )
    kept = KEPT_ASPECT * short
    kept += (long - kept) % 2  # so that the middle stays the middle
    start = (long - kept) // 2
    across = image.width == long
    return image.crop((start, 0, start + kept, short) if across else (0, start, short, start + kept))


def _resize_in(preprocess: Any) -> _Resize | None:
    """Find the resize of the shorter side in a preprocessing; None where it has none, or sets the longer side too."""
    if getattr(preprocess, "size", None) is not None and not hasattr(preprocess, "transforms"):
        return None  # the whole image is resized to that size
    for inner in ("preset", "frame", "function"):
        if hasattr(preprocess, inner):
            return _resize_in(getattr(preprocess, inner))
    if hasattr(preprocess, "resize_size"):  # torchvision's presets
        return _of_side(preprocess.resize_size, hasattr(preprocess, "crop_size"))
    if hasattr(preprocess, "config"):  # timm's data config
        crops = preprocess.config.get("crop_mode", "center") == "center"
        side = preprocess.config["input_size"][-1] / preprocess.config.get("crop_pct", 1)
        return _Resize(math.floor(side), True) if crops else None
    if hasattr(preprocess, "processor"):  # of transformers
        size = getattr(preprocess.processor, "size", None) or {}
        side = size.get("shortest_edge") if hasattr(size, "get") and not size.get("longest_edge") else None
        return _of_side(side, bool(getattr(preprocess.processor, "do_center_crop", False)))
    return _in_steps(getattr(preprocess, "transforms", None))


def _in_steps(steps: Any) -> _Resize | None:
    """Find the resize in the steps of a torchvision Compose."""
    if not isinstance(steps, Sequence):
        return None
    flat = list(_flat(steps))
    names = [type(step).__name__ for step in flat]
    if "Resize" not in names or getattr(flat[names.index("Resize")], "max_size", None):
        return None
    at = names.index("Resize")
    # Behind another step, such as a padding, the middle of the image is no longer what is shown.
    return _of_side(flat[at].size, at == 0 and "CenterCrop" in names)


def _flat(steps: Any) -> Iterator[Any]:
    """List the steps of a Compose, and those of the ones in it."""
    for step in steps:
        inner = getattr(step, "transforms", None)
        yield from _flat(inner) if isinstance(inner, Sequence) else (step,)


def _of_side(size: Any, crops: bool) -> _Resize | None:
    """Return the resize of a size that is one number; None for other sizes."""
    if isinstance(size, Sequence) and len(size) == 1:
        size = size[0]
    return _Resize(size, crops) if isinstance(size, int) and size > 0 else None
