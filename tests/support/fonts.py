"""The package's font as Pillow reads it, to write the text that is expected of a sheet."""

from __future__ import annotations

from PIL import ImageFont

from cnnviz_fast.sheets.lettering import FONT


def pillows(size: int) -> ImageFont.FreeTypeFont:
    """Return the font at a size in px."""
    return ImageFont.truetype(FONT, size, layout_engine=ImageFont.Layout.BASIC)
