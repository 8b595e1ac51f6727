"""Raw maps: the tensors come back from other people's reader to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors
from safetensors.torch import load_file
from support.assertions import assert_equal_tensors
from support.cases import NAN, noise

import cnnviz_fast as cf
from cnnviz_fast.errors import WriteError
from cnnviz_fast.formats.maps import maps_bytes, write_maps


def test_write_maps_keeps_values_dtypes_and_where_they_came_from(tmp_path: Path) -> None:
    batch = noise(2, 3, 4, 5)
    batch[0, 0, 0, 0] = NAN
    maps = {
        "conv1": batch[0],
        "all of it": batch.flatten(0, 1),  # shares memory with the one above
        "layer1.0": batch[1].bfloat16(),
        "turned": batch[1].transpose(1, 2),
        "mask": batch[0] > 0,
        "sum": batch[0].sum(0, keepdim=True).requires_grad_(),
    }
    path = write_maps(
        {name: (values, cf.Provenance("net", layer=name)) for name, values in maps.items()}, tmp_path / "x"
    )
    read = load_file(path)
    assert read.keys() == maps.keys()
    for name, values in maps.items():
        assert read[name].dtype == values.dtype
        assert_equal_tensors(read[name], values.detach().contiguous())
    with safetensors.safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["cnnviz_fast"])
    assert record["format"] == "maps"
    assert record["layers"]["turned"] == cf.Provenance("net", layer="turned").facts()


def test_write_maps_gives_the_same_bytes_every_time_and_whole_files(tmp_path: Path) -> None:
    maps = {name: (noise(2, 3, 4), cf.Provenance(layer=name)) for name in ("b", "a", "c")}
    assert len({maps_bytes(dict(maps)) for _ in range(20)}) == 1
    with pytest.raises(WriteError, match="cannot write"):
        write_maps(maps, tmp_path / "nowhere" / "x.safetensors")
    assert list(tmp_path.iterdir()) == []
