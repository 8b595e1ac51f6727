"""Stage 2, preprocessing: what turns a picture into a model's input, and how options change single steps of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import OptionError
from .options import PreprocessOptions

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image as Picture

Preprocess: TypeAlias = "Callable[[Picture], torch.Tensor]"


def imagenet_preset() -> Preprocess:
    """Give the preprocessing of ImageNet: shorter side to 256 px, the middle 224 x 224 px, usual mean and deviation.

    Returns:
        Picture -> (3, 224, 224) float32. What torchvision's first weights of ResNet-50 ask for.
    """
    from torchvision.models import ResNet50_Weights

    preset: Preprocess = ResNet50_Weights.IMAGENET1K_V1.transforms()
    return preset


@dataclass(frozen=True)
class Preprocessing:
    """A preset with some of its steps replaced. Callable like the preset, and it pickles.

    Attributes:
        preset: its resize and crop are used where there is no `size`; it leaves values in [0, 1].
        size: (height, width) to resize the whole picture to, px, or None.
        interpolation: of that resize, one of torchvision's InterpolationMode.
        mean: subtracted from red, green and blue.
        std: divisor after that.
    """

    preset: Preprocess
    size: tuple[int, int] | None
    interpolation: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, picture: Picture) -> torch.Tensor:
        """Turn one picture into (3, H, W) float32."""
        import torch
        from torchvision.transforms import functional

        if self.size is None:
            values = self.preset(picture)
        else:
            resized = functional.resize(picture, list(self.size), interpolation=self.interpolation)
            values = functional.convert_image_dtype(functional.pil_to_tensor(resized), torch.float32)
        normalized: torch.Tensor = functional.normalize(values, list(self.mean), list(self.std))
        return normalized


def with_options(preset: Preprocess, options: PreprocessOptions | None) -> Preprocess:
    """Replace those steps of a preset that are given.

    Args:
        preset: what the weights ask for.
        options: the steps to replace; None, or all of them None, keeps the preset itself.

    Returns:
        Picture -> (3, H, W) float32.

    Raises:
        OptionError: an interpolation is given, and neither the preset nor `size` resizes.
    """
    if options is None or options == PreprocessOptions():
        return preset
    from torchvision.transforms import InterpolationMode

    resizes = hasattr(preset, "interpolation")
    interpolation = getattr(preset, "interpolation", InterpolationMode.BILINEAR)
    if options.interpolation is not None:
        if options.size is None and not resizes:
            raise OptionError("interpolation must go with size: this model's preprocessing does not resize. Set size.")
        interpolation = InterpolationMode(options.interpolation)
    size = (options.size, options.size) if isinstance(options.size, int) else options.size
    mean = options.mean or tuple(getattr(preset, "mean", (0.0, 0.0, 0.0)))
    std = options.std or tuple(getattr(preset, "std", (1.0, 1.0, 1.0)))
    bare = copy.deepcopy(preset)
    for step, value in (("interpolation", interpolation), ("mean", [0.0] * 3), ("std", [1.0] * 3)):
        if hasattr(bare, step):
            setattr(bare, step, value)
    return Preprocessing(bare, size, interpolation, mean, std)
