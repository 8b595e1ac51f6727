"""The image of a sheet, under its tiles or above its grid: read once, and fitted to each size of tile.

Under the tiles it is blended with them by kernels.

A pixel of a tile shows alpha * colour + (1 - alpha) * photo, rounded as in `kernels.reference.over`. Pixels outside all
tiles, and those that a NaN or an infinity touches, keep the colour that they have without a photo.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, OptionError
from ..formats import png
from ..geometry import Grid, Strip, cut_strips
from ..inputs.in_memory import decode_image
from ..kernels.backends import BACKENDS
from ..options.drawing import DEFAULT_ALPHA
from ..options.parsers import share
from ..options.reading import MAX_PIXELS
from ..runtime.caller import warn_caller
from ..runtime.workers import default_threads, in_order
from .input_image import InputImage, in_few_colors

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..palette import Palette

OPAQUE = 256
"""Weight of a colour that hides the photo. Weights are in 1/256, so that a pixel is computed in 16 bits. Rounding alpha
to 1/256 changes a pixel by half a level at most."""


@dataclass(frozen=True, eq=False)
class Overlay:
    """Colours the pixels of one sheet whose tiles lie over a photo. See `kernels` for what the arrays are.

    description: for the manifest: alpha, source, and the sizes of the image and of the tiles as [height, width].
    """

    backend: str
    grid: Grid
    colors: NDArray[np.uint8]
    weights: NDArray[np.uint16]
    photo: NDArray[np.uint8]
    description: dict[str, Any]

    def blend(self, index: Any, strip: Strip, out: Any) -> None:
        """Colour one strip.

        Args:
            index: (rows of the strip, width) uint8, an array or a tensor on any device. The drawn strip.
            strip: which rows of the sheet these are.
            out: (rows of the strip, width, 3) uint8, C-contiguous. Every pixel is written.
        """
        kernels = BACKENDS[self.backend].kernels
        kernels.blend_strip(index, self.colors, self.weights, self.photo, self.grid, strip, out)

    def rgb(self, index: NDArray[np.uint8], first: int = 0) -> NDArray[np.uint8]:
        """Return rows of the sheet from row `first` on, (rows, width) uint8, in colour: (rows, width, 3) uint8."""
        out = np.empty((*index.shape, 3), dtype=np.uint8)

        def blend(part: Strip) -> None:
            start, stop = part
            self.blend(index[start:stop], Strip(first + start, first + stop), out[start:stop])

        for _ in in_order(blend, cut_strips(index.shape[0], index.shape[1], png.RGB_STRIP_PX), default_threads()):
            pass
        return out


class Backdrop:
    """An image to lay maps over, or to show above them. It is resized once for each size of tile."""

    def __init__(
        self,
        image: Image | None,
        alpha: float | None,
        source: str | None,
        say: Callable[[str], None] | None,
        shown: bool = False,
    ) -> None:
        """Keep the image.

        Args:
            image: of mode RGB; None stands for the image that a model runs on, which `filled_with` puts in its place.
            alpha: weight of the maps' colours over it; None where it does not lie under them.
            source: what it is, for the manifest.
            say: called with a sentence the first time that the image has to be stretched; None for no sentence.
            shown: whether it stands above the grid.
        """
        self.image = image
        self.alpha = alpha
        self.source = source
        self.shown = shown
        self._say = say
        self._fitted: dict[tuple[int, int], NDArray[np.uint8]] = {}
        self._above: dict[int, InputImage] = {}

    def filled_with(self, seen: Callable[[], NDArray[np.uint8]]) -> Backdrop:
        """Return a backdrop that holds the image that the model saw, if this one holds no other image.

        Args:
            seen: called where that image is needed; returns (H, W, 3) uint8, RGB.

        Returns:
            This backdrop, or one that holds that image.
        """
        if self.image is not None:
            return self
        from PIL import Image

        # The maps cover the whole input. To stretch it to their tiles aligns the two, so nothing is said of that.
        return Backdrop(Image.fromarray(seen()), self.alpha, "input", None, self.shown)

    def digest(self) -> str:
        """Return text that differs for other images and other weights."""
        image = "input" if self.image is None else hashlib.sha256(self.image.tobytes()).hexdigest()
        places = [] if self.alpha is None else [f"{self.alpha:g}"]
        return " ".join([image, *places, *["shown"] * self.shown])

    @property
    def lies_under(self) -> bool:
        """Return whether the image lies under the tiles, rather than only above the grid."""
        return self.alpha is not None

    def above(self, tile_px: int) -> InputImage | None:
        """Return the image as it stands above the grid of a sheet; None where it does not.

        Args:
            tile_px: longer side of the sheet's tiles.

        Raises:
            OptionError: the image is to be that of a model's run, and no model ran.
        """
        if not self.shown:
            return None
        if tile_px not in self._above:
            self._above[tile_px] = in_few_colors(np.asarray(self._image_for("show_input")), tile_px)
        return self._above[tile_px]

    def _image_for(self, option: str) -> Image:
        if self.image is None:
            raise OptionError(f"{option} True stands for the image that visualize runs a model on. Pass an image.")
        return self.image

    def under(self, grid: Grid, palette: Palette, backend: str) -> Overlay | None:
        """Lay the image under the tiles of a sheet.

        Args:
            grid: of the sheet.
            palette: its colours.
            backend: name of the backend that draws it.

        Returns:
            The overlay, which colours the pixels of the sheet; None where it does not lie under tiles.

        Raises:
            OptionError: the image is to be that of a model's run, and no model ran.
        """
        if self.alpha is None:
            return None
        image, size = self._image_for("overlay"), (grid.tile_h, grid.tile_w)
        if size not in self._fitted:
            self._fitted[size] = self._fit(image, size)
        weights = np.full(len(palette.colors), round(self.alpha * OPAQUE), dtype=np.uint16)
        weights[palette.levels :] = OPAQUE  # background and bad: a NaN has to stand out whatever lies under it
        described = {
            "alpha": self.alpha,
            "source": self.source,
            "size": [image.height, image.width],
            "drawn_at": list(size),
        }
        return Overlay(backend, grid, palette.colors, weights, self._fitted[size], described)

    def _fit(self, image: Image, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Resize an image to (height, width), smoothed where it shrinks. Report it if that changes its shape."""
        from PIL.Image import Resampling

        (height, width), (tile_h, tile_w) = (image.height, image.width), size
        scale = min(tile_h / height, tile_w / width)
        if self._say is not None and max(tile_h - height * scale, tile_w - width * scale) > 1:
            self._say(
                f"the overlay of {height} x {width} px is stretched to tiles of {tile_h} x {tile_w} px. "
                f"Without a value (True in Python) it is the image as the model saw it."
            )
            self._say = None
        return np.array(image.resize((tile_w, tile_h), Resampling.BILINEAR))


def read_overlay(
    overlay: Any,
    alpha: Any,
    show_input: Any = None,
    *,
    max_pixels: int = MAX_PIXELS,
    say: Callable[[str], None] | None = None,
) -> Backdrop | None:
    """Read the image that maps are to be laid over, or that is to stand above them.

    Args:
        overlay: a path, PIL image, array or tensor, see `decode_image`; True for the image that a model runs on; None
            or False for none.
        alpha: weight of the maps' colours over it, 0 to 1; None for DEFAULT_ALPHA.
        show_input: the same for the image above the grid. Where both are given they are one image.
        max_pixels: refuse images of more pixels, before they are decoded.
        say: called with a sentence if the image has to be stretched; None for a warning.

    Returns:
        The backdrop, or None without an image.

    Raises:
        OptionError: `alpha` is out of range, or is given without an overlay; or there are to be two images.
        InputError: the image cannot be read.
    """
    lies_under, shown = (given is not None and given is not False for given in (overlay, show_input))
    if not lies_under and alpha is not None:
        raise OptionError(f"alpha goes with overlay, got alpha {alpha!r} alone.")
    if not lies_under and not shown:
        return None
    weight = share("alpha", DEFAULT_ALPHA if alpha is None else alpha) if lies_under else None
    if lies_under and shown and not _same(overlay, show_input):
        raise OptionError("overlay and the input above the grid must be one image, got two. Leave one out.")
    name, origin = ("overlay", overlay) if lies_under else ("show_input", show_input)
    if origin is True:
        return Backdrop(None, weight, None, None, shown)
    try:
        image = decode_image(origin, max_pixels=max_pixels)
    except InputError as error:
        raise type(error)(f"{name}: {error}") from error
    source = os.fspath(origin).replace(os.sep, "/") if isinstance(origin, (str, os.PathLike)) else None
    return Backdrop(image, weight, source, say or warn_caller, shown)


def _same(one: Any, other: Any) -> bool:
    """Return whether two arguments are one image: the same object, or the same path."""
    paths = [os.fspath(each) for each in (one, other) if isinstance(each, (str, os.PathLike))]
    return one is other or (len(paths) == 2 and paths[0] == paths[1])
