"""Samples in memory: batches are split, labels left out, and floats, which count as preprocessed, made a batch."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ImageError, ShapeError
from .in_memory import Encoded, is_pil_image, is_tensor

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from ..models.expected import ExpectedInput


def samples_in(images: Any, expected: ExpectedInput) -> Any:
    """Split what is in memory into single images, at any depth of lists; leave paths and everything else as they are.

    Args:
        images: what `find_images` takes. Float tensors and arrays may be batches, and so may uint8 arrays
            (N, H, W, C) and tensors (N, C, H, W). A mapping or a pair of image and label stands for its image, a data
            set and an iterable for all their samples.
        expected: the channels and axes of one sample.

    Returns:
        The same, each batch and each data set replaced by a list.
    """
    if isinstance(images, np.ndarray) or is_tensor(images):
        return _split(images, expected)
    if is_sample(images):
        return samples_in(image_in(images), expected)
    if isinstance(images, list | tuple):
        return [samples_in(each, expected) for each in images]
    if takes_positions(images):
        return [samples_in(images[position], expected) for position in range(len(images))]
    if is_stream(images):
        return [samples_in(each, expected) for each in images]
    return images


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
    return hasattr(images, "__iter__") and not (isinstance(images, np.ndarray) or is_tensor(images))


def _split(values: Any, expected: ExpectedInput) -> Any:
    """Return the samples of a batch, or the one image that it is."""
    if is_preprocessed(values, expected):
        batch = preprocessed_input(values, expected)
        return [batch[i : i + 1] for i in range(len(batch))]
    if values.ndim != expected.spatial_axes + 2:
        return values
    if is_tensor(values) and values.shape[1] not in (1, 3, 4) and values.shape[-1] in (1, 3, 4):
        values = values.cpu().numpy()  # arrays of images that a loader has collated
    return list(values)


def is_preprocessed(source: Any, expected: ExpectedInput) -> bool:
    """Check for floats that count as preprocessed.

    Args:
        source: anything.
        expected: the channels and axes of one sample.

    Returns:
        True for a float tensor, and for a float array with its channels first. An array with its channels last is a
        photo, with values in [0, 1], where the model takes photos; other models take it as it is.
    """
    if is_tensor(source):
        return bool(source.is_floating_point())
    if not isinstance(source, np.ndarray) or source.dtype.kind != "f":
        return False
    channels = expected.channels
    at_front = source.ndim > 2 and source.shape[-3] == channels and source.shape[-1] != channels
    return at_front or not expected.is_photo


def preprocessed_input(values: torch.Tensor | NDArray[Any], expected: ExpectedInput) -> torch.Tensor:
    """Return floats, which count as preprocessed, as a batch.

    Args:
        values: (C, ...) float, one sample, or (N, C, ...), a batch; C and the number of axes are those of the model. An
            array may have its channels last. Without channels, one sample of a model that takes one. Not modified.
        expected: the channels and axes of one sample. Where nothing is known of them, four and more axes are a batch,
            three are one image.

    Returns:
        (N, C, ...) float32.

    Raises:
        ShapeError: it has another shape.
    """
    import torch

    if isinstance(values, np.ndarray):
        values = torch.from_numpy(np.array(_with_channels_first(values, expected), np.float32))
    rank, shape = expected.spatial_axes, tuple(values.shape)
    if 0 not in shape:
        if not expected.channel_axis and values.ndim in (rank, rank + 1):
            return (values if values.ndim == rank + 1 else values[None]).float()
        if values.ndim == rank and expected.channels == 1:
            return values[None, None].float()
        if values.ndim == rank + 1 and (shape[0] == expected.channels or not expected.is_known):
            return values[None].float()
        if values.ndim >= rank + 2 or (not expected.is_known and values.ndim == 2):
            return values.float()
    raise ShapeError(
        f"a preprocessed tensor must have shape ({expected.axes}) or (N, {expected.axes}) for this model, got {shape}."
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


def image_in(sample: Any) -> Any:
    """Return the image in a sample: the first of a tuple or list, by name from a mapping, or the sample itself."""
    if isinstance(sample, Mapping):
        named = [key for key in ("image", "pixel_values", "img") if key in sample]
        entries = [sample[key] for key in named or list(sample)[:1]]
    elif isinstance(sample, tuple | list):
        entries = list(sample[:1])
    else:
        return sample
    if not entries:
        raise ImageError(f"a sample must hold an image, got an empty {type(sample).__name__}.")
    return entries[0]
