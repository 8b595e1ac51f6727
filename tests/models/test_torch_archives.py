"""Files of torch.save: values are those that were saved, and an archive that lies is refused."""

from __future__ import annotations

import functools
import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.looping import over

from cnnviz_fast.models.torch_archives import Archive, read_archive
from cnnviz_fast.models.unpickling import Record

TENSORS = {
    "float": torch.arange(6.0).reshape(2, 3),
    "strided": torch.arange(6.0).reshape(2, 3).t(),
    "view": torch.arange(10.0)[3:7],
    "scalar": torch.tensor(3),
    "empty": torch.empty(0, 4),
    "bool": torch.tensor([True, False]),
    "bfloat16": torch.arange(3, dtype=torch.bfloat16),
    "complex": torch.tensor([1 + 2j]),
    "conjugate": torch.tensor([1 + 2j, 3j]).conj(),
    "unsigned": torch.tensor([1, 65535], dtype=torch.uint16),
    "parameter": torch.nn.Parameter(torch.ones(2)),
}
WAYS: dict[str, dict[str, Any]] = {
    "today": {},
    "before 2020": {"_use_new_zipfile_serialization": False},
    "protocol 4": {"pickle_protocol": 4},
    "protocol 5": {"pickle_protocol": 5},
    "before 2020, protocol 5": {"_use_new_zipfile_serialization": False, "pickle_protocol": 5},
}


def archive(content: bytes) -> Archive:
    return read_archive(functools.partial(io.BytesIO, content))


def saved(content: Any, **way: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **way)
    return file.getvalue()


def values(content: bytes) -> dict[str, torch.Tensor]:
    found = archive(content)
    tensors = {name: found.tensor(value) for name, value in found.content.items()}
    return {name: tensor.read() for name, tensor in tensors.items() if tensor is not None}


@over("way", WAYS)
def test_read_archive_tensors_are_those_that_were_saved(way: str) -> None:
    found = values(saved(TENSORS, **WAYS[way]))
    assert list(found) == list(TENSORS)
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor.detach())


@over("protocol", [2, 3, 4, 5])
def test_read_archive_bare_pickles_of_tensors_and_arrays_are_read(protocol: int) -> None:
    arrays = {"array": np.arange(6.0).reshape(2, 3).T, "number": np.float32(2.5), "big": np.arange(3, dtype=">i4")}
    found = values(pickle.dumps({**TENSORS, **arrays}, protocol))
    assert list(found) == [*TENSORS, *arrays]
    assert torch.equal(found["strided"], TENSORS["strided"])
    assert found["array"].tolist() == arrays["array"].tolist()
    assert found["number"].item() == 2.5
    assert found["big"].tolist() == [0, 1, 2]


HALF_THERE: dict[str, tuple[Callable[[], Any], str]] = {
    "coo": (lambda: torch.eye(3).to_sparse(), "sparse"),
    "csr": (lambda: torch.eye(3).to_sparse_csr(), "sparse"),
    "bsr": (lambda: torch.eye(4).to_sparse_bsr((2, 2)), "sparse"),
    "meta": (lambda: torch.ones(2, device="meta"), "without values (on the meta device)"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(2)]), "nested"),
    "expanded": (lambda: torch.zeros(1).expand(1000), "larger than its 1 stored values"),
    "overlapping": (lambda: torch.zeros(4).as_strided((4, 4), (1, 0)), "larger than its 4 stored values"),
    "quantised": (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "quantised"),
    "objects": (lambda: np.array(["a"], dtype=object), "an array that holds no numbers"),
}


@over("kind", HALF_THERE)
@pytest.mark.filterwarnings("ignore")  # of torch, about the tensors that are made here
def test_read_archive_tensors_that_are_not_there_in_full_have_a_fault(kind: str) -> None:
    make, fault = HALF_THERE[kind]
    found = archive(saved({"w": make()}))
    described = found.tensor(found.content["w"])
    assert described is not None
    assert described.fault == fault


def repacked(change: Callable[[str, bytes], bytes], **how: Any) -> bytes:
    """An archive of a tensor, with other entries or another compression."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved({"w": torch.arange(64.0)}))) as old, zipfile.ZipFile(file, "w", **how) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return file.getvalue()


def same(name: str, content: bytes) -> bytes:
    return content


def test_read_archive_packed_again_by_another_tool_is_read() -> None:
    assert values(repacked(same))["w"].tolist() == list(range(64))


def test_read_archive_compressed_entries_are_refused() -> None:
    with pytest.raises(ValueError, match="its entries are compressed"):
        archive(repacked(same, compression=zipfile.ZIP_DEFLATED))


def test_read_archive_storage_shorter_than_it_says_has_a_fault() -> None:
    found = archive(repacked(lambda name, content: content[:16] if name.endswith("data/0") else content))
    described = found.tensor(found.content["w"])
    assert described is not None
    assert described.fault is not None


def test_read_archive_damaged_values_are_an_error_when_they_are_read() -> None:
    content = bytearray(saved({"w": torch.arange(64.0)}))
    content[content.index(struct.pack("<4f", 1, 2, 3, 4))] ^= 1
    found = archive(bytes(content))
    described = found.tensor(found.content["w"])
    assert described is not None
    with pytest.raises(ValueError, match="damaged"):
        described.read()


@pytest.mark.parametrize("way", ["today", "before 2020"])
def test_read_archive_cut_short_is_a_value_error(way: str) -> None:
    content = saved({"w": torch.arange(64.0)}, **WAYS[way])
    for length in range(3, len(content) - 1, 97):
        with pytest.raises(ValueError, match=r"."):
            archive(content[:length])


def test_read_archive_lists_objects_beside_tensors_as_records() -> None:
    found = archive(saved({"w": torch.ones(2), "hook": print}))
    assert not isinstance(found.content["hook"], Record)
    assert found.tensor(found.content["hook"]) is None
