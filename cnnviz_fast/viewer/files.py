"""Single atlases as they are shown: those of one model are a run, their layers and images are what their heads say.

Nothing is read that is not looked at. So damage behind a head, for which all of an atlas has to be inflated, is told of
where its maps would stand; pages that hold the atlases read them, and note it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from ..errors import AtlasError
from ..formats.atlas_files import AtlasFile
from ..formats.atlas_head import AtlasHead
from .commands import recipe_of
from .computed import Compute, similarity
from .shown import ShownImage, ShownLayer, name_apart, view_size


class FilesRun:
    """Atlases of one model; see ShownRun."""

    def __init__(self, atlases: Sequence[tuple[AtlasFile, AtlasHead]], compute: Compute) -> None:
        """Sort atlases into layers and images.

        Args:
            atlases: with their heads, at least one.
            compute: calls what takes torch.
        """
        self._compute = compute
        first = atlases[0][1].provenance
        self.model = first.model or ""
        self.name = " ".join(filter(None, (first.model, first.weights))) or os.path.dirname(atlases[0][0].name) or "."
        self.recipe = recipe_of(first)
        layers: dict[str, ShownLayer] = {}
        self._files: dict[str, dict[str, tuple[AtlasFile, AtlasHead]]] = {}
        for file, head in atlases:
            layer = head.layer or file.layer()
            layers.setdefault(layer, ShownLayer.of(layer, head, frozenset({"similarity"})))
            stem = os.path.splitext(os.path.basename(file.name))[0]
            name = name_apart(
                head.provenance.image or stem,
                lambda name, layer=layer: layer in self._files.get(name, ()),  # type: ignore[misc]
            )
            self._files.setdefault(name, {})[layer] = file, head
        self.layers = list(layers.values())
        self._images = list(self._files)
        self.image_count = len(self._images)

    def image(self, number: int) -> ShownImage:
        """See ShownRun."""
        name = self._images[number]
        there = self._files[name]
        absent = tuple(n for n, layer in enumerate(self.layers) if layer.name not in there)
        return ShownImage(name, view_size([head for _, head in there.values()]), absent=absent)

    def atlas(self, layer: int, image: int) -> AtlasFile | None:
        """See ShownRun."""
        found = self._files[self._images[image]].get(self.layers[layer].name)
        return None if found is None else found[0]

    def photo(self, image: int, frame: int | None = None) -> None:
        """See ShownRun. Atlases do not say which part of a photo the model saw."""

    def payload(self, kind: str, layer: int, channel: int | None = None) -> bytes | None:
        """See ShownRun."""
        if kind != "similarity":
            return None
        files = (self.atlas(layer, image) for image in range(self.image_count))
        first = next(file for file in files if file is not None)
        shown = self.layers[layer]
        return self._compute(similarity, [first], shown.name, shown.shape[0])

    def attribution(self, image: int, number: int) -> None:
        """See ShownRun. There is none."""


def runs_of_files(atlases: Iterable[AtlasFile], notes: list[str], compute: Compute) -> list[FilesRun]:
    """Return a run for each model and its weights.

    Args:
        atlases: files, of which heads are read.
        notes: gets a sentence on each that cannot be used.
        compute: calls what takes torch.
    """
    models: dict[tuple[str | None, str | None, str | None], list[tuple[AtlasFile, AtlasHead]]] = {}
    for file in atlases:
        try:
            head = file.head()
        except AtlasError as error:
            notes.append(str(error))
            continue
        origin = head.provenance
        models.setdefault((origin.model, origin.weights, origin.weights_digest), []).append((file, head))
    return [FilesRun(files, compute) for files in models.values()]
