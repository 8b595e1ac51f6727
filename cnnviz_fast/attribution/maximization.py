"""Images that excite a channel, a unit or a class most: `maximize`.

Images begin with noise, all of them in one batch, and each step changes all of them so that each excites its own
channel more, as seen after a random shift, turn and scaling: what excites it only at one place or in one size is no
feature. Only the network up to the layer runs. See priors.py for what images are made of, and bends.py for what is
maximised where a layer ends with a rectifier.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..activations.axes.record import Axes
from ..activations.digests import sample_digest
from ..activations.passes.rows import with_rows
from ..errors import CaptureError, ModelFailedError, OptionError, repr_of
from ..models.loaded import LoadedModel, as_given, called_with, module_of
from ..options.declared import takes
from ..options.optimize import MaximizeOptions
from ..options.parsers import channel_list, whole_within
from ..options.reading import AxesOptions
from ..provenance import Provenance
from ..runtime.device import Fitting, device_at
from ..runtime.progress import with_bar
from ..sheets.annotation import SEPARATOR
from ..sheets.rgb import RgbSheet, rgb_sheet
from .descent import Adam
from .layer_maps import all_maps, axes_of_maps
from .priors import Colours, Spectrum, Statistics, as_levels, checkpoints
from .targets import Classes, parse_targets
from .trunk import Trunk, inside_pass

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..options.keywords import MaximizeKeywords, RenderKeywords

    Respond = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

OUTPUT = "output"
"""The layer of classes."""

USUAL_PX = 96
"""Side of images of inner layers: as much as a unit of VGG-16's features.21 sees (92 px). In a model's own input, which
takes five times as long, the same patterns are only repeated."""

RATE = 0.1
"""Of Adam. On cnnviz:small 48 steps of 0.1 come as far as 128 of 0.05, with images of the same kind; 0.2 is no faster
in the end, and its colours are all at their ends."""

_LARGEST_SEED = 2**64 - 1  # of torch.Generator.manual_seed

NOISE = 0.05
"""Deviation of the coefficients at the beginning."""


@dataclass(frozen=True, eq=False)
class Maximized:
    """Images that excite channels.

    Attributes:
        layer: name of the layer.
        channels: number of the channel of each image.
        labels: what stands over each image: its channel, or the name of its class.
        images: (K, C, H, W) float32. As the model takes them, on the CPU.
        pixels: (K, C, H, W) float32. The same from 0 to 1.
        steps: numbers of steps after which `responses` were measured.
        responses: (len(steps), K) float32. The response to each image, unshifted, at the best of the steps measured
            so far; the last row is that of `images`.
        provenance: the model and the layer.
        seed: as given.
        options: as given.
    """

    layer: str
    channels: tuple[int, ...]
    labels: tuple[str, ...]
    images: torch.Tensor = field(repr=False)
    pixels: torch.Tensor = field(repr=False)
    steps: tuple[int, ...]
    responses: torch.Tensor = field(repr=False)
    provenance: Provenance = field(repr=False)
    seed: int
    options: MaximizeOptions

    def rgb(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """Return the images as (K, H, W, 3) uint8, RGB."""
        return as_levels(self.pixels)

    def digests(self) -> list[str]:
        """Return 16 hexadecimal digits of each image's pixels: the same seed gives the same ones again."""
        return [hashlib.blake2b(image.tobytes(), digest_size=8).hexdigest() for image in self.rgb()]

    def sheet(self, **options: Unpack[RenderKeywords]) -> RgbSheet:
        """Lay the images out on a sheet.

        Args:
            **options: of `render` that go with images: tile, scale, grid, gap, margin, background, label, title,
                upsampling, plain, threads.

        Returns:
            The sheet, to be shown or saved.

        Raises:
            OptionError: an option cannot be used.
        """
        names = [
            f"{label}  {response:.3g}" for label, response in zip(self.labels, self.responses[-1].tolist(), strict=True)
        ]
        return rgb_sheet(
            self.rgb(),
            names,
            self.provenance,
            self._described(),
            {"title": f"{{model}}{SEPARATOR}{{layer}}", **options},
        )

    def _described(self) -> dict[str, Any]:
        facts = zip(self.channels, self.responses.T.tolist(), self.digests(), strict=True)
        return {
            "shows": "maximized",
            "options": {**vars(self.options), "seed": self.seed},
            "steps": list(self.steps),
            "tiles": [{"channel": c, "responses": measured, "digest": digest} for c, measured, digest in facts],
        }


@takes(MaximizeOptions)
def maximize(
    model: LoadedModel | nn.Module,
    layer: str | int | None = None,
    channels: Any = None,
    *,
    classes: Any = None,
    seed: int = 0,
    like: torch.Tensor | None = None,
    axes: str = "auto",
    inputs: Any = None,
    forward: Any = None,
    **options: Unpack[MaximizeKeywords],
) -> Maximized:
    """Find images that excite channels, units or classes of a model most.

    Args:
        model: a record of `load_model`, or any module. It runs in eval mode and is left as it was; see capture.
        layer: pattern of one layer; see capture. Without one, classes are maximised.
        channels: of the layer, such as "0-63,128"; None for all.
        classes: in place of a layer: by number or name, such as "cat,face" or [281, 282].
        seed: of the noise that images begin with, and of the shifts. The image of a channel does not depend on which
            others are asked for, but for rounding.
        like: (N, C, H, W) float, as load_images gives them. Images whose colours and spectrum the result is to
            have; None for those of photos.
        axes: of the layer's output; see visualize.
        inputs: what the model takes beside the batch, one row for all; see capture.
        forward: method of the model to run instead of `forward`; see capture.
        **options: see below.

    Returns:
        The images, and what they excite.

    Raises:
        OptionError: an option cannot be used, or there is no such channel or class.
        ShapeError: the model takes no images, or the layer has no channels.
        CaptureError: the model failed, or the layer does not depend on its input by gradients.
    """
    checked, seed = MaximizeOptions.of(options), whole_within(0, _LARGEST_SEED)("seed", seed)
    if (layer is None) == (classes is None) or (classes is not None and channels is not None):
        raise OptionError("what is maximised must be a layer's channels, or classes. Give layer, or classes.")
    with torch.inference_mode(False):  # its tensors take part in no gradients
        loaded = called_with(model if isinstance(model, LoadedModel) else as_given(module_of(model)), inputs, forward)
        loaded = with_rows(loaded, 1)
        colours = Colours.of(loaded)
        found = colours.statistics(like)
        wanted = _classes(classes, loaded) if layer is None else _channels(channels)
        pattern = OUTPUT if layer is None else layer
        search = _Search(loaded, pattern, wanted, checked, seed, AxesOptions(axes=axes), colours, found)
        search.run(_sizes(checked, colours, of_classes=layer is None))
    names = (loaded.categories if layer is None else None) or ()
    labels = tuple(f"{c} {names[c]}" if c < len(names) else str(c) for c in search.channels)
    pixels = torch.cat([search.pixels[first] for first in sorted(search.pixels)])
    responses = torch.cat([search.responses[first] for first in sorted(search.responses)], 1)
    provenance = Provenance(loaded.spec, loaded.weights, search.layer, weights_digest=sample_digest(loaded))
    return Maximized(
        search.layer, search.channels, labels, colours.inputs(pixels), pixels, tuple(checkpoints(checked.steps)),
        responses, provenance, seed, checked,
    )  # fmt: skip


def _channels(channels: Any) -> tuple[int, ...] | None:
    return None if channels is None else channel_list("channels", channels)


def _classes(classes: Any, model: LoadedModel) -> tuple[int, ...]:
    """Return classes by number: of a list, or of text with commas between names and numbers, and ranges of numbers."""
    parts = classes.split(",") if isinstance(classes, str) else classes
    found: list[int] = []
    for part in parts if isinstance(parts, (list, tuple)) else [parts]:
        if isinstance(part, str) and re.fullmatch(r"\s*\d+-\d+\s*", part):
            found += channel_list("classes", part.strip())
            continue
        (wanted,) = parse_targets(part.strip() if isinstance(part, str) else part, model.categories, 1).wanted
        if not isinstance(wanted, Classes):
            raise OptionError(f"classes must be named or numbered, got {repr_of(part)}.")
        found += wanted.rows[0]
    if not found:
        raise OptionError("classes must name at least one, got none.")
    return tuple(found)


def _sizes(options: MaximizeOptions, colours: Colours, *, of_classes: bool) -> list[tuple[int, int]]:
    """Return sizes of images to try, one after the other where the model refuses one."""
    if options.size is not None:
        return [(options.size, options.size) if isinstance(options.size, int) else options.size]
    usual = (USUAL_PX, USUAL_PX)
    return [colours.size] if of_classes or max(colours.size) <= USUAL_PX else [usual, colours.size]


@dataclass(eq=False)
class _Search:
    """The search for the images of some channels.

    model, pattern, axes: whose layer, by which pattern, and how its output is read.
    channels: of the layer; None for all until they are known.
    pixels, responses: of the channels from a position on, by that position.
    """

    model: LoadedModel
    pattern: str | int
    channels: Any
    options: MaximizeOptions
    seed: int
    axes: AxesOptions
    colours: Colours
    statistics: Statistics
    layer: str = ""
    pixels: dict[int, torch.Tensor] = field(default_factory=dict)
    responses: dict[int, torch.Tensor] = field(default_factory=dict)

    def run(self, sizes: Sequence[tuple[int, int]]) -> None:
        """Find the images, at the first of some sizes that the model takes."""
        for size in sizes:
            batch = self.colours.inputs(self.statistics.mean[None, :, None, None].expand(1, -1, *size))
            try:
                inside_pass(self.model, batch, self.pattern, self._run, before_bends=not self.options.rectified)
                return
            except ModelFailedError:
                if size == sizes[-1]:
                    raise

    def _run(self, trunk: Trunk, seen: Mapping[str, torch.Tensor], batch: torch.Tensor) -> None:
        if len(seen) > 1:
            raise CaptureError(
                f"layer must be one call of one layer, got {', '.join(map(repr, list(seen)[:4]))}. Name one of them."
            )
        ((self.layer, output),) = seen.items()
        axes = None
        if output.ndim != 2:
            axes = axes_of_maps(self.model, seen, tuple(batch.shape), self.axes)[self.layer]
        maps = _maps(output, axes)
        self.channels = tuple(range(maps.shape[1])) if self.channels is None else self.channels
        if max(self.channels) >= maps.shape[1]:
            asked = "classes" if self.pattern == OUTPUT else "channels"
            raise OptionError(
                f"{asked} must be 0 to {maps.shape[1] - 1} for layer {self.layer!r}, got {max(self.channels)}."
            )
        unit = _unit(self.options.at, maps)

        def respond(pixels: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
            found = _maps(trunk(self.colours.inputs(pixels).to(batch.dtype))[self.layer], axes)
            if not found.requires_grad and pixels.requires_grad:
                raise CaptureError(
                    f"layer {self.layer!r} must depend on the image by gradients, got none: the model cuts them before."
                )
            own = found[torch.arange(len(pixels)), channels].float()
            return own.mean((1, 2)) if unit is None else own[:, unit[0], unit[1]]

        def search(first: int, last: int) -> None:
            self.pixels[first], self.responses[first] = self._optimize(
                respond, self.channels[first:last], (batch.shape[2], batch.shape[3]), batch.device
            )

        Fitting(device_at(batch.device), self.options.chunk).run(search, 0, len(self.channels))

    def _optimize(
        self, respond: Respond, channels: Sequence[int], size: tuple[int, int], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images of some channels as pixels (K, C, H, W), and their responses (checkpoints, K)."""
        steps, looks = self.options.steps, set(checkpoints(self.options.steps))
        spectrum = Spectrum(self.statistics, size, device)
        grey = torch.logit(self.statistics.mean)[:, None, None].to(device)
        shifts = torch.Generator().manual_seed(self.seed)
        noise = torch.stack([_noise(self.seed, channel, spectrum.shape) for channel in channels])
        coefficients, wanted = noise.to(device), torch.tensor(channels, device=device)
        descent = Adam(coefficients, RATE)
        best, most, course = None, torch.full((len(channels),), -math.inf, device=device), []
        for step in with_bar(range(1, steps + 1), "step"):
            coefficients.requires_grad_(True)
            seen = shifted(torch.sigmoid(grey + spectrum.image(coefficients)), self.options, shifts)
            (gradient,) = torch.autograd.grad(respond(seen, wanted).sum(), coefficients)
            coefficients.requires_grad_(False)
            descent.step(-gradient)
            if step in looks:
                with torch.no_grad():
                    pixels = torch.sigmoid(grey + spectrum.image(coefficients))
                    now = respond(pixels, wanted)
                better = now > most
                best = pixels if best is None else torch.where(better[:, None, None, None], pixels, best)
                most = torch.maximum(most, now)
                course.append(most.cpu())
        assert best is not None
        return best.cpu(), torch.stack(course)


def _maps(output: torch.Tensor, axes: Axes | None) -> torch.Tensor:
    """Return the output of a layer as maps; scores of classes, (N, C), as maps of one cell."""
    return output[:, :, None, None] if axes is None else all_maps(output, axes)


def _unit(at: str | tuple[int, int], maps: torch.Tensor) -> tuple[int, int] | None:
    """Return the row and column of the unit that is maximised; None for the mean of the map."""
    rows, cols = maps.shape[2:]
    if isinstance(at, str):
        return None if at == "mean" else (rows // 2, cols // 2)
    if at[0] >= rows or at[1] >= cols:
        raise OptionError(f"at must be a unit of a map of {rows}x{cols}, got {at[0]},{at[1]}. Rows come first.")
    return at


def _noise(seed: int, channel: int, shape: Sequence[int]) -> torch.Tensor:
    """Return the coefficients that the image of a channel begins with, whichever others are optimised beside it."""
    own = torch.Generator().manual_seed((seed * 1_000_003 + channel) % 2**63)
    return torch.randn(*shape, generator=own) * NOISE


def shifted(images: torch.Tensor, options: MaximizeOptions, generator: torch.Generator) -> torch.Tensor:
    """Shift, turn and scale images at random, all of them alike; what lies outside is mirrored.

    Args:
        images: (N, C, H, W) float32. Not modified.
        options: how far.
        generator: draws how far.

    Returns:
        (N, C, H, W) float32.
    """
    height, width = images.shape[2:]
    down, across, turn, stretch = (torch.rand(4, generator=generator) * 2 - 1).tolist()
    angle, scale = math.radians(turn * options.rotate), 1 + stretch * options.stretch
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    # From positions in the result to positions in the images; both run from -1 to 1.
    matrix = [
        [cos, -sin * height / width, 2 * across * options.jitter / width],
        [sin * width / height, cos, 2 * down * options.jitter / height],
    ]
    where = torch.tensor(matrix, device=images.device).expand(len(images), 2, 3)
    grid = torch.nn.functional.affine_grid(where, list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
