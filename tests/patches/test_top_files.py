"""Files of the strongest responses: they come back as they were, and damaged ones do not come back at all."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from support.cases import noise

import cnnviz_fast as cf
from cnnviz_fast.errors import InputError, LayerNotFoundError, WriteError
from cnnviz_fast.patches.classes import ClassResponses
from cnnviz_fast.patches.top import TopResponses
from cnnviz_fast.patches.top_files import read_top, top_facts_of, write_top
from cnnviz_fast.provenance import package_version

KEYS = ["photos/a.jpg", "photos/b.jpg", "müll/\udcff.png"]
PHOTOS = {key: {"name": key, "path": None, "size": [3, 4], "view": [0.5, 0.0, 2.0, 4.0]} for key in KEYS}
FIELDS = {"conv": {"size": [7, 7], "stride": [2.0, 2.0], "offset": [0.0, 0.0], "whole": False, "reasons": []}}


@pytest.fixture
def layers() -> dict[str, TopResponses]:
    """Return records of layers, one without images, one with a name that no file could have."""
    found = {
        "layer4/../1": TopResponses(5, k=2, random=1, bands=2),
        "": TopResponses(2),
        "conv": TopResponses(3, by="min"),
    }
    found["layer4/../1"].update(noise(3, 5, 6, 7), KEYS)
    found["conv"].update(torch.full((2, 3, 2, 2), float("nan")), KEYS[:2])
    return found


@pytest.fixture
def path(tmp_path: Path, layers: dict[str, TopResponses]) -> Path:
    classes = ClassResponses(5)
    classes.update(noise(3, 5), ["cat", "dog", "cat"])
    return write_top(tmp_path / "top.safetensors", layers, {"keys": "abc"}, PHOTOS, FIELDS, {"layer4/../1": classes})


def test_read_top_returns_what_was_written(path: Path, layers: dict[str, TopResponses]) -> None:
    read = read_top(str(path))
    assert list(read) == list(layers)
    assert len(read) == 3
    for layer, top in layers.items():
        for name, array in top.to_arrays().items():
            np.testing.assert_array_equal(read[layer].to_arrays()[name], array, err_msg=name)
    assert (read.photos, read.fields, read.facts) == (PHOTOS, FIELDS, {"keys": "abc"})
    assert list(read.classes) == ["layer4/../1"]
    assert read.classes["layer4/../1"].count.tolist() == [[2] * 5, [1] * 5]
    assert top_facts_of(path) == {"keys": "abc"}
    with pytest.raises(LayerNotFoundError, match=r"no layer 'comv' in this file. Closest: 'conv'"):
        read["comv"]


def test_read_top_boxes_are_those_of_the_receptive_field(path: Path) -> None:
    read = read_top(path)
    assert read["conv"].field is not None
    assert (read["conv"].boxes == -1).all()  # it has seen nothing finite
    top = read["layer4/../1"]
    with pytest.raises(InputError, match=r"boxes need the receptive field of the layer\. Set it: top\.field = "):
        _ = top.boxes
    top.field = cf.ReceptiveField((3, 5), (4.0, 2.0), (0.5, 1.0))
    assert top.boxes.shape == (5, 2, 4)
    for (c, rank), key in np.ndenumerate(top.images):
        assert key in KEYS
        assert top.boxes[c, rank].tolist() == list(top.field.box(*top.positions[c, rank].tolist()))


def test_read_top_takes_the_folder_of_a_run(path: Path) -> None:
    assert list(cf.read_top(path.parent)) == list(read_top(path))


def test_read_top_of_another_folder_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^'.*' is not the folder of a run. .* cnnviz run MODEL SOURCE --layer L --save top --out"
    ):
        read_top(tmp_path)


def test_write_top_gives_the_same_bytes_for_the_same_images(tmp_path: Path) -> None:
    maps = noise(6, 3, 4, 4)
    keys = list("abcdef")
    one, other = TopResponses(3, k=2), TopResponses(3, k=2)
    one.update(maps, keys)
    for n in (4, 2, 0, 5, 1, 3):
        other.update(maps[n : n + 1], keys[n : n + 1])
    files = [write_top(tmp_path / name, {"layer": top}).read_bytes() for name, top in (("a", one), ("b", other))]
    assert files[0] == files[1]


def test_write_top_header_says_what_the_file_holds(path: Path, layers: dict[str, TopResponses]) -> None:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    record = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["top_responses"])
    assert record["version"] == package_version()
    assert record["layers"] == list(layers)


def test_write_top_where_no_file_can_be_is_refused(tmp_path: Path, layers: dict[str, TopResponses]) -> None:
    with pytest.raises(WriteError, match=r"^cannot write .*nowhere"):
        write_top(tmp_path / "nowhere" / "s", layers)


def test_read_top_every_damaged_byte_is_found(tmp_path: Path) -> None:
    top = TopResponses(1, k=1)
    top.update(noise(1, 1, 2, 2), ["a"])
    content = write_top(tmp_path / "s", {"layer": top}, photos={"a": {"name": "a"}}).read_bytes()
    broken = tmp_path / "broken"
    for place in range(8, len(content)):
        broken.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        if content[place] == ord(" "):  # padding of the header, or between entries of JSON
            continue
        with pytest.raises(InputError, match=r"^strongest responses '.*broken' (is damaged|cannot be read|must be)"):
            read_top(broken)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_read_top_cut_off_is_refused(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"^strongest responses '.*' cannot be read: "):
        read_top(path)
    assert top_facts_of(path) == {}


def test_read_top_missing_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: "):
        read_top(tmp_path / "none")
    save_file({"weight": np.zeros(3)}, tmp_path / "weights")
    with pytest.raises(InputError, match="must be a file of write_top, got one of another kind"):
        read_top(tmp_path / "weights")
    for header in ("{", "[]", '{"layers": ["x"]}', '{"layers": ["x"], "sha256": ""}', "[" * 100_000):
        save_file({"weight": np.zeros(3)}, tmp_path / "forged", {"top_responses": header})
        with pytest.raises(InputError, match="forged' is damaged: "):
            read_top(tmp_path / "forged")


def test_read_top_of_pipes_and_devices_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", "a\0b"):
        with pytest.raises(InputError, match=r"^strongest responses '.*' cannot be read: "):
            read_top(path)


@pytest.mark.parametrize("entry", [
    {"layers": 5}, {"layers": [["x"]]}, {"layers": ["x", "y"]}, {"photos": []}, {"fields": 3}, {"with_classes": ["x"]},
    {"facts": None}, {"fields": {"x": 3}}, {"fields": {"x": {"size": "wide"}}},
    {"fields": {"x": {"size": [1], "stride": [1], "offset": [1]}}},
], ids=str)  # fmt: skip
def test_read_top_of_a_forged_record_is_refused(tmp_path: Path, entry: dict[str, Any]) -> None:
    """The digest is right, so the record itself must be looked at."""
    from cnnviz_fast.patches.top_files import _FILE

    record = {"layers": ["x"], "with_classes": [], "facts": {}, "photos": {}, "fields": {}}
    arrays = {f"0.{name}": array for name, array in TopResponses(1).to_arrays().items()}
    assert list(read_top(_FILE.write(tmp_path / "s", arrays, record))) == ["x"]
    with pytest.raises(InputError, match=r"^strongest responses '.*s' is damaged: .{1,200}\.$"):
        read_top(_FILE.write(tmp_path / "s", arrays, record | entry))
