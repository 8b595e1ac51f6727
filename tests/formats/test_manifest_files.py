"""Where manifests lie in a folder of outputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cases import noise

import cnnviz_fast as cf
from cnnviz_fast.errors import WriteError
from cnnviz_fast.formats.manifest_files import manifest_at, manifests_in


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


OTHERS = [b'{"accuracy": 0.9}', b"[1, 2]", b"", b"not JSON", b"[" * 100_000, b'{"cnnviz_fast": "1", "fingerprint": {}}',
          b'{"cnnviz_fast": "1", "save": []}']  # fmt: skip


@pytest.mark.parametrize("content", OTHERS, ids=range(len(OTHERS)))
def test_json_that_is_no_manifest_is_never_replaced(content: bytes, tmp_path: Path) -> None:
    for name in ("results.json", "manifest.json"):
        (tmp_path / name).write_bytes(content)
    sheet = cf.render(noise(2, 3, 3), tile=4)
    for save in (
        lambda: sheet.save(tmp_path / "results.png"),
        lambda: cf.save_sheet(noise(2, 3, 3), tmp_path / "results.png", tile=4),
        lambda: cf.save_tiles(noise(2, 3, 3), tmp_path, tile=4),
    ):
        with pytest.raises(
            WriteError, match=r"^cannot write .*\.json: it is no manifest of this package, and would be"
        ):
            save()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "results.json"]
    assert (tmp_path / "results.json").read_bytes() == (tmp_path / "manifest.json").read_bytes() == content
    sheet.save(tmp_path / "results.png", manifest=False)
    cf.save_sheet(noise(2, 3, 3), tmp_path / "results.jpg", tile=4, manifest=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "manifest.json", "results.jpg", "results.json", "results.png"
    ]  # fmt: skip
    assert (tmp_path / "results.json").read_bytes() == content


def test_manifests_of_older_sheets_are_replaced(tmp_path: Path) -> None:
    older = json.loads((Path(__file__).parent / "older_outputs.json").read_text())
    for name, document in older.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
        assert (manifest_at(path) is None) == (path.name == "run.json"), name
    cf.save_sheet(noise(2, 3, 3), tmp_path / "sheet" / "cat_conv1.png", tile=4)
    for _ in range(2):
        cf.save_tiles(noise(2, 3, 3), tmp_path / "each" / "cat_conv1", tile=4)
