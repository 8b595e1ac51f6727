"""Files of statistics: they come back as they were, and damaged ones do not come back at all."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file
from support.cases import noise
from support.looping import over

from cnnviz_fast.channels.dataset import LayerStatistics
from cnnviz_fast.channels.dataset_files import facts_of, read_columns, read_statistics, write_statistics
from cnnviz_fast.channels.quantile_sketch import QuantileSketch
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


def test_read_statistics_takes_the_folder_of_a_run(tmp_path: Path, layers: dict[str, LayerStatistics]) -> None:
    with pytest.raises(InputError, match=r"^'.*' is not the folder of a run\. Make one: .* --save statistics"):
        read_statistics(tmp_path)
    write_statistics(tmp_path / "statistics.safetensors", layers)
    assert list(read_statistics(tmp_path)) == list(layers)
    assert list(read_columns(tmp_path)) == list(layers)


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


@pytest.mark.parametrize("dtype", [
    torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64, torch.bool, torch.float16, torch.float64,
    torch.uint8, torch.int32,
], ids=str)  # fmt: skip
@over("name", ["seen", "vmin", "buckets", "bucket"])
def test_read_statistics_of_other_dtypes_is_refused(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    statistics = LayerStatistics(2)
    statistics.update(noise(2, 2, 3, 3))
    arrays = {f"0.{key}": torch.from_numpy(array) for key, array in statistics.to_arrays().items() if key != "bucket"}
    arrays |= {"0.bucket": torch.zeros(3, dtype=torch.int16), f"0.{name}": arrays["0.seen"].to(dtype)}
    header = {"dataset_statistics": json.dumps({"layers": ["a"], "sha256": ""})}
    save_torch_file(arrays, tmp_path / "s", header)
    with pytest.raises(InputError, match=r"^statistics '.*s' (cannot be read|is damaged): .{1,200}\.$"):
        read_statistics(tmp_path / "s")
    with pytest.raises(InputError, match=r"arrays must"):
        LayerStatistics.from_arrays(statistics.to_arrays() | {name: statistics.to_arrays()[name].astype("complex64")})


def test_read_statistics_of_pipes_and_devices_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "a\0b"):
        with pytest.raises(InputError, match=r"^statistics '.*' cannot be read: "):
            read_statistics(path)
        assert facts_of(path) == {}


def test_read_statistics_header_nested_without_end_is_refused(tmp_path: Path) -> None:
    save_file({"weight": np.zeros(3)}, tmp_path / "s", {"dataset_statistics": "[" * 100_000})
    with pytest.raises(InputError, match=r"^statistics '.*s' is damaged: .{1,200}\.$"):
        read_statistics(tmp_path / "s")
    assert facts_of(tmp_path / "s") == {}


@pytest.mark.parametrize("buckets", [[2**63 - 1, 2**63 - 1, 3], [1] * 1_000_000], ids=["overflow", "many channels"])
def test_arrays_that_ask_for_more_counts_than_they_hold_are_refused(buckets: list[int]) -> None:
    count = sum(buckets) % 2**64  # of an array that overflows, as numpy adds it up
    bucket = np.resize(np.arange(64, 64 * 250, 64, dtype=np.uint16), count)
    with pytest.raises(InputError, match=r"^buckets must"):
        QuantileSketch.from_arrays(np.array(buckets), bucket, np.ones(count, np.int64))
