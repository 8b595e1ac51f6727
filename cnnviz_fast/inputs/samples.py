"""Samples in memory: batches are split, labels left out, and floats, which count as preprocessed, made a batch."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ImageError, ShapeError
from ..runtime.arrays import as_float32
from ..runtime.plain import plain
from .in_memory import Encoded, is_pil_image, is_tensor

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from ..models.expected import ExpectedInput


def samples_in(images: Any, expected: ExpectedInput) -> Any:
    """Split what is in memory into single images, at any depth of lists; leave paths and everything else as they are.

    Args:
        images: what `find_images` takes. Float tensors and arrays may be batches, and so may uint8 arrays
            (N, H, W, C) and tensors (N, C, H, W). A mapping stands for its image, and so does a tuple of an image with
            its label or mask, in a list too. A data set and an iterable stand for all their samples, an open file for
            the image in it.
        expected: the channels and axes of one sample.

    Returns:
        The same, each batch and each data set replaced by a list.

    Raises:
        ImageError: a mapping holds several images by names of their own; or see image_in.
    """
    if isinstance(images, np.ndarray) and images.dtype.kind in "OSU":  # of paths, or of images
        return samples_in(images.tolist(), expected)
    if isinstance(images, np.ndarray) or is_tensor(images):
        return _split(images, expected)
    if isinstance(images, Mapping):
        _refuse_named_images(images)
    if isinstance(images, Mapping | bytes | io.IOBase) or is_sample(images):
        return samples_in(image_in(images), expected)
    if isinstance(images, list | tuple):
        return [_of_item(each, expected, isinstance(each, tuple | Mapping)) for each in images]
    if takes_positions(images):
        return [_of_item(images[position], expected) for position in range(len(images))]
    if is_stream(images):
        return [_of_item(each, expected) for each in images]
    return images


def _of_item(item: Any, expected: ExpectedInput, is_sample: bool = True) -> Any:
    """Return the images of an item of a set, or of a list."""
    return samples_in(images_of(item, expected) if is_sample else item, expected)


def images_of(item: Any, expected: ExpectedInput) -> Any:
    """Return the images of an item of a set or a loader.

    Args:
        item: a sample or a batch. What a loader has collated into tensors begins with the images; a list of samples, of
            images in memory or of paths is a batch that is not collated.
        expected: the channels and axes of one sample.

    Returns:
        Of a sample its image; of a collated batch its images; of a list of them all.

    Raises:
        ImageError: see image_in.
    """
    if isinstance(item, tuple | list) and item and all(isinstance(each, str | os.PathLike) for each in item):
        return item
    if isinstance(item, list) and item and all(_is_whole_sample(each, expected) for each in item):
        return [image_in(each) for each in item]
    return image_in(item)


def _is_whole_sample(value: Any, expected: ExpectedInput) -> bool:
    """Check for a sample that was not collated: a mapping or a tuple with one image, or one image by itself.

    torch's own function to collate makes lists of what were tuples, batches of what were images, and tuples of texts.
    """
    if isinstance(value, tuple) and value and isinstance(value[0], str | os.PathLike):
        return not all(isinstance(each, str | os.PathLike) for each in value)
    if isinstance(value, Mapping):
        value = next(iter(_in_mapping(value)), None)
        return isinstance(value, bytes | Mapping) or _is_one_image(value, expected)
    return _is_one_image(value[0] if isinstance(value, tuple) and value else value, expected)


def _is_one_image(value: Any, expected: ExpectedInput) -> bool:
    if not isinstance(value, np.ndarray) and not is_tensor(value):
        return _is_in_memory(value)
    shape, rank = tuple(value.shape), expected.spatial_axes
    return len(shape) == rank + 1 and expected.channels in ((shape[0],) if is_tensor(value) else (shape[0], shape[-1]))


def takes_positions(images: Any) -> bool:
    """Check for a data set: an object with a length that returns samples by position, and is no container of Python."""
    if isinstance(images, str | bytes | bytearray | Mapping | list | tuple | np.ndarray | Encoded):
        return False
    if is_tensor(images) or is_pil_image(images):
        return False
    torch_data = sys.modules.get("torch.utils.data")
    if torch_data is not None and isinstance(images, torch_data.IterableDataset):  # its samples have no positions
        return False
    return hasattr(images, "__getitem__") and hasattr(images, "__len__")


def is_stream(images: Any) -> bool:
    """Check for an iterable whose samples are taken one after another, such as a generator: no container of Python."""
    if isinstance(images, str | bytes | bytearray | Mapping | list | tuple | os.PathLike) or takes_positions(images):
        return False
    if isinstance(images, np.ndarray | Encoded) or is_tensor(images) or is_pil_image(images):
        return False
    return hasattr(images, "__iter__") or hasattr(images, "__getitem__")


def _split(values: Any, expected: ExpectedInput) -> Any:
    """Return the samples of a batch, or the one image that it is."""
    if is_tensor(values):
        values = plain(values, "images")
    if is_preprocessed(values, expected):
        batch = preprocessed_input(values, expected)
        return [batch[i : i + 1] for i in range(len(batch))]
    bare = expected.is_known and expected.channels == 1 and values.ndim == expected.spatial_axes + 1
    if bare and not _has_colours(values) and not expected.looks_like_colours(values.shape):
        return [each[None] if is_tensor(values) else each for each in values]
    if values.ndim != expected.spatial_axes + 2:
        return values
    if is_tensor(values) and values.shape[1] not in (1, 3, 4) and values.shape[-1] in (1, 3, 4):
        values = values.numpy(force=True)  # arrays of images that a loader has collated
    return list(values)


def _has_colours(values: Any) -> bool:
    """Check whether an image has an axis of 1, 3 or 4 colours, where images of its kind have it."""
    return values.shape[0 if is_tensor(values) else -1] in (1, 3, 4)


def is_preprocessed(source: Any, expected: ExpectedInput) -> bool:
    """Check for floats that count as preprocessed.

    Args:
        source: anything.
        expected: the channels and axes of one sample.

    Returns:
        True for a float tensor, and for a float array with its channels first. An array with its channels last is a
        photo, with values in [0, 1], where the model takes photos; others, of depth maps too, take it as it is.
    """
    if is_tensor(source):
        return bool(source.is_floating_point())
    if not isinstance(source, np.ndarray) or source.dtype.kind != "f":
        return False
    channels = expected.channels
    at_front = source.ndim > 2 and source.shape[-3] == channels and source.shape[-1] != channels
    return at_front or not expected.is_photo or not expected.channel_axis


def with_channels_of(array: Any, expected: ExpectedInput) -> ExpectedInput:
    """Return what is expected of an array by a model that leaves its channels open, as one with lazy layers does.

    Args:
        array: one sample, a batch, or anything else.
        expected: the axes of one sample, and channels that are a guess.

    Returns:
        The channels of the array: its first or last axis, the shorter one. What was expected, if it is no array of
        these axes, or may be a photo.
    """
    rank = expected.spatial_axes
    if not isinstance(array, np.ndarray) or array.ndim not in (rank + 1, rank + 2):
        return expected
    first, last = array.shape[-1 - rank], array.shape[-1]
    if expected.is_photo and (last in (1, 3, 4) or (first in (1, 3, 4) and array.dtype == np.uint8)):
        return expected
    return replace(expected, channels=min(first, last), is_known=True)


def preprocessed_input(values: torch.Tensor | NDArray[Any], expected: ExpectedInput) -> torch.Tensor:
    """Return floats, which count as preprocessed, as a batch.

    Args:
        values: (C, ...) float, one sample, or (N, C, ...), a batch; C and the number of axes are those of the model. An
            array may have its channels last. Without channels, one sample of a model that takes one. Not modified.
        expected: the channels and axes of one sample. Where nothing is known of them, four and more axes are a batch,
            three are one image.

    Returns:
        (N, C, ...) float32. NaN where an array is masked.

    Raises:
        ShapeError: it has another shape.
    """
    import torch

    if isinstance(values, np.ndarray):
        values = torch.from_numpy(as_float32(_with_channels_first(values, expected)))
    rank, shape = expected.spatial_axes, tuple(values.shape)
    if 0 not in shape:
        if not expected.channel_axis and values.ndim in (rank, rank + 1):
            return (values if values.ndim == rank + 1 else values[None]).float()
        bare = expected.channels == 1 and not expected.looks_like_colours(shape)
        if values.ndim == rank and bare:
            return values[None, None].float()
        if values.ndim == rank + 1 and (shape[0] == expected.channels or not expected.is_known):
            return values[None].float()
        if values.ndim == rank + 1 and bare:
            return values[:, None].float()
        if values.ndim >= rank + 2 or (not expected.is_known and values.ndim == 2):
            return values.float()
    colours = expected.channels == 1 and expected.looks_like_colours(shape)
    advice = " Put the axis of its channels in front." if colours else ""
    raise ShapeError(
        f"a preprocessed tensor must have shape ({expected.axes}) or (N, {expected.axes}) for this model, got {shape}."
        f"{advice}"
    )


def _with_channels_first(values: NDArray[Any], expected: ExpectedInput) -> NDArray[Any]:
    """Move the channels of one sample or of a batch in front of its spatial axes, if they are last."""
    batch = values.ndim == expected.spatial_axes + 2
    if values.ndim != expected.spatial_axes + 1 + batch:
        return values
    first, last = values.shape[int(batch)] == expected.channels, values.shape[-1] == expected.channels
    return np.moveaxis(values, -1, int(batch)) if last and not first else values


def is_sample(value: Any) -> bool:
    """Check for a mapping, or a tuple or list of an image and a label, as data sets give them."""
    if isinstance(value, Mapping):
        return True
    if not isinstance(value, tuple | list) or len(value) < 2 or not _is_in_memory(value[0]):
        return False
    return not isinstance(value[1], os.PathLike) and not _is_in_memory(value[1])


def _is_in_memory(value: Any) -> bool:
    """Check for what may be an image in memory: a PIL image, a file's bytes, an array or a tensor with axes."""
    if isinstance(value, np.ndarray) or is_tensor(value):
        return bool(value.ndim)
    return isinstance(value, Encoded) or is_pil_image(value)


def _refuse_named_images(images: Mapping[Any, Any]) -> None:
    """Refuse a mapping of names to images, of which the first alone would be taken, as that of a sample."""
    found = [value for value in images.values() if _is_in_memory(value) and getattr(value, "ndim", 2) > 1]
    if not any(name in images for name in _NAMES) and len(found) == len(images) > 1:
        raise ImageError(
            f"images must not be a mapping of {len(found)} images. Pass the one, or all: list(images.values())."
        )


_NAMES = ("image", "pixel_values", "img", "images", "bytes")
"""Names under which mappings hold their image; the last is that of an image of Hugging Face that is not decoded."""


def image_in(sample: Any) -> Any:
    """Return the image in a sample.

    Args:
        sample: a tuple or list that begins with one; a mapping that has one under one of `_NAMES`, or else the first
            value that may be an image; an open file or its bytes; or the image itself.

    Returns:
        The image.

    Raises:
        ImageError: the sample is empty, or an open file of text.
    """
    if isinstance(sample, io.IOBase):
        content = sample.read()
        if not isinstance(content, bytes):
            raise ImageError("an open file must give bytes, got text. Open it with mode 'rb'.")
        return Encoded(str(getattr(sample, "name", "in memory")), content)
    if isinstance(sample, bytes):
        return Encoded("in memory", sample)
    if isinstance(sample, Mapping):
        entries = _in_mapping(sample)
    elif isinstance(sample, tuple | list):
        entries = list(sample[:1])
    else:
        return sample
    if not entries:
        raise ImageError(f"a sample must hold an image, got an empty {type(sample).__name__}.")
    return image_in(entries[0]) if isinstance(entries[0], bytes | Mapping | io.IOBase) else entries[0]


def _in_mapping(sample: Mapping[Any, Any]) -> list[Any]:
    """Return the values of a mapping that may be its image, the likeliest first; any but the keys of webdataset."""
    if isinstance(sample.get("bytes"), bytes):
        return [Encoded(str(sample.get("path") or "in memory"), sample["bytes"])]
    if "bytes" in sample and sample.get("path"):
        return [sample["path"]]
    named = [sample[key] for key in _NAMES if sample.get(key) is not None]
    others = [value for key, value in sample.items() if not str(key).startswith("__")]
    likely = [value for value in others if _is_in_memory(value) and getattr(value, "ndim", 2) > 1]
    return named or likely or others
