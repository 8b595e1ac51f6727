"""One path, file in memory, PIL image, array or tensor becomes an upright 8-bit RGB image."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from ..errors import DTypeError, ImageError, ShapeError
from ..options.parsers import whole
from ..options.reading import AS_USUAL, MAX_PIXELS, ImageOptions
from .decode import decode_bytes, decode_file, decode_pil_image

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from PIL.Image import Image as PilImage

    from ..models.float_images import FloatImage


@dataclass(frozen=True, slots=True)
class Encoded:
    """An image's file in memory, read from a shard or a table.

    Attributes:
        name: of the image in messages.
        content: the bytes of the file.
    """

    name: str
    content: bytes = field(repr=False)


Source: TypeAlias = "Path | PilImage | npt.NDArray[Any] | torch.Tensor | Encoded"


def decode_image(source: Source | str, *, max_pixels: int = MAX_PIXELS, options: ImageOptions = AS_USUAL) -> PilImage:
    """Decode an image to 8-bit RGB, upright.

    A file's format is recognised by its content: PNG, JPEG, WebP, AVIF, BMP, GIF, TIFF, PPM/PGM/PBM and nothing else.
    EXIF orientation is applied, transparency is laid over white, wide values are scaled; see `decode.py`.

    Args:
        source: a path; a file in memory; a PIL image, which is not modified; a (H, W) or (H, W, 1|3|4) array, uint8 or
            float in [0, 1]; or a (1|3|4, H, W) uint8 tensor.
        max_pixels: refuse images of more pixels, before they are decoded.
        options: what is done with damage, and with values of another range.

    Returns:
        A new PIL image of mode RGB.

    Raises:
        ImageError: the file is missing, none of the formats, damaged, or of more than `max_pixels`; or an array is
            masked.
        ShapeError: an array or a tensor has another shape.
        DTypeError: an array or a tensor is neither.
    """
    return cast("PilImage", decode_for(source, 0, max_pixels=max_pixels, options=options))


def decode_for(
    source: Source | str, floats: int, *, max_pixels: int = MAX_PIXELS, options: ImageOptions = AS_USUAL
) -> PilImage | FloatImage:
    """Decode an image as `decode_image` does, or in floats where it has more than 256 levels.

    Args:
        source: what `decode_image` takes.
        floats: channels of a model that takes floats; 0 where it takes 8 bits.
        max_pixels: refuse images of more pixels, before they are decoded.
        options: what is done with damage, and with values of another range.

    Returns:
        A new PIL image of mode RGB, or an image in floats.
    """
    limit: int = whole(1)("max_pixels", max_pixels)
    if isinstance(source, str | os.PathLike):
        return decode_file(Path(source), limit, options, floats)
    if isinstance(source, Encoded):
        return decode_bytes(source.content, source.name, limit, options, floats)
    if is_pil_image(source):
        return decode_pil_image(source, "image", limit, options, floats=floats)  # type: ignore[arg-type]
    if isinstance(source, np.ndarray) or is_tensor(source):
        return decode_pil_image(_wrapped(source), "image", limit, options)
    raise ImageError(f"image must be a path, PIL image, uint8 array or uint8 tensor, got {type(source).__name__}.")


def is_pil_image(value: object) -> bool:
    """Check for a PIL image without importing Pillow: whoever has one has imported it."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def is_tensor(value: object) -> bool:
    """Check for a tensor without importing torch: whoever has one has imported it."""
    module = sys.modules.get("torch")
    return module is not None and isinstance(value, module.Tensor)


def _wrapped(source: Any) -> PilImage:
    """Make a PIL image of an array (H, W[, 1|3|4]), uint8 or float in [0, 1], or of a uint8 tensor (1|3|4, H, W)."""
    from PIL import Image

    if np.ma.is_masked(source):
        raise ImageError(
            "image must not be masked, since pixels of 8 bits cannot be left out. Fill it in: image.filled(255)."
        )
    if (
        isinstance(source, np.ndarray)
        and source.dtype.kind == "f"
        and source.size
        and 0 <= source.min() <= source.max() <= 1
    ):
        source = np.floor(source * 255 + 0.5).astype(np.uint8)
    _check_array(source)
    if is_tensor(source):
        source = source.permute(1, 2, 0).numpy(force=True)
    pixels = np.ascontiguousarray(source)
    return Image.fromarray(pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


def _check_array(source: Any) -> None:
    """Raise DTypeError or ShapeError, with what to do about it, for an array or a tensor that is not an image."""
    dtype = str(source.dtype).removeprefix("torch.")
    shape = tuple(source.shape)
    if dtype != "uint8":
        raise DTypeError(f"image must be uint8, got {dtype}. {_dtype_advice(dtype, is_tensor(source))}")
    if is_tensor(source):
        expected, channels = "(1|3|4, H, W)", shape[:1]
    else:
        expected, channels = "(H, W) or (H, W, 1|3|4)", shape[2:]
    fits = (len(shape) == 3 and channels[0] in (1, 3, 4)) or (len(shape) == 2 and not is_tensor(source))
    if fits and 0 not in shape:
        return
    advice = ""
    if len(shape) == 4:
        advice = " Pass its samples one by one: list(images)."
    elif len(shape) == 3 and not is_tensor(source) and shape[0] in (1, 3, 4):
        advice = " Put the channels last: image.transpose(1, 2, 0)."
    elif len(shape) == 3 and shape[2] in (1, 3, 4):
        advice = " Put the channels first: image.permute(2, 0, 1)."
    raise ShapeError(f"image must have shape {expected}, got {shape}.{advice}")


def _dtype_advice(dtype: str, tensor: bool) -> str:
    if dtype == "bool":
        return "Convert it to uint8 and multiply it by 255."
    if dtype == "uint16":
        return "Divide it by 257, round, and convert it to uint8."
    if dtype.startswith("int"):
        return "Convert it to uint8 if its values are 0 to 255."
    if tensor:
        return "A float tensor counts as preprocessed: pass it to load_images or to capture."
    return "Scale it to 0..255, round, and convert it to uint8; or pass a preprocessed float tensor (C, H, W)."
