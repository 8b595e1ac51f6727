"""Preprocessing for what users bring: arrays of any channels and axes, and functions of their own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ImageError, OptionError, ShapeError
from ..options.reading import PreprocessOptions
from ..runtime.arrays import as_float32
from .expected import ExpectedInput

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ArrayPreprocess:
    """From an array to the input of a model that takes no photos: several bands, signals, volumes.

    Unsigned integers and truth values are scaled to [0, 1]; all other values stay as they are, and so does the size
    unless one is given.

    Attributes:
        expected: the channels and axes of one sample.
        size: lengths of the axes behind the channels to which it is resized, linearly; None for as it is.
        mean: subtracted from each channel, one number for all or one for each.
        std: divisor after that.
    """

    expected: ExpectedInput
    size: tuple[int, ...] | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __call__(self, array: Any) -> torch.Tensor:
        """Turn one sample, with its channels on the first or the last axis, into (C, ...) float32, or (...)."""
        import torch

        values = torch.from_numpy(scaled(channels_first(np.asanyarray(array), self.expected)))
        if self.size is not None and tuple(values.shape[1:]) != self.size:
            mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[self.expected.spatial_axes]
            values = torch.nn.functional.interpolate(
                values[None], size=self.size, mode=mode, antialias=mode == "bilinear"
            )[0]
        broadcast = (-1, *[1] * self.expected.spatial_axes)
        values = (values - torch.tensor(self.mean).view(broadcast)) / torch.tensor(self.std).view(broadcast)
        return values if self.expected.channel_axis else values[0]

    def with_options(self, options: PreprocessOptions) -> ArrayPreprocess:
        """Return the same with a size, mean or deviation that options name; raise OptionError where they do not fit."""
        rank, channels = self.expected.spatial_axes, self.expected.channels
        size = (options.size,) * rank if isinstance(options.size, int) else options.size
        if size is not None and len(size) != rank:
            raise OptionError(f"size must have {rank} lengths for this model's input, got {size}.")
        if options.interpolation not in (None, "bilinear"):
            raise OptionError(f"interpolation must be bilinear for arrays, got {options.interpolation!r}.")
        for name, numbers in (("mean", options.mean), ("std", options.std)):
            if numbers is not None and len(numbers) not in (1, channels):
                raise OptionError(f"{name} must have 1 number or {channels} for this model, got {len(numbers)}.")
        return ArrayPreprocess(self.expected, size or self.size, options.mean or self.mean, options.std or self.std)


def channels_first(array: np.ndarray[Any, Any], expected: ExpectedInput) -> np.ndarray[Any, Any]:
    """Return an array with its channels on the first axis.

    Args:
        array: (C, ...) or (..., C), or without a channel axis where one channel is expected. Not modified.
        expected: the channels and axes of one sample.

    Returns:
        (C, ...), a view.

    Raises:
        ShapeError: no axis, or more than one, can be that of the channels.
    """
    rank, channels = expected.spatial_axes, expected.channels
    if array.ndim == rank and channels == 1:
        if expected.looks_like_colours(array.shape):
            raise ShapeError(
                f"an array for this model must have shape ({expected.axes}), got {array.shape}, which looks like an "
                f"image. If it is none, say so with the axis of its channel: array[None]."
            )
        return array[None]
    at_ends = {axis for axis in (0, array.ndim - 1) if array.ndim == rank + 1 and array.shape[axis] == channels}
    if len(at_ends) != 1 or 0 in array.shape:
        also = " Both its ends could be the channels: transpose it or pass a float tensor." if at_ends else ""
        raise ShapeError(f"an array for this model must have shape ({expected.axes}), got {array.shape}.{also}")
    return np.moveaxis(array, at_ends.pop(), 0)


def scaled(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array as float32, unsigned integers and truth values scaled to [0, 1].

    Args:
        array: (any shape) real dtype. Not modified.

    Returns:
        (same shape) float32, contiguous. NaN where the array is masked.

    Raises:
        ImageError: its values are no real numbers.
    """
    if array.dtype.kind not in "biuf":
        raise ImageError(f"an array must hold real numbers, got {array.dtype}. Convert it to float32.")
    values = as_float32(array)
    return values / np.float32(np.iinfo(array.dtype).max) if array.dtype.kind == "u" else values


@dataclass(frozen=True)
class OwnPreprocess:
    """A user's own preprocessing: a torchvision transform, one of albumentations, an image processor or any function.

    Attributes:
        function: takes a PIL image of mode RGB, or with `image=` an array (H, W, 3) uint8, as albumentations does; an
            array file goes in as its array. It returns a tensor (C, ...) float, an array (H, W, C) or (C, ...), a
            mapping that holds one of these as "image" or "pixel_values", or a tuple of one of these and its target.
    """

    function: Callable[..., Any]

    def __call__(self, image: Any) -> torch.Tensor:
        """Turn one image into (C, ...) float32."""
        import torch

        made = _called(self.function, image)
        _refuse_several(made)
        if isinstance(made, tuple) and made:
            made = made[0]
        if isinstance(made, Mapping):
            made = next((made[name] for name in ("image", "pixel_values") if name in made), made)
            made = made[0] if isinstance(made, Sequence) and not isinstance(made, str) else made
        if not isinstance(made, torch.Tensor):
            array = np.asanyarray(made)
            if array.dtype.kind not in "biuf" or not array.ndim:
                raise ImageError(f"preprocess must return a tensor or an array, got {type(made).__name__}.")
            if array.ndim == 3 and array.shape[-1] == min(array.shape) < array.shape[0]:  # (H, W, C), as of images
                array = np.moveaxis(array, -1, 0)
            made = torch.from_numpy(as_float32(array[None] if array.ndim == 2 else array))
        return made[0] if made.ndim in (4, 5) and len(made) == 1 else made


def _refuse_several(made: Any) -> None:
    """Refuse crops and views, such as FiveCrop's; a tuple of two is an image and its target."""
    if (
        isinstance(made, Mapping)
        or not isinstance(made, list | tuple)
        or len(made) < (2 if isinstance(made, list) else 3)
    ):
        return
    shapes = [getattr(each, "shape", getattr(each, "size", None)) for each in made]
    if all(isinstance(shape, tuple) and len(shape) >= 2 for shape in shapes) and len(set(shapes)) == 1:
        raise ImageError(
            f"preprocess must return one image, got {len(made)} images of one size. Return one of these crops, or give "
            f"each crop as an image of its own."
        )


def _called(function: Callable[..., Any], image: Any) -> Any:
    """Call a function with an image, by the name `image` where it takes it by that alone."""
    from torch import nn

    parameters: tuple[inspect.Parameter, ...]
    packages = {kind.__module__.partition(".")[0] for kind in type(function).__mro__}
    try:
        parameters = tuple(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a built-in without a signature
        parameters = ()
    named = {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    if packages & {"albumentations", "albucore"} or "image" in named:
        return function(image=np.asarray(image))
    try:
        return function(image)
    except (TypeError, KeyError):
        # What takes `*args, **data`, as albumentations' own classes do, does not say in which of them it wants it.
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters) or isinstance(function, nn.Module):
            raise
        return function(image=np.asarray(image))
