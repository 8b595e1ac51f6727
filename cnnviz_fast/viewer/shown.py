"""What is shown, wherever it lies: runs with their layers and images, and the bytes of what they hold."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from ..activations.fields.record import ReceptiveField
from ..errors import AtlasError
from ..formats.atlas_files import AtlasFile
from ..formats.atlas_head import AtlasHead
from ..provenance import Provenance
from .commands import Recipe

Content: TypeAlias = AtlasFile | bytes
"""Bytes, or where they lie."""

KINDS = ("statistics", "patches", "kernels", "similarity")
"""What there may be of a layer beside its atlases."""


@dataclass(frozen=True)
class ShownLayer:
    """A layer: its name, (C, H, W) of its maps, how they were read, its field where that is known, and its KINDS."""

    name: str
    shape: tuple[int, int, int]
    axes: str = "nchw"
    field: ReceptiveField | None = None
    kinds: frozenset[str] = frozenset()

    @classmethod
    def of(cls, name: str, head: AtlasHead, kinds: frozenset[str] = frozenset()) -> ShownLayer:
        """Make it of the head of one of its atlases."""
        return cls(name, head.shape, head.provenance.axes or "nchw", field_of(head.provenance), kinds)


@dataclass(frozen=True)
class ShownScore:
    """A map of what a score depends on.

    layer: that it is shown with, by its number; None for all.
    name: what the score is of.
    maps: the layer that holds it as one of its channels, by its number; None where it is an atlas of its own.
    channel: which one.
    """

    layer: int | None
    name: str
    maps: int | None = None
    channel: int = 0


@dataclass(frozen=True)
class ShownImage:
    """An image.

    size: (height, width) in px of the view that the model saw.
    has_photo: whether the view can be shown.
    absent: numbers of the layers that it has no maps of.
    attribution: what scores depend on.
    frames: of a volume or a clip, which of its frames lies under a layer, by their numbers.
    """

    name: str
    size: tuple[int, int]
    has_photo: bool = False
    absent: tuple[int, ...] = ()
    attribution: tuple[ShownScore, ...] = ()
    frames: Mapping[int, int] = field(default_factory=dict)


class ShownRun(Protocol):
    """What one model made of images: in a folder, in single files, or in memory."""

    @property
    def name(self) -> str:
        """Return what the page calls it."""

    @property
    def model(self) -> str:
        """Return the spec of the model; "" where it is not known."""

    @property
    def layers(self) -> Sequence[ShownLayer]:
        """Return the layers, in order."""

    @property
    def image_count(self) -> int:
        """Return the number of images."""

    @property
    def recipe(self) -> Recipe | None:
        """Return how its maps were made; None where that is not known."""

    def image(self, number: int) -> ShownImage:
        """Return an image by its number."""

    def atlas(self, layer: int, image: int) -> Content | None:
        """Return the atlas of a layer of an image; None where there is none; raise AtlasError where it is damaged."""

    def photo(self, image: int, frame: int | None = None) -> bytes | None:
        """Return the view that the model saw as JPEG, or a frame of it; None where it cannot be shown."""

    def payload(self, kind: str, layer: int, channel: int | None = None) -> bytes | None:
        """Return one of KINDS of a layer, of patches those of a channel; None where there is none."""

    def attribution(self, image: int, number: int) -> bytes | None:
        """Return the atlas of its own that a score has, by its number among those of an image; None for none."""


def field_of(provenance: Provenance) -> ReceptiveField | None:
    """Return the receptive field that an atlas tells, which may be anybody's; None where it tells none."""
    if provenance.field is None:
        return None
    try:
        field = ReceptiveField.from_json(dict(provenance.field))
        field.box(0, 0)  # which fails where it is none
        pairs = [field.size, field.stride, field.offset, field.input_size or (1, 1)]
        known = all(len(pair) == 2 and all(map(math.isfinite, pair)) for pair in pairs)
    except (TypeError, ValueError, LookupError, OverflowError):
        return None
    return field if known else None


def view_size(heads: Sequence[AtlasHead]) -> tuple[int, int]:
    """Return (height, width) in px of the view that a model saw; where atlases do not tell, of the largest maps."""
    for head in heads:
        field = field_of(head.provenance)
        if field is not None and field.input_size is not None:
            return field.input_size
    return max((head.shape[1:] for head in heads), default=(1, 1))


def inside(folder: Path, name: str) -> Path:
    """Return where a file of a folder really lies.

    Args:
        folder: the folder.
        name: of the file, as a list in the folder has it, which may be anybody's.

    Returns:
        Its path without links.

    Raises:
        AtlasError: it lies outside of the folder.
    """
    home = os.path.realpath(folder)
    try:
        real = os.path.realpath(os.path.join(home, name))
    except ValueError as error:  # a NUL
        raise AtlasError(f"{name!r} is no name of a file.") from error
    if not real.startswith(home.rstrip(os.sep) + os.sep):
        raise AtlasError(f"{name!r} leads out of the folder {str(folder)!r}.")
    return Path(real)


def model_of(facts: Mapping[str, Any]) -> str:
    """Return the model that a fingerprint names, or ""."""
    model = facts.get("model")
    return model if isinstance(model, str) else ""


def name_apart(name: str, taken: Callable[[str], bool]) -> str:
    """Return a name, with a number behind it where it is taken."""
    found = name
    for number in itertools.count(2):
        if not taken(found):
            break
        found = f"{name} ({number})"
    return found
