"""Lists of entries as tensors, and what an entry is made of: 16 bytes.

An entry is an image with the place on its map and the value there: a float32, a 64-bit digest of the image's key, and
both coordinates in an int32.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

LAST = 2**63 - 1
"""Digest of an empty entry. Its score is NaN, its position -1."""

COORDINATE_BITS = 16
"""Of an int32 position: y above them, x in them."""

LARGEST_SIDE = 2**15 - 1
"""Of a map, so that both coordinates fit into a position."""


@dataclass(frozen=True)
class Lists:
    """Lists of entries as tensors.

    scores: (C, w) float32. The greater the stronger; NaN for no entry.
    digests: (C, w) int64.
    positions: (C, w) int32. See COORDINATE_BITS.
    """

    scores: torch.Tensor
    digests: torch.Tensor
    positions: torch.Tensor

    @classmethod
    def empty(cls, channels: int, width: int, device: torch.device) -> Lists:
        """Return lists without entries."""
        return cls(
            torch.full((channels, width), torch.nan, device=device),
            torch.full((channels, width), LAST, dtype=torch.int64, device=device),
            torch.full((channels, width), -1, dtype=torch.int32, device=device),
        )

    @property
    def columns(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return scores, digests and positions."""
        return self.scores, self.digests, self.positions

    @property
    def width(self) -> int:
        """Return the number of entries for which there is room."""
        return self.scores.shape[1]

    def to(self, device: torch.device) -> Lists:
        """Return the lists on a device."""
        return Lists(*(column.to(device) for column in self.columns))

    def rows(self, channels: torch.Tensor | slice) -> Lists:
        """Return the lists of some channels."""
        return Lists(*(column[channels] for column in self.columns))

    def ordered(self, by: torch.Tensor) -> Lists:
        """Sort each list by numbers, (C, w), in ascending order. What is equal stays in order."""
        order = by.argsort(dim=1, stable=True)
        return Lists(*(column.gather(1, order) for column in self.columns))

    def beside(self, other: Lists) -> Lists:
        """Return lists that hold the entries of both, one behind the other."""
        return Lists(*(torch.cat(both, dim=1) for both in zip(self.columns, other.columns, strict=True)))


@lru_cache(maxsize=1 << 12)  # a batch comes to every layer
def digest_of(key: str, seed: int | None = None) -> int:
    """Hash the key of an image.

    Args:
        key: of the image.
        seed: another seed gives another hash; None for the digest by which ties are decided.

    Returns:
        64 bits of BLAKE2b, with sign.
    """
    salt = b"" if seed is None else seed.to_bytes(16, "big", signed=True)
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, salt=salt).digest()
    return int.from_bytes(digest, "big", signed=True)


def packed(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return positions, (...) int32, in the order of rows and columns whatever the size of the map."""
    return (y << COORDINATE_BITS | x).to(torch.int32)


def unpacked(positions: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return y and x of positions, (...) int32."""
    return positions >> COORDINATE_BITS, positions & (1 << COORDINATE_BITS) - 1
