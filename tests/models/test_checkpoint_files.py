"""What the usual trainers and hubs write is read as the state dicts that are in it."""

from __future__ import annotations

import argparse
import collections
import datetime
import gzip
import io
import json
import os
import pathlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cnnviz_fast.errors import ModelError
from cnnviz_fast.models.checkpoint_files import read_states
from cnnviz_fast.models.notes import ModelNote
from cnnviz_fast.models.stored_tensors import StoredTensor


def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


STATE = network().state_dict()
OPTIMIZER = torch.optim.SGD(network().parameters(), lr=0.1, momentum=0.9).state_dict()


class AttributeDict(dict[str, Any]):
    """A dict of a library's own, as Lightning keeps settings in."""


TRAINERS: dict[str, tuple[Any, str]] = {
    "torchvision's references": (
        {"model": STATE, "optimizer": OPTIMIZER, "epoch": 3, "args": argparse.Namespace(lr=0.1), "scaler": {}}, "model",
    ),
    "timm": (
        {"arch": "n", "state_dict": STATE, "args": argparse.Namespace(a=pathlib.Path("x")), "metric": np.float64(0.7)},
        "state_dict",
    ),
    "lightning": (
        {
            "state_dict": STATE, "hyper_parameters": AttributeDict(lr=0.1), "callbacks": {"best": {"score": None}},
            "loops": collections.defaultdict(dict), "date": datetime.datetime(2026, 1, 1),
        },
        "state_dict",
    ),
    "arrays of numpy": ({"model": {name: value.numpy() for name, value in STATE.items()}}, "model"),
    "nested": ({"checkpoint": {"network": {"weights": STATE}}}, "checkpoint.network.weights"),
    "the file itself": (STATE, ""),
}  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("trainer", TRAINERS)
def test_read_states_finds_the_weights_of_trainers(tmp_path: Path, trainer: str, protocol: int) -> None:
    content, key = TRAINERS[trainer]
    torch.save(content, tmp_path / "w.pt", pickle_protocol=protocol)
    assert_weights(next(state for state in read_states(tmp_path / "w.pt", "w") if state.key == key).values)


def assert_weights(found: dict[str, Any]) -> None:
    assert set(STATE) <= set(found)
    for name, value in STATE.items():
        assert isinstance(found[name], StoredTensor)
        assert torch.equal(found[name].read(), value)


def halves() -> list[dict[str, torch.Tensor]]:
    names = list(STATE)
    return [{name: STATE[name] for name in part} for part in (names[:3], names[3:])]


def shards(folder: Path, ending: str, save: Callable[[Any, Path], None]) -> None:
    names = [f"part-{index}{ending}" for index in range(2)]
    for name, half in zip(names, halves(), strict=True):
        save(half, folder / name)
    places = {key: name for name, half in zip(names, halves(), strict=True) for key in half}
    index = "model.safetensors.index.json" if ending == ".safetensors" else "pytorch_model.bin.index.json"
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def accelerate(folder: Path) -> None:
    save_file(STATE, folder / "model.safetensors")
    torch.save(OPTIMIZER, folder / "optimizer.bin")
    (folder / "random_states_0.pkl").write_bytes(pickle.dumps(1))


def distributed(folder: Path) -> None:
    import torch.distributed.checkpoint as dcp

    dcp.save(STATE, checkpoint_id=folder)  # type: ignore[attr-defined]


def one_file(folder: Path) -> None:
    torch.save(STATE, folder / "last.ckpt")
    torch.save(OPTIMIZER, folder / "optimizer.pt")


FOLDERS: dict[str, Callable[[Path], None]] = {
    "accelerate": accelerate,
    "shards of safetensors": lambda folder: shards(folder, ".safetensors", lambda half, path: save_file(half, path)),
    "shards of torch": lambda folder: shards(folder, ".bin", torch.save),
    "distributed": distributed,
    "one file": one_file,
    "a folder in it": lambda folder: distributed(folder / "pytorch_model_fsdp_0"),
}


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.filterwarnings("ignore")  # of torch.distributed, about a process that is alone
def test_read_states_of_a_folder_finds_the_weights(tmp_path: Path, kind: str) -> None:
    FOLDERS[kind](tmp_path)
    assert_weights(read_states(tmp_path, "w")[0].values)


def test_read_states_of_an_index_finds_the_weights(tmp_path: Path) -> None:
    FOLDERS["shards of safetensors"](tmp_path)
    assert_weights(read_states(tmp_path / "model.safetensors.index.json", "w")[0].values)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "absent.safetensors", "a\n\x1b[31mb"])
def test_read_states_of_shards_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(STATE, tmp_path / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match="lacks the shard") as caught:
        read_states(folder, "w")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', "[" * 100_000])
def test_read_states_of_a_damaged_index_is_said(tmp_path: Path, content: str) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content or " ")
    with pytest.raises(ModelError, match="is no index of shards"):
        read_states(path, "w")


def test_read_states_of_a_folder_with_several_files_lists_them(tmp_path: Path) -> None:
    for name in ("a.pt", "b\x1b.pt", "optimizer.pt"):
        torch.save(STATE, tmp_path / name)
    with pytest.raises(ModelError, match=r"there are: 'a\.pt', 'b\\x1b\.pt'\.$"):
        read_states(tmp_path, "w")


def test_read_states_of_tensors_in_pieces_puts_them_together(tmp_path: Path) -> None:
    written = pieces(tmp_path, [(0, 0), (0, 2), (2, 0), (2, 2)])
    assert torch.equal(read_states(tmp_path, "w")[0].values["w"].read(), written)
    pieces(tmp_path, [(0, 0), (0, 2), (2, 0)])
    with pytest.raises(ValueError, match="a piece of it is not there"):
        read_states(tmp_path, "w")[0].values["w"].read()


def pieces(folder: Path, offsets: list[tuple[int, int]]) -> torch.Tensor:
    """A (4, 4) tensor in pieces of (2, 2), as several processes write one."""
    from torch.distributed.checkpoint import metadata as dcp
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    whole = torch.arange(16.0).reshape(4, 4)
    places, chunks, content = {}, [], b""
    for at in offsets:
        buffer = io.BytesIO()
        torch.save(whole[at[0] : at[0] + 2, at[1] : at[1] + 2].clone(), buffer)
        chunks.append(dcp.ChunkStorageMetadata(torch.Size(at), torch.Size((2, 2))))
        places[dcp.MetadataIndex("w", torch.Size(at))] = _StorageInfo("0.distcp", len(content), len(buffer.getvalue()))
        content += buffer.getvalue()
    (folder / "0.distcp").write_bytes(content)
    tensor = dcp.TensorStorageMetadata(dcp.TensorProperties.create_from_tensor(whole), whole.size(), chunks)
    (folder / ".metadata").write_bytes(pickle.dumps(dcp.Metadata({"w": tensor}, storage_data=places)))
    return whole


@pytest.mark.filterwarnings("ignore")  # of torch.distributed, about a process that is alone
def test_read_states_of_distributed_pieces_that_are_gone_is_an_error_when_they_are_read(tmp_path: Path) -> None:
    distributed(tmp_path)
    next(tmp_path.glob("*.distcp")).write_bytes(b"")
    value = read_states(tmp_path, "w")[0].values["0.weight"]
    with pytest.raises(ValueError, match="beyond the end"):
        value.read()


@pytest.mark.filterwarnings("ignore")  # of torch.distributed, about a process that is alone
def test_read_states_of_distributed_tensors_larger_than_their_pieces_have_a_fault(tmp_path: Path) -> None:
    distributed(tmp_path)
    metadata = pickle.loads((tmp_path / ".metadata").read_bytes())
    object.__setattr__(metadata.state_dict_metadata["0.weight"], "size", torch.Size([10**6, 10**6]))
    (tmp_path / ".metadata").write_bytes(pickle.dumps(metadata))
    fault = read_states(tmp_path, "w")[0].values["0.weight"].fault
    assert re.fullmatch(r"larger than its \d+ stored bytes", fault)


def test_read_states_of_a_module_beside_its_optimizer_is_refused_for_the_module(tmp_path: Path) -> None:
    state = {"weight": {"exp_avg": torch.ones(2)}}
    torch.save({"model": network(), "optimizer": {"state": state}}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"w holds code or objects \(torch\.nn\.modules\.container\.Sequential\)"):
        read_states(tmp_path / "w.pt", "w")


def test_read_states_never_runs_the_metadata_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(f"cbuiltins\nopen\n(V{tmp_path / 'trace'}\nVw\ntR.".encode())
    with pytest.raises(ModelError, match="damaged or not a checkpoint"):
        read_states(tmp_path, "w")
    assert not (tmp_path / "trace").exists()


def test_read_states_of_a_folder_says_which_of_several_files_it_takes(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    torch.save({}, tmp_path / "optimizer.bin")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_weights(read_states(tmp_path, "w")[0].values)
    save_file(STATE, tmp_path / "model_1.safetensors")  # accelerate's second model
    with pytest.warns(ModelNote, match=r"w: 'model\.safetensors' is used and not 'model_1\.safetensors'\. Name"):
        assert_weights(read_states(tmp_path, "w")[0].values)


def test_read_states_of_an_index_takes_each_tensor_from_the_shard_that_it_names(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    zeros = {name: torch.zeros_like(value) for name, value in STATE.items()}
    save_file(zeros | {"more": torch.ones(1)}, tmp_path / "b.safetensors")
    places = dict.fromkeys(STATE, "a.safetensors") | {"more": "b.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert_weights(read_states(tmp_path, "w")[0].values)  # without a note: all files are the index's


def test_read_states_of_an_index_that_names_itself_is_refused(tmp_path: Path) -> None:
    name = "model.safetensors.index.json"
    (tmp_path / name).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ModelError, match=r"^w lacks the shard 'model\.safetensors\.index\.json', which"):
        read_states(tmp_path, "w")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "model.safetensors.index.json"])
def test_read_states_of_a_pipe_or_a_device_is_refused_for_what_it_is(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ModelError, match="w cannot be read: it must be a regular file, but is a pipe"):
        read_states(tmp_path / name, "w")
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(ModelError, match="w cannot be read: it must be a regular file, but is a device"):
        read_states(tmp_path / name, "w")


@pytest.mark.parametrize(("written", "name"), [("torch", "w.safetensors"), ("safetensors", "w.pth")])
def test_read_states_goes_by_the_content_and_not_by_the_name(tmp_path: Path, written: str, name: str) -> None:
    (torch.save if written == "torch" else save_file)(STATE, tmp_path / name)  # type: ignore[operator]
    assert_weights(read_states(tmp_path / name, "w")[0].values)


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, "content")
    return file.getvalue()


FOREIGN = {
    "a graph of TensorFlow Lite": b"\x1c\0\0\0TFL3" + bytes(90),
    "a file of llama.cpp (GGUF)": b"GGUF\3\0\0\0" + bytes(90),
    "a graph of ONNX": b"\x08\x08\x12\x07pytorch\x1a\x052.0.0" + bytes(90),
    "msgpack, as Flax saves": b"\x81\xa6params\x81\xa5conv1" + bytes(90),
    "a gzip archive": gzip.compress(b"weights" * 9),
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 100\n",
    "a web page (HTML)": b"<!DOCTYPE html>\n<html><head>",
    "text": b"hello",
    "a program of torch.export": zipped("w/archive_format", "w/models/model.json"),
    "an archive of other files": zipped("net/epoch_3.pth"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_read_states_of_another_kind_of_file_names_it_and_says_what_to_do(tmp_path: Path, kind: str) -> None:
    (tmp_path / "w.pth").write_bytes(FOREIGN[kind])
    with pytest.raises(ModelError, match=rf", but {re.escape(kind)}\. [A-Z][^\n]+\.$"):
        read_states(tmp_path / "w.pth", "w")


@pytest.mark.parametrize("kind", ["a pointer of Git LFS", "a web page (HTML)", "a gzip archive"])
def test_read_states_of_another_kind_called_safetensors_names_it(tmp_path: Path, kind: str) -> None:
    (tmp_path / "w.safetensors").write_bytes(FOREIGN[kind])
    with pytest.raises(ModelError, match=rf"^w cannot be read: it is {re.escape(kind)}\. [A-Z][^\n]+\.$"):
        read_states(tmp_path / "w.safetensors", "w")
