"""Files, folders, globs, arrays and tensors are found, decoded, preprocessed and made into one batch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DTypeError, ImageError, ShapeError, reason_of
from ..models.bounds import bounded
from ..models.expected import IMAGE, ExpectedInput
from ..models.float_images import FloatImage, preprocessed, takes_floats
from ..models.loaded import LoadedModel, as_given, expected_input, module_of
from ..models.no_images import words_for
from ..models.own_preprocess import ArrayPreprocess, OwnPreprocess
from ..models.preprocess import Preprocess, imagenet_preset
from ..options.reading import AS_USUAL, MAX_PIXELS, ImageOptions
from ..runtime.plain import plain
from .arrays import is_array_file, read_array
from .find import find_images
from .in_memory import Encoded, Source, decode_for, is_tensor
from .in_memory import decode_image as decode_image
from .samples import is_preprocessed, preprocessed_input, samples_in, with_channels_of

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import nn


@dataclass(frozen=True)
class InputSpec:
    """How an image becomes a model's input.

    Attributes:
        preprocess: the model's own.
        expected: the channels and axes of one sample.
        max_pixels: refuse images of more pixels, before they are decoded.
        options: what is done with damage, and with values of another range.
    """

    preprocess: Preprocess
    expected: ExpectedInput = IMAGE
    max_pixels: int = MAX_PIXELS
    options: ImageOptions = AS_USUAL

    @property
    def takes_arrays(self) -> bool:
        """Whether files are read as arrays, with all their bands, and not as images of three colours."""
        own = isinstance(self.preprocess, OwnPreprocess) and not self.expected.is_photo
        return own or isinstance(self.preprocess, ArrayPreprocess)

    def read(self, source: Source) -> torch.Tensor:
        """Decode and preprocess one image.

        Args:
            source: what `decode_image` takes, or a file of an array; or floats, which count as preprocessed, as do
                those of array files for models of photos.

        Returns:
            (1, C, ...) float32; as many as they are of floats, and of an array file with several samples.

        Raises:
            ImageError: it cannot be found, decoded or preprocessed.
            ShapeError: an array or a tensor has another shape.
            DTypeError: an array or a tensor has another dtype.
        """
        import torch

        if is_tensor(source):
            source = plain(source, "image")  # type: ignore[arg-type]
        if not self.expected.is_known:
            as_array = self.takes_arrays or is_array_file(source)
            if (fitted := self._fitted_to(self._array(source) if as_array else source)) is not self:
                return fitted.read(source)
        if is_preprocessed(source, self.expected):
            return preprocessed_input(source, self.expected)  # type: ignore[arg-type]
        if not is_array_file(source):
            return self._of_image(source)
        array = read_array(source, self.max_pixels)
        if is_preprocessed(array, self.expected) and not self.takes_arrays:
            return preprocessed_input(array, self.expected)
        samples = self._samples_of(array)
        if not samples:
            raise ImageError(f"{_label(source, None)} must hold at least one sample, got shape {array.shape}.")
        return torch.cat([self._of_array(each, source) for each in samples])

    def _of_image(self, source: Any) -> torch.Tensor:
        """Return one image, in a file or in memory, as (1, C, ...) float32."""
        if self.takes_arrays:
            return self._prepared(self._array(source), source)
        if not isinstance(self.preprocess, OwnPreprocess) and self._is_wide(source, from_file=False):
            return preprocessed_input(ArrayPreprocess(self.expected)(source), self.expected)
        return self._prepared(self._photo(source, source), source)

    def _photo(self, image: Any, source: Source) -> Any:
        """Return an image, or an array of one, of a size that preprocessing can bear; as floats where it takes them."""
        floats = self.expected.channels if takes_floats(self.preprocess) else 0
        decoded = decode_for(image, floats, max_pixels=self.max_pixels, options=self.options)
        return bounded(decoded, self.preprocess, self.max_pixels, _label(source, None))

    def _samples_of(self, array: NDArray[Any]) -> list[Any]:
        """Split the array of a file into samples; a user's own preprocessing takes it whole."""
        if isinstance(self.preprocess, OwnPreprocess):
            return [array]
        if self.takes_arrays:
            return list(array) if array.ndim == self.expected.spatial_axes + 2 else [array]
        samples = samples_in(array, self.expected)
        return samples if isinstance(samples, list) else [samples]

    def _of_array(self, array: NDArray[Any], source: Source) -> torch.Tensor:
        """Return one sample of an array file as (1, C, ...) float32."""
        if self.takes_arrays or isinstance(self.preprocess, OwnPreprocess):
            return self._prepared(array, source)
        if self._is_wide(array, from_file=True):
            return preprocessed_input(ArrayPreprocess(self.expected)(array), self.expected)
        try:
            return self._prepared(self._photo(array, source), source)
        except (ShapeError, DTypeError) as error:
            raise ImageError(f"{_label(source, None)}: {error}") from error

    def _prepared(self, image: Any, source: Source) -> torch.Tensor:
        """Preprocess one image; errors name its source."""
        try:
            wide = isinstance(image, FloatImage)
            prepared: torch.Tensor = preprocessed(image, self.preprocess) if wide else self.preprocess(image)
            return prepared.float().unsqueeze(0)
        except (ImageError, ShapeError) as error:
            kind = ImageError if isinstance(source, str | os.PathLike | Encoded) else type(error)
            raise kind(f"{_label(source, None)}: {error}") from error
        except Exception as error:  # presets for video and optical flow, or a user's own preprocessing
            label = _label(source, None)
            raise ImageError(f"{label} cannot be preprocessed for this model: {reason_of(error)}.") from error

    def _fitted_to(self, array: Any) -> InputSpec:
        """Return the specification for the channels of an array, where the model leaves them open."""
        expected = with_channels_of(array, self.expected)
        if expected is self.expected:
            return self
        own = self.preprocess
        fitted = replace(own, expected=expected) if isinstance(own, ArrayPreprocess) else ArrayPreprocess(expected)
        return replace(self, preprocess=fitted, expected=expected)

    def _is_wide(self, image: Any, from_file: bool) -> bool:
        """Check for a grey array of values that no photo has: of other integers, in a file also of floats."""
        grey = isinstance(image, np.ndarray) and self.expected.channels == 1
        return grey and image.dtype != np.uint8 and (from_file or image.dtype.kind in "ui")

    def _array(self, source: Any) -> Any:
        """Return a source as an array: of a tensor, of a file, or of the bands of a PIL image."""
        if is_tensor(source):
            return source.numpy(force=True)
        return source if isinstance(source, np.ndarray) else read_array(source, self.max_pixels)


def usual_spec(
    model: LoadedModel | nn.Module | None = None, max_pixels: int = MAX_PIXELS, options: ImageOptions = AS_USUAL
) -> InputSpec:
    """Return how images become the input of a model: by its own preprocessing, or else the usual one.

    Args:
        model: a record of load_model, any module, or None for ImageNet's preprocessing.
        max_pixels: refuse images of more pixels.
        options: what is done with damage, and with values of another range.

    Returns:
        The specification.
    """
    if model is None:
        return InputSpec(imagenet_preset(), max_pixels=max_pixels, options=options)
    loaded = model if isinstance(model, LoadedModel) else as_given(module_of(model))
    return InputSpec(loaded.preprocess, expected_input(loaded), max_pixels, options)


def load_images(
    images: object,
    model: LoadedModel | nn.Module | None = None,
    *,
    max_pixels: int = MAX_PIXELS,
    truncated: str = "refuse",
    input_range: Any = None,
) -> torch.Tensor:
    """Decode images and preprocess them into one batch.

    Args:
        images: paths, folders, globs, PIL images, files in memory, arrays or tensors; one of these or an iterable. A
            folder stands for the images directly in it. Float tensors and arrays count as preprocessed: one sample,
            (C, H, W) for most models, (C, L) for signals, (C, D, H, W) for volumes; or a batch of these. Files may also
            be .npy and .npz, and TIFF with as many bands as the model takes channels. Files of 16 bits and of floats
            keep their levels, unless the preprocessing is a function of your own or a processor of transformers, which
            take 8 bits.
        model: whose preprocessing is used; ImageNet's for None. For a plain module the usual one for its number of
            channels: ImageNet's, the same in grey, or arrays as they are.
        max_pixels: refuse images of more pixels, before they are decoded.
        truncated: "allow" to take damaged images as far as they go.
        input_range: values that become black and white, such as (0, 4095) for 12 bits in files of 16.

    Returns:
        (N, C, H, W) float32, (N, 3, T, H, W) for a video model, or as the model takes it. On the CPU, or on the device
        of the first image if that is a float tensor.

    Raises:
        ImageError: there are no images, or one cannot be found, decoded or preprocessed.
        ShapeError: the images come out in different sizes, or an array or a tensor has another shape.
        DTypeError: an array or a tensor has another dtype.
    """
    import torch

    spec = usual_spec(model, max_pixels, ImageOptions(truncated=truncated, input_range=input_range))  # type: ignore[arg-type]
    with contextlib.nullcontext() if model is None else words_for(module_of(model), images):
        sources = find_images(samples_in(images, spec.expected), spec.takes_arrays)
        if not sources:
            raise ImageError("images must name at least one image, got none.")
        parts = [spec.read(source) for source in sources]
    own = isinstance(spec.preprocess, OwnPreprocess)
    _check_sizes(parts, sources, "Have your preprocessing make one size." if own else "Set the size option.")
    return torch.cat([part.to(parts[0].device) for part in parts])


def _label(source: Source, position: int | None) -> str:
    """Return the name of an image for an error message."""
    if isinstance(source, Encoded):
        return f"image {source.name!r}"
    if isinstance(source, str | os.PathLike):
        return f"image {os.fspath(source)!r}"
    return "image" if position is None else f"image {position}"


def _check_sizes(parts: Sequence[torch.Tensor], sources: Sequence[Source], advice: str) -> None:
    """Raise ShapeError, naming one image of each size and what to do, where images have several sizes."""
    sizes: dict[str, str] = {}
    for position, (part, source) in enumerate(zip(parts, sources, strict=True)):
        sizes.setdefault("x".join(map(str, part.shape[2:])), _label(source, position))
    if len(sizes) > 1:
        found = ", ".join(f"{size} ({label})" for size, label in list(sizes.items())[:4])
        more = f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""
        raise ShapeError(f"images must come out in one size to be a batch, got {found}{more}. {advice}")
