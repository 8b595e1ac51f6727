"""What an image processor of transformers makes of one image: its own `pixel_values`, as it gives them to its model."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, OptionError
from ..options.reading import PreprocessOptions
from .hf_packed import unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from PIL.Image import Image

_KEYS = ("pixel_values", "pixel_values_videos", "pixel_values_images", "image_pixel_values", "images")
"""Names under which processors return what their models see."""

_PACKED = ("grid_thw", "grid_hw", "num_patches_per_image")
"""Parts of the names of what comes beside pixels that are packed patch by patch."""

_WHOLE_IMAGE = {
    "do_image_splitting": False, "crop_to_patches": False, "do_pan_and_scan": False, "max_image_tiles": 1,
    "max_patches": 1,
}  # fmt: skip
"""Switches of processors that otherwise cut an image into tiles, each an input of its own."""

_RESIZES = ("do_resize", "do_center_crop", "do_pad")
_BESIDE = ("", "boxes", "trimaps", "pairs")
_PROBE_PX = 64  # side of the images that show what a processor does to colours
_WIDE = (1024, 512)  # an image that is cut into tiles by processors that do so: wider than high, and large
_PATCH_PX = 16  # no image is as low as a patch and longer than as many of them again
_SAME = 1e-4  # means and deviations are written with four digits: two that differ by less are the same


@dataclass(frozen=True)
class HfPreprocess:
    """The preprocessing of an image processor of transformers. Callable, and it pickles.

    Attributes:
        processor: makes the values.
        mean: of each channel of the values, subtracted from colours in [0, 1]; None where the values are no colours.
        std: divisor after that.
        order: which channels of the values are red, green and blue.
        beside: what the processor takes beside an image: nothing, boxes, trimaps, pairs of images, or videos.
        arguments: for every call.
        size: (height, width) in px to which the whole image is resized first, or None.
        interpolation: how it is resized, one of torchvision's InterpolationMode, or None as the processor does it.
        native: mean and deviation that the processor uses where `mean` and `std` replace them afterwards.
    """

    processor: Any
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    order: tuple[int, ...] = (0, 1, 2)
    beside: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    interpolation: Any = None
    native: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __call__(self, image: Image) -> torch.Tensor:
        """Turn one image into (C, H, W) float32."""
        if self.size is not None:
            return self._resized(image, self.size)
        if self.interpolation is None:
            return self._values(image, self.arguments)
        from PIL.Image import Resampling

        name = {"nearest-exact": "nearest"}.get(self.interpolation.value, self.interpolation.value)
        return self._values(image, {**self.arguments, "resample": Resampling[name.upper()]})

    def with_options(self, options: PreprocessOptions) -> HfPreprocess:
        """Replace the steps that options name.

        Args:
            options: the steps to replace.

        Returns:
            The preprocessing with them.

        Raises:
            OptionError: the processor does not have a step that is named.
        """
        from torchvision.transforms import InterpolationMode

        size = options.image_size
        interpolation = None if options.interpolation is None else InterpolationMode(options.interpolation)
        if interpolation is not None and size is None and getattr(self.processor, "resample", None) is None:
            raise OptionError("interpolation must go with size for this model's preprocessing. Set size.")
        changed = replace(self, size=size, interpolation=interpolation)
        if options.mean is None and options.std is None:
            return changed
        if self.mean is None or self.std is None:
            raise OptionError("mean and std must not be given for this model, whose input holds no colours.")
        mean, std = (
            # What the values hold beside colours stays.
            own if given is None else (*(given[channel] for channel in self.order), *own[len(self.order) :])
            for given, own in ((options.mean, self.mean), (options.std, self.std))
        )
        if _stated(self.processor) == (self.mean, self.std):  # it can use others itself, also where it pads afterwards
            arguments = {**self.arguments, "image_mean": list(mean), "image_std": list(std)}
            return replace(changed, arguments=arguments, mean=mean, std=std)
        return replace(changed, mean=mean, std=std, native=(self.mean, self.std))

    def _resized(self, image: Image, size: tuple[int, int]) -> torch.Tensor:
        """Resize the whole image; of what the processor does, leave only what it does to colours."""
        from torchvision.transforms import InterpolationMode, functional

        image = functional.resize(image, list(size), interpolation=self.interpolation or InterpolationMode.BILINEAR)
        off = {name: False for name in _RESIZES if getattr(self.processor, name, None)}
        with contextlib.suppress(Exception):  # some cannot leave a step out
            values = self._values(image, {**self.arguments, **off})
            if tuple(values.shape[-2:]) == size:
                return values
        if self.mean is None:
            raise ModelError(f"{type(self.processor).__name__} cannot do without its own size. Leave size out")
        colours = functional.to_tensor(image)[list(self.order)]
        normalized: torch.Tensor = functional.normalize(colours, list(self.mean), list(self.std or ()))
        return normalized

    def _values(self, image: Image, arguments: Mapping[str, Any]) -> torch.Tensor:
        values = pixels_in(self.made_of(image, arguments), type(self.processor).__name__)
        if self.native is None or self.mean is None or self.std is None:
            return values
        import torch

        mean, std, own_mean, own_std = (
            torch.tensor(part).reshape(-1, 1, 1) for part in (self.mean, self.std, *self.native)
        )
        return (values * own_std + own_mean - mean) / std

    def made_of(self, image: Image, arguments: Mapping[str, Any] | None = None) -> Any:
        """Return everything that the processor makes of an image.

        Args:
            image: RGB.
            arguments: for this call, instead of those of every call.

        Returns:
            A mapping, or a tensor.
        """
        given = self.arguments if arguments is None else arguments
        return self.processor(**self._given(image), return_tensors="pt", **given)

    def masks(self) -> list[str]:
        """Return the names of the masks that come with a wide image and mark a part of it as padded."""
        from PIL import Image as images

        with contextlib.suppress(Exception):  # a processor may raise anything
            made = self.made_of(images.new("RGB", _WIDE))
            return [key for key in made if "mask" in key and not made[key].bool().all()]
        return []

    def _given(self, image: Image) -> dict[str, Any]:
        """Return what the processor is called with: an image, and what it takes beside it, for all of the image."""
        if self.beside == "boxes":
            return {"images": image, "boxes": [[[0, 0, image.width, image.height]]]}
        if self.beside == "trimaps":
            from PIL import Image as images

            return {"images": image, "trimaps": images.new("L", image.size, 128)}
        if self.beside == "pairs":
            return {"images": [image, image]}
        if self.beside == "videos":
            import numpy as np

            return {"videos": [np.array(image)[None]], "do_sample_frames": False}
        return {"images": image}


def pixels_in(found: Any, name: str) -> torch.Tensor:
    """Take one image out of what a processor returns.

    Args:
        found: what it returns: a mapping, or a tensor.
        name: of the processor, for messages.

    Returns:
        (C, H, W) float32. Of several tiles, of a pair or of a clip, the first; of patches in rows, the image.

    Raises:
        ModelError: there are no pixels in it, or they are packed.
    """
    import torch

    if not isinstance(found, torch.Tensor):
        key = next((key for key in _KEYS if key in found), None)
        if key is None:
            raise ModelError(f"{name} makes {', '.join(found)} of an image, and no pixels")
        if (image := unpacked(found)) is not None:
            return image
        if any(part in beside for beside in found for part in _PACKED):
            raise ModelError(f"{name} packs the patches of an image one behind another")
        found = found[key]
    while isinstance(found, list | tuple):
        found = found[0][None]
    if found.ndim < 4 or found.shape[-3] > 4:
        raise ModelError(f"{name} makes {tuple(found.shape)} of an image, and no channels of pixels")
    found = found.flatten(0, -4)[0]
    if found.shape[-2] <= _PATCH_PX and found.shape[-1] > _PATCH_PX * found.shape[-2]:
        raise ModelError(f"{name} packs the patches of an image one behind another")
    values: torch.Tensor = found.float()
    return values


def preprocess_with(processor: Any, *, video: bool = False) -> HfPreprocess:
    """Find out how a processor is called for one image, and what it does to colours.

    Args:
        processor: an image processor or a video processor of transformers.
        video: whether it is one for videos.

    Returns:
        Image -> (C, H, W) float32.
    """
    # The text in an image changes nothing of its pixels.
    off = {"apply_ocr": False} if getattr(processor, "apply_ocr", False) else {}
    for beside in ("videos",) if video else _BESIDE:
        found = HfPreprocess(processor, beside=beside, arguments=off)
        with contextlib.suppress(Exception):  # a processor may raise anything at what it does not take
            if _cuts(found):
                found = replace(found, arguments=off | _whole_image(processor))
            mean, std, order = _colours(found)
            return replace(found, mean=mean, std=std, order=order)
    return HfPreprocess(processor, beside="videos" if video else "", arguments=off)


def _cuts(found: HfPreprocess) -> bool:
    """Check whether a processor makes several tiles of one large image."""
    from PIL import Image as images

    if found.beside:
        return False
    made = found.made_of(images.new("RGB", _WIDE))
    pixels = next((made[key] for key in _KEYS if key in made), None) if hasattr(made, "keys") else made
    shape = getattr(pixels, "shape", None)
    return shape is not None and shape[:-3].numel() > 1


def _whole_image(processor: Any) -> dict[str, Any]:
    return {name: value for name, value in _WHOLE_IMAGE.items() if getattr(processor, name, None)}


def _colours(found: HfPreprocess) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None, tuple[int, ...]]:
    """Return mean, deviation and order of channels of a processor, as images of one colour show them.

    What a processor states is not enough: some subtract an offset more, some put blue first.
    """
    black, white, red = (found(_plain(colour)) for colour in ((0, 0, 0), (255, 255, 255), (255, 0, 0)))
    if not black.shape == white.shape == red.shape:
        return None, None, (0, 1, 2)
    means: list[float] = []
    stds: list[float] = []
    redness: list[float] = []
    for dark, light, reddish in zip(black, white, red, strict=True):
        inside = light != dark  # what is padded is the same in both
        low, high, between = 0.0, 1.0, 0.0  # of a channel that shows no colour, such as a trimap
        if inside.any():
            low, high, between = (float(channel[inside].median()) for channel in (dark, light, reddish))
        stds.append(1 / (high - low))
        means.append((0.0 - low) / (high - low))
        redness.append((between - low) / (high - low))
    blue_first = len(redness) >= 3 and redness[2] > 0.9 > redness[0]
    order = (2, 1, 0) if blue_first else tuple(range(min(len(redness), 3)))
    stated = _stated(found.processor)
    if stated is not None and all(
        abs(a - b) < _SAME for a, b in zip((*means, *stds), (*stated[0], *stated[1]), strict=False)
    ):
        return *stated, order
    mean, std = (tuple(float(f"{value:.6g}") for value in values) for values in (means, stds))
    return mean, std, order


def _stated(processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the mean and the deviation that a processor states, if it normalises."""
    mean, std = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
    if not getattr(processor, "do_normalize", False) or mean is None or std is None:
        return None
    return (tuple(mean), tuple(std)) if isinstance(mean, list | tuple) else None


def _plain(colour: tuple[int, int, int]) -> Image:
    from PIL import Image as images

    return images.new("RGB", (_PROBE_PX, _PROBE_PX), colour)
