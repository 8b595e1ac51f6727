"""Images in floats: files of more than 8 bits, with all of their levels, and how a model's preprocessing takes them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from .preprocess import Bare, Grey, Preprocess, Preprocessing, TimmPreprocess

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image, Transpose

AnyImage = TypeVar("AnyImage", "Image", "FloatImage", "Image | FloatImage")

_GREY = (0.299, 0.587, 0.114)  # of red, green and blue, as Pillow makes grey: ITU-R BT.601
_PRESETS = ("ImageClassification", "SemanticSegmentation", "ObjectDetection")


@dataclass(frozen=True)
class FloatImage:
    """An image of more levels than 256, upright.

    Attributes:
        bands: one PIL image of mode F for grey, or three for red, green and blue, with values in [0, 1]. Those of grey
            may be NaN.
    """

    bands: tuple[Image, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height, px."""
        return self.bands[0].size

    @property
    def width(self) -> int:
        """Return the width, px."""
        return self.size[0]

    @property
    def height(self) -> int:
        """Return the height, px."""
        return self.size[1]

    def crop(self, box: tuple[int, int, int, int]) -> FloatImage:
        """Return the part from left, top to right, bottom, px."""
        return FloatImage(tuple(band.crop(box) for band in self.bands))

    def transpose(self, method: Transpose) -> FloatImage:
        """Return it turned or mirrored."""
        return FloatImage(tuple(band.transpose(method) for band in self.bands))

    def grey(self) -> FloatImage:
        """Return it in grey."""
        if len(self.bands) == 1:
            return self
        import numpy as np
        from PIL import Image

        first, *others = (np.asarray(band) * np.float32(share) for band, share in zip(self.bands, _GREY, strict=True))
        return FloatImage((Image.fromarray(sum(others, first)),))


def takes_floats(preprocess: Preprocess) -> bool:
    """Check whether a preprocessing is one that `preprocessed` knows how to run on an image in floats."""
    if isinstance(preprocess, Bare | Grey | Preprocessing):
        return takes_floats(preprocess.preset)
    return isinstance(preprocess, TimmPreprocess) or type(preprocess).__name__ in _PRESETS


def preprocessed(image: FloatImage, preprocess: Preprocess) -> torch.Tensor:
    """Preprocess an image in floats: it is resized and cropped band by band, without rounding.

    Args:
        image: in grey or in colour.
        preprocess: for which `takes_floats` holds.

    Returns:
        (C, H, W) float32, or (H, W), as `preprocess` makes of an image of 8 bits.
    """
    import torch
    from torchvision.transforms.functional import normalize

    if isinstance(preprocess, Bare):
        return preprocessed(image, preprocess.preset)[0]
    if isinstance(preprocess, Grey):
        return preprocessed(image.grey(), preprocess.preset)
    mean, std = getattr(preprocess, "mean", (0.0,) * 3), getattr(preprocess, "std", (1.0,) * 3)
    of_a_band = _unnormalised(preprocess)
    values = torch.cat([of_a_band(band) for band in image.bands]).clamp(0, 1)  # some filters overshoot
    values = values.expand(max(len(mean), len(values)), -1, -1)
    if (order := getattr(preprocess, "order", None)) is not None:
        values = values[list(order)]
    normalized: torch.Tensor = normalize(values, list(mean), list(std))
    return normalized


def _unnormalised(preprocess: Any) -> Preprocess:
    """Return a preprocessing for one band, with mean 0 and deviation 1."""
    if isinstance(preprocess, Preprocessing):
        return replace(preprocess, preset=_unnormalised(preprocess.preset), mean=(0.0,), std=(1.0,), order=None)
    bare: Preprocess = copy.copy(preprocess)
    if hasattr(bare, "mean"):
        bare.mean, bare.std = [0.0], [1.0]  # type: ignore[attr-defined]
    return bare
