"""The strongest images of each channel, found by looking at all activations in memory: what TopResponses must keep."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def digest(key: str, salt: bytes = b"") -> int:
    """Return the number by which ties are decided, or images are drawn."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8, salt=salt).digest(), "big", signed=True)


def places(maps: Floats, by: str) -> list[tuple[float, int, int]]:
    """Return value, y and x of the finite values of one map, the strongest first, by 'max' or 'min'."""
    height, width = maps.shape
    found = [(float(maps[y, x]), y, x) for y in range(height) for x in range(width) if np.isfinite(maps[y, x])]
    return sorted(found, key=lambda place: ((-1 if by == "max" else 1) * place[0], place[1], place[2]))


def answers(maps: Floats, by: str, repeat: int) -> list[tuple[float, int, int]]:
    """Return the entries that one map offers: value, y and x."""
    if by != "mean":
        return places(maps, by)[:repeat]
    finite = maps[np.isfinite(maps)].astype(np.float64)
    return [(float(np.float32(finite.mean())), *place[1:]) for place in places(maps, "max")[:1]]


def offered(images: Mapping[str, Floats], c: int, by: str, repeat: int) -> Iterator[tuple[float, str, int, int]]:
    """Yield the entries of all images in one channel: value, key, y and x."""
    for key, maps in images.items():
        for value, y, x in answers(maps[c], by, repeat):
            yield value, key, y, x


def is_dead(images: Mapping[str, Floats], c: int) -> bool:
    """Return whether a channel is zero everywhere."""
    return all((maps[c] == 0).all() for maps in images.values())


def as_arrays(rows: list[list[tuple[float, str, int, int]]], size: int) -> tuple[Any, Any, Any]:
    """Return values, images and positions of the entries of each channel, filled up to `size`."""
    values = np.full((len(rows), size), np.nan, np.float32)
    images = np.full((len(rows), size), "", object)
    positions = np.full((len(rows), size, 2), -1, np.int32)
    for c, entries in enumerate(rows):
        for rank, (value, key, y, x) in enumerate(entries):
            values[c, rank], images[c, rank], positions[c, rank] = value, key, (y, x)
    return values, images, positions


def strongest(images: Mapping[str, Floats], k: int, by: str = "max", repeat: int = 1) -> tuple[Any, Any, Any]:
    """Return values, images and positions of the strongest entries.

    Args:
        images: key -> (C, H, W) float32. The maps of each image.
        k: entries of a channel.
        by: 'max', 'mean' or 'min'.
        repeat: entries of an image.

    Returns:
        (C, k) float32, (C, k) object and (C, k, 2) int32.
    """
    rows = []
    for c in range(len(next(iter(images.values())))):
        entries = [] if is_dead(images, c) else list(offered(images, c, by, repeat))
        sign = 1 if by == "min" else -1
        rows.append(sorted(entries, key=lambda entry: (sign * entry[0], digest(entry[1]), *entry[2:]))[:k])
    return as_arrays(rows, k)


def drawn(
    images: Mapping[str, Floats], size: int, seed: int, by: str = "max"
) -> list[list[tuple[float, str, int, int]]]:
    """Return the entries of the smallest hash of each channel, among those above zero: value, key, y and x."""
    salt = seed.to_bytes(16, "big")
    rows = []
    for c in range(len(next(iter(images.values())))):
        excited = [entry for entry in offered(images, c, by, 1) if (entry[0] < 0 if by == "min" else entry[0] > 0)]
        rows.append(sorted(excited, key=lambda entry: digest(entry[1], salt))[:size])
    return rows


def band(
    entries: list[tuple[float, str, int, int]], index: int, bands: int, size: int
) -> list[tuple[float, str, int, int]]:
    """Return the draw from one band of a sample, given in the order of its hash."""
    by_value = sorted(entries, key=lambda entry: entry[0])
    inside = [entry for rank, entry in enumerate(by_value) if rank * bands // len(by_value) == index]
    return [entry for entry in entries if entry in inside][:size]
