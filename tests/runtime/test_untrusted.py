"""Files and JSON that may be anybody's: what is no regular file, and what is nested without end."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cnnviz_fast.runtime.untrusted import MOST_DEPTH, open_regular, parse_json, read_json, read_regular


def test_open_regular_returns_what_a_file_or_a_link_holds(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    for name in ("file", "link"):
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"content"


def test_open_regular_of_what_never_ends_or_begins_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path, said in (
        (tmp_path / "pipe", "it must be a regular file, but is a pipe"), (tmp_path / "link", "but is a pipe"),
        ("/dev/zero", "but is a device"), (tmp_path, "Is a directory"), (tmp_path / "no", "No such file"),
        ("a\0b", "a path cannot hold a NUL"),
    ):  # fmt: skip
        with pytest.raises(OSError, match=said):
            open_regular(path)


def test_read_regular_larger_than_asked_for_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="it must hold at most 4 bytes, but holds 5"):
        read_regular(tmp_path / "file", 4)


def nested(depth: int) -> bytes:
    return b'[{"a":' * (depth // 2) + b"[" * (depth % 2) + b"1" + b"]" * (depth % 2) + b"}]" * (depth // 2)


@pytest.mark.parametrize("content", [
    b"1", b"[]", b"{}", b'{"a": [1, null, "\\udcff"], "b": {"c": NaN}}', nested(MOST_DEPTH), nested(MOST_DEPTH - 1),
    b"[" + b"[1]," * 5000 + b"{}]", b"[" + b" " * 2**20 + b"1]",
])  # fmt: skip
def test_parse_json_is_that_of_the_standard_library(content: bytes) -> None:
    assert repr(parse_json(content)) == repr(json.loads(content))


@pytest.mark.parametrize("content", [
    b"", b"{", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, nested(MOST_DEPTH + 1), nested(900), nested(100_000),
    b"9" * 5000, b"[" + b"[1]," * 500 + nested(MOST_DEPTH) + b"]",
])  # fmt: skip
def test_parse_json_damaged_or_nested_too_deep_is_a_value_error(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]{1,200}$"):
        parse_json(content)
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        read_json(tmp_path / "file")
