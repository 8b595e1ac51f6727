"""Any PIL image becomes RGB, transparency laid over white, in bands: whole copies of a large image are not needed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

_BAND_PIXELS = 1 << 18
"""1 MiB as RGBA: what is made of a band on its way stays in the caches."""
_LAB_BAND_PIXELS = 1 << 22
"""Pillow 13 builds a transform for each band, which takes as long as 150,000 pixels."""

# PNG keeps the transparent grey of 2- and 4-bit images in their own units, while Pillow 13 spreads the pixels to
# 0..255: times 255 / 3 and 255 / 15.
_KEY_SCALES = {"L;2": 85, "L;4": 17}


def to_rgb(image: PilImage, raw_mode: str) -> PilImage:
    """Return a new RGB image.

    Args:
        image: loaded, of 8 bits or fewer a channel.
        raw_mode: Pillow's name of the pixels in its file.

    Returns:
        Its colours. An alpha that hides the whole image was never meant as one, and is left out.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    opaque = _alpha_is_unused(image)
    width, height = image.size
    rows = max(1, (_LAB_BAND_PIXELS if image.mode == "LAB" else _BAND_PIXELS) // width)
    tops = range(0, height, rows)
    return joined(
        image.size, tops, lambda top: _band(image.crop((0, top, width, min(top + rows, height))), raw_mode, opaque)
    )


def joined(size: tuple[int, int], tops: Iterable[int], band: Callable[[int], PilImage]) -> PilImage:
    """Return an RGB image that is put together from bands.

    Args:
        size: width and height, px.
        tops: the first row of each band.
        band: first row -> the band, in RGB.

    Returns:
        The image.
    """
    from PIL import Image

    result = Image.new("RGB", size)
    for top in tops:
        result.paste(band(top), (0, top))
    return result


def _alpha_is_unused(image: PilImage) -> bool:
    """Check whether alpha is 0 throughout and yet hides an image: a fourth byte that its writer left empty."""
    if image.mode not in ("RGBA", "LA") or image.getpixel((0, 0))[-1]:  # type: ignore[index]
        return False
    *colours, alpha = image.getextrema()
    return alpha == (0, 0) and any(low != high for low, high in colours)  # type: ignore[misc]


def over_white(image: PilImage) -> PilImage:
    """Lay an image over white, as far as it is transparent; return it in RGB."""
    from PIL import Image

    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())  # divides by alpha
    if not image.has_transparency_data:
        return image.convert("RGB")
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=rgba)  # the same as alpha_composite, in a third of the time
    return white


def _band(image: PilImage, raw_mode: str, opaque: bool) -> PilImage:
    if opaque:
        return image.convert("RGBX" if image.mode == "RGBA" else "L").convert("RGB")
    key = image.info.get("transparency")
    return _keyed(image, key, raw_mode) if key is not None and image.mode in ("1", "L", "RGB") else over_white(image)


def _keyed(image: PilImage, key: int | tuple[int, ...], raw_mode: str) -> PilImage:
    """Make the one transparent colour of a grey or RGB image white."""
    from PIL import Image, ImageChops

    levels = (key,) if isinstance(key, int) else key
    if ";16" in raw_mode:
        levels = tuple(level >> 8 for level in levels)  # Pillow 13 keeps only the high bytes of 16-bit colour
    scale = _KEY_SCALES.get(raw_mode, 1)
    plain = image.convert("RGB") if image.mode == "RGB" else image.convert("L")
    hits = [
        band.point([255 * (level == each * scale) for level in range(256)])
        for band, each in zip(plain.split(), levels, strict=True)
    ]
    mask = functools.reduce(ImageChops.darker, hits)  # the same as `and`
    plain.paste(Image.new(plain.mode, plain.size, "white"), mask=mask)
    return plain.convert("RGB")
