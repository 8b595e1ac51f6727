"""Tensors and a record in one file: read by the safetensors package, the same bytes every time, and bounded both ways.

What becomes of damaged and foreign bytes is in the tests of atlases, which are made of these.
"""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
import safetensors.numpy
import torch
from support.assertions import assert_equal_tensors

from cnnviz_fast.errors import AtlasError, EncodeError
from cnnviz_fast.formats import safetensors as container

TENSORS = {
    "index": torch.arange(24, dtype=torch.uint8).reshape(2, 3, 4),
    "mean": torch.tensor([1.5, float("nan")]),
    "half": torch.tensor([0.5], dtype=torch.float16),
    "nothing": torch.empty(0, 3),
}
RECORD = {"format": "x", "version": 1, "source": {"layer": "é\ud800", "of": [1, None, 2.5]}}


def assert_same_file(tensors: dict[str, torch.Tensor], record: dict[str, object]) -> None:
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert_equal_tensors(tensors[name], tensor)
    assert record == RECORD


def test_pack_comes_back_from_unpack_and_by_hand() -> None:
    packed = container.pack(TENSORS, RECORD)
    assert_same_file(*container.unpack(packed, "x"))
    plain = zlib.decompress(packed)
    assert plain == container.tensor_bytes(TENSORS, RECORD)
    read = safetensors.numpy.load(plain)
    assert {name: (array.shape, array.dtype) for name, array in read.items()} == {
        "index": ((2, 3, 4), np.uint8), "mean": ((2,), np.float32),
        "half": ((1,), np.float16), "nothing": ((0, 3), np.float32),
    }  # fmt: skip
    header = json.loads(plain[8 : 8 + int.from_bytes(plain[:8], "little")])
    assert json.loads(header["__metadata__"][container.RECORD]) == RECORD
    assert list(header["__metadata__"]) == [container.RECORD]


def test_pack_without_the_native_module_is_a_zlib_stream_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "native", lambda: (None, "not built"))
    packed = container.pack(TENSORS, RECORD)
    assert zlib.decompress(packed) == container.tensor_bytes(TENSORS, RECORD)
    assert_same_file(*container.unpack(packed, "x"))


def test_tensor_bytes_are_the_same_every_time_in_any_order() -> None:
    first = container.tensor_bytes(TENSORS, RECORD)
    assert container.tensor_bytes(dict(reversed(TENSORS.items())), RECORD) == first
    assert container.pack(TENSORS, RECORD) == container.pack(TENSORS, RECORD)


def test_pack_more_than_unpack_takes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = len(container.tensor_bytes(TENSORS, RECORD))
    monkeypatch.setattr(container, "MOST_BYTES", plain)
    assert_same_file(*container.unpack(container.pack(TENSORS, RECORD), "x"))
    monkeypatch.setattr(container, "MOST_BYTES", plain - 1)
    with pytest.raises(EncodeError, match=rf"at most {plain - 1:,} bytes, got {plain:,}\. Choose fewer channels\.$"):
        container.pack(TENSORS, RECORD)


def test_pack_longer_header_than_unpack_takes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "MOST_HEADER_BYTES", 1000)
    container.pack(TENSORS, {"names": ["x"]})
    with pytest.raises(EncodeError, match=r"Choose fewer channels\.$"):
        container.pack(TENSORS, {"names": ["x" * 1000]})


def test_unpack_names_what_it_was_given() -> None:
    for packed in (b"", b"no zlib", container.pack(TENSORS, RECORD)[:-1], container.pack(TENSORS, RECORD) + b"\0"):
        with pytest.raises(AtlasError, match=r"^the file 'x' .+\.$"):
            container.unpack(packed, "the file 'x'")
