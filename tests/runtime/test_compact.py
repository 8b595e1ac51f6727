"""The mapping that keeps hashes of its keys, beside a dict."""

from __future__ import annotations

import hashlib
import random
import sys

import pytest

from cnnviz_fast.runtime.compact import DigestMap, digest_of


@pytest.mark.parametrize("value_bytes", [0, 1, 8, 16])
def test_digest_map_answers_as_a_dict(value_bytes: int) -> None:
    rng = random.Random(0)
    ours, theirs = DigestMap(value_bytes), {}
    for _ in range(5000):
        key, value = f"key {rng.randrange(2000)}\udcff\0", rng.randbytes(value_bytes)
        assert ours.setdefault(key, value) == theirs.setdefault(key, value)
        other = f"key {rng.randrange(4000)}\udcff\0"
        assert ours.get(other) == theirs.get(other)
    assert len(ours) == len(theirs)


def test_digest_map_value_that_is_the_hash_of_another_key_is_no_entry() -> None:
    key = "looked for"
    first = digest_of(key)[:2]
    # Keys whose entries lie in the bucket of `key`, with its hash as their value.
    same = [f"{i}" for i in range(400_000) if hashlib.blake2b(f"{i}".encode(), digest_size=16).digest()[:2] == first]
    assert len(same) > 1
    ours = DigestMap(16)
    for other in same:
        ours.setdefault(other, digest_of(key))
    assert ours.get(key) is None
    ours.setdefault(key, b"x" * 16)
    assert ours.get(key) == b"x" * 16


def test_digest_map_takes_little_memory() -> None:
    ours = DigestMap(8)
    for i in range(200_000):
        ours.setdefault(f"folder/{i}.png", bytes(8))
    buckets = ours._buckets
    taken = sys.getsizeof(buckets) + sum(sys.getsizeof(key) + sys.getsizeof(part) for key, part in buckets.items())
    assert taken / 200_000 < 100  # and at a million 45: the buckets themselves are 10 MB
