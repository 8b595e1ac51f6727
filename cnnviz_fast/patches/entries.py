"""The entries that each channel of a layer keeps of the images it has seen: the first few in an order that is total.

Entries live on the device of the maps; the keys behind their digests, on the host. What is kept is a function of the
set of entries offered: neither their order, nor how they were divided into batches and records, nor offering them twice
changes it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import InputError
from ..runtime.array_files import check_arrays, texts_from_arrays, texts_to_arrays
from ..runtime.device import device_at
from ..runtime.native import native
from .lists import LAST, Lists, digest_of, unpacked

_KEYS_AT_LEAST = 4096
"""Keys that are held before it is asked which of them still have entries: 0.5 MB."""

_COLUMNS = {"scores": ("float32", 2), "digests": ("int64", 2), "positions": ("int32", 2)}
_KEYS = {"key_lengths": ("int64", 1), "key_bytes": ("uint8", 1)}


@dataclass(frozen=True)
class Entries:
    """Entries of each channel, in order.

    values: (C, n) float32. Response of the channel; NaN where there are fewer.
    images: (C, n) object. Keys of the images; "" where there are fewer.
    positions: (C, n, 2) int32. (y, x) on the image's map; -1 where there are fewer.
    """

    values: NDArray[np.float32]
    images: NDArray[Any]
    positions: NDArray[np.int32]

    def taken(self, order: NDArray[np.int64], kept: NDArray[np.bool_]) -> Entries:
        """Return some entries of each channel.

        Args:
            order: (C, m) int64. Their columns.
            kept: (C, m) bool. Where there is one; elsewhere there are fewer.

        Returns:
            Entries: (C, m) of them.
        """
        return Entries(
            np.where(kept, np.take_along_axis(self.values, order, 1), np.float32(np.nan)),
            np.where(kept, np.take_along_axis(self.images, order, 1), ""),
            np.where(kept[..., None], np.take_along_axis(self.positions, order[..., None], 1), np.int32(-1)),
        )


class Places(Protocol):
    """Looks up where the maps of a batch are strongest."""

    @property
    def scores(self) -> torch.Tensor:
        """Return the score of each map, (N, C) float32, the greater the stronger; NaN for none."""

    def at(self, n: torch.Tensor, c: torch.Tensor, repeat: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scores and the positions, (M, repeat), of the strongest places of M maps, given by index."""

    def everywhere(self, repeat: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the same of all maps, (N, C, repeat)."""


class EntryLists:
    """The first entries of each channel: the strongest, or of all entries above zero those of the smallest hash."""

    def __init__(self, channels: int, size: int, repeat: int = 1, seed: int | None = None) -> None:
        """Start without entries. Room is made as entries come.

        Args:
            channels: number of channels.
            size: most entries of a channel.
            repeat: most entries of an image in a channel.
            seed: of the hash by which entries are drawn; None for the strongest. Equal scores are in the order of
                digests, and then of positions.
        """
        self.size, self.repeat, self.seed = size, repeat, seed
        self._lists = Lists.empty(channels, 0, torch.device("cpu"))
        self._keys: dict[int, str] = {}
        self._most_keys = _KEYS_AT_LEAST

    def blank(self) -> EntryLists:
        """Return lists of the same kind without entries."""
        return EntryLists(len(self._lists.scores), self.size, self.repeat, self.seed)

    def offer(self, places: Places, images: Sequence[str]) -> None:
        """Take in what belongs into the lists of a batch of images. The lists move to the device of its scores.

        Args:
            places: the maps of the batch. Positions are looked up of those that may enter, where the host can tell.
            images: keys of the N images.
        """
        device = places.scores.device
        digests = [digest_of(key, self.seed) for key in images]
        if self._lists.scores.device != device:
            self._lists = self._lists.to(device)
        module = native()[0] if device.type == "cpu" and self.repeat == 1 else None
        if device.type != "cpu":
            self._offer_all(places, torch.tensor(digests).to(device, non_blocking=True), images)
        elif module is None:
            self._offer_some(places, torch.tensor(digests), images)
        else:
            self._offer_natively(module, places, np.array(digests), images)
        self._forget()

    def _offer_all(self, places: Places, digests: torch.Tensor, images: Sequence[str]) -> None:
        """Take in a batch on a device: to ask whether any of it enters would be to wait for the device."""
        self._keys |= {digest_of(key, self.seed): key for key in images}
        found, positions = (each[..., : self.repeat] for each in places.everywhere(self.repeat))
        known = digests[:, None, None].expand_as(found)
        found = found.where(self._entering(places.scores, digests)[..., None], torch.nan)
        self._merge(Lists(*(each.transpose(0, 1).flatten(1) for each in (found, known, positions))))

    def _offer_some(self, places: Places, digests: torch.Tensor, images: Sequence[str]) -> None:
        """Take in a batch on the host."""
        n, c = self._entering(places.scores, digests).nonzero(as_tuple=True)
        if not len(n):
            return
        channels, row = np.unique(c.numpy(), return_inverse=True)
        found, positions = places.at(n, c, self.repeat)
        new = Lists.empty(len(channels), len(digests) * self.repeat, n.device)
        for column, each in zip(new.columns, (found, digests[n, None].expand_as(found), positions), strict=True):
            column.view(len(channels), len(digests), self.repeat)[torch.from_numpy(row), n] = each
        self._remember(images, n.numpy())
        self._merge(new, torch.from_numpy(channels))

    def _offer_natively(self, module: Any, places: Places, digests: NDArray[np.int64], images: Sequence[str]) -> None:
        """Take in a batch on the host by csrc/kernels/entries.cpp."""
        self._widen(len(digests))
        scores = places.scores if self.seed is None else places.scores.where(places.scores > 0, torch.nan)
        touched = np.zeros(len(self._lists.scores), np.bool_)
        lists = Lists(*(column.clone() for column in self._lists.columns))  # until their positions are known too
        columns = [column.numpy() for column in lists.columns]
        module.enter_entries(*columns, self.seed is not None, scores.contiguous().numpy(), digests, touched)
        channels, positions = np.flatnonzero(touched), columns[2]
        row, slot = np.nonzero(positions[channels] < -1)
        if not len(row):
            return
        c, n = channels[row], -2 - positions[channels[row], slot].astype(np.int64)
        _, found = places.at(torch.from_numpy(n), torch.from_numpy(c), 1)
        positions[c, slot] = found[:, 0].numpy()
        self._remember(images, n)
        self._lists = lists

    def merge(self, other: EntryLists) -> None:
        """Take in the entries of another record of the same kind.

        Args:
            other: not modified.
        """
        if not other._lists.width:
            return
        here = self._lists.scores.device
        theirs = other._lists.to(here)
        self._keys |= other._keys
        device_at(here).uses(*self._lists.columns, *theirs.columns)  # may have been made on another stream
        module, _ = native()
        if here.type == "cpu" and self.repeat == 1 and module is not None:
            self._widen(theirs.width)
            mine, others = ([column.numpy() for column in lists.columns] for lists in (self._lists, theirs))
            module.merge_entries(*mine, self.seed is not None, *others)
        else:
            self._merge(theirs)
        self._forget()

    def entries(self) -> Entries:
        """Return the entries, in order: `size` of each channel."""
        scores, digests, packed = (column.cpu().numpy() for column in self._lists.columns)
        channels, width = scores.shape
        values = np.full((channels, self.size), np.nan, np.float32)
        images = np.full((channels, self.size), "", object)
        positions = np.full((channels, self.size, 2), -1, np.int32)
        held = np.isfinite(scores)
        different, place = np.unique(digests[held], return_inverse=True)
        keys = np.array([self._keys[digest] for digest in different.tolist()], object)
        values[:, :width] = scores
        images[:, :width][held] = keys[place]
        positions[:, :width][held] = np.stack(unpacked(packed[held]), axis=-1)
        return Entries(values, images, positions)

    @property
    def keys(self) -> Collection[str]:
        """Return the keys that are held: those of all images with entries, and of some without."""
        return self._keys.values()

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the entries and the keys of their images. The same entries give the same arrays."""
        self._prune()
        scores, digests, positions = (column.cpu().numpy() for column in self._lists.columns)
        used = int(np.isfinite(scores).sum(axis=1).max(initial=0))
        lengths, keys = texts_to_arrays([key for _, key in sorted(self._keys.items())])
        return {
            "scores": np.ascontiguousarray(scores[:, :used]),
            "digests": np.ascontiguousarray(digests[:, :used]),
            "positions": np.ascontiguousarray(positions[:, :used]),
            "key_lengths": lengths,
            "key_bytes": keys,
        }

    def fill(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take in what `to_arrays` returned, into lists without entries.

        Args:
            arrays: name -> array.

        Raises:
            InputError: `to_arrays` of such lists cannot have returned these arrays.
        """
        check_arrays(arrays, _COLUMNS | _KEYS)
        lists = Lists(*(torch.from_numpy(arrays[name].copy()) for name in _COLUMNS))
        keys = {digest_of(key, self.seed): key for key in texts_from_arrays(*(arrays[name] for name in _KEYS))}
        if not self._may_hold(lists, keys):
            raise InputError("arrays must be those that to_arrays returned, got other entries.")
        self._lists, self._keys = lists, keys

    def _may_hold(self, lists: Lists, keys: Mapping[int, str]) -> bool:
        """Return whether lists may be those of this record: in order, without an image too often or unknown."""
        shape = (len(self._lists.scores), lists.width)
        if any(tuple(column.shape) != shape for column in lists.columns) or lists.width > self.size:
            return False
        held = ~lists.scores.isnan()
        known = set(lists.digests[held].tolist()) == set(keys)
        sound = known and not lists.scores.isinf().any() and not (lists.positions[held] < 0).any()
        return sound and all(
            torch.equal(column.nan_to_num(), sorted_column.nan_to_num())
            for column, sorted_column in zip(lists.columns, self._firsts(lists, lists.width).columns, strict=True)
        )

    def _rank(self, scores: torch.Tensor, digests: torch.Tensor) -> torch.Tensor:
        """Return the numbers by which entries are in ascending order, before digests and positions decide."""
        if self.seed is None:
            return (-scores).where(~scores.isnan(), torch.inf)
        return digests.where(~scores.isnan(), LAST)

    def _entering(self, scores: torch.Tensor, digests: torch.Tensor) -> torch.Tensor:
        """Return which maps, (N, C), may enter the lists: those that do not come behind the last entry."""
        eligible = ~scores.isnan() if self.seed is None else scores > 0
        digests = digests[:, None]
        if self._lists.width < self.size:
            return eligible
        last_digest = self._lists.digests[:, -1]
        last, rank = self._rank(self._lists.scores[:, -1], last_digest), self._rank(scores, digests)
        return eligible & ((rank < last) | ((rank == last) & (digests <= last_digest)))

    def _merge(self, new: Lists, channels: torch.Tensor | None = None) -> None:
        """Take entries into the lists of some channels; None for all."""
        self._widen(new.width)
        width = self._lists.width
        if channels is None:
            self._lists = self._firsts(self._lists.beside(new), width)
            return
        merged = self._firsts(self._lists.rows(channels).beside(new), width)
        for column, part in zip(self._lists.columns, merged.columns, strict=True):
            column.numpy()[channels.numpy()] = part.numpy()  # torch would not outside of the mode that made it

    def _widen(self, more: int) -> None:
        """Make room for as many further entries of each channel, up to all that they may have."""
        if (more := min(more, self.size - self._lists.width)) > 0:
            room = Lists.empty(len(self._lists.scores), more, self._lists.scores.device)
            self._lists = self._lists.beside(room)

    def _firsts(self, lists: Lists, width: int) -> Lists:
        """Return the first entries of each list in order, at most `repeat` of an image."""
        lists = lists.ordered(lists.positions)
        lists = lists.ordered(self._rank(lists.scores, lists.digests))
        lists = lists.ordered(lists.digests)  # now the entries of an image follow one another, the first one first
        same = torch.zeros_like(lists.digests, dtype=torch.bool)
        same[:, 1:] = lists.digests[:, 1:] == lists.digests[:, :-1]
        if self.repeat == 1:
            surplus = same
        else:
            twice = same.clone()
            twice[:, 1:] &= lists.positions[:, 1:] == lists.positions[:, :-1]
            count = (~twice).cumsum(dim=1)
            before = (count - 1).where(~same, 0).cummax(dim=1).values
            surplus = twice | (count - before > self.repeat)
        surplus = surplus | lists.scores.isnan()
        lists = Lists(
            lists.scores.masked_fill(surplus, torch.nan),
            lists.digests.masked_fill(surplus, LAST),
            lists.positions.masked_fill(surplus, -1),
        )
        lists = lists.ordered(self._rank(lists.scores, lists.digests))
        return Lists(*(column[:, :width].contiguous() for column in lists.columns))

    def _remember(self, images: Sequence[str], which: NDArray[np.int64]) -> None:
        """Keep the keys of images that are about to enter."""
        self._keys |= {digest_of(images[n], self.seed): images[n] for n in np.unique(which)}

    def _forget(self) -> None:
        """Prune the keys once many are held: then they are at most twice as many as are needed."""
        if len(self._keys) > self._most_keys:
            self._prune()
            self._most_keys = max(_KEYS_AT_LEAST, 2 * len(self._keys))

    def _prune(self) -> None:
        """Forget the keys of images without entries."""
        held = np.unique(self._lists.digests.cpu().numpy()).tolist()
        self._keys = {digest: self._keys[digest] for digest in held if digest != LAST}
