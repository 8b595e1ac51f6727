"""Damaged images, read as far as they go where that is asked for; without Pillow's switch, which all threads share."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from ...errors import reason_of
from ...runtime.caller import warn_caller

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

_END_OF_JPEG = b"\xff\xd9"


def load_so_far(image: PilImage, label: str) -> None:
    """Decode an opened image up to its damage, and warn of that; what comes after stays black, or grey in a JPEG.

    Args:
        image: opened.
        label: names it in the warning.

    Raises:
        Exception: of its decoder, where nothing at all can be decoded.
    """
    opened: Any = image
    try:
        image.load()
    except Exception as error:
        if getattr(image, "_im", None) is None:
            raise
        if image.format in ("JPEG", "MPO"):
            opened.im = _jpeg_so_far(opened)
        opened.tile = []  # what was decoded counts as the image
        image.load()
        if image.getbbox() is None:
            raise
        warn_caller(f"{label} is damaged, {reason_of(error)}: what comes after the damage is missing.")


def _jpeg_so_far(image: Any) -> Any:
    """Return the pixels of a JPEG with an end put behind it: libjpeg holds the last rows back until it sees one."""
    from PIL.JpegImagePlugin import JpegImageFile

    image.fp.seek(0)
    with JpegImageFile(io.BytesIO(image.fp.read() + _END_OF_JPEG)) as ended:
        ended.load()
        return ended.im
