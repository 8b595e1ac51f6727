"""Preprocessing: from an image to a model's input and back, with options that replace single steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from ..options.reading import PreprocessOptions
from .hf_preprocess import HfPreprocess
from .own_preprocess import ArrayPreprocess, OwnPreprocess

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

CLIP_FRAMES = 16
"""The number that torchvision's MViT takes. None of its other video models needs more (S3D: 14)."""

_SHIFTS = ("mean", "std")

Preprocess: TypeAlias = "Callable[[Image], torch.Tensor]"


def imagenet_preset() -> Preprocess:
    """Return the preprocessing of ImageNet: shorter side to 256 px, the middle 224 x 224 px, usual mean and deviation.

    Returns:
        Image -> (3, 224, 224) float32, as for torchvision's first weights of ResNet-50.
    """
    from torchvision.models import ResNet50_Weights

    preset: Preprocess = ResNet50_Weights.IMAGENET1K_V1.transforms()
    return preset


@dataclass(frozen=True)
class Grey:
    """A preset for images of one channel: the image goes in as grey.

    Attributes:
        preset: takes a PIL image of mode L.
    """

    preset: Preprocess

    def __call__(self, image: Image) -> torch.Tensor:
        """Turn one image into (1, H, W) float32."""
        return self.preset(image.convert("L"))


@dataclass(frozen=True)
class Bare:
    """A preset for models that add the axis of the one channel themselves.

    Attributes:
        preset: image -> (1, H, W) float32.
    """

    preset: Preprocess

    def __call__(self, image: Image) -> torch.Tensor:
        """Turn one image into (H, W) float32."""
        return self.preset(image)[0]


def grey_preset() -> Preprocess:
    """Return the preprocessing of models of one channel: resized and cropped as for ImageNet, values in [0, 1].

    Returns:
        Image -> (1, 224, 224) float32.
    """
    from torchvision.transforms._presets import ImageClassification

    return Grey(ImageClassification(crop_size=224, mean=(0.0,), std=(1.0,)))


@dataclass(frozen=True)
class Preprocessing:
    """A preset with some of its steps replaced. Callable like the preset, and it pickles.

    Attributes:
        preset: its resize and crop are used without `size`; it returns values in [0, 1].
        size: (height, width) in px to which the whole image is resized, or None.
        interpolation: how it is resized, one of torchvision's InterpolationMode.
        mean: subtracted from each channel of the input.
        std: divisor after that.
        order: which channels of the input are red, green and blue; None for the first, second and third, or for grey.
    """

    preset: Preprocess
    size: tuple[int, ...] | None
    interpolation: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: tuple[int, ...] | None = None

    def __call__(self, image: Image) -> torch.Tensor:
        """Turn one image into (3, H, W) float32."""
        import torch
        from torchvision.transforms import functional

        if self.size is None:
            values = self.preset(image)
        else:
            resized = functional.resize(image, list(self.size), interpolation=self.interpolation)
            values = functional.convert_image_dtype(functional.pil_to_tensor(resized), torch.float32)
        values = values if self.order is None else values[list(self.order)]
        normalized: torch.Tensor = functional.normalize(values, list(self.mean), list(self.std))
        return normalized


@dataclass
class TimmPreprocess:
    """The preprocessing of timm's data config. Callable, and it pickles.

    Attributes:
        config: arguments of timm's create_transform, without the three below.
        mean: subtracted from red, green and blue.
        std: divisor after that.
        interpolation: of the resize, one of torchvision's InterpolationMode.
    """

    config: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Any

    def __call__(self, image: Image) -> torch.Tensor:
        """Turn one image into (3, H, W) float32."""
        return self.transform()(image)

    def transform(self) -> Preprocess:
        """Return timm's transform, with its steps."""
        from timm.data import create_transform

        made: Preprocess = create_transform(
            **self.config, interpolation=self.interpolation.value, mean=self.mean, std=self.std
        )
        return made


@dataclass
class Still:
    """A preset for clips, used on one frame.

    Attributes:
        preset: torchvision's VideoClassification.
        mean: subtracted from red, green and blue.
        std: divisor after that.
        interpolation: of the resize, one of torchvision's InterpolationMode.
    """

    preset: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: Any

    def __call__(self, image: Image) -> torch.Tensor:
        """Turn one image into (3, H, W) float32."""
        from torchvision.transforms.functional import pil_to_tensor

        preset = copy.copy(self.preset)
        preset.mean, preset.std, preset.interpolation = list(self.mean), list(self.std), self.interpolation
        frames: torch.Tensor = preset(pil_to_tensor(image)[None])
        return frames[:, 0]


@dataclass(frozen=True)
class Clip:
    """An image as the clip that a video model takes: one frame, several times.

    Attributes:
        frame: image -> (3, H, W) float32.
        frames: number of frames.
    """

    frame: Preprocess
    frames: int = CLIP_FRAMES

    def __call__(self, image: Image) -> torch.Tensor:
        """Turn one image into (3, T, H, W) float32."""
        return self.frame(image)[:, None].expand(-1, self.frames, -1, -1)


def as_clips(preset: Preprocess) -> Preprocess:
    """Make a preset for clips take single images; return other presets unchanged."""
    if type(preset).__name__ != "VideoClassification":
        return preset
    video: Any = preset
    return Clip(Still(video, tuple(video.mean), tuple(video.std), video.interpolation))


def as_image(values: torch.Tensor, preprocess: Preprocess) -> NDArray[np.uint8]:
    """Turn a model's input back into an image: what the model saw.

    Args:
        values: (C, H, W) float32, or (H, W), any device. Not modified. One channel is shown in grey, other numbers than
            three as the mean of all.
        preprocess: the preprocessing that made them. If it has no mean and deviation, values in [0, 1] are taken for
            those of an image, and others are scaled from their least to their greatest.

    Returns:
        (H, W, 3) uint8, RGB. Values that are not finite are black.
    """
    import torch

    values = values.detach().float().cpu()
    values = values if values.ndim == 3 else values[None]
    if (normalization := _normalization(preprocess)) is not None:
        mean, std = (torch.as_tensor(part, dtype=torch.float32).reshape(-1, 1, 1) for part in normalization)
        values = values * std + mean
        order = colour_order(preprocess)
        values = values if order is None else values[order]
    if len(values) != 3:
        values = values.mean(0, keepdim=True).expand(3, -1, -1)
    if normalization is None:
        finite = values[values.isfinite()]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
        if low < 0 or high > 1:
            values = (values - low) / max(high - low, torch.finfo(torch.float32).tiny)
    levels = torch.floor(values.where(values.isfinite(), 0).clamp(0, 1) * 255 + 0.5)
    pixels: NDArray[np.uint8] = levels.to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return pixels


def colour_order(preprocess: Preprocess) -> list[int] | None:
    """Return which channels of a model's input are red, green and blue; None where no order was given."""
    order = getattr(getattr(preprocess, "frame", preprocess), "order", None)
    return None if order is None else list(order)


def _normalization(preprocess: Any) -> tuple[Any, Any] | None:
    """Return the mean and the deviation of a preprocessing: its own, those of its last step, or of what it wraps."""
    steps = getattr(preprocess, "transforms", None)
    last = steps[-1:] if isinstance(steps, (list, tuple)) else []
    for step in (preprocess, *last):
        mean, std = getattr(step, "mean", None), getattr(step, "std", None)
        if mean is not None and std is not None:
            return mean, std
    inner = (getattr(preprocess, name, None) for name in ("frame", "preset", "function"))
    return next((found for each in inner if each is not None and (found := _normalization(each))), None)


def options_in(described: Any) -> PreprocessOptions:
    """Return the options that made a preprocessing, as a run describes it; none where it is the preset of the weights.

    Args:
        described: JSON of `runs.folder.fingerprint`, which may be anybody's.

    Raises:
        OptionError: it is one of the user's own.
        OptionError, TypeError, LookupError, ValueError, AttributeError: it is something else.
    """
    while (kind := _kind_in(described)) not in (None, Preprocessing.__name__):
        if kind == OwnPreprocess.__name__:
            raise OptionError("preprocess must be made by options, and this one is a function.")
        if kind == ArrayPreprocess.__name__:
            size, mean, std = (described[name] and tuple(described[name]) for name in ("size", *_SHIFTS))
            return PreprocessOptions(size=size, mean=mean, std=std)
        if kind == HfPreprocess.__name__:
            return _options_in_hf(described)
        described = described.get("frame") or described.get("preset")
    if described is None:
        return PreprocessOptions()
    size, order, preset = (described[name] for name in ("size", "order", "preset"))
    ways = slice(None, None, None if order is None else -1)
    resizes = size is not None or "interpolation" in preset
    return PreprocessOptions(
        size=size and tuple(size),
        interpolation=_interpolation_in(described) if resizes else None,
        mean=tuple(described["mean"][ways]),
        std=tuple(described["std"][ways]),
        channel_order=None if order is None else "bgr",
    )


def _kind_in(described: Any) -> str | None:
    """Return the name of the class of a preprocessing, as a run describes it; None where there is none."""
    return None if described is None else str(described.get("is")).rpartition(".")[2]


def _options_in_hf(described: Any) -> PreprocessOptions:
    """Return the options that made an HfPreprocess."""
    size, order = described["size"], described["order"]
    shifted = described["native"] is not None or "image_mean" in described["arguments"]
    # Options name colours, which are some of the channels, in another order.
    mean, std = (
        tuple(described[name][order.index(color)] for color in range(3)) if shifted else None for name in _SHIFTS
    )
    return PreprocessOptions(
        size=size and tuple(size),
        interpolation=described["interpolation"] and _interpolation_in(described),
        mean=mean,
        std=std,
    )


def _interpolation_in(described: Any) -> Any:
    return described["interpolation"].partition(".")[2].lower().replace("_", "-")


def with_options(preset: Preprocess, options: PreprocessOptions | Callable[..., Any] | None) -> Preprocess:
    """Replace the steps of a preset that options name, or all of it.

    Args:
        preset: the preprocessing that the weights ask for.
        options: the steps to replace; None, or options that are all None, return the preset itself. A function takes
            its place; see OwnPreprocess.

    Returns:
        Image -> (3, H, W) float32.

    Raises:
        OptionError: an interpolation is given, and neither the preset nor `size` resizes; or blue is to be first where
            the input has no three colours, or an image processor decides on their order.
    """
    if options is None or options == PreprocessOptions():
        return preset
    if not isinstance(options, PreprocessOptions):
        if not callable(options):
            kind = type(options).__name__
            raise OptionError(f"preprocess must be PreprocessOptions or a function of an image, got {kind}.")
        return options if isinstance(options, OwnPreprocess) else OwnPreprocess(options)
    if options.channel_order is not None and isinstance(preset, ArrayPreprocess | HfPreprocess):
        raise OptionError(
            "channel_order must not be given for this model: its arrays or its image processor decide on the order."
        )
    if isinstance(preset, ArrayPreprocess):
        return preset.with_options(options)
    if isinstance(preset, OwnPreprocess):
        named = ", ".join(name for name, value in vars(options).items() if value is not None)
        raise OptionError(
            f"{named} must not be given beside a preprocessing of your own, which makes the whole input. Do that in it."
        )
    if isinstance(preset, Clip):
        return Clip(with_options(preset.frame, options), preset.frames)
    if isinstance(preset, Grey | Bare):
        return type(preset)(with_options(preset.preset, options))
    if isinstance(preset, HfPreprocess):
        return preset.with_options(options)
    from torchvision.transforms import InterpolationMode

    resizes = hasattr(preset, "interpolation")
    interpolation = getattr(preset, "interpolation", InterpolationMode.BILINEAR)
    if options.interpolation is not None:
        if options.size is None and not resizes:
            raise OptionError("interpolation must go with size for this model's preprocessing. Set size.")
        interpolation = InterpolationMode(options.interpolation)
    size = options.image_size
    mean = tuple(getattr(preset, "mean", (0.0, 0.0, 0.0)))
    std = tuple(getattr(preset, "std", (1.0,) * len(mean)))
    for name, numbers in (("mean", options.mean), ("std", options.std)):
        if numbers is not None and len(numbers) != len(mean):
            raise OptionError(f"{name} must have {len(mean)} numbers for this model, got {len(numbers)}.")
    zero, one = [0.0] * len(mean), [1.0] * len(mean)
    mean, std = options.mean or mean, options.std or std
    order = None
    if options.channel_order == "bgr":
        if len(mean) != 3:
            raise OptionError(f"channel_order must be given for three colours, and this model takes {len(mean)}.")
        order, mean, std = (2, 1, 0), mean[::-1], std[::-1]
    bare = copy.deepcopy(preset)
    for step, value in (("interpolation", interpolation), ("mean", zero), ("std", one)):
        if hasattr(bare, step):
            setattr(bare, step, value)
    return Preprocessing(bare, size, interpolation, mean, std, order)
