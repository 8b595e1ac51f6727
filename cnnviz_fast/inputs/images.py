"""Files, folders, globs, arrays and tensors are found, decoded, preprocessed and made into one batch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import ImageError, ShapeError, reason_of
from ..models.loaded import LoadedModel, module_of
from ..models.preprocess import Preprocess, imagenet_preset
from ..options.reading import MAX_PIXELS
from .find import find_images
from .in_memory import Encoded, Source, decode_image, is_tensor

if TYPE_CHECKING:
    import torch
    from torch import nn


def load_images(
    images: object, model: LoadedModel | nn.Module | None = None, *, max_pixels: int = MAX_PIXELS
) -> torch.Tensor:
    """Decode images and preprocess them into one batch.

    Args:
        images: what `find_images` takes. Float tensors (3, H, W) or (N, 3, H, W) count as preprocessed, as do clips
            (N, 3, T, H, W).
        model: whose preprocessing is used; ImageNet's for None and for a plain module.
        max_pixels: refuse images of more pixels, before they are decoded.

    Returns:
        (N, 3, H, W) float32, or (N, 3, T, H, W) for a video model. On the CPU,
        or on the device of the first image if that is a float tensor.

    Raises:
        ImageError: there are no images, or one cannot be found, decoded or preprocessed.
        ShapeError: the images come out in different sizes, or an array or a tensor has another shape.
        DTypeError: an array or a tensor is neither uint8 nor a float tensor.
    """
    import torch

    if model is not None:
        module_of(model)
    preprocess = model.preprocess if isinstance(model, LoadedModel) else imagenet_preset()
    sources = find_images(images)
    if not sources:
        raise ImageError("images must name at least one image, got none.")
    parts = [model_input(source, preprocess, max_pixels) for source in sources]
    _check_sizes(parts, sources)
    return torch.cat([part.to(parts[0].device) for part in parts])


def model_input(source: Source, preprocess: Preprocess, max_pixels: int) -> torch.Tensor:
    """Decode and preprocess one image.

    Args:
        source: what `decode_image` takes, or a float tensor, which counts as preprocessed.
        preprocess: the model's own.
        max_pixels: refuse images of more pixels, before they are decoded.

    Returns:
        (1, 3, H, W) float32, or (1, 3, T, H, W) for a video model. A float tensor may hold any number N of them.

    Raises:
        ImageError: it cannot be found, decoded or preprocessed.
        ShapeError: an array or a tensor has another shape.
        DTypeError: an array is not uint8, a tensor neither uint8 nor float.
    """
    if is_tensor(source) and source.is_floating_point():  # type: ignore[union-attr]
        return preprocessed_input(source)  # type: ignore[arg-type]
    image = decode_image(source, max_pixels=max_pixels)
    try:
        prepared: torch.Tensor = preprocess(image)
        return prepared.float().unsqueeze(0)
    except Exception as error:  # presets for video and optical flow, or a user's own preprocessing
        label = _label(source, None)
        raise ImageError(f"{label} cannot be preprocessed for this model: {reason_of(error)}.") from error


def preprocessed_input(tensor: torch.Tensor) -> torch.Tensor:
    """Return a float tensor, which counts as preprocessed, as a batch.

    Args:
        tensor: (3, H, W) float, or a batch (N, 3, H, W), or clips (N, 3, T, H, W). Not modified.

    Returns:
        (N, 3, H, W) float32, or (N, 3, T, H, W).

    Raises:
        ShapeError: it has another shape.
    """
    batch = tensor[None] if tensor.ndim == 3 else tensor
    if batch.ndim not in (4, 5) or batch.shape[1] != 3 or 0 in batch.shape:
        raise ShapeError(
            f"a preprocessed tensor must have shape (3, H, W) or (N, 3, H, W), got {tuple(tensor.shape)}. "
            f"Clips are (N, 3, T, H, W)."
        )
    return batch.float()


def _label(source: Source, position: int | None) -> str:
    """Return the name of an image for an error message."""
    if isinstance(source, Encoded):
        return f"image {source.name!r}"
    if isinstance(source, str | os.PathLike):
        return f"image {os.fspath(source)!r}"
    return "image" if position is None else f"image {position}"


def _check_sizes(parts: Sequence[torch.Tensor], sources: Sequence[Source]) -> None:
    """Raise ShapeError, naming one image of each size, where images have several sizes."""
    sizes: dict[str, str] = {}
    for position, (part, source) in enumerate(zip(parts, sources, strict=True)):
        sizes.setdefault("x".join(map(str, part.shape[2:])), _label(source, position))
    if len(sizes) > 1:
        found = ", ".join(f"{size} ({label})" for size, label in list(sizes.items())[:4])
        more = f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""
        raise ShapeError(f"images must come out in one size to be a batch, got {found}{more}. Set the size option.")
