"""A mapping for millions of texts that takes a fraction of the memory of a dict: it keeps hashes of its keys."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

DIGEST_BYTES = 16
"""Of a hash. That two of a million different texts have the same one has a probability of 1e-27."""


class DigestMap:
    """Text -> bytes of one length. A million entries of 8 bytes take 43 MB, in a dict of such hashes 146.

    Entries of the same first two bytes of their hash lie in one `bytearray`, hash and value by turns: of a million
    entries 15 in each, which are searched faster than a Python loop makes one step.
    """

    def __init__(self, value_bytes: int) -> None:
        self._entry_bytes = DIGEST_BYTES + value_bytes
        self._buckets: dict[bytes, bytearray] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def get(self, text: str) -> bytes | None:
        """Return the value of a text, None where there is none."""
        digest = digest_of(text)
        return self._value(self._buckets.get(digest[:2], bytearray()), digest)

    def setdefault(self, text: str, value: bytes) -> bytes:
        """Enter a value unless the text has one; return the one it has then."""
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
    """Hash a text, which may hold lone surrogates."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


class Texts(Sequence[str]):
    """Strings in one block of memory: their UTF-8 and 8 bytes each, where a list takes about 60 bytes more."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._block = bytearray()
        self._ends = array("Q")
        for text in texts:
            self.append(text)

    def append(self, text: str) -> None:
        """Add one string; lone surrogates stay what they are."""
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
