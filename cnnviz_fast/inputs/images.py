"""Stage 2 of 7, images: files, folders, globs, arrays and tensors are found, decoded and made into one batch."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError, ShapeError
from ..models.load import LoadedModel, module_of
from ..models.preprocess import Preprocess, imagenet_preset
from ..options import MAX_PIXELS
from .decode import EXTENSIONS, reason
from .in_memory import Encoded, Source, decode_image, is_picture, is_tensor

if TYPE_CHECKING:
    import torch
    from torch import nn

_MAGIC = re.compile(r"[*?[]")
_NUMBER = re.compile(r"0*(\d+)")


def find_images(images: object) -> list[Source]:
    """List the pictures that paths, folders, globs and in-memory pictures stand for.

    A folder gives the files directly in it that have a picture's extension. So does a glob, but one that ends in an
    extension of its own (`*.dat`) gives all its matches. Both come in natural order, 2 before 10. A file that is named
    is taken whatever its extension.

    Args:
        images: a path, folder, glob, PIL image, array, tensor or file in memory, or any iterable of these.

    Returns:
        Files as `Path`, everything else as it came, in the order given.

    Raises:
        ImageError: a file is missing, a folder or a glob holds no picture, or an item is none of the above.
    """
    if isinstance(images, str | os.PathLike):
        return [Path(path) for path in matching_files(os.fspath(images))]
    if isinstance(images, np.ndarray | Encoded) or is_tensor(images) or is_picture(images):
        return [images]  # type: ignore[list-item]
    if isinstance(images, Iterable) and not isinstance(images, bytes | bytearray | Mapping):
        return [source for item in images for source in find_images(item)]
    kind = type(images).__name__
    raise ImageError(f"images must be paths, folders, globs, PIL images, uint8 arrays or tensors, got {kind}.")


def image_name(source: Source | str, position: int) -> str:
    """Give the stem that names a picture's output files.

    Args:
        source: an item of what `find_images` returned.
        position: its place among the pictures, for one that has no file name.

    Returns:
        The file's stem, or "image3" for an in-memory picture at position 3.
    """
    return Path(source).stem if isinstance(source, str | os.PathLike) else f"image{position}"


def load_images(
    images: object, model: LoadedModel | nn.Module | None = None, *, max_pixels: int = MAX_PIXELS
) -> torch.Tensor:
    """Decode pictures and preprocess them into one batch.

    Args:
        images: what `find_images` takes. Float tensors (3, H, W) or (N, 3, H, W) count as preprocessed, as do clips
            (N, 3, T, H, W).
        model: its own preprocessing is used; ImageNet's for None and for a plain module.
        max_pixels: refuse pictures of more pixels, before they are decoded.

    Returns:
        (N, 3, H, W) float32, or (N, 3, T, H, W) for a video model. On the CPU,
        or on the device of the first picture if that is a float tensor.

    Raises:
        ImageError: there are no pictures, or one cannot be found, decoded or preprocessed.
        ShapeError: the pictures come out in different sizes, or an array or a tensor has another shape.
        DTypeError: an array or a tensor is neither uint8 nor a float tensor.
    """
    import torch

    if model is not None:
        module_of(model)
    preprocess = model.preprocess if isinstance(model, LoadedModel) else imagenet_preset()
    sources = find_images(images)
    if not sources:
        raise ImageError("images must name at least one picture, got none.")
    parts = [model_input(source, preprocess, max_pixels) for source in sources]
    _check_sizes(parts, sources)
    return torch.cat([part.to(parts[0].device) for part in parts])


def model_input(source: Source, preprocess: Preprocess, max_pixels: int) -> torch.Tensor:
    """Decode and preprocess one picture.

    Args:
        source: what `decode_image` takes, or a float tensor, which counts as preprocessed.
        preprocess: the model's own.
        max_pixels: refuse pictures of more pixels, before they are decoded.

    Returns:
        (1, 3, H, W) float32, or (1, 3, T, H, W) for a video model; of a float tensor, as many as it holds.

    Raises:
        ImageError: it cannot be found, decoded or preprocessed.
        ShapeError: an array or a tensor has another shape.
        DTypeError: an array is not uint8, a tensor neither uint8 nor float.
    """
    if is_tensor(source) and source.is_floating_point():  # type: ignore[union-attr]
        return preprocessed_input(source)  # type: ignore[arg-type]
    picture = decode_image(source, max_pixels=max_pixels)
    try:
        prepared: torch.Tensor = preprocess(picture)
        return prepared.float().unsqueeze(0)
    except Exception as error:  # presets for video and optical flow, or a user's own preprocessing
        label = _label(source, None)
        raise ImageError(f"{label} cannot be preprocessed for this model: {reason(error)}.") from error


def preprocessed_input(tensor: torch.Tensor) -> torch.Tensor:
    """Give a float tensor, which counts as preprocessed, as a batch.

    Args:
        tensor: (3, H, W) float, or any number of them (N, 3, H, W), or of clips (N, 3, T, H, W). Not modified.

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


def matching_files(text: str) -> list[str]:
    """Expand one path, folder or glob, as `find_images` says; raise its ImageError where nothing is there."""
    if os.path.isdir(text):
        try:
            inside = [os.path.join(text, name) for name in os.listdir(text) if not name.startswith(".")]
        except OSError as error:
            raise ImageError(f"folder {text!r} cannot be read: {reason(error)}.") from error
        found = [path for path in inside if has_extension(path) and os.path.isfile(path)]
        missing = f"folder {text!r} holds no images ({' '.join(EXTENSIONS)})."
    elif os.path.exists(text):  # before globs, so that "cat[1].png" can be named
        return [text]
    elif _MAGIC.search(text):
        suffix = os.path.splitext(text)[1]
        explicit = bool(suffix) and not _MAGIC.search(suffix)
        matches = glob.glob(text, recursive=True)
        found = [path for path in matches if os.path.isfile(path) and (explicit or has_extension(path))]
        missing = f"glob {text!r} matches no images."
    else:
        raise ImageError(f"no file or folder {text!r}.")
    if not found:
        raise ImageError(missing)
    return sorted(found, key=natural_key)


def has_extension(path: str) -> bool:
    """Tell whether a path ends as a picture's does."""
    return path.lower().endswith(EXTENSIONS)


def natural_key(path: str) -> tuple[str, str]:
    """Give a sorting key that counts, 2 before 10, and ignores case.

    One string, not a list of parts: the keys of a million paths are in memory while they are sorted. The number of its
    digits stands before each number, so that the longer number is the later one.
    """
    return _NUMBER.sub(lambda number: f"{chr(len(number[1]))}{number[1]}", path.casefold()), path


def _label(source: Source, position: int | None) -> str:
    """Word a picture for an error message."""
    if isinstance(source, Encoded):
        return f"image {source.name!r}"
    if isinstance(source, str | os.PathLike):
        return f"image {os.fspath(source)!r}"
    return "image" if position is None else f"image {position}"


def _check_sizes(parts: Sequence[torch.Tensor], sources: Sequence[Source]) -> None:
    """Refuse pictures that cannot be one batch, and name one picture of each size."""
    sizes: dict[str, str] = {}
    for position, (part, source) in enumerate(zip(parts, sources, strict=True)):
        sizes.setdefault("x".join(map(str, part.shape[2:])), _label(source, position))
    if len(sizes) > 1:
        found = ", ".join(f"{size} ({label})" for size, label in list(sizes.items())[:4])
        more = f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""
        raise ShapeError(f"images must come out in one size to be a batch, got {found}{more}. Set the size option.")
