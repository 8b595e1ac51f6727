"""Pickles are read as records: what is in them is found, and nothing of it is run."""

from __future__ import annotations

import argparse
import collections
import copyreg
import datetime
import io
import os
import pathlib
import pickle
from pathlib import Path
from typing import Any

import pytest
from support.looping import over

from cnnviz_fast.models.unpickling import Name, Record, unpickled

PLAIN = {"text": "a\u00e9", "bytes": b"\x00\xff", "numbers": [1, -5, 2**70, 1.5, True, None], "nested": ({"a": [()]},)}


def read(content: bytes) -> Any:
    return unpickled(io.BytesIO(content))


class Touch:
    """Makes a file when it is unpickled, in one of the ways in which pickles run code."""

    def __init__(self, path: Path, way: str) -> None:
        self.path = path
        self.way = way

    def __reduce__(self) -> tuple[Any, ...]:
        command = f"touch {self.path}"
        return {
            "system": (os.system, (command,)),
            "eval": (eval, (f"open({str(self.path)!r}, 'w')",)),
            "copyreg": (copyreg._reconstructor, (Opened, object, None)),  # type: ignore[attr-defined]
            "setstate": (Opened, (), str(self.path)),
            "items": (Opened, (), None, iter([str(self.path)])),
            "pairs": (Opened, (), None, None, iter([("path", str(self.path))])),
        }[self.way]


class Opened(dict[str, str]):
    """Makes a file when it is given anything."""

    def __setstate__(self, state: Any) -> None:
        open(state, "w").close()

    append = extend = __setstate__

    def __setitem__(self, key: str, value: str) -> None:
        open(value, "w").close()


@over("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_unpickled_plain_values_of_any_protocol_are_themselves(protocol: int) -> None:
    assert read(pickle.dumps(PLAIN, protocol)) == PLAIN


@over("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_unpickled_objects_are_records_of_their_names_and_state(protocol: int) -> None:
    content = {
        "args": argparse.Namespace(lr=0.5), "path": pathlib.PurePosixPath("a/b"), "time": datetime.datetime.now(),
        "default": collections.defaultdict(list, a=[1]), "ordered": collections.OrderedDict(b=2), "set": {3},
    }  # fmt: skip
    found = read(pickle.dumps(content, protocol))
    assert all(isinstance(found[key], Record) for key in ("args", "path", "time", "default", "ordered"))
    assert found["default"] == {"a": [1]}
    assert found["ordered"] == {"b": 2}
    if protocol >= 2:
        assert found["args"].name == "argparse.Namespace"
        assert found["args"].state == {"lr": 0.5}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@over("way", ["system", "eval", "copyreg", "setstate", "items", "pairs"])
def test_unpickled_runs_nothing(tmp_path: Path, way: str, protocol: int) -> None:
    trace = tmp_path / "trace"
    assert isinstance(read(pickle.dumps({"evil": Touch(trace, way)}, protocol))["evil"], Record)
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'false'\ntR.",
        b"(S'false'\nios\nsystem\n.",
        b"(cos\nsystem\nS'false'\no.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x05false\x85R.",
        b"cbuiltins\ngetattr\n(cos\nfile\nS'system'\ntR(S'false'\ntR.",
        b"cos\nsystem\n(S'false'\nt\x81.",
    ],
)
def test_unpickled_calls_written_by_hand_are_records(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "system", lambda _: pytest.fail("it ran"))
    assert isinstance(read(content), Record)


def test_unpickled_class_is_its_name() -> None:
    found = read(pickle.dumps(argparse.Namespace))
    assert isinstance(found, Name)
    assert found.path == "argparse.Namespace"


@over(
    "content",
    [
        b"", b".", b"\x80\x04", b"\x80\x02R.", b"\x80\x02}K\x01s.", b"\x80\x02K\x01K\x02a.", b"\x80\x02h\x05.",
        b"\x80\x02\x82\x01.", b"\x80\x05\x97.", b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fab.", b"\x80\x02t.",
    ],
)  # fmt: skip
def test_unpickled_what_is_no_pickle_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(content)


def test_unpickled_deep_keys_do_not_end_the_process() -> None:
    deep = b"\x80\x02})" + b"\x85" * 200_000 + b"K\x01s."  # hashed by recursion, this key would
    assert len(read(deep).pairs) == 1
