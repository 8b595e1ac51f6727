"""BMP: what Pillow takes for another depth than the file has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

_RAW_MODES = {1: "P;1", 4: "P;4", 8: "P"}
_DEPTHS = {"1": 1, "L": 8}  # that Pillow expects of modes without a palette
_OLD_HEADER_BYTES = 12


def mend_bitmap(image: PilImage) -> None:
    """Correct the depth at which an opened BMP is read to that of its pixels; other formats are left as they are.

    Pillow 13 drops a palette that is grey, and then takes the depth from the number of colours and not from the file.

    Args:
        image: opened, still to be loaded.
    """
    from PIL import ImagePalette

    if image.format != "BMP" or image.mode not in _DEPTHS:
        return
    opened: Any = image
    opened.fp.seek(14)
    header = opened.fp.read(16)
    size = int.from_bytes(header[:4], "little")
    depth = int.from_bytes(header[10:12] if size == _OLD_HEADER_BYTES else header[14:16], "little")
    if depth == _DEPTHS[image.mode] or depth not in _RAW_MODES:
        return
    greys = (0, 255) if image.mode == "1" else range(256)
    tile = opened.tile[0]
    opened._mode = "P"
    opened.palette = ImagePalette.raw("RGB", bytes(level for grey in greys for level in (grey, grey, grey)))
    opened.tile = [tile._replace(args=(_RAW_MODES[depth], *tile.args[1:]))]
