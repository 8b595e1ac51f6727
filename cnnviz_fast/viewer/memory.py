"""Maps in memory as a run: what is handed to `save_page` and `view`, and what a model just made of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..channels.entrance import enter
from ..errors import OptionError, ShapeError
from ..formats.atlas import Atlas, atlas_bytes, parse_atlas
from ..formats.atlas_head import AtlasHead, read_head
from ..inputs.in_memory import decode_image
from ..provenance import Provenance
from .commands import Recipe, recipe_of
from .payloads import as_jpeg, similarity_payload
from .shown import ShownImage, ShownLayer, ShownScore, name_apart, view_size


@dataclass
class MemoryRun:
    """A run whose payloads are bytes; see ShownRun. `payloads` has those of KINDS by kind and name of the layer."""

    name: str
    model: str
    layers: list[ShownLayer]
    images: list[MemoryImage]
    recipe: Recipe | None = None
    payloads: dict[tuple[str, str], bytes] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        images: list[MemoryImage],
        payloads: dict[tuple[str, str], bytes] | None = None,
    ) -> MemoryRun:
        """Make it of images, by what their atlases say of model and layers."""
        payloads = payloads or {}
        heads = {name: head for image in reversed(images) for name, head in image.heads.items()}
        first = {name: heads[name] for image in images for name in image.heads}
        origin = next((head.provenance for head in first.values()), Provenance())
        layers = [
            ShownLayer.of(name, head, frozenset({"similarity", *(kind for kind, layer in payloads if layer == name)}))
            for name, head in first.items()
        ]
        return cls(origin.model or "maps", origin.model or "", layers, images, recipe_of(origin), payloads)

    @property
    def image_count(self) -> int:
        """See ShownRun."""
        return len(self.images)

    def image(self, number: int) -> ShownImage:
        """See ShownRun."""
        image, names = self.images[number], [layer.name for layer in self.layers]
        absent = tuple(n for n, name in enumerate(names) if name not in image.atlases)
        scores = tuple(
            ShownScore(None if layer is None else names.index(layer), name) for layer, name, _ in image.scores
        )
        size = image.size or view_size(list(image.heads.values()))
        frames = {names.index(layer): frame for layer, frame in image.frame_of.items()}
        return ShownImage(image.name, size, image.photo is not None, absent, scores, frames)

    def atlas(self, layer: int, image: int) -> bytes | None:
        """See ShownRun."""
        return self.images[image].atlases.get(self.layers[layer].name)

    def photo(self, image: int, frame: int | None = None) -> bytes | None:
        """See ShownRun."""
        found = self.images[image]
        return found.photo if frame is None else found.frames.get(frame)

    def payload(self, kind: str, layer: int, channel: int | None = None) -> bytes | None:
        """See ShownRun."""
        name = self.layers[layer].name
        if kind == "similarity":
            packed = (image.atlases[name] for image in self.images if name in image.atlases)
            return similarity_payload([parse_atlas(next(packed), name).maps])
        return self.payloads.get((kind, name))

    def attribution(self, image: int, number: int) -> bytes | None:
        """See ShownRun."""
        scores = self.images[image].scores
        return scores[number][2] if number < len(scores) else None


@dataclass(frozen=True)
class MemoryImage:
    """An image in memory.

    atlases: layer -> its atlas.
    photo: the view that the model saw, as JPEG.
    size: (height, width) of it in px, where that is known.
    scores: of each map of what a score depends on, the layer, or None for all, what the score is, and an atlas.
    frames: of a volume or a clip, what the model saw of each frame that lies under a layer, by its number, as JPEG.
    frame_of: layer -> the number of its frame.
    """

    name: str
    atlases: Mapping[str, bytes]
    photo: bytes | None = None
    size: tuple[int, int] | None = None
    scores: Sequence[tuple[str | None, str, bytes]] = ()
    frames: Mapping[int, bytes] = field(default_factory=dict)
    frame_of: Mapping[str, int] = field(default_factory=dict)

    @property
    def heads(self) -> dict[str, AtlasHead]:
        """Return what the heads of the atlases say, by layer."""
        return {name: read_head(packed, self.name) for name, packed in self.atlases.items()}


def run_of_maps(maps: Any, photos: Any = None, provenance: Provenance | None = None, axes: str = "auto") -> MemoryRun:
    """Make a run of maps.

    Args:
        maps: (C, H, W) real dtype, or (N, C, H, W) of N images; layer name -> either, as capture returns them; an Atlas
            or a list of them. Not modified.
        photos: images, or one, that the maps are of, as the model saw them; what load_images takes. None for none.
        provenance: where the maps came from.
        axes: of the maps of one image; see render.

    Returns:
        The run.

    Raises:
        InputError: the maps cannot be used, or there are other numbers of photos and images.
    """
    atlases = [maps] if isinstance(maps, Atlas) else maps
    if isinstance(atlases, (list, tuple)) and atlases and all(isinstance(each, Atlas) for each in atlases):
        named = _of_atlases(atlases)
    else:
        origin = provenance or Provenance()
        named = _of_arrays(maps if isinstance(maps, Mapping) else {origin.layer or "maps": maps}, origin, axes)
    shown = _photos(photos, len(named))
    images = [
        MemoryImage(name, packed, photo, size)
        for (name, packed), (photo, size) in zip(named.items(), shown, strict=True)
    ]
    return MemoryRun.of(images)


def _of_atlases(atlases: Sequence[Atlas]) -> dict[str, dict[str, bytes]]:
    """Return image -> layer -> atlas; of several of one image and layer the later ones are images of their own."""
    named: dict[str, dict[str, bytes]] = {}
    for atlas in atlases:
        origin = replace(atlas.provenance, atlas=None)
        packed = atlas_bytes(atlas.maps, origin, atlas.statistics)
        layer = read_head(packed, "").layer or "maps"
        name = name_apart(origin.image or "image", lambda name, layer=layer: layer in named.get(name, ()))  # type: ignore[misc]
        named.setdefault(name, {})[layer] = packed
    return named


def _of_arrays(layers: Mapping[str, Any], origin: Provenance, axes: str) -> dict[str, dict[str, bytes]]:
    """Return image -> layer -> atlas of maps; every layer has maps of the same number of images."""
    if not layers:
        raise OptionError("maps must hold at least one layer, got none.")
    rank = 3 if axes == "auto" else len(axes.removeprefix("n"))
    ranks = {name: getattr(values, "ndim", rank) for name, values in layers.items()}
    count = next((len(layers[name]) for name, found in ranks.items() if found == rank + 1), None)
    samples = {}
    for name, values in layers.items():
        is_vectors = ranks[name] == 2 and axes == "auto" and len(values) == count
        samples[name] = list(values) if is_vectors or ranks[name] == rank + 1 else [values]
    images = {len(each) for each in samples.values()}
    if len(images) > 1 or images == {0}:
        found = ", ".join(f"{len(each)} in {name!r}" for name, each in samples.items())
        raise ShapeError(f"maps must be of the same images in every layer, got {found}.")
    (total,) = images
    names = [origin.image or "image"] if total == 1 else [f"{origin.image or 'image'} {n}" for n in range(total)]
    named: dict[str, dict[str, bytes]] = {}
    for n, name in enumerate(names):
        for layer, each in samples.items():
            handed = enter(each[n], axes)
            packed = atlas_bytes(handed.maps, handed.placed(replace(origin, layer=layer, image=name)))
            named.setdefault(name, {})[layer] = packed
    return named


def _photos(photos: Any, count: int) -> list[tuple[bytes | None, tuple[int, int] | None]]:
    """Return each photo as JPEG with its (height, width) in px."""
    if photos is None:
        return [(None, None)] * count
    given = list(photos) if isinstance(photos, (list, tuple)) else [photos]
    if len(given) != count:
        raise OptionError(f"photos must be one for each of {count} images, got {len(given)}.")
    decoded = [decode_image(each) for each in given]
    return [(as_jpeg(image), (image.height, image.width)) for image in decoded]
