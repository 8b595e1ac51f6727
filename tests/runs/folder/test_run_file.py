"""run.json: written once, compared with every later run, and refused in one line where it is another's or damaged."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import cnnviz_fast as cf
from cnnviz_fast.errors import OptionError
from cnnviz_fast.runs.folder.run_file import OLD_KEYS, agree, fingerprint_in, refuse_others

FINGERPRINT: dict[str, Any] = {"model": "torchvision:resnet18", "layers": ["layer1"], "axes": "auto", "images": "a"}


def test_agree_writes_the_fingerprint_once_with_the_version(tmp_path: Path) -> None:
    agree(tmp_path, FINGERPRINT, None)
    path = tmp_path / "run.json"
    assert json.loads(path.read_text()) == {"cnnviz_fast": cf.__version__, "fingerprint": FINGERPRINT}
    assert fingerprint_in(tmp_path) == FINGERPRINT
    path.write_text(json.dumps({"cnnviz_fast": "0.0.9", "fingerprint": FINGERPRINT}))
    agree(tmp_path, FINGERPRINT, None)
    assert json.loads(path.read_text())["cnnviz_fast"] == "0.0.9"
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_agree_other_settings_are_refused_and_the_file_stays(tmp_path: Path) -> None:
    agree(tmp_path, FINGERPRINT, None)
    before = (tmp_path / "run.json").read_bytes()
    said = f"folder '{tmp_path}' holds a run with other settings: axes: nhwc here, auto there. Give another out."
    with pytest.raises(OptionError, match=f"^{re.escape(said)}$"):
        agree(tmp_path, FINGERPRINT | {"axes": "nhwc"}, None)
    assert (tmp_path / "run.json").read_bytes() == before


def test_agree_index_without_run_file_is_refused_and_nothing_written(tmp_path: Path) -> None:
    (tmp_path / "index-0-of-2.jsonl").touch()
    with pytest.raises(OptionError, match=r"run\.json is missing\. Give another out\.$"):
        agree(tmp_path, FINGERPRINT, 2)
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize(("content", "world_size", "refused"), [
    (b"{}\n", 3, True), (b"{}\n", 2, False), (b"{}\n", None, False), (b"", 3, False),
])  # fmt: skip
def test_agree_number_of_ranks_counts_where_an_index_has_lines(
    content: bytes, world_size: int | None, refused: bool, tmp_path: Path
) -> None:
    agree(tmp_path, FINGERPRINT, 2)
    (tmp_path / "index-1-of-2.jsonl").write_bytes(content)
    if not refused:
        agree(tmp_path, FINGERPRINT, world_size)
        return
    with pytest.raises(OptionError, match=r"by as many processes as began it, 2, got 3\. Start all of them, "):
        agree(tmp_path, FINGERPRINT, world_size)


def test_fingerprint_in_a_folder_without_a_run_is_none(tmp_path: Path) -> None:
    assert fingerprint_in(tmp_path) is None
    assert fingerprint_in(tmp_path / "missing") is None


@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b"3", b'{"fingerprint": 3}', b'{"fingerprint": null}'])
def test_fingerprint_in_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(
        OptionError, match=r"^folder '.*' holds a damaged run\.json: .+\. Give another folder\.$"
    ) as caught:
        fingerprint_in(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("old", OLD_KEYS)
def test_refuse_others_older_key_says_what_it_is_called_now(old: str, tmp_path: Path) -> None:
    there = {old if name == OLD_KEYS[old] else name: value for name, value in FINGERPRINT.items()}
    said = rf"whose run\.json has '{old}' where runs now have '{OLD_KEYS[old]}'\. Give another out\.$"
    with pytest.raises(OptionError, match=said):
        refuse_others(tmp_path, FINGERPRINT, there)
    refuse_others(tmp_path, FINGERPRINT, dict(FINGERPRINT))
