"""Classes of images: from the folders that they lie in, and from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cnnviz_fast.errors import OptionError
from cnnviz_fast.runs.labels import read_labels


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("photos/cat/1.jpg", "cat"),
        ("a.tar/train/dog/1.jpg", "dog"),
        ("1.jpg", None),
        ("a.tar/1.jpg", None),
        ("a.parquet/7", None),
        ("<memory>/image0", None),
    ],
)
def test_class_folder_is_the_one_that_an_image_lies_in(key: str, expected: str | None) -> None:
    assert read_labels("folders").of(key) == expected


FILES = {
    "a.csv": "in/1.jpg,cat\n\n 2.jpg , dog \n",
    "b.csv": "\ufeffclass,size,image\ncat,3,in/1.jpg\ndog,4,2.jpg\n",
    "c.tsv": "in/1.jpg\tcat\n2.jpg\tdog\n",
    "d.json": json.dumps({"in/1.jpg": "cat", "./2.jpg": "dog"}),
    "e.json": json.dumps([{"image": "in/1.jpg", "class": "cat"}, {"image": "2.jpg", "class": "dog"}]),
    "f.csv": '"in/1.jpg","cat"\n"2.jpg","dog"\n',
}


@pytest.mark.parametrize("name", FILES)
def test_file_names_images_by_any_end_of_their_path(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name])
    labels = read_labels(str(tmp_path / name))
    assert [labels.of(key) for key in ("in/1.jpg", "/photos/in/1.jpg", "x/2.jpg", "1.jpg", "other/1.jpg")] == [
        "cat", "cat", "dog", None, None,
    ]  # fmt: skip


def test_longest_end_counts(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("1.jpg,short\nin/1.jpg,long\n")
    assert read_labels(str(tmp_path / "a.csv")).of("/photos/in/1.jpg") == "long"


def test_whole_path_is_one_however_the_images_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_text(f"{tmp_path}/in/1.jpg,cat\n")
    monkeypatch.chdir(tmp_path)
    assert [read_labels("a.csv").of(key) for key in ("in/1.jpg", f"{tmp_path}/in/1.jpg", "1.jpg")] == [
        "cat",
        "cat",
        None,
    ]


def test_numbers_may_be_classes(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"1.jpg": 0}')
    assert read_labels(str(tmp_path / "a.json")).of("1.jpg") == "0"


def test_digest_is_of_the_content(tmp_path: Path) -> None:
    for name, content in (("a.csv", "1.jpg,x\n"), ("b.csv", "1.jpg,x\n"), ("c.csv", "1.jpg,y\n")):
        (tmp_path / name).write_text(content)
    a, b, c = (read_labels(str(tmp_path / f"{name}.csv")).digest for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "1.jpg,x", r"labels must be 'folders' or a \.csv, \.tsv or \.json file, got "),
        ("a.csv", "1.jpg,x\n2.jpg\n", r"cannot be read: line 2 must name an image and its class\.$"),
        ("a.csv", "1.jpg,x\n./1.jpg,y\n", r"cannot be read: it has two classes for '\./1\.jpg', 'x' and 'y'\.$"),
        ("a.csv", b"\xff\xfe\xfa", r"cannot be read: "),
        ("a.json", "3", r"cannot be read: it must be an object or a list\.$"),
        ("a.json", '{"1.jpg": null}', r"cannot be read: entry 1 must be an image and its class\.$"),
        ("a.json", '["1.jpg"]', r"cannot be read: entry 1 must be an image and its class\.$"),
        ("a.json", "{", r"cannot be read: "),
        ("a.tsv", None, r"cannot be read: No such file"),
    ],
)
def test_file_that_is_no_labels_is_refused(
    name: str, content: str | bytes | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(OptionError, match=message):
        read_labels(str(tmp_path / name))
