"""Images made of maps: `invert` finds the image for which a layer puts out what it has put out for another one.

What comes back of an image is what the layer has kept. The quick look is one step from a plain image, along the
transpose of the layer's Jacobian; its length is in closed form the best one for a linear layer. The optimisation goes
on from there by L-BFGS. See priors.py for what images are made of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..activations.capture import capture
from ..activations.digests import sample_digest
from ..activations.passes.rows import inputs_at, with_rows
from ..errors import CaptureError, InputError, OptionError, ShapeError
from ..models.loaded import LoadedModel, as_given, called_with, module_of
from ..options.declared import takes
from ..options.optimize import InvertOptions
from ..options.parsers import pixels as pixels_of
from ..provenance import Provenance
from ..runtime.progress import with_bar
from ..sheets.annotation import SEPARATOR
from ..sheets.rgb import RgbSheet, rgb_sheet
from .descent import lbfgs
from .priors import Colours, Spectrum, Statistics, as_levels, checkpoints, psnr, total_variation
from .trunk import Trunk, inside_pass

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..options.keywords import InvertKeywords, RenderKeywords

    Function = Callable[[torch.Tensor], torch.Tensor]

CONTRAST = 0.25
"""What a coefficient of 1 changes in pixels from 0 to 1: about the deviation of photos."""

PROBE = 0.01
"""By how much the largest pixel changes where the derivative along a direction is measured by a difference."""

BOX = 10.0
"""Weight of the squared distance of pixels from 0..1, beside the relative squared error of the maps."""


@dataclass(frozen=True, eq=False)
class Inverted:
    """Images made of the maps of layers.

    Attributes:
        images: layer name -> (N, C, H, W) float32. As the model takes them, on the CPU.
        pixels: layer name -> (N, C, H, W) float32. The same from 0 to 1.
        original: (N, C, H, W) float32. The images whose maps were inverted, as pixels; None where only maps were given.
        steps: numbers of steps after which psnr and errors were measured; 0 is the quick look.
        psnr: layer name -> (len(steps), N) float32. Against the original in dB; NaN without one.
        errors: layer name -> (len(steps), N) float32. Squared error of the maps, relative to the maps' own square.
        provenance: the model.
        options: as given.
    """

    images: dict[str, torch.Tensor] = field(repr=False)
    pixels: dict[str, torch.Tensor] = field(repr=False)
    original: torch.Tensor | None = field(repr=False)
    steps: tuple[int, ...]
    psnr: dict[str, torch.Tensor] = field(repr=False)
    errors: dict[str, torch.Tensor] = field(repr=False)
    provenance: Provenance = field(repr=False)
    options: InvertOptions

    def rgb(self, image: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return the original image, where there is one, and the image of each layer, (tiles, H, W, 3) uint8, RGB."""
        shown = [] if self.original is None else [self.original[image]]
        return as_levels(torch.stack([*shown, *(each[image] for each in self.pixels.values())]))

    def sheet(self, image: int = 0, *, name: str | None = None, **options: Unpack[RenderKeywords]) -> RgbSheet:
        """Lay one image out on a sheet: the original, and what comes back from each layer, with its PSNR.

        Args:
            image: which of the batch.
            name: of the image, for the title and the manifest.
            **options: of `render` that go with images: tile, scale, grid, gap, margin, background, label, title,
                upsampling, plain, threads.

        Returns:
            The sheet, to be shown or saved.

        Raises:
            OptionError: an option cannot be used.
        """
        names: list[str] = []
        tiles: list[dict[str, Any]] = []
        if self.original is not None:
            names.append("image")
            tiles.append({"layer": None})
        for layer, course in self.psnr.items():
            measured = course[:, image].tolist()
            known = self.original is not None
            names.append(f"{layer}  {measured[-1]:.1f} dB" if known else layer)
            errors = self.errors[layer][:, image].tolist()
            tiles.append({"layer": layer, "psnr": measured if known else None, "errors": errors})
        described = {
            "shows": "inverted",
            "options": dict(vars(self.options)),
            "steps": list(self.steps),
            "tiles": tiles,
        }
        provenance = Provenance(**{**vars(self.provenance), "image": name})
        title = SEPARATOR.join(("{model}", "{image}") if name is not None else ("{model}",))
        return rgb_sheet(self.rgb(image), names, provenance, described, {"title": title, **options})


@takes(InvertOptions)
def invert(
    model: LoadedModel | nn.Module,
    of: torch.Tensor | Mapping[str, torch.Tensor],
    layers: str | int | Sequence[str | int] | None = None,
    *,
    size: Any = None,
    like: torch.Tensor | None = None,
    inputs: Any = None,
    forward: Any = None,
    **options: Unpack[InvertKeywords],
) -> Inverted:
    """Find images for which layers put out what they put out for given images.

    Args:
        model: a record of `load_model`, or any module. It runs in eval mode and is left as it was; see capture.
        of: (N, C, H, W) float. Images, as load_images gives them; or their maps, as `capture` gives them: layer name ->
            (N, ...) float. Not modified.
        layers: one layer pattern or several; see capture. None where `of` holds maps: all layers that it names.
        size: height and width of the images, where maps are given: N, "HxW" or (H, W); None for the model's own.
        like: (N, C, H, W) float, as load_images gives them. Images whose colours and spectrum the result is to
            have; None for those of photos.
        inputs: what the model takes beside the batch; see capture.
        forward: method of the model to run instead of `forward`; see capture.
        **options: see below.

    Returns:
        The images, and how near they and their maps come.

    Raises:
        OptionError: an option cannot be used.
        InputError: neither images nor maps are given.
        ShapeError: the model takes no images, or maps are of another shape than what the layer puts out.
        CaptureError: the model failed, or a layer does not depend on its input by gradients.
    """
    checked = InvertOptions.of(options)
    with torch.inference_mode(False):  # its tensors take part in no gradients
        loaded = called_with(model if isinstance(model, LoadedModel) else as_given(module_of(model)), inputs, forward)
        colours = Colours.of(loaded)
        maps, original = _given(of, layers)
        if original is None:
            layers = list(maps) if layers is None else layers
            size = colours.size if size is None else pixels_of("size", size)
            size = (size, size) if isinstance(size, int) else size
        elif size is not None:
            raise OptionError("size must be left out where images are given: the result has theirs.")
        count = len(next(iter(maps.values()))) if original is None else len(original)
        loaded = with_rows(loaded, count)
        first = colours.inputs(torch.full((count, len(colours.matrix), *size), 0.5)) if original is None else original
        shown = None if original is None else colours.pixels(original.detach().cpu())
        found = colours.statistics(like)
        jobs: list[_Job] = []
        for image in range(count):
            own, only = called_with(loaded, inputs_at(loaded, [image])), first[image : image + 1]
            wanted = {layer: each[image : image + 1] for layer, each in maps.items()} or capture(
                own, only, layers or ()
            )
            jobs += [
                _Job(own, only, layer, each, None if shown is None else shown[image], colours, found, checked)
                for layer, each in wanted.items()
            ]
        results: dict[str, list[_Result]] = {}
        for job in with_bar(jobs, "layer"):
            results.setdefault(job.layer, []).append(job.run())
    pixels = {layer: torch.stack([each.pixels for each in of_layer]) for layer, of_layer in results.items()}
    return Inverted(
        {layer: colours.inputs(each) for layer, each in pixels.items()}, pixels, shown,
        (0, *checkpoints(checked.steps)),
        {layer: torch.tensor([each.psnr for each in of_layer]).T for layer, of_layer in results.items()},
        {layer: torch.tensor([each.errors for each in of_layer]).T for layer, of_layer in results.items()},
        Provenance(loaded.spec, loaded.weights, weights_digest=sample_digest(loaded)), checked,
    )  # fmt: skip


def _given(of: Any, layers: Any) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """Return maps and images, the one or the other."""
    if isinstance(of, torch.Tensor):
        if layers is None:
            raise OptionError("layers must be named for images, got none. Name those whose maps are inverted.")
        if of.ndim != 4 or not len(of):
            raise ShapeError(f"images must have shape (N, C, H, W), got {tuple(of.shape)}. Make them with load_images.")
        return {}, of
    if not isinstance(of, Mapping) or not of or not all(isinstance(each, torch.Tensor) for each in of.values()):
        raise InputError(f"what is inverted must be images or maps by layer, got {type(of).__name__}.")
    if layers is not None:
        raise OptionError("layers must be left out for maps, which say whose they are.")
    if len({len(each) for each in of.values()}) > 1:
        raise ShapeError("maps must be of as many images for each layer. Capture them in one call.")
    return {str(layer): each for layer, each in of.items()}, None


@dataclass
class _Result:
    """The image of one layer: its pixels (C, H, W) on the CPU, and how near it and its maps came at each checkpoint."""

    pixels: torch.Tensor
    psnr: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Job:
    """One image to be found for one layer.

    batch: (1, C, H, W) float32. Of the size that the image is to have.
    maps: (1, ...) float. What the layer is to put out.
    original: (C, H, W) float32. The pixels that the image is compared with, or None.
    """

    model: LoadedModel
    batch: torch.Tensor
    layer: str
    maps: torch.Tensor
    original: torch.Tensor | None
    colours: Colours
    statistics: Statistics
    options: InvertOptions

    def run(self) -> _Result:
        """Find the image."""
        results: list[_Result] = []
        inside_pass(
            self.model, self.batch, self.layer,
            lambda trunk, seen, batch: results.append(self._search(trunk, seen, batch)),
        )  # fmt: skip
        return results[0]

    def _search(self, trunk: Trunk, seen: Mapping[str, torch.Tensor], batch: torch.Tensor) -> _Result:
        ((layer, output),) = seen.items()
        if output.shape != self.maps.shape:
            raise ShapeError(
                f"maps of layer {layer!r} must have shape {tuple(output.shape)} for images of {batch.shape[2]}x"
                f"{batch.shape[3]}, got {tuple(self.maps.shape)}. Give the size of the images."
            )
        maps = self.maps.detach().to(batch.device, torch.float32, copy=True)
        spectrum = Spectrum(self.statistics, (batch.shape[2], batch.shape[3]), batch.device)
        grey = self.statistics.mean[:, None, None].to(batch.device)
        scale = float(maps.square().mean()) or 1.0  # a layer that is zero everywhere has nothing to be relative to

        def pixels_at(coefficients: torch.Tensor) -> torch.Tensor:
            return grey + CONTRAST * spectrum.image(coefficients)

        def output_of(pixels: torch.Tensor) -> torch.Tensor:
            found = trunk(self.colours.inputs(pixels).to(batch.dtype))[layer]
            if pixels.requires_grad and not found.requires_grad:
                raise CaptureError(
                    f"layer {layer!r} must depend on the image by gradients, got none: the model cuts them before."
                )
            return found.float()

        def slope(coefficients: torch.Tensor) -> tuple[float, torch.Tensor]:
            coefficients = coefficients.detach().requires_grad_()
            pixels = pixels_at(coefficients)
            outside = (pixels - pixels.clamp(0, 1)).square().mean()
            loss = (output_of(pixels) - maps).square().mean() / scale + BOX * outside
            loss = loss + self.options.smooth * total_variation(pixels)
            return loss.item(), torch.autograd.grad(loss, coefficients)[0]

        result = _Result(self.batch)

        def look(coefficients: torch.Tensor) -> None:
            with torch.no_grad():
                pixels = pixels_at(coefficients).clamp(0, 1)
                result.errors.append(float((output_of(pixels) - maps).square().mean()) / scale)
            result.pixels = pixels[0].cpu()
            result.psnr.append(math.nan if self.original is None else psnr(result.pixels, self.original))

        quick = self._quick(torch.zeros(1, *spectrum.shape, device=batch.device), pixels_at, output_of, maps)
        look(quick)
        looks = set(checkpoints(self.options.steps))
        steps = range(1, self.options.steps + 1)
        for step, coefficients in zip(with_bar(steps, "step"), lbfgs(slope, quick, len(steps)), strict=True):
            if step in looks:
                look(coefficients)
        return result

    def _quick(self, plain: torch.Tensor, pixels_at: Function, output_of: Function, maps: torch.Tensor) -> torch.Tensor:
        """Return the coefficients of the quick look.

        Formula:
            d = J^T (maps - f(0)), and d |d|^2 / |J d|^2, which minimises |maps - f(0) - J x| along d
        """
        plain = plain.requires_grad_()
        before = output_of(pixels_at(plain))
        (along,) = torch.autograd.grad((before * (maps - before.detach())).sum(), plain)
        plain = plain.detach()
        with torch.no_grad():
            change = pixels_at(along) - pixels_at(plain)
            little = PROBE / max(float(change.abs().max()), 1e-30)
            ahead = (output_of(pixels_at(little * along)) - before) / little
            length = float(along.square().sum()) / max(float(ahead.square().sum()), 1e-30)
        return along * length
