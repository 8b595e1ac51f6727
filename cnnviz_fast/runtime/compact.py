"""Containers for millions of texts in little memory: a mapping that keeps only hashes of its keys, and a list."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

DIGEST_BYTES = 16
"""Length of a hash. The probability that two of a million different texts share one is 1e-27."""


class DigestMap:
    """A mapping from texts to bytes of one length. A million values of 8 bytes take 43 MB, against 146 MB in a dict.

    Entries whose hashes have the same first two bytes lie in one `bytearray`, hash and value in turn. With a million
    entries each holds 15, and searching those takes less time than one step of a Python loop.
    """

    def __init__(self, value_bytes: int) -> None:
        self._entry_bytes = DIGEST_BYTES + value_bytes
        self._buckets: dict[bytes, bytearray] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def get(self, text: str) -> bytes | None:
        """Return the value of a text, or None."""
        digest = digest_of(text)
        return self._value(self._buckets.get(digest[:2], bytearray()), digest)

    def setdefault(self, text: str, value: bytes) -> bytes:
        """Store a value unless the text has one already, and return the stored one."""
        digest = digest_of(text)
        bucket = self._buckets.setdefault(digest[:2], bytearray())
        known = self._value(bucket, digest)
        if known is not None:
            return known
        bucket += digest + value
        self._length += 1
        return value

    def _value(self, bucket: bytearray, digest: bytes) -> bytes | None:
        at = bucket.find(digest)
        while at > 0 and at % self._entry_bytes:  # inside an entry: part of a value
            at = bucket.find(digest, at + 1)
        return None if at < 0 else bytes(bucket[at + DIGEST_BYTES : at + self._entry_bytes])


def digest_of(text: str) -> bytes:
    """Return the hash of a text, which may hold lone surrogates."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


class Texts(Sequence[str]):
    """A list of strings in one block of memory: 8 bytes a string besides its UTF-8, where a list takes about 68."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._block = bytearray()
        self._ends = array("Q")
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add one string, which may hold lone surrogates."""
        self._block += text.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._block))

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        start = 0
        for end in self._ends:
            yield self._block[start:end].decode("utf-8", "surrogatepass")
            start = end

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        start = self._ends[i - 1] if i else 0
        return self._block[start : self._ends[i]].decode("utf-8", "surrogatepass")
