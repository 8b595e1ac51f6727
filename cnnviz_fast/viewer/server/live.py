"""A model behind the server: an image goes in, and the layers that were asked for are shown in the time of a pass."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...activations.listing import list_layers
from ...activations.stages import default_layers
from ...errors import CaptureError, CnnvizError, OptionError, reason_of
from ...formats.atlas import parse_atlas
from ...inputs.decode import decode_bytes
from ...inputs.images import load_images
from ...inputs.in_memory import Encoded
from ...models.loaded import LoadedModel, example_input
from ...models.preprocess import Preprocess, Preprocessing, with_options
from ...models.views import view_of
from ...options.reading import PreprocessOptions
from ..collection import image_entry, layer_entry
from ..commands import Recipe
from ..looking import atlases_of, kernels_of, view_in
from ..memory import MemoryImage
from ..payloads import similarity_payload
from ..shown import ShownImage, ShownLayer, view_size

if TYPE_CHECKING:
    import torch

MOST_PIXELS = 50_000_000
"""Of an image that is uploaded: 150 MB once it is decoded."""

KEPT = 6
"""Images whose payloads stay until later ones come."""

CROPS = ("center", "squash", "pad")

MOST_SIDE_PX = 2048
"""Of the view that is asked for."""


class LiveRun:
    """What a model makes of images as they come; see ShownRun. Passes run one after another."""

    def __init__(self, model: LoadedModel, layers: Sequence[str] | None = None, recipe: Recipe | None = None) -> None:
        """Take a model, and run it once, so that the first image finds everything ready.

        Args:
            model: to run.
            layers: of the first pass; None for the stages.
            recipe: how the model was loaded, for the lines that draw a sheet again; None where it is not known.
        """
        self.name = self.model = model.spec
        self.chosen = list(layers) if layers else default_layers(model)
        self.names = [layer.name for layer in list_layers(model) if layer.shape is not None and len(layer.shape) > 1]
        self.recipe = recipe
        self.layers: list[ShownLayer] = []
        self.image_count = 0
        self._model, self._lock = model, threading.Lock()
        self._images: OrderedDict[int, MemoryImage] = OrderedDict()
        self._kernels: dict[str, bytes] = {}
        example = example_input(model)
        self.size = int(min(example.shape[-2:])) if example.ndim == 4 else 0
        atlases_of(model, example, self.chosen, "")

    def facts(self, token: str, limit_bytes: int) -> dict[str, Any]:
        """Return the entry of the catalogue, with the token of uploads, and how large they may be."""
        return {
            "token": token,
            "layers": list(dict.fromkeys([*self.names, *self.chosen])),
            "chosen": self.chosen,
            "size": self.size,
            "most_px": MOST_SIDE_PX,
            "crop": CROPS[0],
            "limit_bytes": limit_bytes,
        }

    def look(
        self, number: int, content: bytes, layers: Sequence[str], size: int | None, crop: str, name: str = "image"
    ) -> dict[str, Any]:
        """Run the model on an upload.

        Args:
            number: of this run in the catalogue.
            content: of the file.
            layers: names of layers; none for those of the first pass.
            size: side of the view in px; None for the model's own.
            crop: one of CROPS.
            name: of the file, which may be any text.

        Returns:
            The entry of a run with this image alone.

        Raises:
            CnnvizError: the image cannot be read, or the model cannot run on it.
        """
        known = {*self.names, *self.chosen}
        if unknown := [name for name in layers if name not in known]:
            raise OptionError(f"layer must be one of the model's, got {unknown[0]!r}.")
        try:
            batch = self._batch(content, size, crop)
            with self._lock:
                atlases = atlases_of(self._model, batch, list(layers) or self.chosen, name)
                image = MemoryImage(name, atlases, *view_in(self._model, batch))
                return self._kept(number, image, self._recipe(size, crop))
        except CnnvizError:
            raise
        except BaseException as error:  # a model may raise anything; the user's own interrupts come to another thread
            raise CaptureError(f"the model failed on {name!r}: {reason_of(error, named=True)}.") from error

    def _recipe(self, size: int | None, crop: str) -> Recipe | None:
        """Return how an image is looked at; None where no option of the command crops like that."""
        as_usual = size in (None, self.size) and crop == CROPS[0]
        if self.recipe is None or as_usual:
            return self.recipe
        own = self.recipe.preprocess
        if crop != "squash" or isinstance(own, str):
            return None
        return replace(self.recipe, preprocess=replace(own, size=(size or self.size,) * 2))

    def _kept(self, number: int, image: MemoryImage, recipe: Recipe | None) -> dict[str, Any]:
        """Keep an image, and return the entry of a run of it."""
        at = self.image_count
        self._images[at] = image
        self.image_count += 1
        if len(self._images) > KEPT:
            self._images.popitem(last=False)
        places = {layer.name: place for place, layer in enumerate(self.layers)}
        entries = []
        for name, head in image.heads.items():
            if name not in places:
                self._kernels |= {layer: packed for (_, layer), packed in kernels_of(self._model, [name]).items()}
                places[name] = len(self.layers)
                self.layers.append(ShownLayer.of(name, head))
            kinds = frozenset({"similarity", *(("kernels",) if name in self._kernels else ())})
            self.layers[places[name]] = ShownLayer.of(name, head, kinds)
            entries.append(layer_entry(number, places[name], self.layers[places[name]]))
        return {
            "id": number, "name": self.name, "model": self.model, "layers": entries,
            "images": [image_entry(number, at, replace(self.image(at), absent=()))],
            "image_count": 1, "command": recipe and recipe.lines(),
        }  # fmt: skip

    def _batch(self, content: bytes, size: int | None, crop: str) -> torch.Tensor:
        """Return an upload as the model takes it: as its own preprocessing makes it, or in another size or crop."""
        if crop not in CROPS or (size is not None and not 1 <= size <= MOST_SIDE_PX):
            raise OptionError(f"size must be 1 to {MOST_SIDE_PX} px, and crop one of {', '.join(CROPS)}.")
        if size in (None, self.size) and crop == CROPS[0]:
            return load_images(Encoded("image", content), self._model, max_pixels=MOST_PIXELS)
        image: Any = decode_bytes(content, "image", MOST_PIXELS)
        if crop == "center":
            seen = view_of(self._model.preprocess, image.height, image.width, MOST_PIXELS)
            if seen is not None:
                top, left, bottom, right = map(round, seen.box)
                image = image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
        elif crop == "pad":
            side = max(image.size)
            left, top = (side - image.width) // 2, (side - image.height) // 2
            image = image.crop((-left, -top, side - left, side - top))
        sides, own = (size or self.size,) * 2, self._model.preprocess
        if isinstance(own, Preprocessing):  # by the options of the command
            preprocess: Preprocess = replace(own, size=sides)
        else:
            preprocess = with_options(own, PreprocessOptions(size=sides))
        return load_images(image, replace(self._model, preprocess=preprocess), max_pixels=MOST_PIXELS)

    def image(self, number: int) -> ShownImage:
        """See ShownRun."""
        image = self._images.get(number)
        if image is None:  # later ones have taken its place
            return ShownImage(f"image {number}", (1, 1), absent=tuple(range(len(self.layers))))
        absent = tuple(n for n, layer in enumerate(self.layers) if layer.name not in image.atlases)
        size = image.size or view_size(list(image.heads.values()))
        return ShownImage(image.name, size, image.photo is not None, absent)

    def atlas(self, layer: int, image: int) -> bytes | None:
        """See ShownRun."""
        found = self._images.get(image)
        return None if found is None else found.atlases.get(self.layers[layer].name)

    def photo(self, image: int, frame: int | None = None) -> bytes | None:
        """See ShownRun."""
        found = self._images.get(image)
        return None if found is None or frame is not None else found.photo

    def payload(self, kind: str, layer: int, channel: int | None = None) -> bytes | None:
        """See ShownRun."""
        name = self.layers[layer].name
        if kind == "kernels":
            return self._kernels.get(name)
        latest = next((image for image in reversed(list(self._images.values())) if name in image.atlases), None)
        if kind != "similarity" or latest is None:
            return None
        return similarity_payload([parse_atlas(latest.atlases[name], name).maps])

    def attribution(self, image: int, number: int) -> None:
        """See ShownRun. There is none."""
