"""What images look like, for optimisation: natural spectra and colours, smoothness, and what a model takes as colours.

An image is not optimised pixel by pixel: there each step changes the finest details most, and what comes out is noise.
It is made of coefficients for waves of all lengths, the longer ones scaled up as they are in photos, and of three
colours that vary independently in photos: mostly light, less orange against blue, least green against violet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, ShapeError
from ..models.loaded import LoadedModel, expected_input
from ..models.own_preprocess import ArrayPreprocess

if TYPE_CHECKING:
    import torch

_MEAN = (0.48, 0.46, 0.41)
_COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""Mean colour of ImageNet, and a root of the covariance of its colours: rows are red, green and blue. Numbers measured
and published in Lucid, optvis/param/color.py (Apache 2.0)."""

_PROBE_PX = 256
"""Side of the images of one colour that show what a preprocessing does to colours."""


@dataclass(frozen=True)
class Statistics:
    """How images vary.

    Attributes:
        mean: (P,) float32. The mean of each colour, 0 to 1.
        colours: (P, P) float32. A root of the covariance of colours; its longest column has length 1.
        decay: power of the wavelength with which amplitudes rise; 1 for photos.
    """

    mean: torch.Tensor
    colours: torch.Tensor
    decay: float = 1.0

    @classmethod
    def usual(cls, planes: int) -> Statistics:
        """Return the statistics of photos, in RGB; of any other number of planes independent ones, grey in the mean."""
        import torch

        if planes != len(_MEAN):
            return cls(torch.full((planes,), 0.5), torch.eye(planes))
        return cls(torch.tensor(_MEAN), _unit_columns(torch.tensor(_COLOURS)))

    @classmethod
    def of(cls, pixels: torch.Tensor) -> Statistics:
        """Measure images.

        Args:
            pixels: (N, P, H, W) float32, 0 to 1. Not modified.

        Returns:
            Their statistics.

        Raises:
            InputError: the images are of one colour, or too small to have a spectrum.
        """
        import torch

        values = pixels.movedim(1, 0).flatten(1)
        covariance = torch.cov(values).reshape(len(values), len(values))
        variances, axes = torch.linalg.eigh(covariance)
        if min(pixels.shape[2:]) < 8 or not bool(variances[-1] > 0):
            raise InputError(f"statistics must be measured of images that vary, got shape {tuple(pixels.shape)}.")
        order = variances.argsort(descending=True)
        # No colour is ruled out where none of the images has it: 1 % of the largest deviation is left to it.
        deviations = variances[order].clamp(min=0).sqrt().clamp(min=float(variances.max().sqrt()) / 100)
        axes = axes[:, order] * axes[:, order].sum(0).sign().where(axes[:, order].sum(0) != 0, 1)
        return cls(values.mean(1).clamp(0.02, 0.98), _unit_columns(axes * deviations), _decay(pixels))


def _unit_columns(matrix: torch.Tensor) -> torch.Tensor:
    scaled: torch.Tensor = matrix / matrix.norm(dim=0).max()
    return scaled


def _decay(pixels: torch.Tensor) -> float:
    """Return the power with which the amplitudes of waves fall with their frequency: the slope in a log-log plot."""
    import torch

    height, width = pixels.shape[2:]
    # Without a window the edges, where an image does not go on as it begins, would be waves of all lengths.
    window = torch.hann_window(height, False)[:, None] * torch.hann_window(width, False)
    amplitudes = torch.fft.rfft2((pixels - pixels.mean((2, 3), keepdim=True)) * window).abs().square().mean((0, 1))
    frequencies = _frequencies(height, width)
    inside = (frequencies > 2 / min(height, width)) & (frequencies < 0.5)
    x, y = frequencies[inside].log(), amplitudes[inside].clamp(min=1e-20).log() / 2
    # Frequencies count alike in steps of their logarithm: there are more of the higher ones, in proportion to them.
    weights = 1 / frequencies[inside].square()
    x, y = x - (x * weights).sum() / weights.sum(), y - (y * weights).sum() / weights.sum()
    return float((-(weights * x * y).sum() / (weights * x * x).sum()).clamp(0, 2))


def _frequencies(height: int, width: int) -> torch.Tensor:
    """Return the frequencies of the coefficients of an image in waves per px, (H, W // 2 + 1)."""
    import torch

    return torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])


class Spectrum:
    """Images made of waves: coefficients of independent colours become an image that varies as photos do.

    Args:
        statistics: how they vary.
        size: (height, width) in px.
        device: where the coefficients lie.
    """

    def __init__(self, statistics: Statistics, size: tuple[int, int], device: torch.device) -> None:
        frequencies = _frequencies(*size)
        scale = frequencies.clamp(min=1 / max(size)) ** -statistics.decay
        self._scale = (scale / scale.square().mean().sqrt()).to(device)
        self._colours = statistics.colours.to(device)
        self.size = size
        self.shape = (len(statistics.colours), *frequencies.shape, 2)

    def image(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Return images of mean 0.

        Args:
            coefficients: (N, P, H, W // 2 + 1, 2) float32: real and imaginary parts. Of deviation d, they give an image
                whose strongest colour deviates by about 1.4 d.

        Returns:
            (N, P, H, W) float32.
        """
        import torch

        waves = torch.view_as_complex(coefficients) * self._scale
        return torch.einsum("pq,nqhw->nphw", self._colours, torch.fft.irfft2(waves, s=self.size, norm="ortho"))


def total_variation(images: torch.Tensor) -> torch.Tensor:
    """Return the mean length of the gradients of images, (N, P, H, W) float32."""
    down = images[..., 1:, :-1] - images[..., :-1, :-1]
    across = images[..., :-1, 1:] - images[..., :-1, :-1]
    # A millionth, below one level of 8 bits, so that a length of 0 has a gradient.
    return (down.square() + across.square() + 1e-6).sqrt().mean()


@dataclass(frozen=True)
class Colours:
    """How pixels, 0 to 1, become the input of a model: input = matrix @ pixels + offset, at each place.

    Attributes:
        matrix: (C, C) float32.
        offset: (C,) float32.
        size: (height, width) of the input that the model's own preprocessing makes.
    """

    matrix: torch.Tensor
    offset: torch.Tensor
    size: tuple[int, int]

    @classmethod
    def of(cls, model: LoadedModel) -> Colours:
        """Find matrix and offset by what the preprocessing of a model makes of images of one colour.

        Raises:
            ShapeError: the model takes no images (C, H, W).
        """
        import torch

        from ..models.loaded import example_input

        expected = expected_input(model)
        shape = tuple(example_input(model).shape[1:])
        if expected.spatial_axes != 2 or len(shape) != 3:
            raise ShapeError(f"the model must take images (C, H, W), got one that takes {shape}.")
        planes, size = shape[0], (shape[1], shape[2])
        if isinstance(model.preprocess, ArrayPreprocess):
            mean, std = (torch.tensor(each).expand(planes) for each in (model.preprocess.mean, model.preprocess.std))
            return cls(torch.diag(1 / std), -mean / std, size)
        probes = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
        black, *others = (_seen(model.preprocess, colour) for colour in probes)
        matrix = torch.stack([each - black for each in others], 1)
        if planes == 1:
            matrix = matrix.sum(1, keepdim=True)
        if matrix.shape != (planes, planes) or float(torch.linalg.det(matrix).abs()) < 1e-12:
            raise ShapeError(
                f"preprocess must make {planes} values of as many colours, got {matrix.shape[1]}. Use the usual one."
            )
        return cls(matrix, black, size)

    def inputs(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn pixels, (N, C, H, W) float32, 0 to 1, into what the model takes, of the same shape."""
        import torch

        mixed = torch.einsum("cp,nphw->nchw", self.matrix.to(pixels.device), pixels)
        return mixed + self.offset.to(pixels.device)[:, None, None]

    def pixels(self, inputs: torch.Tensor) -> torch.Tensor:
        """Turn what the model takes, (N, C, H, W) float32, into pixels of the same shape: 0 to 1 for an image."""
        import torch

        centred = inputs.float() - self.offset.to(inputs.device)[:, None, None]
        return torch.einsum("cp,nphw->nchw", torch.linalg.inv(self.matrix).to(inputs.device), centred)

    def statistics(self, like: torch.Tensor | None) -> Statistics:
        """Return how images vary: as given ones do, (N, C, H, W) float, or as photos do."""
        if like is None:
            return Statistics.usual(len(self.matrix))
        return Statistics.of(self.pixels(like.detach().float().cpu()))


def _seen(preprocess: Any, colour: tuple[int, int, int]) -> torch.Tensor:
    """Return the values (C,) that a preprocessing makes of a colour."""
    from PIL import Image

    made: torch.Tensor = preprocess(Image.new("RGB", (_PROBE_PX, _PROBE_PX), colour))
    return made.float().flatten(1).mean(1)


def as_levels(pixels: torch.Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return pixels as images.

    Args:
        pixels: (N, P, H, W) float32, 0 to 1. One plane is grey; of others than three the mean is.

    Returns:
        (N, H, W, 3) uint8, RGB.
    """
    import torch

    shown = pixels if pixels.shape[1] == 3 else pixels.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    return torch.floor(shown.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the peak signal-to-noise ratio of images (P, H, W) float32, 0 to 1, in dB; infinity for equal ones."""
    error = float((a.clamp(0, 1) - b.clamp(0, 1)).cpu().double().square().mean())  # MPS has no float64
    return math.inf if error == 0 else -10 * math.log10(error)


def checkpoints(steps: int, most: int = 8) -> Sequence[int]:
    """Return the steps after which an optimisation is looked at: at most 8, evenly apart, the last among them."""
    return sorted({round(steps * part / most) for part in range(1, most + 1)} - {0})
