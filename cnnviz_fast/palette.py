"""Colours: a colormap becomes a palette, the table of 256 colours into which an index plane points."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError, closest

ENTRIES = 256

_GRAY = np.arange(ENTRIES, dtype=np.uint8).repeat(3).tobytes()


@dataclass(frozen=True)
class Palette:
    """A table of colours, and what its entries stand for.

    colors: (256, 3) uint8, RGB. Entry i is shown where the index plane holds i.
    levels: entries 0 .. levels - 1 span the colormap.
    background: entry of pixels that belong to no tile.
    bad: entry of pixels that a NaN or an infinity touches.
    ink: entry of text on the background; the same as `background` without text.
    own: entry of the first of the colours that the sheet needs as they are.
    """

    colors: NDArray[np.uint8]
    levels: int
    background: int
    bad: int
    ink: int = 0
    own: int = ENTRIES

    @property
    def is_gray(self) -> bool:
        """Return whether entry i is the grey value i: then the index plane is the sheet, and no table is needed."""
        return self.colors.tobytes() == _GRAY


def make_palette(
    colormap: str,
    *,
    background: str = "black",
    bad: str = "magenta",
    shows_background: bool,
    shows_bad: bool,
    shows_ink: bool = False,
    apart: bool = False,
    own: NDArray[np.uint8] | None = None,
) -> Palette:
    """Build the palette of a sheet.

    A colour that the sheet shows beside values gets an entry of its own at the end of the table. The colormap spans
    the other entries, 253 at least. `background` and ink, which is white or black, get none if the colormap holds
    exactly this colour, as gray holds black.

    Args:
        colormap: a name that cmap knows. If several catalogues share it, matplotlib's is used.
        background: name or #rrggbb of the background.
        bad: name or #rrggbb for NaN and infinities.
        shows_background: whether the sheet has pixels that belong to no tile.
        shows_bad: whether the maps hold NaN or infinities.
        shows_ink: whether anything is written on the background.
        apart: whether background and ink have entries of their own even so.
        own: (N, 3) uint8, RGB. Colours that the sheet needs as they are, such as those of an image on it.

    Returns:
        The palette.

    Raises:
        OptionError: the colormap or a colour does not exist.
    """
    kept = 0 if own is None else len(own)
    palette = _kept(colormap, background, bad, shows_background, shows_bad, shows_ink, apart, kept)
    colors = palette.colors.copy()
    if own is not None:
        colors[palette.own : palette.own + kept] = own
    return replace(palette, colors=colors)


@lru_cache(maxsize=64)
def _kept(
    colormap: str,
    background: str,
    bad: str,
    shows_background: bool,
    shows_bad: bool,
    shows_ink: bool,
    apart: bool,
    own: int,
) -> Palette:
    """Build a palette, with room for `own` colours, once: that takes as long as to measure 256 maps of 56 x 56."""
    ramp = _colormap(colormap)
    background_rgb, bad_rgb = _color("background", background), _color("bad", bad)
    ink_rgb = _ink_on(background_rgb) if shows_ink else background_rgb
    shown = [background_rgb] * shows_background + [ink_rgb] * shows_ink
    reserved: list[NDArray[np.uint8]] = list(shown) if apart else []
    while True:  # with fewer levels the colormap may no longer hold a colour that it held before
        levels = ENTRIES - shows_bad - own - len(reserved)
        colors = np.concatenate([_table(ramp, levels), *reserved])
        missing = [color for color in shown if _find(color, colors) is None]
        if not missing:
            break
        reserved.append(missing[0])
    first = levels if apart else 0
    background_entry, ink_entry = (first + (_find(color, colors[first:]) or 0) for color in (background_rgb, ink_rgb))
    first_own = len(colors)
    colors = np.concatenate([colors, np.zeros((own, 3), dtype=np.uint8), *[bad_rgb] * shows_bad])
    return Palette(colors, levels, background_entry, ENTRIES - 1, ink_entry, first_own)


def _ink_on(background: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return white or black, whichever has more contrast with `background`, each (1, 3) uint8.

    Source:
        WCAG 2: contrast is (L1 + 0.05) / (L2 + 0.05) for relative luminances L1 > L2. White has 1, black 0.
    """
    srgb = background[0] / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    is_light = (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05)
    return np.full((1, 3), 0 if is_light else 255, dtype=np.uint8)


def _find(color: NDArray[np.uint8], colors: NDArray[np.uint8]) -> int | None:
    """Return the first entry of `colors` that is `color`; None if there is none."""
    found = (colors == color).all(axis=1).nonzero()[0]
    return int(found[0]) if len(found) else None


def _table(ramp: Any, levels: int) -> NDArray[np.uint8]:
    """Sample a cmap.Colormap at i / (levels - 1) as (levels, 3) uint8, linear between its own 256 colours.

    Colormaps such as tab10 have a few separate colours: each fills a step of equal width.
    """
    own = np.asarray(ramp.lut(ENTRIES), dtype=np.float64)[:, :3]
    at = np.linspace(0, 1, levels)
    if len(own) < ENTRIES:
        table = own[np.minimum(at * len(own), len(own) - 1).astype(int)]
    else:
        stops = np.linspace(0, 1, len(own))
        table = np.stack([np.interp(at, stops, own[:, channel]) for channel in range(3)], axis=1)
    rounded: NDArray[np.uint8] = np.floor(table * 255 + 0.5).astype(np.uint8)
    return rounded


def _colormap(name: str) -> Any:
    """Find a colormap of cmap by its name."""
    import cmap

    # A name that several catalogues share means matplotlib's, which took some of them from the others listed here.
    homes = () if ":" in name else ("matplotlib:", "colorbrewer:", "matlab:", "gnuplot:")
    for candidate in (*(home + name for home in homes), name):
        try:
            return cmap.Colormap(candidate)
        except (ValueError, KeyError, TypeError, OSError):
            continue
    hint = closest(name, cmap.Catalog().short_keys())
    raise OptionError(f"no colormap {name!r}.{hint} Any name of the cmap catalogue works, such as 'viridis' or 'gray'.")


def _color(option: str, name: str) -> NDArray[np.uint8]:
    """Find a colour of cmap by its name, as (1, 3) uint8."""
    import cmap

    try:
        color = cmap.Color(name)
    except (ValueError, TypeError) as error:
        raise OptionError(f"{option} must be the name of a colour or #rrggbb, got {name!r}.") from error
    if color.alpha < 1:
        raise OptionError(f"{option} must be an opaque colour, got {name!r}: a palette has no transparency.")
    return np.array([color.rgba8[:3]], dtype=np.uint8)
