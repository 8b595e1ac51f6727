"""The images of a run, wherever they come from: their names, and the batches in which they are read."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
from array import array
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ImageError, OptionError
from ..formats.names import output_stems
from ..formats.output_folders import holds_a_run
from ..inputs.catalogue import Catalogue, Failure, InMemoryImage
from ..inputs.in_memory import Encoded, is_tensor
from ..inputs.reading import DatasetReader, ImageBatch, ImageReader, read_batches, read_loader
from ..inputs.samples import image_in, is_stream, samples_in, takes_positions
from ..inputs.sources import STDIN, list_images
from .outcomes import ImageId

if TYPE_CHECKING:
    from pathlib import Path

    from ..inputs.images import InputSpec
    from .ranks import Ranks

Reads = Generator[ImageBatch, None, None]


class Images:
    """Images by position: those of a torch Dataset. `ListedImages` are files, `LoaderImages` come in batches."""

    failures: Sequence[Failure] = ()
    passed_over: Mapping[str, int] = MappingProxyType({})

    catalogue: Catalogue | None = None

    def __init__(self, read: Callable[[int], Any], count: int | None, identity: str | None = None) -> None:
        self._read = read
        self.count = count
        self._identity = identity

    def identity(self) -> str | None:
        """Return what tells images without names of their own from others, for the fingerprint of a run."""
        return self._identity

    def key(self, position: int) -> str:
        """Return which image it is, in this run and in later ones."""
        return f"dataset/{position:08d}"

    def named(self, position: int) -> ImageId:
        """Return its key, name, and the stem of its files."""
        return ImageId(self.key(position), self.key(position), f"{position:08d}", position)

    def share(self, ranks: Ranks) -> range:
        """Return the positions of a process's share; none where the number of images is not known."""
        return range(ranks.rank, self.count or 0, ranks.world_size)

    def left(self, ranks: Ranks, is_done: Callable[[str], bool], batch: int) -> list[array[int]]:
        """Return the batches in which the share of a process is read, without the images that are done.

        Which images share a batch does not depend on what is done, so that a run that is taken up computes the same.

        Args:
            ranks: of the process.
            is_done: called with a key.
            batch: images in each.

        Returns:
            The positions of each batch, in order.
        """
        share = self.share(ranks)
        batches = (
            array("q", (p for p in share[start : start + batch] if not is_done(self.key(p))))
            for start in range(0, len(share), batch)
        )
        return list(filter(None, batches))

    def input_size(self, keys: Collection[str]) -> tuple[int, int] | None:
        """Return height and width, in px, of what the model gets of the first of some images.

        Args:
            keys: of the images.

        Returns:
            The size; None where none of them can be read again.
        """
        for position in range(self.count or 0):
            if self.key(position) in keys:
                with contextlib.suppress(Exception):  # it has gone since; and a data set raises what it likes
                    height, width = self._read(position).shape[-2:]
                    return int(height), int(width)
        return None

    def read_these(self, batches: Sequence[Sequence[int]], **how: Any) -> Reads:
        """Read some batches; see read_batches."""
        yield from read_batches(self._read, batches, **how)

    def read(self, ranks: Ranks, is_done: Callable[[str], bool], batch: int, **how: Any) -> Reads:
        """Read the share of a process in batches, without the images that are done.

        Args:
            ranks: of the process.
            is_done: key of an image -> whether it is left out.
            batch: images in each batch.
            **how: of `read_batches`.

        Yields:
            The batches, in order.
        """
        yield from self.read_these(self.left(ranks, is_done, batch), **how)


class ListedImages(Images):
    """Images of a catalogue."""

    def __init__(self, catalogue: Catalogue, spec: InputSpec) -> None:
        super().__init__(ImageReader(catalogue, spec), len(catalogue))
        self.failures = catalogue.failures
        self.passed_over = catalogue.passed_over
        self.catalogue: Catalogue = catalogue
        self._stems = output_stems(catalogue.keys())
        self._holds = catalogue.holds_memory

    def identity(self) -> str | None:
        """Return a digest of the images that lie in memory; None where there are none."""
        held = [item.open() for item in self.catalogue if isinstance(item.holder, InMemoryImage)] if self._holds else []
        return hashlib.sha256(b"".join(map(_digest, held))).hexdigest() if held else None

    def key(self, position: int) -> str:
        """Return the key that the catalogue has."""
        return self.catalogue.key(position)

    def named(self, position: int) -> ImageId:
        """Return its key, name, and the stem of its files."""
        item = self.catalogue[position]
        return ImageId(item.key, item.name, self._stems[position], position)


class LoaderImages(Images):
    """Images that a user's DataLoader, or any iterable, gives in order; those of other processes are left out."""

    def __init__(self, loader: Any, spec: InputSpec) -> None:
        super().__init__(lambda _: None, None, _identity_of(getattr(loader, "dataset", loader)))
        self._loader, self._spec = loader, spec

    def read(self, ranks: Ranks, is_done: Callable[[str], bool], batch: int, **_: Any) -> Reads:
        """Read the share of a process; the loader decides on the batches; see Images."""
        yield from read_loader(
            self._loader,
            lambda position: position % ranks.world_size != ranks.rank or is_done(self.key(position)),
            self._spec,
            batch,
        )


def images_of(images: Any, spec: InputSpec, out: Path | None = None, world_size: int = 1) -> Images:
    """Find the images of a run.

    Args:
        images: what list_images takes; a catalogue; a data set that takes positions, of torch, of Hugging Face or any
            object with a length; a DataLoader; or any iterable of samples or batches, such as a generator.
        spec: how an image becomes the model's input.
        out: folder of the run, which is not searched.
        world_size: number of processes that share them.

    Returns:
        The images.

    Raises:
        ImageError: there are none; see list_images.
        OptionError: a DataLoader shuffles, a folder that is searched is `out`, or several processes would read "-".
    """
    from torch.utils.data import DataLoader

    if isinstance(images, DataLoader):
        _refuse_chance(images)
        return LoaderImages(images, spec)
    if takes_positions(images) and not isinstance(images, Catalogue):
        if not len(images):
            raise ImageError("images must hold at least one image, got an empty data set.")
        return Images(DatasetReader(images, spec), len(images), _identity_of(images))
    if is_stream(images):
        first, images = _peeked(images)
        if not isinstance(first, str | os.PathLike):
            return LoaderImages(images, spec)
    if _names_stdin(images) and world_size > 1:
        raise OptionError(
            f"images must not be {STDIN!r} for {world_size} processes, which would each read a part of standard "
            f"input. Write the list to a file."
        )
    if not isinstance(images, Catalogue):
        images = list_images(samples_in(images, spec.expected), out, holds_a_run, arrays=spec.takes_arrays)
    return ListedImages(images, spec)


def _peeked(images: Iterable[Any]) -> tuple[Any, Iterable[Any]]:
    """Return the first sample of an iterable, and all of them; raise ImageError where there is none."""
    iterator = iter(images)
    for first in iterator:
        # What can be begun again is; a generator goes on behind its first sample.
        return first, itertools.chain([first], iterator) if iterator is images else images
    raise ImageError("images must name at least one image, got none.")


def _names_stdin(images: Any) -> bool:
    """Check whether standard input is among the images, also in a list of lists."""
    if isinstance(images, list | tuple):
        return any(map(_names_stdin, images))
    return isinstance(images, str) and images == STDIN


def _refuse_chance(loader: Any) -> None:
    """Refuse a DataLoader whose order differs each time: its images are known by their place in that order."""
    from torch.utils.data import RandomSampler, SubsetRandomSampler, WeightedRandomSampler

    samplers = (loader.sampler, getattr(loader.batch_sampler, "sampler", None))
    if any(isinstance(sampler, (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)) for sampler in samplers):
        raise OptionError(
            "a DataLoader must give its images in the same order each time, got one that shuffles. Set shuffle=False."
        )


def _identity_of(dataset: Any) -> str:
    """Return what tells a data set from others: its class, its repr, and its first sample where that never changes."""
    words = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(dataset))
    first = ""
    with contextlib.suppress(Exception):  # a user's own code: a sample may fail, as is reported when it is read
        twice = {_digest(image_in(dataset[0])).hex() for _ in range(2)}
        first = twice.pop() if len(twice) == 1 else ""
    return f"{type(dataset).__qualname__} {hashlib.sha256(words.encode(errors='surrogatepass')).hexdigest()} {first}"


def _digest(image: Any) -> bytes:
    """Return the SHA-256 of the pixels of an image in memory, and of their shape."""
    if isinstance(image, Encoded):
        return hashlib.sha256(image.content).digest()
    values = np.asarray(image.float().numpy(force=True) if is_tensor(image) else image)
    return hashlib.sha256(repr((values.shape, values.dtype)).encode() + values.tobytes()).digest()
