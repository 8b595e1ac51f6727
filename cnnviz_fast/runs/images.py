"""The pictures of a run, whatever they come from: their names, and the batches in which they are read."""

from __future__ import annotations

import contextlib
import hashlib
import re
from array import array
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ImageError, InputError, OptionError
from ..formats.names import output_stems
from ..inputs.catalogue import Catalogue, Failure, InMemoryImage
from ..inputs.in_memory import Encoded, is_tensor
from ..inputs.reading import DatasetReader, ImageBatch, ImageReader, image_in, read_batches, read_loader
from ..inputs.sources import STDIN, list_images
from .batches import ImageId
from .folder.index import holds_a_run
from .ranks import ranks_in

if TYPE_CHECKING:
    from pathlib import Path

    from ..models.preprocess import Preprocess
    from .ranks import Ranks

Reads = Generator[ImageBatch, None, None]


class Images:
    """Pictures by position, those of a data set that a program has made; `Listed` are files."""

    failures: Sequence[Failure] = ()

    def __init__(self, read: Callable[[int], Any], count: int | None, identity: str | None = None) -> None:
        self._read = read
        self.count = count
        self._identity = identity

    def identity(self) -> str | None:
        """Tell pictures that have no names of their own from others, for the fingerprint of a run."""
        return self._identity

    def key(self, position: int) -> str:
        """Say which picture it is, in this run and in later ones."""
        return f"dataset/{position:08d}"

    def named(self, position: int) -> ImageId:
        """Return its key, what messages call it, and the stem of its files."""
        return ImageId(self.key(position), self.key(position), f"{position:08d}")

    def share(self, place: Ranks) -> range:
        """Return the positions that are the share of a process; none where their number is not known."""
        return range(place.rank, self.count or 0, place.world)

    def left(self, place: Ranks, is_done: Callable[[str], bool], batch: int) -> list[array[int]]:
        """Say in which batches the share of a process is read, all but what is done.

        Which pictures are batched does not depend on what is done, so that a run that is taken up computes the same.

        Args:
            place: of the process.
            is_done: told a key.
            batch: pictures in each.

        Returns:
            The positions of each batch, in order.
        """
        share = self.share(place)
        batches = (
            array("q", (p for p in share[start : start + batch] if not is_done(self.key(p))))
            for start in range(0, len(share), batch)
        )
        return list(filter(None, batches))

    def read_these(self, batches: Sequence[Sequence[int]], **how: Any) -> Reads:
        """Read some batches; see read_batches."""
        yield from read_batches(self._read, batches, **how)

    def read(self, place: Ranks, is_done: Callable[[str], bool], batch: int, **how: Any) -> Reads:
        """Read the share of a process in batches, all but what is done; see left and read_these."""
        yield from self.read_these(self.left(place, is_done, batch), **how)


class Listed(Images):
    """Pictures of a catalogue."""

    def __init__(self, catalogue: Catalogue, preprocess: Preprocess, max_pixels: int) -> None:
        super().__init__(ImageReader(catalogue, preprocess, max_pixels), len(catalogue))
        self.failures = catalogue.failures
        self._catalogue = catalogue
        self._stems = output_stems(catalogue.keys())
        self._holds = catalogue.holds_memory

    def identity(self) -> str | None:
        """See Pictures: what pictures in memory hold."""
        held = (
            [item.open() for item in self._catalogue if isinstance(item.holder, InMemoryImage)] if self._holds else []
        )
        return hashlib.sha256(b"".join(map(_digest, held))).hexdigest() if held else None

    def key(self, position: int) -> str:
        """See Pictures."""
        return self._catalogue.key(position)

    def named(self, position: int) -> ImageId:
        """See Pictures."""
        item = self._catalogue[position]
        return ImageId(item.key, item.name, self._stems[position])


class Loaded(Images):
    """Pictures that a DataLoader of the caller's makes into batches; those of other processes are left out of them."""

    def __init__(self, loader: Any) -> None:
        super().__init__(lambda _: None, None, _told_from_others(getattr(loader, "dataset", loader)))
        self._loader = loader

    def read(self, place: Ranks, is_done: Callable[[str], bool], batch: int, **_: Any) -> Reads:
        """See Pictures; the size of the batches is the loader's."""
        yield from read_loader(
            self._loader, lambda position: position % place.world != place.rank or is_done(self.key(position))
        )


def images_of(images: Any, preprocess: Preprocess, max_pixels: int, out: Path | None = None) -> Images:
    """Find the pictures of a run.

    Args:
        images: what list_items takes, a catalogue, a map-style torch Dataset, or a DataLoader.
        preprocess: what makes a model's input of a picture.
        max_pixels: largest picture to read, in px.
        out: folder of the run, which is not searched.

    Returns:
        The pictures.

    Raises:
        ImageError: there are none; see list_items.
        OptionError: a DataLoader shuffles, or a folder that is searched is `out`.
    """
    from torch.utils.data import DataLoader, Dataset, IterableDataset

    if isinstance(images, DataLoader):
        _refuse_chance(images)
        return Loaded(images)
    if isinstance(images, IterableDataset):
        raise InputError(
            "a data set without an order must come in a DataLoader, got an IterableDataset. Wrap it in one."
        )
    if isinstance(images, Dataset) and hasattr(images, "__len__"):
        if not len(images):
            raise ImageError("images must hold at least one picture, got an empty data set.")
        return Images(DatasetReader(images, preprocess, max_pixels), len(images), _told_from_others(images))
    if (
        isinstance(images, str | list | tuple)
        and STDIN in ([images] if isinstance(images, str) else images)
        and (world := ranks_in().world) > 1
    ):
        raise OptionError(
            f"images must not be {STDIN!r} for {world} processes, which would each read a part of standard input. "
            f"Write the list to a file."
        )
    return Listed(list_images(images, out, holds_a_run), preprocess, max_pixels)


def _refuse_chance(loader: Any) -> None:
    """Refuse a DataLoader whose order is another one each time: its pictures are known by their place in it."""
    from torch.utils.data import RandomSampler, SubsetRandomSampler, WeightedRandomSampler

    samplers = (loader.sampler, getattr(loader.batch_sampler, "sampler", None))
    if any(isinstance(sampler, (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)) for sampler in samplers):
        raise OptionError("a DataLoader must give its pictures in one order, got one that shuffles. Set shuffle=False.")


def _told_from_others(dataset: Any) -> str:
    """Describe a data set by its class, what it says of itself, and its first sample where that is always the same."""
    words = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(dataset))
    first = ""
    with contextlib.suppress(Exception):  # of somebody's own: a sample may fail like any other, and is told so later
        twice = {_digest(image_in(dataset[0])).hex() for _ in range(2)}
        first = twice.pop() if len(twice) == 1 else ""
    return f"{type(dataset).__qualname__} {hashlib.sha256(words.encode(errors='surrogatepass')).hexdigest()} {first}"


def _digest(picture: Any) -> bytes:
    """Return the SHA-256 of the pixels of a picture in memory, and of their shape."""
    if isinstance(picture, Encoded):
        return hashlib.sha256(picture.content).digest()
    values = np.asarray(picture.detach().cpu().float() if is_tensor(picture) else picture)
    return hashlib.sha256(repr((values.shape, values.dtype)).encode() + values.tobytes()).digest()
