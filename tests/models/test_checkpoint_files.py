"""What the usual trainers and hubs write is read as the state dicts that are in it."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import json
import pathlib
import pickle
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
