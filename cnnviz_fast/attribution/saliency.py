"""Saliency: which pixels of the input a target depends on.

With s the score of the target of an image x:

    gradient              ds/dx                                                 Simonyan et al., arXiv 1312.6034
    input-x-gradient      x ds/dx                                               Shrikumar et al., arXiv 1605.01713
    smoothgrad            mean of ds/dx over x + noise                          Smilkov et al., arXiv 1706.03825
    integrated-gradients  (x - b) times the mean of ds/dx on the way from a baseline b to x
                                                                                Sundararajan et al., arXiv 1703.01365
    guided, deconvolution ds/dx under a rule for rectifiers; see rectifiers.py
    guided-gradcam        guided times Grad-CAM of a layer, resized to x        Selvaraju et al., arXiv 1610.02391

Noise is normal, its deviation a share of the range of x; sample k has the same noise in every image, however many go
through the network at once. The mean over the way is that of Gauss and Legendre. Integrated gradients add up to
s(x) - s(b) as far as the steps suffice: the gap is in the manifest, and there is a warning where it is large. On the
way through a network of rectifiers the gradient jumps, so that the gap falls as 1 / steps by any rule, and is a large
share of the difference where the score rises and falls again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..activations.passes.arguments import weight_of
from ..errors import CaptureError, ShapeError
from ..models.loaded import root_of
from ..runtime.caller import warn_caller
from .cam import Attribution, gradcam
from .chunks import AT_ONCE, in_chunks
from .head import INPUT, Request, forward_only, located
from .pixels import differentiate_input

if TYPE_CHECKING:
    import torch

    from .pixels import InputGradients
    from .targets import Scores

_STEPS = 50
_SAMPLES = 50
_NOISE = 0.15
"""Of the range of an image: the article finds 0.1 to 0.2 best, and nothing gained beyond 50 samples."""

_GAP = 0.01
"""Of the difference of the scores: how much of it may be missing before that is said."""


def gradient(request: Request, chunk: int | None = None) -> Attribution:
    """Return the gradient."""
    found = differentiate_input(request, rows=chunk)
    return _attribution(found.maps, found.scores)


def input_x_gradient(request: Request, chunk: int | None = None) -> Attribution:
    """Return the gradient times the input."""
    found = differentiate_input(request, rows=chunk)
    return _attribution(found.maps.mul_(found.batch[:, None]), found.scores)


def guided(request: Request, chunk: int | None = None) -> Attribution:
    """Return guided backpropagation."""
    return _of_rule(request, "guided", chunk)


def deconvolution(request: Request, chunk: int | None = None) -> Attribution:
    """Return the deconvolution of Zeiler and Fergus."""
    return _of_rule(request, "deconvolution", chunk)


def guided_gradcam(request: Request, chunk: int | None = None) -> Attribution:
    """Return guided backpropagation, weighted with Grad-CAM of each layer."""
    heat = gradcam(request)
    assert heat.scores is not None
    found = guided(replace(request, layers=None, targets=heat.scores.targets), chunk)
    pixels = found.maps[INPUT]
    maps = {layer: pixels * _resized(each, pixels.shape[3:])[:, :, None] for layer, each in heat.maps.items()}
    return replace(found, maps=maps)


def smoothgrad(
    request: Request, samples: int = _SAMPLES, noise: float = _NOISE, seed: int = 0, chunk: int | None = None
) -> Attribution:
    """Return SmoothGrad.

    Args:
        request: what is attributed.
        samples: noisy images for each.
        noise: their deviation, as a share of the range of the image.
        seed: of the noise.
        chunk: noisy images in a pass.

    Returns:
        Maps of the input.
    """
    import torch

    def noisy(image: int, first: int, last: int) -> torch.Tensor:
        x = request.batch[image]
        drawn = [np.random.default_rng((seed, k)).standard_normal(x.shape, np.float32) for k in range(first, last)]
        return x + noise * (x.max() - x.min()) * torch.from_numpy(np.stack(drawn)).to(x.device, x.dtype)

    request, scores = _fixed(request)
    return _attribution(_weighted_sum(request, noisy, np.full(samples, 1 / samples), chunk), scores)


def integrated_gradients(
    request: Request, steps: int = _STEPS, baseline: float | torch.Tensor = 0.0, chunk: int | None = None
) -> Attribution:
    """Return integrated gradients.

    Args:
        request: what is attributed.
        steps: on the way from the baseline to the image.
        baseline: a number, or (C, H, W) or (N, C, H, W) float.
        chunk: steps in a pass.

    Returns:
        Maps of the input. The facts hold the difference of the scores, and what the maps miss of it.

    Raises:
        ShapeError: the baseline has another shape.
    """
    import torch

    batch = request.batch.detach()
    start = torch.as_tensor(baseline, dtype=batch.dtype, device=batch.device).detach()
    if start.ndim and start.shape not in (batch.shape, batch.shape[1:]):
        raise ShapeError(
            f"baseline must be a number, an image of shape {tuple(batch.shape[1:])} or one for each, "
            f"got {tuple(start.shape)}."
        )
    start = start.expand_as(batch)
    nodes, weights = np.polynomial.legendre.leggauss(steps)  # of -1..1
    at = torch.from_numpy((nodes + 1) / 2).to(batch.device, batch.dtype).reshape(-1, *[1] * (batch.ndim - 1))

    def on_the_way(image: int, first: int, last: int) -> torch.Tensor:
        return start[image] + at[first:last] * (batch[image] - start[image])

    request, scores = _fixed(request)
    below = forward_only(replace(request, batch=start))[1].values
    maps = _weighted_sum(request, on_the_way, weights / 2, chunk)
    maps *= (batch - start).to(maps.device, maps.dtype)[:, None]
    return replace(_attribution(maps, scores), facts=_completeness(request, maps, scores.values, below))


def under_rule(request: Request, rule: str, chunk: int | None = None) -> tuple[InputGradients, dict[str, Any]]:
    """Return gradients under a rule for rectifiers, and what was caught.

    Args:
        request: what is attributed.
        rule: "guided" or "deconvolution".
        chunk: channels that go back at once.

    Returns:
        The gradients, and facts for the manifest.

    Raises:
        CaptureError: the network has no rectifiers; or see differentiate_input.
    """
    from .rectifiers import Rectifying

    rectifying = Rectifying(rule)
    found = differentiate_input(request, rectifying.grad, chunk)
    others = ", ".join(f"{count} {name}" for name, count in rectifying.not_covered.items())
    if not rectifying.caught and (others or request.targets.need_output):
        raise CaptureError(
            f"{rule} must be of a network with rectifiers (ReLU, ReLU6, LeakyReLU, PReLU, ...), got one "
            f"{f'with {others} instead' if others else 'without any'}. Take gradient or smoothgrad, which go with all."
        )
    if others:
        warn_caller(f"{rule} is a rule for rectifiers: {rectifying.caught} were caught. {others} go by their gradients")
    return found, {"rectifiers": rectifying.caught, "not_covered": dict(rectifying.not_covered)}


def _of_rule(request: Request, rule: str, chunk: int | None) -> Attribution:
    found, facts = under_rule(request, rule, chunk)
    return replace(_attribution(found.maps, found.scores), facts=facts)


def _attribution(maps: torch.Tensor, scores: Scores) -> Attribution:
    """Return what was found; warn of targets that no pixel matters to."""
    alive = maps.flatten(2).any(2).any(0).tolist()
    if not all(alive):
        label = scores.labels[0][alive.index(False)]
        warn_caller(
            f"nothing in the input matters to {alive.count(False)} of {len(alive)} targets, such as {label!r}: the "
            f"gradient is 0 throughout, as behind dead or saturated units"
        )
    return Attribution({INPUT: maps}, scores)


def _fixed(request: Request) -> tuple[Request, Scores]:
    """Return the request with the classes that are highest in the images as they are, and the scores of these."""
    request = replace(request, inner=located(request))
    scores = forward_only(request)[1]
    return replace(request, targets=scores.targets), scores


def _weighted_sum(
    request: Request,
    variants: Callable[[int, int, int], torch.Tensor],
    weights: np.ndarray[Any, np.dtype[np.float64]],
    chunk: int | None,
) -> torch.Tensor:
    """Return the sum of the gradients of variants of each image, (N, T, C, H, W) float32.

    Args:
        request: with targets by index.
        variants: returns variants first..last-1 of an image, (K, C, H, W) real dtype.
        weights: (steps,) float64. One for each variant.
        chunk: how many in a pass; None for the usual number.
    """
    import torch

    device = weight_of(root_of(request.model), request.batch).device
    factors = torch.from_numpy(weights).to(device, torch.float32)
    sums: dict[int, torch.Tensor] = {}

    def add(image: int, first: int, last: int) -> None:
        maps = differentiate_input(request.variants(image, variants(image, first, last)), rows=1).maps
        part = maps.mul_(factors[first:last].reshape(-1, *[1] * (maps.ndim - 1))).sum(0)
        sums[image] = sums[image].add_(part) if image in sums else part

    images = range(len(request.batch))
    most = max(AT_ONCE, len(images)) if chunk is None else chunk
    for image in images:
        in_chunks(partial(add, image), len(weights), device, most)
    return torch.stack([sums[image] for image in images])


def _completeness(request: Request, maps: torch.Tensor, scores: torch.Tensor, below: torch.Tensor) -> dict[str, Any]:
    """Return what is missing of the differences of scores, (N, T) float32, for the manifest; warn where it is much.

    What rounding makes of the terms that are added up, which is much in halves, no step mends.
    """
    import torch

    weight = weight_of(root_of(request.model), request.batch)
    kind = weight.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    rounding = torch.finfo(dtype).eps * (scores.abs() + below.abs() + maps.abs().flatten(2).sum(2))
    difference = scores - below
    gap = difference - maps.flatten(2).sum(2)
    share = ((gap.abs() - rounding).clamp(min=0) / difference.abs()).nan_to_num(0.0).max().item()
    if share > _GAP:
        warn_caller(
            f"integrated gradients add up to the difference of the scores within {share:.1%} only. Take more steps"
        )
    return {"completeness": {"difference": difference.tolist(), "gap": gap.tolist()}}


def _resized(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return heat maps (N, T, [steps,] h, w) resized to the axes of an image, (N, T, ...)."""
    from torch.nn.functional import interpolate

    if len(size) == 1:  # a signal's maps have one row
        maps = maps.squeeze(2)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return interpolate(maps, tuple(size), mode=mode, align_corners=False)
