"""`attribute`: which parts of images a score of a model depends on, by the method that is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..activations.passes.rows import inputs_at, with_rows
from ..activations.stages import default_layers
from ..errors import NoGradientError, OptionError, ShapeError, closest, repr_of
from ..models.loaded import LoadedModel, as_given, called_with, module_of
from ..options.attribution import AttributionOptions
from ..options.reading import AxesOptions
from ..runtime.caller import warn_caller
from . import attention, cam, masking, saliency
from .cam import Attribution
from .head import Request
from .targets import NO_TARGETS, parse_targets

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..activations.passes.arguments import Forward, Inputs
    from ..activations.patterns import Layers


@dataclass(frozen=True)
class Method:
    """A method of attribution.

    Attributes:
        run: called with the request and the options.
        of: what its maps are of: "layers" that have to be named, the "input", or "both": of the input, for each layer;
            or the "attention" of layers.
        options: names of the options that it takes beside those of all methods.
        about: what it is, in a few words.
        target: whether one is "needed", so that there is a usual one; "optional"; or there is "none".
    """

    run: Callable[..., Attribution]
    of: str
    about: str
    options: tuple[str, ...] = ()
    target: str = "needed"

    @property
    def of_pixels(self) -> bool:
        """Whether its maps have the pixels of the input."""
        return self.of in ("input", "both")


METHODS = {
    "gradcam": Method(cam.gradcam, "layers", "channels weighted by their mean gradient"),
    "gradcam++": Method(cam.gradcam_plus_plus, "layers", "the same, weighted towards every place where a class shows"),
    "hirescam": Method(cam.hirescam, "layers", "gradient times activation, place by place; signed"),
    "layercam": Method(cam.layercam, "layers", "positive gradient times activation; goes with early layers"),
    "xgradcam": Method(cam.xgradcam, "layers", "channels weighted by their gradient where they are active"),
    "eigencam": Method(cam.eigencam, "layers", "the first principal component of the channels", target="none"),
    "cam": Method(cam.cam, "layers", "channels weighted by the classifier's weights; no gradients, signed"),
    "scorecam": Method(masking.scorecam, "layers", "channels weighted by the score of what they show", ("chunk",)),
    "ablationcam": Method(masking.ablationcam, "layers", "channels weighted by the score without them", ("chunk",)),
    "gradient": Method(saliency.gradient, "input", "of the score, pixel by pixel; signed", ("chunk",)),
    "input-x-gradient": Method(saliency.input_x_gradient, "input", "the same times the pixels", ("chunk",)),
    "smoothgrad": Method(
        saliency.smoothgrad, "input", "the mean gradient of noisy images", ("samples", "noise", "seed", "chunk")
    ),
    "integrated-gradients": Method(
        saliency.integrated_gradients, "input", "shares of the score above a baseline", ("steps", "baseline", "chunk")
    ),
    "guided": Method(saliency.guided, "input", "gradients that stay positive in every rectifier", ("chunk",)),
    "deconvolution": Method(saliency.deconvolution, "input", "rectifiers act on what comes back only", ("chunk",)),
    "guided-gradcam": Method(saliency.guided_gradcam, "both", "guided, where Grad-CAM of a layer is warm", ("chunk",)),
    "rollout": Method(
        attention.rollout, "attention", "attention of all layers, one after the other", ("query",), "optional"
    ),
    "attention": Method(attention.attention, "attention", "weights of a layer, head by head", ("query",), "optional"),
}
"""Name -> method, in Python and on the command line."""


def attribute(
    model: LoadedModel | nn.Module,
    batch: torch.Tensor,
    method: str = "gradcam",
    layer: Layers | None = None,
    target: Any = None,
    *,
    axes: str = "auto",
    inputs: Inputs = None,
    forward: Forward = None,
    steps: int | None = None,
    baseline: float | torch.Tensor | None = None,
    samples: int | None = None,
    noise: float | None = None,
    seed: int | None = None,
    chunk: int | None = None,
    query: tuple[int, int] | None = None,
) -> torch.Tensor | dict[str, torch.Tensor]:
    """Attribute a score of a model to the places of a layer's maps, or to the pixels of the input.

    Args:
        model: a record of `load_model`, or any module. It runs in eval mode and is left as it was; see capture.
        batch: (N, C, H, W) float, any device, as load_images gives it. Not modified.
        method: name of the method; `cnnviz attribute --help` lists them.
        layer: one layer pattern or several, for the methods that are of layers; see capture. None for the last stage.
            For attention and rollout each stands for all attention inside it, and None for the last and for all.
        target: a class by index or name; "top" or "top5"; a function of the output; ("layer3", channel) or ("layer3",
            channel, y, x); ("layer3", "0-63", "max") for the strongest unit of each of these channels; a list of
            these; a list of lists, or an array of integers, for a row of each image. None for "top"; but attention and
            rollout have no target then: with one, attention is weighted with its positive gradient. eigencam has none.
        axes: of the layers' outputs; see visualize.
        inputs: what the model takes beside the batch; see capture. A tensor has a row for each image, or one for all.
        forward: method of the model to run instead of `forward`; see capture.
        steps: of integrated-gradients, from the baseline to the image (default 50).
        baseline: of integrated-gradients: a number, an image of the batch's dtype, or one for each image (default 0).
        samples: of smoothgrad, the noisy copies of each image (default 50).
        noise: of smoothgrad, its deviation as a share of the range of the image (default 0.15).
        seed: of the noise (default 0).
        chunk: most images in a pass, for methods that make many variants of each; most channels that go back at once,
            for methods of the input. Halved where memory runs out.
        query: row and column of the patch whose attention is shown. None for the class token, or without such a token
            for the mean over all patches.

    Returns:
        (N, h, w) float32 at the size of the layer's maps, or (N, C, H, W) of the input: detached, on the model's
        device, unnormalised, and signed where the definition of the method is. Several targets: with an axis of them,
        (N, T, h, w); attention without a target has one of heads. Volumes and clips have one of planes or time steps,
        (N, D, h, w). Several layers, or a list of one: name -> maps.

    Raises:
        OptionError: there is no such method or class, or the method does not take an option or a target.
        ShapeError: a layer has no maps, or the output no classes.
        CaptureError: the model failed, or the target does not depend on a layer.
    """
    options = AttributionOptions(
        steps=steps, baseline=baseline, samples=samples, noise=noise, seed=seed, chunk=chunk, query=query
    )
    found, single = attribution(model, batch, method, layer, target, AxesOptions(axes=axes), inputs, forward, options)
    maps = {name: each[:, 0] if single else each for name, each in found.maps.items()}
    several = len(maps) > 1 or isinstance(layer, (list, tuple))
    return maps if several else next(iter(maps.values()))


def attribution(
    model: LoadedModel | nn.Module,
    batch: torch.Tensor,
    method: str,
    layer: Layers | None,
    target: Any,
    axes: AxesOptions | None = None,
    inputs: Inputs = None,
    forward: Forward = None,
    options: AttributionOptions | None = None,
) -> tuple[Attribution, bool]:
    """Return what `attribute` returns, with an axis of targets and with the names of targets.

    Args:
        model: see attribute.
        batch: (N, C, H, W) float. See attribute.
        method: see attribute.
        layer: see attribute.
        target: see attribute.
        axes: see attribute.
        inputs: see attribute.
        forward: see attribute.
        options: of the method.

    Returns:
        What the method found, and whether there is one target, not a list of them.

    Raises:
        CnnvizError: see attribute.
    """
    chosen, given = method_of(method), options_given(method, target, options or AttributionOptions())
    loaded = called_with(model if isinstance(model, LoadedModel) else as_given(module_of(model)), inputs, forward)
    if chosen.of == "input" and layer is not None:
        raise OptionError(
            f"layer must be left out for {method}, which is of the input, got {repr_of(layer)}. For the causes of a "
            f"layer's channels: target=(layer, '0-63', 'max')."
        )
    images = len(batch) if getattr(batch, "ndim", 0) else 0
    if not images:
        raise ShapeError("batch must be a (N, C, H, W) tensor of at least one image. Make one with load_images.")
    loaded = with_rows(loaded, images)
    is_free = chosen.of in ("layers", "both") and layer is None
    if is_free:
        layer = default_layers(replace(loaded, inputs=inputs_at(loaded, [0])), batch[:1])[-1]
    if target is None and chosen.target == "needed":
        target = "top"
    targets = NO_TARGETS if target is None else parse_targets(target, loaded.categories, images)
    request = Request(loaded, batch, layer, targets, axes or AxesOptions())
    try:
        found = chosen.run(request, **given)
    except NoGradientError as error:
        if not is_free or error.works is None:
            raise
        warn_caller(f"{layer!r}, the last stage, has no gradient at its places; taking {error.works!r}")
        found = chosen.run(replace(request, layers=error.works), **given)
    if found.scores is not None:
        return found, found.scores.single
    return found, targets.single and found.entries is None


def method_of(name: str) -> Method:
    """Return the method of a name.

    Args:
        name: as in METHODS.

    Returns:
        The method.

    Raises:
        OptionError: there is no such method.
    """
    if name not in METHODS:
        raise OptionError(
            f"method must be one of {', '.join(METHODS)}, got {repr_of(name)}.{closest(str(name), METHODS)}"
        )
    return METHODS[name]


def options_given(method: str, target: Any, options: AttributionOptions) -> dict[str, Any]:
    """Return the options that are given, by name; check that a method takes them, and the target.

    Args:
        method: its name.
        target: as given; None for none.
        options: of the method.

    Returns:
        Name -> value.

    Raises:
        OptionError: the method does not take one.
    """
    chosen = method_of(method)
    given = {name: value for name, value in vars(options).items() if value is not None}
    for name in given:
        if name not in chosen.options:
            takers = ", ".join(name_of for name_of, other in METHODS.items() if name in other.options)
            raise OptionError(f"{name} goes with {takers}, got method {method!r}.")
    if target is not None and chosen.target == "none":
        raise OptionError(f"target must be left out for {method}, whose maps are of no score, got {repr_of(target)}.")
    return given
