"""Stage 2 of 7, catalogue: any number of pictures that are still to be read, each with a key of its own."""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..runtime.compact import Texts
from .in_memory import Source

MEMORY = "<memory>"
"""Stands for the folder in the keys of pictures that never were files."""


class Holder(Protocol):
    """Where pictures lie: the file system, a shard, a table, memory. Small, and picklable."""

    def key(self, text: str) -> str:
        """Make the key of the picture that is listed as `text`."""

    def open(self, item: ListedImage) -> Source:
        """Return what `decode_image` takes; raise ImageError where it cannot be had."""


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One picture, still to be read. It can be sent to other processes.

    Attributes:
        key: which picture it is, whatever else is listed and in whatever order: a file's path as it was given, joined
            and normalised; `shard.tar/member`; `table.parquet/row`. It may hold any character.
        holder: where it lies.
        start: place in the holder: a byte, a row.
        size: bytes of its file, where the holder needs to know.
    """

    key: str
    holder: Holder
    start: int = 0
    size: int = 0

    @property
    def name(self) -> str:
        """What messages and manifests call it: the key, with what cannot be printed escaped."""
        key = self.key.removeprefix(f"{MEMORY}/")
        return key if key.isprintable() else repr(key)[1:-1]

    def open(self) -> Source:
        """Return what `decode_image` and `load_images` take; raise ImageError where it cannot be had."""
        return self.holder.open(self)


class Failure(NamedTuple):
    """A part of what was to be listed that could not be: its name, and why not."""

    name: str
    reason: str


def normalised(path: str) -> str:
    """Give a path as keys have it: / between its parts, none of them empty or a dot; `..` stays, for links' sake."""
    plain = os.sep == "/" and not path.endswith(("/", "/.")) and "//" not in path and "./" not in path
    return path if plain else Path(path).as_posix()


@dataclass(frozen=True, slots=True)
class Files:
    """Loose files. They are first looked at when they are read: a missing one is an error there."""

    def key(self, text: str) -> str:
        """Return the path."""
        return text

    def open(self, item: ListedImage) -> Path:
        """Return the path."""
        return Path(item.key)


@dataclass(frozen=True, slots=True, eq=False)
class InMemoryImage:
    """One picture in memory."""

    picture: Any

    def key(self, text: str) -> str:
        """Return the name in a folder that no file can lie in."""
        return f"{MEMORY}/{text}"

    def open(self, item: ListedImage) -> Any:
        """Return the picture."""
        return self.picture


class Catalogue(Sequence[ListedImage]):
    """Pictures in the order they were listed, no key twice; a slice is a catalogue of the same pictures.

    Takes 28 bytes a picture beside the text of its key, 80 MB for a million: items are made when they are asked for.

    Attributes:
        repeats: how often a key came again and was dropped.
        failures: parts that could not be listed: a shard that is cut off, a folder that cannot be read.
    """

    def __init__(self) -> None:
        self.repeats = 0
        self.failures: list[Failure] = []
        self._texts = Texts()
        self._holders: list[Holder] = []
        self._held_by = array("I")
        self._starts = array("Q")
        self._sizes = array("Q")
        self._order: Any = range(0)

    def add(self, holder: Holder, text: str, start: int = 0, size: int = 0) -> None:
        """List one picture.

        Args:
            holder: where it lies.
            text: what the holder makes its key of.
            start: place in the holder.
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
        """Whether any picture is in memory."""
        return any(isinstance(holder, InMemoryImage) for holder in self._holders)

    def drop_repeats(self) -> None:
        """Keep each key once, where it came first, and count the others."""
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
        """Give the keys alone, without making items."""
        return _Keys(self)

    def key(self, index: int) -> str:
        """Give the key of one picture."""
        return self._key(int(self._order[index]))

    def iter_keys(self) -> Iterator[str]:
        """Give the keys one after another, which is faster than one by one."""
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
