"""Files of several arrays of NumPy: their headers are read at once, their values where a module needs them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cnnviz_fast.errors import ModelError
from cnnviz_fast.models.checkpoint_files import read_states

KERNEL = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize("array", [KERNEL, np.asfortranarray(KERNEL), KERNEL.astype(">f4"), KERNEL.astype(np.float64)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_read_states_of_a_npz_reads_every_array(tmp_path: Path, save: Any, array: np.ndarray[Any, Any]) -> None:
    save(tmp_path / "w.npz", a10=array, a9=np.int64(3))
    (state,) = read_states(tmp_path / "w.npz", "w")
    assert list(state.values) == ["a9", "a10"]
    assert torch.equal(state.values["a10"].read().float(), torch.from_numpy(KERNEL))
    assert state.values["a9"].read().item() == 3


@pytest.mark.parametrize(("array", "fault"), [
    (np.array([print], object), "an array of Python objects or texts, which are never loaded"),
    (np.array(["conv"]), "an array that holds no numbers"),
    (np.zeros(3, [("a", "f4")]), "an array that holds no numbers"),
    (np.zeros(3, "V2"), "an array that holds no numbers"),
])  # fmt: skip
def test_arrays_without_numbers_cannot_be_used(tmp_path: Path, array: np.ndarray[Any, Any], fault: str) -> None:
    np.savez(tmp_path / "w.npz", a=array)
    assert read_states(tmp_path / "w.npz", "w")[0].values["a"].fault == fault


def with_header(shape: str, length: int = 4) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(length)


@pytest.mark.parametrize("shape", ["(1048576, 1048576)", "(2,)", "(-1,)"])
def test_an_array_of_another_size_than_it_says_cannot_be_used(tmp_path: Path, shape: str) -> None:
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("a.npy", with_header(shape))
    assert read_states(tmp_path / "w.npz", "w")[0].values["a"].fault == "not as large as its 4 stored bytes"


@pytest.mark.parametrize("content", [b"", b"text", with_header("(print(1),)"), with_header("(" * 50), with_header("1")])
def test_a_damaged_array_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(ModelError, match=r"^w is damaged or not a checkpoint: [^\n]+\.$"):
        read_states(tmp_path / "w.npz", "w")


def test_a_truncated_file_and_strange_compression_are_refused_in_one_line(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.savez(file, a=KERNEL)
    (tmp_path / "w.npz").write_bytes(file.getvalue()[:-30])
    with pytest.raises(ModelError, match=r"^w is damaged[^\n]+\.$"):
        read_states(tmp_path / "w.npz", "w", trusted=True)
    with zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.npy", with_header("(1,)"))
    with pytest.raises(ModelError, match=r"compressed as numpy never does\.$"):
        read_states(tmp_path / "w.npz", "w")
