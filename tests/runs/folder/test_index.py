"""The lines of an index: what is written, what is read again, and the table that they become."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from cnnviz_fast.errors import InputError, OptionError, WriteError
from cnnviz_fast.runs.folder.index import files_of, image_lines, index_to_parquet, read_finished, read_line

HOSTILE = ["\udcff/a\nb.png", "\0", "../../up.png", "é😀", 'q"\\ud800', "\u2028", "a" * 5000, ""]


def finished_in(content: bytes) -> list[str]:
    return [finished.lines[0]["key"] for finished in read_finished(io.BytesIO(content))]


@pytest.mark.parametrize("key", HOSTILE, ids=range(len(HOSTILE)))
def test_lines_of_any_key_are_ascii_and_read_as_they_were(key: str) -> None:
    lines = image_lines(key, key, [{"image": key}, {"image": key, "max": 1.5, "of": [key, None]}])
    assert lines.isascii()
    assert lines.count(b"\n") == 2
    (finished,) = read_finished(io.BytesIO(lines))
    assert (finished.start, finished.end) == (0, len(lines))
    assert finished.lines == [
        {"key": key, "stem": key, "part": [0, 2], "image": key},
        {"key": key, "stem": key, "part": [1, 2], "image": key, "max": 1.5, "of": [key, None]},
    ]
    assert finished.lines == [json.loads(line) for line in lines.splitlines()]


def test_lines_not_finite_numbers_become_null() -> None:
    lines = image_lines("k", "s", [{"max": float("nan"), "of": {"min": [float("-inf"), 1.0]}}])
    assert json.loads(lines, parse_constant=pytest.fail)["of"] == {"min": [None, 1.0]}
    assert read_line(lines)["max"] is None


def test_lines_without_rows_are_one() -> None:
    assert json.loads(image_lines("k", "s", [])) == {"key": "k", "stem": "s", "part": [0, 1]}


@pytest.mark.parametrize("name", ["key", "stem", "part"])
def test_lines_refuse_fields_of_the_index(name: str) -> None:
    with pytest.raises(InputError, match=rf"rows must not have a field '{name}', which is the index's own"):
        image_lines("k", "s", [{name: 1}])


@pytest.mark.parametrize("raw", [
    b"", b"\n", b"\0\0\0\n", b"{}\n", b"[]\n", b"7\n", b'{"key": "k", "stem": "s", "part": [0, 1]}', b"\xff\n",
    b'{"key": 1, "stem": "s", "part": [0, 1]}\n', b'{"key": "k", "part": [0, 1]}\n', b"[" * 100_000 + b"\n",
    b'{"key": "k", "stem": "s", "part": [1, 1]}\n', b'{"key": "k", "stem": "s", "part": [-1, 1]}\n',
    b'{"key": "k", "stem": "s", "part": [0]}\n', b'{"key": "k", "stem": "s", "part": [0.0, 1]}\n',
])  # fmt: skip
def test_read_line_damaged_is_none(raw: bytes) -> None:
    assert read_line(raw) is None


def test_read_finished_stops_where_lines_do_not_belong_together() -> None:
    a, b, c = (image_lines(key, key, [{}, {}, {}]) for key in "abc")
    first, second, third = b.splitlines(keepends=True)
    assert finished_in(a + b + c) == ["a", "b", "c"]
    for damaged in (
        first + third, second + third, first + second, first + first + second + third, first + b"\0\n" + second + third,
        first + a.splitlines(keepends=True)[1] + third, first + second.replace(b"[1, 3]", b"[1, 2]") + third,
        first + second.replace(b'"stem": "b"', b'"stem": "x"') + third, b[:-1], b[1:],
    ):  # fmt: skip
        assert finished_in(a + damaged + c) == ["a"]


def test_files_of_are_those_of_a_rank_in_order(tmp_path: Path) -> None:
    names = ["index.jsonl", "index-0-of-2.jsonl", "index-1-of-2.jsonl", "index-9-of-12.jsonl", "index-10-of-12.jsonl"]
    for name in [*names, "failed.jsonl", "index-x-of-2.jsonl", "index.jsonl.part", "xindex.jsonl", "index-².jsonl"]:
        (tmp_path / name).touch()
    assert [path.name for path, _, _ in files_of(tmp_path, "index")] == names
    assert files_of(tmp_path, "index")[3][1:] == (9, 12)
    assert [path.name for path, _, _ in files_of(tmp_path, "failed")] == ["failed.jsonl"]


def test_index_to_parquet_holds_finished_images_of_all_ranks_once(tmp_path: Path) -> None:
    from pyarrow import parquet

    many = [image_lines(f"k{i}", f"s{i}", [{"layer": "a", "max": i}]) for i in range(5000)]
    (tmp_path / "index-0-of-2.jsonl").write_bytes(b"".join(many))
    odd = image_lines("\udcff\\ud800", "s", [{"layer": "a", "max": 0.5, "of": ["\udcff"]}, {"layer": "b", "max": None}])
    torn = image_lines("torn", "s", [{"layer": "a"}, {"layer": "b"}])[:-1]
    (tmp_path / "index-1-of-2.jsonl").write_bytes(many[7] + odd + torn)
    path = index_to_parquet(tmp_path)
    assert path == tmp_path / "index.parquet"
    rows = parquet.read_table(path).to_pylist()
    assert [row["key"] for row in rows] == [*(f"k{i}" for i in range(5000)), "\\udcff\\ud800", "\\udcff\\ud800"]
    assert [row["max"] for row in rows] == [*map(float, range(5000)), 0.5, None]
    assert [row["of"] for row in rows[-2:]] == [["\\udcff"], None]
    assert [row["part"] for row in rows[-2:]] == [[0, 2], [1, 2]]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["index-0-of-2.jsonl", "index-1-of-2.jsonl", path.name]


def test_index_to_parquet_of_nothing_is_an_empty_table(tmp_path: Path) -> None:
    from pyarrow import parquet

    table = parquet.read_table(index_to_parquet(tmp_path))
    assert (table.num_rows, table.column_names) == (0, ["key", "stem", "part"])


def test_index_to_parquet_mixed_kinds_are_a_write_error(tmp_path: Path) -> None:
    for first in ([{"max": 1}], [{"max": 1}] * 5000):  # within a batch and across
        (tmp_path / "index.jsonl").write_bytes(image_lines("a", "a", first) + image_lines("b", "b", [{"max": "x"}]))
        with pytest.raises(WriteError, match=r"cannot write .*index\.parquet: .+\."):
            index_to_parquet(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["index.jsonl"]


def test_index_to_parquet_without_pyarrow_says_how_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        OptionError, match=r'Parquet tables need the package pyarrow.*pip install "cnnviz_fast\[parquet\]"'
    ):
        index_to_parquet(tmp_path)
