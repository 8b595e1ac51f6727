"""Effective receptive fields: where most of the gradient's energy lies, measured on images or on noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import CaptureError, InputError
from ..axes.find import to_maps
from ..capture import Keeper, by_name
from ..passes.arguments import callable_of
from .record import ReceptiveField

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..axes.record import Axes
    from ..passes.arguments import Forward, Inputs
    from ..patterns import Target

_NOISES = 4
"""Images of noise that gradients are measured on where none are given."""


@dataclasses.dataclass(frozen=True)
class Measure:
    """What is measured.

    Attributes:
        share: of the energy, from 0 to 1.
        images: (N, C, H, W) float. On which images, or the shape of one where they are noise.
        is_noise: whether noise is measured on.
    """

    share: float
    images: torch.Tensor
    is_noise: bool

    def batch(self) -> torch.Tensor:
        """Return (N, C, H, W) float: the images, or seeded noise of the standard normal distribution."""
        import torch

        if not self.is_noise:
            return self.images
        noise = torch.randn(_NOISES, *self.images.shape[1:], generator=torch.Generator().manual_seed(0))
        return noise.to(self.images.dtype)


class _Energy(NamedTuple):
    """The squared gradient of a unit by each pixel of the input, summed over channels and images.

    energy: (H, W) float64.
    unit: its (y, x) on the map.
    size: (height, width) of the map.
    """

    energy: NDArray[np.float64]
    unit: tuple[int, int]
    size: tuple[int, int]


class EnergyKeeper(Keeper):
    """Looks at a pass with gradients and keeps the energy of each wanted call's middle unit."""

    def __init__(self, targets: Sequence[Target], measure: Measure, axes: Mapping[str, Axes]) -> None:
        """Keep what is measured, and the axes of each layer's output, by the layer's name without its call."""
        super().__init__(targets, self._energy)
        self._measure = measure
        self._axes = axes
        self._input: torch.Tensor | None = None

    def measured(
        self, model: nn.Module, fields: Mapping[str, ReceptiveField], inputs: Inputs, forward: Forward
    ) -> dict[str, ReceptiveField]:
        """Return fields with the sizes that hold the share of the energy.

        Args:
            model: that is run. It is left as it was.
            fields: layer name -> its exact field.
            inputs: what the model takes beside the batch.
            forward: what runs in place of its forward.

        Raises:
            CaptureError: no gradient comes from a layer to the input.
        """
        import torch

        def with_gradients(module: nn.Module, *positional: Any, **named: Any) -> Any:
            with torch.enable_grad():
                at = next((i for i, given in enumerate(positional) if isinstance(given, torch.Tensor)), None)
                if at is None:
                    raise InputError("inputs must hold the images by position for an effective field.")
                self._input = positional[at].detach().requires_grad_()
                changed = (*positional[:at], self._input, *positional[at + 1 :])
                return callable_of(module, forward)(*changed, **named)

        self.run(model, self._measure.batch(), inputs, with_gradients)
        found: dict[str, _Energy] = by_name(self, model)
        return {name: _effective(field, found[name], self._measure.share) for name, field in fields.items()}

    def _energy(self, output: torch.Tensor, name: str) -> tuple[_Energy, None]:
        """Return the energy of the middle unit: of its channels with signs drawn at random, so that none cancel."""
        import torch

        x = self._input
        assert x is not None  # the pass began with it
        if not output.requires_grad:
            raise CaptureError(f"layer {name!r} has no gradient by the input: the model runs it without.")
        with torch.enable_grad():
            maps = to_maps(output, self._axes[name])
            y, x_at = maps.shape[-2] // 2, maps.shape[-1] // 2
            generator = torch.Generator().manual_seed(0)
            signs = torch.randint(0, 2, maps.shape[:2], generator=generator).to(maps) * 2 - 1
            (gradient,) = torch.autograd.grad((maps[:, :, y, x_at] * signs).sum(), x, retain_graph=True)
        energy = gradient.cpu().double().square().sum(dim=(0, 1)).numpy()  # MPS has no float64
        if not energy.sum() > 0:
            raise CaptureError(f"layer {name!r} has a gradient of zero by the input. Give other images.")
        return _Energy(energy, (y, x_at), (maps.shape[-2], maps.shape[-1])), None


def _effective(field: ReceptiveField, found: _Energy, share: float) -> ReceptiveField:
    """Return the field around a unit's centre that holds a share of the energy."""
    stride, offset = field.stride, field.offset
    if field.whole:  # it has a map, whose cells lie evenly over the input
        stride = tuple(of / cells for of, cells in zip(field.size, found.size, strict=True))  # type: ignore[assignment]
        offset = tuple((step - 1) / 2 for step in stride)  # type: ignore[assignment]
    centre = [start + step * at for start, step, at in zip(offset, stride, found.unit, strict=True)]
    away = [np.abs(np.arange(length) - at) for length, at in zip(found.energy.shape, centre, strict=True)]
    # Half the side of the square box around the centre within which each pixel lies.
    distance = np.maximum(away[0][:, None], away[1][None, :]).ravel()
    order = np.argsort(distance, kind="stable")
    held = np.cumsum(found.energy.ravel()[order])
    half = distance[order[np.searchsorted(held, share * held[-1])]]
    size = (int(np.ceil(2 * half)) + 1,) * 2
    return dataclasses.replace(
        field,
        size=size if field.whole else (min(size[0], field.size[0]), min(size[1], field.size[1])),
        stride=stride,
        offset=offset,
        whole=False,
        effective=share,
    )
