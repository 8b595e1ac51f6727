"""The formats that are read, each recognised by its first bytes."""

from __future__ import annotations

import functools
import importlib
import re
from typing import Any, NamedTuple


class Format(NamedTuple):
    """One of the formats that are read; everything else is refused."""

    stem: str  # of Pillow's PIL.<stem>ImagePlugin.<stem>ImageFile
    signature: bytes  # regular expression for a file's first bytes
    extensions: tuple[str, ...]


FORMATS = (
    Format("Png", rb"\x89PNG\r\n\x1a\n", (".png",)),
    Format("Jpeg", rb"\xff\xd8\xff", (".jpg", ".jpeg", ".jpe", ".jfif")),
    Format("WebP", rb"RIFF.{4}WEBP", (".webp",)),
    Format("Avif", rb".{4}ftyp(avi[fs]|mif1.{0,64}avif)", (".avif",)),
    Format("Bmp", rb"BM", (".bmp",)),
    Format("Gif", rb"GIF8[79]a", (".gif",)),
    Format("Tiff", rb"II[*+]\0(?!.{4}CR[\x02\x03])|MM\0[*+]", (".tif", ".tiff")),
    Format("Ppm", rb"P[1-6f]\s", (".ppm", ".pgm", ".pbm", ".pnm", ".pfm")),
)
EXTENSIONS = tuple(extension for entry in FORMATS for extension in entry.extensions)

HEAD_BYTES = 1024
"""How much of a file is looked at to recognise it."""


def format_of(head: bytes) -> Format | None:
    """Return the format that begins with these bytes."""
    return next((entry for entry in FORMATS if re.match(entry.signature, head, re.DOTALL)), None)


@functools.cache
def is_readable(entry: Format) -> bool:
    """Check whether the Pillow that is installed reads a format: AVIF came with 11.3, and is left out by some."""
    return entry.stem != "Avif" or "avif" in features_of_pillow()


def features_of_pillow() -> list[str]:
    """Return the optional parts that the Pillow that is installed has."""
    from PIL import features

    return features.get_supported()


def plugin_of(entry: Format) -> Any:
    """Return Pillow's class for a format: (file, name) -> image.

    It is called directly and not through `Image.open`, which would apply Pillow's own pixel limit.
    """
    return getattr(importlib.import_module(f"PIL.{entry.stem}ImagePlugin"), f"{entry.stem}ImageFile")
