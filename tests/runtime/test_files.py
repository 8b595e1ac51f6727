"""Files appear whole or not at all; what killed processes leave is swept away."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.native_module import load_native

from cnnviz_fast.errors import CnnvizError, WriteError
from cnnviz_fast.runtime import files
from cnnviz_fast.runtime.files import json_bytes, make_folder, sweep, whole_file


def fail_after(data: bytes, error: BaseException, path: Path) -> None:
    with whole_file(path) as file:
        file.write(data)
        file.flush()
        raise error


def test_whole_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    with whole_file(path) as file:
        file.write(b"new")
        assert not path.exists()
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.startswith(".sheet.png.")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_whole_file_replaces_an_older_one_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    path.write_bytes(b"old")
    with whole_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("error", [ValueError("planted"), KeyboardInterrupt(), SystemExit(3), MemoryError()])
@pytest.mark.parametrize("old", [None, b"old"])
def test_whole_file_failure_leaves_what_was_there(old: bytes | None, error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    if old:
        path.write_bytes(old)
    with pytest.raises(type(error)) as caught:
        fail_after(b"half", error, path)
    assert caught.value is error
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([old] if old else [])


def test_whole_file_system_error_is_a_write_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    cause = OSError(28, "No space left on device")
    with pytest.raises(WriteError) as caught:
        fail_after(b"half", cause, path)
    assert str(caught.value) == f"cannot write {path}: No space left on device."
    assert caught.value.__cause__ is cause
    assert isinstance(caught.value, CnnvizError)
    assert list(tmp_path.iterdir()) == []


def test_whole_file_missing_folder_is_a_write_error(tmp_path: Path) -> None:
    with (
        pytest.raises(WriteError, match=r"sheet\.png: No such file or directory\.$"),
        whole_file(tmp_path / "missing" / "sheet.png"),
    ):
        pass


def test_whole_file_parent_that_is_a_file_is_a_write_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(WriteError, match=r"sheet\.png: Not a directory\.$"),
        whole_file(tmp_path / "file" / "sheet.png"),
    ):
        pass


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write into every folder")
def test_whole_file_forbidden_folder_is_a_write_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(WriteError, match=r"Permission denied\.$"), whole_file(tmp_path / "sheet.png"):
        pass


def test_whole_file_folder_of_that_name_is_a_write_error(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    path.mkdir()
    with pytest.raises(WriteError, match=r"sheet\.png: Is a directory\.$"):
        fail_at_the_end(path)
    assert list(tmp_path.iterdir()) == [path]


def fail_at_the_end(path: Path) -> None:
    with whole_file(path) as file:
        file.write(b"new")


@pytest.mark.parametrize("character", ["a", "\u5c64", "\U0001f408"], ids=["1-byte", "3-byte", "4-byte"])
def test_whole_file_longest_names_are_written(character: str, tmp_path: Path) -> None:
    name = character * (251 // len(os.fsencode(character))) + ".png"
    assert len(os.fsencode(name)) > 250
    fail_at_the_end(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


def test_whole_file_in_place_of_a_link_leaves_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"target")
    path = tmp_path / "sheet.png"
    path.symlink_to("target")
    fail_at_the_end(path)
    assert not path.is_symlink()
    assert (path.read_bytes(), (tmp_path / "target").read_bytes()) == (b"new", b"target")
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "target"]


def test_whole_file_in_place_of_another_name_of_a_file_leaves_that_file(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"other")
    path = tmp_path / "sheet.png"
    path.hardlink_to(tmp_path / "other")
    fail_at_the_end(path)
    assert (path.read_bytes(), (tmp_path / "other").read_bytes()) == (b"new", b"other")


@pytest.mark.parametrize("has_native", [True, False])
def test_whole_file_readers_see_the_older_file_or_the_newer_one(
    has_native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_native:
        load_native()
    else:
        monkeypatch.setattr(files, "native", lambda: (None, "not built"))
    path = tmp_path / "sheet.png"
    written = [bytes([i]) * 5000 for i in range(60)]
    path.write_bytes(written[0])
    done = threading.Event()

    def read() -> set[bytes]:
        seen = set()
        while not done.is_set():
            seen.add(path.read_bytes())
        return seen

    with ThreadPoolExecutor(1) as reader:
        seen = reader.submit(read)
        for content in written:
            with whole_file(path) as file:
                file.write(content)
        done.set()
    assert seen.result() <= set(written)
    assert path.read_bytes() == written[-1]
    assert os.listdir(tmp_path) == ["sheet.png"]


def test_whole_file_two_writers_of_one_name_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    with whole_file(path) as first, whole_file(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_whole_file_is_readable_by_others_as_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "usual").write_bytes(b"")
    fail_at_the_end(tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_make_folder_makes_what_leads_to_it(tmp_path: Path) -> None:
    for _ in range(2):
        make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_make_folder_where_something_else_is_says_so(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out"
    path.write_text("") if kind == "file" else path.symlink_to("nowhere")
    with pytest.raises(WriteError, match=r"out: it is there and is no folder\.$"):
        make_folder(path)


def test_make_folder_below_a_file_is_a_write_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "a", tmp_path / "file"):
        with pytest.raises(WriteError, match=rf"^cannot write {path}: "):
            make_folder(path)


@pytest.mark.skipif(os.name != "posix", reason="needs names that hold any character")
def test_whole_file_error_is_one_line_whatever_the_file_is_called(tmp_path: Path) -> None:
    for name in ("a\nb", "a\x1b[31m", os.fsdecode(b"caf\xe9")):
        with pytest.raises(WriteError) as caught:
            fail_at_the_end(tmp_path / name / "sheet.png")
        assert str(caught.value).isprintable()


def test_sweep_removes_old_parts_below_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    parts = [tmp_path / "a" / ".x.png.0123abcd.part", tmp_path / "a" / "b" / ".y.0123abcd.part"]
    parts += [tmp_path / "a" / ".cnnviz-4711-0-12.tmp", tmp_path / "a" / ".a\nb.0123abcd.part"]  # the first is native
    kept = (
        "x.png",
        ".x.png.part",
        "x.0123abcd.part",
        ".x.0123abcg.part",
        ".lock",
        ".cnnviz-1-2.tmp",
        "cnnviz-1-2-3.tmp",
    )
    others = [tmp_path / name for name in kept]
    young = tmp_path / ".young.png.0123abcd.part"
    for path in (*parts, *others, young):
        path.touch()
    for path in (*parts, *others):
        os.utime(path, (0, 0))
    sweep(tmp_path, 3600)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted([*others, young])
    sweep(tmp_path, 0)
    assert not young.exists()


def test_json_bytes_number_that_is_not_finite_becomes_null() -> None:
    packed = json_bytes({"a": [1.5, float("nan"), float("inf")], "b": None, "c": "\u00e9"})
    assert json.loads(packed, parse_constant=pytest.fail) == {"a": [1.5, None, None], "b": None, "c": "\u00e9"}


def test_json_bytes_name_that_is_not_utf_8_is_kept() -> None:
    document = {"image": os.fsdecode(b"caf\xe9.png"), "max": [float("nan"), 1.5], "é": "\u00e9"}
    packed = json_bytes(document)
    assert packed.isascii()
    assert json.loads(packed, parse_constant=pytest.fail) == document | {"max": [None, 1.5]}


@pytest.mark.parametrize("name", ["a\0.png", "\ud800.png", "a\0b/sheet.png"])
def test_paths_that_no_file_can_have_are_write_errors(name: str, tmp_path: Path) -> None:
    for write in (fail_at_the_end, make_folder):
        with pytest.raises(WriteError, match=r"^cannot write .*: ('utf-8' codec can't encode|a path cannot hold the)"):
            write(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_whole_file_without_a_name_is_a_write_error() -> None:
    with pytest.raises(WriteError, match=r"^cannot write \.: it names no file\.$"):
        fail_at_the_end(Path())
