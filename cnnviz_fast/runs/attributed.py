"""Heat maps of the images of a run, `save="attribution"`: what scores of the model depend on, by one method.

A batch is attributed where the model runs on it. Methods that look at layers hand on what these put out, so that sheets
and statistics of the same layers take no second pass.

    METHOD/LAYER/IMAGE.atlas    the maps unrounded but for their dtype, float16; see formats/atlas.py
    METHOD/LAYER/IMAGE.png      with an overlay: drawn over the image, as `cnnviz attribute` draws them

Maps of the input have no LAYER: they lie in METHOD. Each channel of an atlas is the map of one target. Where a target
has several maps, one for each channel of the input, plane of a volume or step of a clip, all maps of the first target
come first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ..activations.axes.record import Axes
from ..activations.fields.known import known_field
from ..activations.maps import LayerMaps
from ..activations.passes.rows import inputs_at
from ..attribution.api import attribution, method_of, options_given
from ..attribution.cam import Attribution
from ..attribution.drawing import HeatMaps, heat_facts, heat_folders, heat_layer
from ..attribution.targets import parse_targets
from ..channels.dataset import ranges_of_layer
from ..errors import OptionError, ShapeError
from ..formats.names import folded_stem, told_apart
from ..options.attribution import METHOD_NAMES, AttributionOptions
from ..options.reading import AxesOptions
from ..pipeline import LayerInput

if TYPE_CHECKING:
    from ..channels.statistics import ChannelStatistics
    from ..models.loaded import LoadedModel
    from ..pipeline import Drawing
    from ..sheets.overlay import Backdrop

SAVE = "attribution"

_FLOAT16 = (2.0**-13, 65504.0)
"""Largest values of a map between which float16 keeps it: it ends at 65504, and its finest step, 2^-24, is 1/2048 of
2^-13, as its steps for larger values are of these."""


class HeatBatch(NamedTuple):
    """What was found for some images, and what was asked for."""

    asked: HeatMaps
    found: Attribution

    def part(self, first: int, last: int) -> HeatBatch:
        """Return what was found for images first..last-1."""
        return self._replace(found=self.found.part(first, last))

    def faults(self) -> list[str | None]:
        """Return for each image why its maps mean nothing; None where they do."""
        scores = self.found.scores
        if scores is None:
            sound = torch.stack([maps.flatten(1).isfinite().all(1) for maps in self.found.maps.values()]).all(0)
            return [None if each else "the layer has values that are not finite." for each in sound.tolist()]
        reasons: list[str | None] = []
        for labels, values in zip(scores.labels, scores.values.tolist(), strict=True):
            wrong = [
                f"target {name!r} has a score of {score}."
                for name, score in zip(labels, values, strict=True)
                if not isfinite(score)
            ]
            reasons.append(wrong[0] if wrong else None)
        return reasons

    @property
    def names(self) -> list[str]:
        """Return the names of `maps`."""
        return [f"{self.asked.method}/{layer}" for layer in self.found.maps]

    def folders(self, taken: Sequence[str]) -> dict[str, str]:
        """Return the folder of the files of each of `maps`, by its name.

        Args:
            taken: folders of layers, of which one may be called as the method is.

        Returns:
            Name -> folder.
        """
        method = self.asked.method
        if folded_stem(method) in map(folded_stem, taken):
            method = told_apart(method, method, 8)
        return dict(zip(self.names, heat_folders(method, self.found.maps), strict=True))

    def maps(self, model: LoadedModel, shape: tuple[int, ...]) -> list[LayerMaps]:
        """Return the maps as those of layers that are called METHOD/LAYER.

        Args:
            model: that ran.
            shape: of the batch that went in.

        Returns:
            Maps with a channel for each channel of an atlas, as float32. Those of an image that float16 keeps have the
            values that this leaves of them.
        """
        of_pixels, read = method_of(self.asked.method).of_pixels, []
        for name, (layer, found) in zip(self.names, self.found.maps.items(), strict=True):
            wide = found.unsqueeze(-2) if of_pixels and found.ndim == 4 else found  # of a signal: one row
            maps = wide.reshape(len(wide), -1, *wide.shape[-2:])
            rounded = torch.where(_kept_by_float16(maps)[:, None, None, None], maps.half().float(), maps)
            field = _no_field if of_pixels else partial(known_field, model, layer, shape, tuple(self.found.maps))
            read.append(LayerMaps(name, name, rounded, Axes("nchw"), None, field=field))
        return read

    def layer_input(
        self,
        model: LoadedModel,
        read: LayerMaps,
        n: int,
        image: str,
        sample: torch.Tensor | None,
        measured: ChannelStatistics,
        drawing: Drawing,
    ) -> LayerInput:
        """Return the maps of a layer of image n, to be drawn over it where there is an overlay, or to be kept.

        Args:
            model: that ran.
            read: one of `maps`.
            n: position of the image in the batch.
            image: its name.
            sample: (C, H, W) float32, or of a volume or a clip (C, D, H, W). What went into the model; None without an
                overlay.
            measured: statistics of the maps.
            drawing: of the run.

        Returns:
            The maps, with everything that decides how they are drawn.
        """
        if sample is None:
            maps = read.maps[n].half() if _kept_by_float16(read.maps[n : n + 1]) else read.maps[n]
            origin = read.provenance(model, image, with_field=True)
            return LayerInput(read.name, maps, origin, drawing.options, None, None, measured)
        layer = read.name.partition("/")[2]
        ranges = ranges_of_layer(read.name, drawing.ranges)
        drawn = heat_layer(model, self.asked, self.found.part(n, n + 1), layer, image, sample, ranges)
        return dataclasses.replace(drawn, name=read.name)

    def facts(self, n: int) -> dict[str, Any]:
        """Return what the index says of image n: the method, and which targets were explained, with their scores."""
        return heat_facts(self.asked.method, self.found.part(n, n + 1))


def attributed(model: LoadedModel, batch: torch.Tensor, asked: HeatMaps, positions: Sequence[int]) -> Attribution:
    """Attribute scores of the model to the places of a batch.

    Args:
        model: with the rows of all images of the run; see with_rows.
        batch: (N, C, H, W) float, any device.
        asked: what is attributed to what.
        positions: of the images in the run.

    Returns:
        What the method found.

    Raises:
        CnnvizError: see attribute.
    """
    here = dataclasses.replace(model, inputs=inputs_at(model, positions))
    rows = _rows_in(asked.target)
    target = asked.target if rows is None else [rows[position] for position in positions]
    return attribution(here, batch, asked.method, asked.layers, target, asked.axes, options=asked.options)[0]


def heat_of_run(
    save: Sequence[str],
    layers: Sequence[str | int] | None,
    *,
    method: str | None,
    target: Any,
    options: AttributionOptions,
    axes: AxesOptions,
    look: Mapping[str, Any],
    backdrop: Backdrop | None,
) -> HeatMaps | None:
    """Return what heat maps a run makes.

    Args:
        save: the kinds of outputs of the run.
        layers: of the run; None where none were named.
        method: name of the method; None for the usual one.
        target: see attribute; None for the highest class.
        options: of the method.
        axes: of the layers.
        look: options of drawing that were given.
        backdrop: the image to lay them over.

    Returns:
        The record; None where there are no heat maps.

    Raises:
        OptionError: there is no such method, or something is given that means nothing here.
    """
    given = {"method": method, "target": target, **vars(options)}
    named = [name for name, value in given.items() if value is not None]
    if SAVE not in save:
        if named:
            raise OptionError(f"{named[0]} goes with save {SAVE!r}, got save {','.join(save)!r}.")
        return None
    name = METHOD_NAMES[0] if method is None else method
    options_given(name, target, options)
    of = method_of(name).of
    if tuple(save) == (SAVE,):
        if axes.planes is not None:
            raise OptionError("planes must be left out with save 'attribution' alone, whose maps are of all planes.")
        if of == "input" and layers is not None:
            raise OptionError(f"layers must be left out for {name}, which is of the input, with save {SAVE!r} alone.")
    elif layers is None:
        raise OptionError(f"layers must be named with save {','.join(save)!r}. Only {SAVE!r} alone goes without.")
    if method_of(name).of_pixels and backdrop is not None and look.get("normalize") == "dataset":
        raise OptionError(f"normalize 'dataset' goes with heat maps of layers, got method {name!r}.")
    return HeatMaps(
        method=name,
        layers=None if layers is None or of == "input" else list(layers),
        target="top" if target is None and method_of(name).target == "needed" else target,
        options=options,
        axes=AxesOptions(axes=axes.axes),
        look={**look, "threads": 1},  # one worker an image, as with other sheets
        backdrop=backdrop,
    )


def check_target(asked: HeatMaps | None, model: LoadedModel, images: int | None) -> None:
    """Refuse what cannot be a target, before anything is written.

    Args:
        asked: what is attributed; None for nothing.
        model: whose classes have names.
        images: their number in the run; None where that is open.

    Raises:
        OptionError: the target has no form of one, no class has this name, or several have.
        ShapeError: it has rows, but not one for each image.
    """
    if asked is None or asked.target is None:
        return
    rows = _rows_in(asked.target)
    if rows is not None and len(rows) != images:
        known = "images whose number is not known" if images is None else f"{images} images"
        raise ShapeError(
            f"target must have a row of classes for each image, got {len(rows)} rows for {known}. One class or one "
            f"list of them goes for all images."
        )
    parse_targets(asked.target, model.categories, images or 1)


def _rows_in(target: Any) -> list[list[Any]] | None:
    """Return the rows of a target that has one for each image of the run; None where it has none."""
    if hasattr(target, "tolist") and not callable(target):
        return [each if isinstance(each, list) else [each] for each in target.tolist()] if target.ndim else None
    is_rows = isinstance(target, list) and bool(target) and all(isinstance(each, list) for each in target)
    return target if is_rows else None


def _no_field() -> None:
    """Return no receptive field: maps of pixels lie where the pixels do."""


def _kept_by_float16(maps: torch.Tensor) -> torch.Tensor:
    """Return whether float16 keeps maps (N, C, H, W) float32 to 1/2048 of the peak of each channel: (N,) bool."""
    peaks = maps.abs().nan_to_num(0.0, 0.0, 0.0).amax((2, 3))
    least, most = _FLOAT16
    return ((peaks == 0) | ((peaks >= least) & (peaks <= most))).all(1)
