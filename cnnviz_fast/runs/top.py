"""The images that excite each channel most, as a run collects them: `--save top`.

Equal responses are in an order of the images' keys, so that the same files give the same lists in whatever order they
come. The key of a sample of a data set, or of an image in memory, is its position: after a shuffle it counts as another
image.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..activations.fields.find import receptive_field
from ..activations.fields.record import ReceptiveField
from ..errors import CnnvizError
from ..patches.classes import ClassResponses
from ..patches.photos import CHANGED, ON_DISK, Photo, Stamp, describe, stamp_of
from ..patches.responses import Responses
from ..patches.top import TopResponses
from ..patches.top_files import read_top, top_facts_of, write_top

if TYPE_CHECKING:
    from ..channels.statistics import ChannelStatistics
    from ..models.loaded import LoadedModel
    from ..options.reading import ImageOptions
    from .collected import MeasuredMaps, Records
    from .images import Images
    from .labels import Labels


STAMPS_AT_LEAST = 4096
"""That are held before it is asked which of their images are in the lists still."""


@dataclass
class LayerTop:
    """What is kept of one layer.

    top: its strongest images.
    classes: its responses to each class; None without labels.
    stamps: of the files of its images, when the model had read them: one that is written anew afterwards is not the
        one that is in the lists.
    """

    top: TopResponses
    classes: ClassResponses | None = None
    stamps: dict[str, Stamp] = field(default_factory=dict)
    _most_stamps: int = STAMPS_AT_LEAST

    @property
    def channels(self) -> int:
        """Return the number of channels of the layer."""
        channels: int = self.top.channels
        return channels

    def blank(self) -> LayerTop:
        """Return a record of the same layer without images."""
        return LayerTop(self.top.blank(), self.classes and ClassResponses(self.channels))

    def merge(self, other: LayerTop) -> None:
        """Add what is known over other images."""
        self.top.merge(other.top)
        for key, stamp in other.stamps.items():
            self.stamps[key] = stamp if self.stamps.get(key, stamp) == stamp else CHANGED
        if len(self.stamps) > self._most_stamps:
            self.forget()
            self._most_stamps = max(STAMPS_AT_LEAST, 2 * len(self.stamps))
        if self.classes is not None and other.classes is not None:
            self.classes.merge(other.classes)

    def stamp(self, keys: Sequence[str]) -> None:
        """Note the files of images that were just given, as far as they came into the lists."""
        known = self.top.keys
        self.stamps |= {key: stamp for key in keys if key in known and (stamp := stamp_of(key)) is not None}

    def forget(self) -> None:
        """Forget the files of images that have left the lists."""
        known = self.top.keys
        self.stamps = {key: stamp for key, stamp in self.stamps.items() if key in known}


@dataclass(frozen=True)
class Top:
    """The strongest images of each channel, and its responses to the classes of a data set. See collected.Kind.

    options: those of `options.runs.TOP`, without labels.
    labels: the classes of the images; None without.
    max_pixels, decoding: how the images are read.
    """

    options: Mapping[str, Any]
    labels: Labels | None
    max_pixels: int
    decoding: ImageOptions
    name: str = "top"
    takes_heat: bool = False

    def record(self, channels: int) -> LayerTop:
        """See Kind; raises OptionError where the options do not go together."""
        settings = {name.removeprefix("top_"): value for name, value in self.options.items()}
        return LayerTop(TopResponses(channels, **settings), ClassResponses(channels) if self.labels else None)

    def feed(self, record: LayerTop, steps: Sequence[MeasuredMaps], keys: Sequence[str]) -> None:
        """See Kind. Of the time steps of a clip the one with the strongest response counts."""
        responses = [_update(record.top, step, keys) for step in steps]
        record.top.seen -= len(keys) * (len(steps) - 1)
        record.stamp(keys)
        if self.labels is not None and record.classes is not None:
            strongest = functools.reduce(torch.fmin if record.top.by == "min" else torch.fmax, responses)
            record.classes.update(strongest, [self._label_of(key) or "" for key in keys])

    def read(self, path: Path) -> Records:
        """See Kind."""
        found = read_top(path)
        stamps = {key: stamp for key, record in found.photos.items() if (stamp := Photo.from_json(record).stamp)}
        records = {layer: LayerTop(top, found.classes.get(layer), dict(stamps)) for layer, top in found.items()}
        for record in records.values():
            record.forget()
        return records

    def facts(self, path: Path) -> dict[str, Any]:
        """See Kind."""
        return top_facts_of(path)

    def write(self, path: Path, records: Records, **content: Any) -> Path:
        """See Kind. While the run goes on, all that is said of a photo is its stamp."""
        photos = {key: {"name": key, "stamp": stamp} for key, stamp in _stamps_in(records).items()}
        content = {"photos": photos, **content}
        classes = {layer: record.classes for layer, record in records.items() if record.classes is not None}
        layers = {layer: record.top for layer, record in records.items()}
        return write_top(path, layers, classes=classes, **content)

    def about(self, records: Records, model: LoadedModel, images: Images) -> dict[str, Any]:
        """See Kind. Returns where the images in the lists lie, and what the units of each layer see."""
        keys = {key for record in records.values() for key in _images_in(record.top)}
        stamps = _stamps_in(records)
        return {
            "facts": {"model": model.spec, "weights": model.weights},
            "photos": describe(images.catalogue, keys, model, self.max_pixels, self.decoding, self._label_of, stamps),
            "fields": _fields_of(list(records), model, images.input_size(keys)),
        }

    def _label_of(self, key: str) -> str | None:
        return self.labels.of(key) if self.labels is not None else None

    def remarks(self, records: Records, images: Images) -> list[str]:
        """See Kind."""
        remarks = [line for layer, record in records.items() for line in _remarks_on(layer, record)]
        if not any(isinstance(image.holder, ON_DISK) for image in images.catalogue or ()):
            remarks.append("patches cannot be cut from this run, since no image of it is a file")
        return remarks


def _update(top: TopResponses, step: MeasuredMaps, keys: Sequence[str]) -> torch.Tensor:
    """Add maps to the strongest; return the responses, (N, C) float32."""
    maps = step.read.maps
    known = None if step.measured is None or top.by == "mean" else _responses(step.measured, top.by, maps.device)
    return top.update(maps[:, :, 0, 0] if step.read.axes.name == "nc" else maps, keys, known)


def _responses(measured: Sequence[ChannelStatistics], by: str, device: torch.device) -> Responses:
    """Return what was measured of a batch for the index, as TopResponses takes it."""
    peak = torch.stack([each.vmax if by == "max" else each.vmin for each in measured]).to(device) + 0.0  # -0 is 0
    alive = torch.stack([~each.dead for each in measured]).any(dim=0)
    nonfinite = torch.stack([each.nan + each.inf for each in measured]).sum(dim=0)
    return Responses(peak, peak, alive.to(device), nonfinite.to(device))


def _stamps_in(records: Records) -> dict[str, Stamp]:
    """Return the stamps of the images in the lists of all layers; a file was read once for all of them."""
    found: dict[str, Stamp] = {}
    for record in records.values():
        record.forget()
        found |= record.stamps
    return found


def _images_in(top: TopResponses) -> set[str]:
    """Return the keys of the images in the lists of a layer."""
    return {key for kind in top.kinds for key in top.draws(kind).images.flat if key}


def _fields_of(layers: list[str], model: LoadedModel, size: tuple[int, int] | None) -> dict[str, dict[str, Any]]:
    """Return what the units of each layer see: the whole image where the model cannot be followed, with the reason."""
    try:
        fields = receptive_field(model, layers, size)
    except CnnvizError as error:
        if size is None:
            return {}
        return dict.fromkeys(layers, ReceptiveField.of_whole(size, (str(error),)).to_json())
    assert isinstance(fields, dict)
    return {layer: field.to_json() for layer, field in fields.items()}


def _remarks_on(layer: str, record: LayerTop) -> Iterator[str]:
    """Yield lines on what a user of a layer's lists should know."""
    top = record.top
    if top.seen * top.repeat < top.k:
        yield f"{layer} has {top.seen} images for each channel, not {top.k}, since there are no more"
    if broken := int(np.count_nonzero(top.nonfinite)):
        yield f"{layer} has NaN or infinite values in {broken} channels, which are never among the strongest"
    if record.classes is not None:
        labelled = int(record.classes.count.sum(axis=0).max(initial=0))
        if labelled < top.seen:
            yield f"{layer}: {top.seen - labelled} of {top.seen} images have no class in labels"
