"""Files of statistics: they come back as they were, and damaged ones do not come back at all."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from support.cases import noise

from cnnviz_fast.channels.dataset import LayerStatistics
from cnnviz_fast.channels.dataset_files import read_statistics, write_statistics
from cnnviz_fast.errors import InputError, WriteError
from cnnviz_fast.provenance import package_version


@pytest.fixture
def layers() -> dict[str, LayerStatistics]:
    """Return statistics of layers, one without images, one with a name that no file could have."""
    found = {"layer4/../1": LayerStatistics(5), "": LayerStatistics(2), "conv": LayerStatistics(3)}
    found["layer4/../1"].update(noise(4, 5, 6, 7))
    found["conv"].update(torch.full((2, 3, 2, 2), float("nan")))
    return found


def test_read_statistics_returns_what_was_written(tmp_path: Path, layers: dict[str, LayerStatistics]) -> None:
    path = write_statistics(tmp_path / "statistics.safetensors", layers)
    read = read_statistics(str(path))
    assert list(read) == list(layers)
    for layer, statistics in layers.items():
        for name, array in statistics.to_arrays().items():
            np.testing.assert_array_equal(read[layer].to_arrays()[name], array, err_msg=name)
        assert read[layer].images == statistics.images
    read["conv"].update(noise(1, 3, 4, 4))  # and they go on from there
    assert read["conv"].images == 3
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_write_statistics_header_says_what_the_file_holds(tmp_path: Path, layers: dict[str, LayerStatistics]) -> None:
    data = write_statistics(tmp_path / "s", layers).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    content = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["dataset_statistics"])
    assert content["version"] == package_version()
    assert (content["layers"], content["images"]) == (list(layers), [4, 0, 2])


def test_write_statistics_where_no_file_can_be_is_refused(tmp_path: Path, layers: dict[str, LayerStatistics]) -> None:
    with pytest.raises(WriteError, match=r"^cannot write .*nowhere"):
        write_statistics(tmp_path / "nowhere" / "s", layers)


def test_read_statistics_every_damaged_byte_is_found(tmp_path: Path) -> None:
    statistics = LayerStatistics(1)
    statistics.update(noise(1, 1, 2, 2))
    data = write_statistics(tmp_path / "s", {"layer": statistics}).read_bytes()
    (header,) = struct.unpack("<Q", data[:8])
    broken = tmp_path / "broken"
    for place in range(8 + header, len(data)):
        broken.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(InputError, match=r"broken' is damaged: its content is not what was written\.$"):
            read_statistics(broken)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_read_statistics_cut_off_is_refused(tmp_path: Path, layers: dict[str, LayerStatistics], kept: int) -> None:
    path = write_statistics(tmp_path / "s", layers)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"^statistics '.*s' cannot be read: "):
        read_statistics(path)


def test_read_statistics_missing_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: "):
        read_statistics(tmp_path / "none")
    save_file({"weight": np.zeros(3)}, tmp_path / "weights")
    with pytest.raises(InputError, match="must be a file of write_statistics, got one of another kind"):
        read_statistics(tmp_path / "weights")
    for header in ("{", "[]", '{"layers": ["x"]}', '{"layers": ["x"], "sha256": ""}'):
        save_file({"weight": np.zeros(3)}, tmp_path / "forged", {"dataset_statistics": header})
        with pytest.raises(InputError, match="forged' is damaged: "):
            read_statistics(tmp_path / "forged")
