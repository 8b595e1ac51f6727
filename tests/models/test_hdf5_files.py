"""Files of HDF5 may be anybody's: what is not plainly in them is refused in one line, and nothing large is read."""

from __future__ import annotations

import importlib
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from cnnviz_fast.errors import ModelError
from cnnviz_fast.models.checkpoint_files import read_states
from cnnviz_fast.models.checkpoints import load_checkpoint, read_checkpoint

KERNEL = np.arange(108, dtype=np.float32).reshape(3, 3, 3, 4)


def linked(file: Any) -> None:
    file["conv/kernel"] = h5py.ExternalLink("other.h5", "/kernel")


def soft(file: Any) -> None:
    file["conv/kernel"] = h5py.SoftLink("/elsewhere")


def circle(file: Any) -> None:
    file["conv/kernel"] = KERNEL
    file["conv/again"] = file["conv"]


def twice(file: Any) -> None:
    """Groups that hold the next one twice: 2**30 paths in a file of a few kB."""
    inner = file.create_group("last")
    for index in range(30):
        outer = file.create_group(f"g{index}")
        outer["a"] = outer["b"] = inner
        inner = outer


def deep(file: Any) -> None:
    file["/".join("a" * 200)] = KERNEL


REFUSED = {
    linked: "'conv/kernel' in it is a link, which is never followed",
    soft: "'conv/kernel' in it is a link, which is never followed",
    circle: "its group 'conv/again' is in itself, or in two places",
    twice: "is in itself, or in two places",
    deep: "they are 50 deep",
}


@pytest.mark.parametrize("make", REFUSED)
def test_read_states_refuses_what_leads_out_of_a_file_or_nowhere(tmp_path: Path, make: Callable[[Any], None]) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        make(file)
    with pytest.raises(ModelError, match=rf"^w is damaged or not a checkpoint: [^\n]*{REFUSED[make]}[^\n]*\.$"):
        read_states(tmp_path / "w.h5", "w")


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((3, 3, 3, 4), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "kernel", (3, 3, 3, 4))
    file.create_virtual_dataset("kernel", layout)


def external(file: Any) -> None:
    file.create_dataset("kernel", (3, 3, 3, 4), np.float32, external=[("other.bin", 0, h5py.h5f.UNLIMITED)])


def huge(file: Any) -> None:
    file.create_dataset("kernel", (2**20, 2**20, 3, 4), np.float32, chunks=(64, 64, 3, 4), compression="gzip")


def empty(file: Any) -> None:
    file.create_dataset("kernel", (3, 3, 3, 4), np.float32)


def chunked(file: Any) -> None:
    made = file.create_dataset(
        "kernel", (3, 3, 3, 4), np.float32, chunks=(64, 64, 64, 4), maxshape=(None,) * 4, compression="gzip"
    )
    made[:] = KERNEL


def texts(file: Any) -> None:
    file["kernel"] = ["conv", "dense"]


def records(file: Any) -> None:
    file["kernel"] = np.zeros((3, 3, 3, 4), [("a", np.float32), ("b", np.int8)])


FAULTS = {
    virtual: "whose values lie in other files, which are never read",
    external: "whose values lie in other files, which are never read",
    huge: "larger than its 0 stored bytes",
    empty: "larger than its 0 stored bytes",
    chunked: "stored in chunks larger than itself",
    texts: "an array of Python objects or texts, which are never loaded",
    records: "an array that holds no numbers",
}


@pytest.mark.parametrize("make", FAULTS)
def test_an_array_that_cannot_be_read_is_refused_where_a_module_needs_it(
    tmp_path: Path, make: Callable[[Any], None]
) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        make(file)
    checkpoint, kernel = read_checkpoint(tmp_path / "w.h5"), nn.Conv2d(3, 4, 3, bias=False)
    with pytest.raises(ModelError, match=rf"^[^\n]+ does not fit Conv2d: [^\n]*\(weight is [^\n]*{FAULTS[make]}\)\.$"):
        load_checkpoint(kernel, checkpoint)
    with pytest.raises(ModelError, match=rf"^[^\n]+ does not fit Sequential: 'kernel' is [^\n]*{FAULTS[make]}\.$"):
        load_checkpoint(nn.Sequential(kernel), checkpoint)


def test_an_array_of_a_plug_in_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((3, 3, 3, 4))
        made.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)  # zstd
        space = h5py.h5s.create_simple((3, 3, 3, 4))
        kernel = h5py.h5d.create(file.id, b"kernel", h5py.h5t.NATIVE_FLOAT, space, made)
        kernel.write(h5py.h5s.ALL, h5py.h5s.ALL, KERNEL)
    fault = read_states(tmp_path / "w.h5", "w")[0].values["kernel"].fault
    assert fault == "compressed by a plug-in (filter 32015), which is never loaded"


@pytest.mark.parametrize("options", [
    {}, {"compression": "gzip", "shuffle": True}, {"compression": "lzf", "fletcher32": True}, {"dtype": ">f8"},
    {"dtype": "f2"}, {"chunks": (1, 1, 3, 4), "maxshape": (None,) * 4},
])  # fmt: skip
def test_arrays_are_read_as_they_were_stored(tmp_path: Path, options: dict[str, Any]) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("kernel", data=KERNEL, **options)
    found = read_states(tmp_path / "w.h5", "w")[0].values["kernel"]
    assert found.fault is None
    assert (
        found.dtype
        == found.read().dtype
        == {">f8": torch.float64, "f2": torch.float16}.get(options.get("dtype", ""), torch.float32)
    )
    assert torch.equal(found.read().float(), torch.from_numpy(KERNEL))


@pytest.mark.parametrize(("content", "said"), [
    (b"\x89HDF\r\n\x1a\n" + bytes(90), "cannot be read: "),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 100\n", "it is a pointer of Git LFS"),
    (b"\1\2\3", "cannot be read: "),
])  # fmt: skip
def test_what_is_no_file_of_hdf5_is_refused_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "w.h5").write_bytes(content)
    with pytest.raises(ModelError, match=rf"^w [^\n]*{said}[^\n]*\.$"):
        read_states(tmp_path / "w.h5", "w")


def test_a_truncated_file_is_refused_in_one_line(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["kernel"] = KERNEL
    content = (tmp_path / "w.h5").read_bytes()
    for length in (20, 600, len(content) - 1):
        (tmp_path / "w.h5").write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"^w cannot be read: [^\n]+\.$"):
            read_states(tmp_path / "w.h5", "w")


def test_an_empty_file_of_hdf5_and_a_compressed_archive_of_keras_are_refused(tmp_path: Path) -> None:
    h5py.File(tmp_path / "w.h5", "w").close()
    with pytest.raises(ModelError, match=r"^w must hold arrays, got none\.$"):
        read_states(tmp_path / "w.h5", "w")
    with zipfile.ZipFile(tmp_path / "w.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "w.h5", "model.weights.h5")
    with pytest.raises(ModelError, match=r"model\.weights\.h5 in it is compressed, which Keras never does"):
        read_states(tmp_path / "w.keras", "w")


def test_without_h5py_the_line_that_installs_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h5py.File(tmp_path / "w.h5", "w").close()
    imported = importlib.import_module

    def lacking(name: str, package: str | None = None) -> Any:
        if name == "h5py":
            raise ModuleNotFoundError("No module named 'h5py'", name="h5py")
        return imported(name, package)

    monkeypatch.setattr(importlib, "import_module", lacking)
    installs = re.escape('Install it: pip install "cnnviz_fast[h5]".')
    with pytest.raises(
        ModelError, match=rf"^weights in files of HDF5 need the package h5py, which is not .* {installs}$"
    ):
        read_states(tmp_path / "w.h5", "w")
