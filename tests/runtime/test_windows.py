"""What Windows does otherwise, as far as it can be told on another system."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from support import pretended_windows
from support.processes import Python

from cnnviz_fast.errors import WriteError
from cnnviz_fast.runtime import windows
from cnnviz_fast.runtime.files import make_folder, whole_file
from cnnviz_fast.runtime.windows import advice_on, fault_of, replace_patiently


@pytest.mark.parametrize(("path", "fault"), [
    ("NUL", "Windows has a device of the name 'NUL'"),
    ("out/con.png", "Windows has a device of the name 'con.png'"),
    ("C:\\out\\com1.tar.gz", "Windows has a device of the name 'com1.tar.gz'"),
    ("aux/cat.png", "Windows has a device of the name 'aux'"),
    ("cat:b.png", "Windows takes no ':' in a name"),
    ("C:/out/a:b.png", "Windows takes no ':' in a name"),
    ("what?.png", "Windows takes no '?' in a name"),
    ("a<b.png", "Windows takes no '<' in a name"),
    ("a\tb.png", "Windows takes no '\\t' in a name"),
    ("out./cat.png", "Windows drops the end of the name 'out.'"),
    ("out/cat ", "Windows drops the end of the name 'cat '"),
])  # fmt: skip
def test_fault_of_a_name_that_windows_takes_for_something_else(path: str, fault: str) -> None:
    assert fault_of(path) == fault


@pytest.mark.parametrize("path", [
    "cat.png", "C:\\out\\cat.png", "C:/out/cat.png", "C:cat.png", "\\\\server\\share\\cat.png", "../out/./cat.png",
    "..", "\\\\?\\C:\\out\\cat.png", "console/com10/nullable.png", "-con.png", "café 漢字.png", "",
])  # fmt: skip
def test_fault_of_other_names_is_none(path: str) -> None:
    assert fault_of(path) == ""


def test_names_that_windows_lacks_are_refused_there_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = tmp_path / "a:b.png"
    with whole_file(stream) as file:
        file.write(b"x")
    make_folder(tmp_path / "nul")
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(WriteError, match=r"a:b\.png: Windows takes no ':' in a name\."), whole_file(stream):
        pass
    with pytest.raises(WriteError, match="has a device of the name 'nul'"):
        make_folder(tmp_path / "nul")


def test_advice_on_windows_names_long_paths_and_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, home = tmp_path / "there.png", str(tmp_path)
    there.write_bytes(b"")
    long, short = (Path(home, "a" * (number - len(home) - 1)) for number in (245, 244))
    assert advice_on(long, FileNotFoundError()) == advice_on(there, PermissionError()) == ""
    monkeypatch.setattr(sys, "platform", "win32")
    told = " Its path has 245 characters, of 244 that go without LongPathsEnabled of Windows."
    assert advice_on(long, FileNotFoundError()) == told
    assert advice_on(short, FileNotFoundError()) == ""
    assert advice_on(there, FileNotFoundError()) == advice_on(tmp_path, PermissionError()) == ""
    with pytest.raises(WriteError, match="Another program may have it open"), whole_file(there):
        raise PermissionError(13, "Permission denied")


def test_unfinished_file_is_as_long_as_windows_has_room_for(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with whole_file(path) as file:
        assert len(file.name) == len(str(path)) + 259 - windows._LONGEST_PATH


def test_replace_patiently_waits_on_windows_for_who_has_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "new", tmp_path / "old"
    source.write_bytes(b"new")
    refusals = [PermissionError(), PermissionError()]
    replace = os.replace

    def held(*paths: Path) -> None:
        if refusals:
            raise refusals.pop()
        replace(*paths)

    monkeypatch.setattr(os, "replace", held)
    with pytest.raises(PermissionError):
        replace_patiently(source, target)
    monkeypatch.setattr(sys, "platform", "win32")
    replace_patiently(source, target)
    assert target.read_bytes() == b"new"
    refusals += [PermissionError()] * 1000
    monkeypatch.setattr(windows, "_PATIENCE_S", 0.02)
    with pytest.raises(PermissionError):
        replace_patiently(source, target)
    assert 1 < len(refusals) < 1000


def test_package_does_without_what_windows_lacks(tmp_path: Path) -> None:
    with Python("-m", pretended_windows.__name__, str(tmp_path)) as process:
        assert process.end(300) == 0, process.said
    for made in ("sheets", "tiles", "run", "atlases", "patches"):
        assert list((tmp_path / made).rglob("*.png")), made
    assert (tmp_path / "page.html").stat().st_size > 0
