"""Where manifests lie in a folder of outputs."""

from __future__ import annotations

from pathlib import Path

from support.cases import noise

import cnnviz_fast as cf
from cnnviz_fast.formats.manifest_files import manifests_in


def test_manifests_in_finds_those_of_sheets_and_of_folders(tmp_path: Path) -> None:
    cf.save_sheet(noise(2, 3, 3), tmp_path / "b.png", tile=4)
    cf.save_sheet(noise(2, 3, 3), tmp_path / "a.x.jpg", tile=4)
    cf.save_tiles(noise(2, 3, 3), tmp_path / "tiles", tile=4)
    (tmp_path / "alone.json").touch()
    (tmp_path / "alone.txt").touch()
    found = sorted(manifests_in(tmp_path))
    assert found == [
        ("a.x", tmp_path / "a.x.json"),
        ("b", tmp_path / "b.json"),
        ("tiles", tmp_path / "tiles" / "manifest.json"),
    ]
    assert all(path.is_file() for _, path in found)


def test_manifests_in_a_folder_that_is_not_there_are_none(tmp_path: Path) -> None:
    assert list(manifests_in(tmp_path / "missing")) == []
    (tmp_path / "a_file").touch()
    assert list(manifests_in(tmp_path / "a_file")) == []
