"""A list of any number of images that are still to be read, each with a key of its own, in little memory."""

from __future__ import annotations

import os
import sys
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..runtime.compact import Texts
from .in_memory import Source

MEMORY = "<memory>"
"""The folder in the keys of images that were never files."""


class Holder(Protocol):
    """Where images are stored: the file system, a shard, a table or memory. Small, and picklable."""

    def key(self, text: str) -> str:
        """Return the key of the image that is listed as `text`."""

    def open(self, image: ListedImage) -> Source:
        """Return an image as `decode_image` takes it; raise ImageError where it cannot be read."""


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image, still to be read. It can be sent to other processes.

    Attributes:
        key: identifies the image, whatever else is listed and in whatever order: the path as it was given, joined and
            normalised; `shard.tar/member`; `table.parquet/row`. It may hold any character.
        holder: where it is stored.
        start: position in the holder: a byte or a row.
        size: of its file in bytes, where the holder needs it.
    """

    key: str
    holder: Holder
    start: int = 0
    size: int = 0

    @property
    def name(self) -> str:
        """Its name in messages and manifests: the key, with characters that cannot be printed escaped."""
        key = self.key.removeprefix(f"{MEMORY}/")
        return key if key.isprintable() else repr(key)[1:-1]

    def open(self) -> Source:
        """Return it as `decode_image` and `load_images` take it; raise ImageError where it cannot be read."""
        return self.holder.open(self)


class Failure(NamedTuple):
    """A source, or a part of one, that could not be listed: its name, and why not."""

    name: str
    reason: str


def normalised(path: str) -> str:
    """Return a path as it stands in keys: parts joined by /, none empty or a dot; `..` stays, because of links."""
    plain = os.sep == "/" and not path.endswith(("/", "/.")) and "//" not in path and "./" not in path
    return path if plain else Path(path).as_posix()


@dataclass(frozen=True, slots=True)
class Files:
    """Single files. Whether one is missing shows only when it is read."""

    def key(self, text: str) -> str:
        """Return the path."""
        return text

    def open(self, image: ListedImage) -> Path:
        """Return the path."""
        return Path(image.key)


@dataclass(frozen=True, slots=True, eq=False)
class InMemoryImage:
    """One image in memory."""

    image: Any

    def key(self, text: str) -> str:
        """Return the key in MEMORY, a folder in which no file can lie."""
        return f"{MEMORY}/{text}"

    def open(self, image: ListedImage) -> Any:
        """Return the image."""
        return self.image


class Catalogue(Sequence[ListedImage]):
    """Images in the order they were listed, no key twice. A slice is a catalogue that shares their memory.

    An image takes 28 bytes besides the text of its key, 80 MB for a million. Each ListedImage is made when asked for.

    Attributes:
        repeats: how many images were dropped because their key was already there.
        failures: what could not be listed, such as a truncated shard or a folder that cannot be read.
        passed_over: how many files of folders are no images, by their extension; and how many sheets and runs of this
            package they hold.
    """

    def __init__(self) -> None:
        self.repeats = 0
        self.failures: list[Failure] = []
        self.passed_over = Counter[str]()
        self._texts = Texts()
        self._holders: list[Holder] = []
        self._held_by = array("I")
        self._starts = array("Q")
        self._sizes = array("Q")
        self._order: Any = range(0)

    def add(self, holder: Holder, text: str, start: int = 0, size: int = 0) -> None:
        """List one image.

        Args:
            holder: where it is stored.
            text: the holder makes its key from it.
            start: position in the holder: a byte or a row.
            size: of its file, in bytes.
        """
        if not self._holders or self._holders[-1] is not holder:
            self._holders.append(holder)
        self._texts.append(text)
        self._held_by.append(len(self._holders) - 1)
        self._starts.append(start)
        self._sizes.append(size)
        self._order = range(len(self._texts))

    @property
    def holds_memory(self) -> bool:
        """Whether any image is in memory."""
        return any(isinstance(holder, InMemoryImage) for holder in self._holders)

    def drop_repeats(self) -> None:
        """Drop every image whose key came before, and count them."""
        total = len(self._texts)
        hashes = np.fromiter(map(hash, self.keys()), np.int64, total)
        by_hash = np.argsort(hashes, kind="stable")
        same = np.flatnonzero(hashes[by_hash][1:] == hashes[by_hash][:-1])
        if not same.size:
            return
        kept = np.ones(total, bool)
        seen: set[str] = set()
        for i in np.union1d(by_hash[same], by_hash[same + 1]).tolist():  # in the order listed
            kept[i] = self._key(i) not in seen
            seen.add(self._key(i))
        self._order = np.flatnonzero(kept)
        self.repeats += total - len(self._order)

    def keys(self) -> Sequence[str]:
        """Return the keys, without making a ListedImage for each."""
        return _Keys(self)

    def key(self, index: int) -> str:
        """Return the key of one image."""
        return self._key(int(self._order[index]))

    def iter_keys(self) -> Iterator[str]:
        """Return all keys in order, which is faster than asking for each."""
        if not isinstance(self._order, range) or self._order != range(len(self._texts)):
            return map(self._key, map(int, self._order))
        makers = [holder.key for holder in self._holders]
        return (makers[held](text) for held, text in zip(self._held_by, self._texts, strict=True))

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            part = Catalogue()
            part.__dict__.update(self.__dict__)  # the columns are shared: nothing is added to a catalogue once listed
            part._order = self._order[index]
            return part
        i = int(self._order[index])
        return ListedImage(self._key(i), self._holders[self._held_by[i]], self._starts[i], self._sizes[i])

    def __sizeof__(self) -> int:
        columns = (self._texts._block, self._texts._ends, self._held_by, self._starts, self._sizes, self._order)
        return object.__sizeof__(self) + sum(map(sys.getsizeof, columns))

    def _key(self, i: int) -> str:
        text: str = self._texts[i]
        return self._holders[self._held_by[i]].key(text)


class _Keys(Sequence[str]):
    """The keys of a catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def __len__(self) -> int:
        return len(self._catalogue)

    def __iter__(self) -> Iterator[str]:
        return self._catalogue.iter_keys()

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return _Keys(self._catalogue[index])
        return self._catalogue.key(index)
