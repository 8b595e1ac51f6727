"""Class activation maps: the channels of a layer, added up with the weights that a target gives them.

A (C, h, w) are the activations of an image, G the gradient of the target with respect to them, S_c(x) the sum over the
positions of channel c, m_c(x) its mean:

    gradcam     relu(sum_c m_c(G) A_c)                                         Selvaraju et al., arXiv 1610.02391
    gradcam++   relu(sum_c S_c(a relu(G)) A_c), a = G^2 / (2 G^2 + S_c(A) G^3)   Chattopadhay et al., arXiv 1710.11063
    xgradcam    relu(sum_c S_c(A G) / S_c(A) A_c)                              Fu et al., arXiv 2008.02312
    hirescam    sum_c G_c A_c                                                  Draelos and Carin, arXiv 2011.08891
    layercam    relu(sum_c relu(G_c) A_c)                                      Jiang et al., 10.1109/TIP.2021.3089943
    eigencam    the first right singular vector of A as (h w, C), as weights; needs no target. The sign is that with
                which the map adds up to more than 0                           Muhammad and Yeasin, arXiv 2008.00299
    cam         sum_c W_tc A_c, W being the weights of the linear layer behind a global mean, without gradients
                                                                               Zhou et al., arXiv 1512.04150

In gradcam++ the exponential that the article puts around the score only scales the map, and is left out; a is 0 where G
is, and weights with a divisor of 0 are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..activations.axes.record import Axes
from ..activations.capture import capture, find_targets
from ..activations.passes.forward import Watched, run_pass
from ..errors import CaptureError, NoGradientError, OptionError
from ..models.layers import layer_names
from ..models.loaded import root_of
from ..runtime.caller import warn_caller
from .elsewhere import layer_that_works
from .head import Request, differentiate, forward_only
from .layer_maps import all_maps, as_steps, axes_of_maps
from .targets import Classes, Scores, class_scores

if TYPE_CHECKING:
    import torch
    from torch import nn

    Rule = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Attribution:
    """What a method found.

    Attributes:
        maps: layer name -> (N, T, h, w) float32, with planes or time steps (N, T, steps, h, w); INPUT ->
            (N, T, C, H, W). Unnormalised.
        scores: of the targets; None where the method has none.
        facts: what else is known, for the manifest.
        entries: what the entries of T are where there are no scores, such as "head"; None for a single map.
        activations: layer name -> what the layer put out in the pass, as capture returns it, where the method looked.
    """

    maps: Mapping[str, torch.Tensor]
    scores: Scores | None
    facts: Mapping[str, Any] = field(default_factory=dict)
    entries: str | None = None
    activations: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def part(self, first: int, last: int) -> Attribution:
        """Return what was found for images first..last-1, without activations."""
        maps = {name: each[first:last] for name, each in self.maps.items()}
        facts = dict(self.facts)
        if "completeness" in facts:
            facts["completeness"] = {name: rows[first:last] for name, rows in facts["completeness"].items()}
        return Attribution(maps, self.scores and self.scores.part(first, last), facts, self.entries)


def gradcam(request: Request) -> Attribution:
    """Return Grad-CAM."""
    return _weighted(request, lambda maps, gradients: weighted_sum(maps, gradients.mean((2, 3))).relu())


def gradcam_plus_plus(request: Request) -> Attribution:
    """Return Grad-CAM++."""

    def rule(maps: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        squares = gradients.square()
        # G^2 / (2 G^2 + S G^3) = 1 / (2 + S G) where G is not 0: so small gradients do not vanish when squared.
        share = quotient(squares.sign(), 2 + maps.sum((2, 3), keepdim=True) * gradients)
        return weighted_sum(maps, (share * gradients.relu()).sum((2, 3))).relu()

    return _weighted(request, rule)


def xgradcam(request: Request) -> Attribution:
    """Return XGrad-CAM."""

    def rule(maps: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
        return weighted_sum(maps, quotient((maps * gradients).sum((2, 3)), maps.sum((2, 3)))).relu()

    return _weighted(request, rule)


def hirescam(request: Request) -> Attribution:
    """Return HiResCAM."""
    return _weighted(request, lambda maps, gradients: (maps * gradients).sum(1))


def layercam(request: Request) -> Attribution:
    """Return LayerCAM."""
    return _weighted(request, lambda maps, gradients: (maps * gradients.relu()).sum(1).relu())


def eigencam(request: Request) -> Attribution:
    """Return Eigen-CAM."""
    model, layers = request.model, request.layers or ()
    activations = capture(model, request.batch, layers, inputs=request.inputs())
    axes = axes_of_maps(model, activations, tuple(request.batch.shape), request.axes)
    found = {name: as_steps(_first_component(all_maps(activations[name], axes[name])), axes[name]) for name in axes}
    return Attribution(found, None, activations=activations)


def cam(request: Request) -> Attribution:
    """Return CAM: of networks that end in a global mean and a linear layer."""
    import torch

    name, scoring = _last_linear(request)
    wanted = find_targets(
        root_of(request.model), request.batch, request.layers or (), request.inputs(), request.model.forward
    )
    into = f"input:{name}"
    activations, scores = forward_only(replace(request, layers=[*(each.key(each.call) for each in wanted), into]))
    given = activations.pop(into).float()
    classes = [torch.tensor(each.rows) for each in scores.targets.wanted if isinstance(each, Classes)]
    if len(classes) < len(scores.targets.wanted):
        raise OptionError("target must be classes for cam, which reads their weights. For other targets: gradcam.")
    rows = torch.cat([each.expand(len(given), -1) for each in classes], 1)
    weights = scoring.detach().float()[rows.to(scoring.device)]
    found = {}
    for layer, axes in axes_of_maps(request.model, activations, tuple(request.batch.shape), request.axes).items():
        maps = all_maps(activations[layer], axes).float()
        mean = maps.mean((2, 3))
        # An image with values that are not finite has no part in it: the others show what the layer is.
        if mean.shape != given.shape or not _finite(mean - given).norm() <= _SAME * _finite(given).norm():
            raise CaptureError(
                f"cam must be of a layer whose global mean goes into {name!r}, the linear layer that scores the "
                f"classes, and {layer!r} is none. Take gradcam, which goes with any layer."
            )
        found[layer] = as_steps(weighted_sum(maps, weights), axes)
    return Attribution(found, scores, activations=activations)


_SAME = 1e-2
"""Of the norm of what goes into a linear layer: how far the mean of maps may lie from it. bfloat16 keeps 3 digits."""


def _weighted(request: Request, rule: Rule) -> Attribution:
    """Return what a rule makes of the activations of layers and of their gradients, (N, C, h, w) float32 each."""
    import torch

    gradients = differentiate(request)
    shape = tuple(request.batch.shape)
    found = {}
    for layer, axes in axes_of_maps(request.model, gradients.activations, shape, request.axes).items():
        maps = all_maps(gradients.activations[layer], axes).float()
        each = []
        for label, gradient in zip(gradients.scores.labels[0], gradients.of[layer], strict=True):
            if gradient is None:
                said = f"target {label!r} is not computed from layer {layer!r}, or the model cuts gradients in between."
                raise _no_gradient(request, layer, axes, said)
            slopes = all_maps(gradient, axes).float()
            if not slopes.any():
                if gradient.any():
                    said = f"target {label!r} depends on no place of layer {layer!r}: their gradient is 0, as where"
                    raise _no_gradient(request, layer, axes, f"{said} only a class token is read behind it.")
                warn_caller(
                    f"the gradient of target {label!r} is 0 throughout layer {layer!r}: it is dead or saturated"
                )
            each.append(rule(maps, slopes))
        found[layer] = as_steps(torch.stack(each, 1), axes)
    return Attribution(found, gradients.scores, activations=gradients.activations)


def _no_gradient(request: Request, layer: str, axes: Axes, said: str) -> NoGradientError:
    """Return the error for a layer without a gradient, with what is said of it and the layer that works."""
    works = layer_that_works(request, layer, axes)
    return NoGradientError(f"{said} {'Name another one.' if works is None else f'This one works: {works!r}.'}", works)


def weighted_sum(maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the sums of the channels of maps (N, C, h, w) with weights (N, C) or (N, T, C): (N, [T,] h, w).

    In float32, even where the caller's autocast would have it done in a half.
    """
    import torch

    with torch.autocast(maps.device.type, enabled=False):
        return torch.einsum("nchw,n...c->n...hw", maps, weights)


def quotient(above: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
    """Return a quotient of real dtype, of any shape, that is 0 where the divisor is."""
    return (above / below).masked_fill_(below == 0, 0.0)


def _finite(values: torch.Tensor) -> torch.Tensor:
    """Return values of real dtype, of any shape, with 0 in place of those that are not finite."""
    return values.nan_to_num(0.0, 0.0, 0.0)


def _first_component(maps: torch.Tensor) -> torch.Tensor:
    """Return how far each position of maps (N, C, h, w) lies along their first singular vector: (N, 1, h, w).

    From the smaller of the two products of the matrix with itself, in float64, which keeps as many digits as float32.
    NaN for an image with values that are not finite.
    """
    import torch

    sound = maps.isfinite().flatten(1).all(1)
    maps = _finite(maps)
    wide = maps if maps.device.type in ("cpu", "cuda") else maps.cpu()  # others may have no float64
    matrix = wide.flatten(2).double().mT  # (N, positions, C)
    if matrix.shape[1] <= matrix.shape[2]:
        values, vectors = torch.linalg.eigh(matrix @ matrix.mT)
        along = vectors[..., -1] * values[..., -1:].clamp(min=0).sqrt()
    else:
        along = (matrix @ torch.linalg.eigh(matrix.mT @ matrix).eigenvectors[..., -1:]).squeeze(-1)
    along = torch.where(along.sum(1, keepdim=True) < 0, -along, along)
    along = along.masked_fill(~sound.to(along.device)[:, None], torch.nan)
    return along.reshape(len(maps), 1, *maps.shape[2:]).float().to(maps.device)


def _last_linear(request: Request) -> tuple[str, torch.Tensor]:
    """Find the name and the weights (K, C) of the linear layer whose output is what the model puts out, by a pass."""
    from torch import nn

    model, first = root_of(request.model), request.batch[:1]
    linears: dict[nn.Module, str] = {
        module: name for name, module in layer_names(model).items() if isinstance(module, nn.Linear)
    }
    seen: dict[nn.Module, torch.Tensor] = {}
    found: list[nn.Module] = []

    def see(module: nn.Module, output: torch.Tensor) -> None:
        seen[module] = output

    def compare(output: torch.Tensor) -> None:
        scores = class_scores(output, 1)
        alike = (module for module, each in seen.items() if each.shape == scores.shape)
        found.extend(module for module in alike if _finite(seen[module]).equal(_finite(scores)))

    run_pass(model, first, Watched(linears, see, result=compare), request.inputs([0]), request.model.forward)
    if not found:
        raise CaptureError(
            "cam must be of a network that ends in a linear layer, which this one does not. Take gradcam."
        )
    weight: torch.Tensor = found[-1].weight  # type: ignore[assignment]  # a Linear's
    return linears[found[-1]], weight
