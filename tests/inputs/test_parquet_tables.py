"""Parquet lists: which column, paths and images in it, and reading rows in any order."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from support.shards import greys, png

from cnnviz_fast.errors import ImageError
from cnnviz_fast.inputs import parquet_tables as tables
from cnnviz_fast.inputs.in_memory import Encoded, decode_image
from cnnviz_fast.inputs.sources import list_images


def write_table(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def test_table_of_paths_is_a_list_relative_to_its_folder(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", {"path": ["a.png", "./b/c.png", "/x/d.png"], "label": ["1", "2", "3"]})
    catalogue = list_images(path)
    assert list(catalogue.keys()) == [f"{tmp_path}/a.png", f"{tmp_path}/b/c.png", "/x/d.png"]
    assert catalogue[0].open() == tmp_path / "a.png"


@pytest.mark.parametrize("columns", [
    {"image": ["a.png"], "path": ["b.png"]},
    {"filename": ["a.png"], "file": ["b.png"]},
    {"name_of_it": ["a.png"], "label": [3]},
    {"path": [3], "where": ["a.png"]},
    {"path": pyarrow.array(["a.png"]).dictionary_encode()},
    {"path": pyarrow.array(["a.png"], pyarrow.large_string())},
])  # fmt: skip
def test_table_column_is_picked_by_name_or_because_it_is_the_only_one(columns: dict[str, Any], tmp_path: Path) -> None:
    assert list(list_images(write_table(tmp_path / "t.parquet", columns)).keys()) == [f"{tmp_path}/a.png"]


@pytest.mark.parametrize("columns", [{"one": ["a"], "two": ["b"]}, {"label": [1]}, {"image": [[1, 2]]}])
def test_table_without_a_column_that_fits_names_those_it_has(columns: dict[str, Any], tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", columns)
    with pytest.raises(
        ImageError, match=r"must have a column named image, path, filename or file, or .* got " + ", ".join(columns)
    ):
        list_images(path)


@pytest.mark.parametrize("form", ["binary", "large", "struct"])
def test_table_of_images_is_read_row_by_row(form: str, tmp_path: Path) -> None:
    values: Any = [png(i) for i in range(50)]
    if form == "struct":
        values = [{"bytes": value, "path": f"{i}.png"} for i, value in enumerate(values)]
    if form == "large":
        values = pyarrow.array(values, pyarrow.large_binary())
    path = write_table(tmp_path / "t.parquet", {"image": values, "path": ["x"] * 50}, row_group_size=20)
    catalogue = list_images(path)
    assert list(catalogue.keys()) == [f"{path}/{row}" for row in range(50)]
    assert greys(catalogue) == list(range(50))
    order = [49, 3, 2, 40, 19, 20, 0, 17, 16, 15, 48]
    assert greys(catalogue[row] for row in order) == order
    assert catalogue[7].open() == Encoded(f"{path}/7", png(7))


def test_table_reading_forwards_opens_the_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table(tmp_path / "t.parquet", {"image": [png(i) for i in range(40)]}, row_group_size=16)
    catalogue = list_images(path)
    made = []
    monkeypatch.setattr(tables, "_Reader", lambda table, kind=tables._Reader: made.append(table) or kind(table))
    assert greys(catalogue) == list(range(40))
    assert len(made) == 1
    monkeypatch.setattr("os.getpid", lambda: -1)  # as after a fork
    assert greys(catalogue[5:6]) == [5]
    assert len(made) == 2


def test_table_rows_that_hold_no_image_fail_alone(tmp_path: Path) -> None:
    struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    rows = [{"bytes": png(4), "path": None}, {"bytes": None, "path": "b.png"}, {"bytes": None, "path": None}, None]
    path = write_table(tmp_path / "t.parquet", {"image": pyarrow.array(rows, struct)})
    catalogue = list_images(path)
    (tmp_path / "b.png").write_bytes(png(5))
    assert greys(catalogue[:2]) == [4, 5]
    for image in catalogue[2:]:
        with pytest.raises(
            ImageError, match=r"t\.parquet/[23]' must be a path or a file's bytes, but the row is empty"
        ):
            image.open()
    texts = list_images(write_table(tmp_path / "p.parquet", {"path": ["a.png", None, ""]}))
    assert [image.key for image in texts] == [f"{tmp_path}/a.png", f"{tmp_path}/p.parquet/1", f"{tmp_path}/p.parquet/2"]
    for image in texts[1:]:
        with pytest.raises(ImageError, match="the row is empty"):
            image.open()


def test_table_damaged_is_an_error_alone_and_a_failure_among_others(tmp_path: Path) -> None:
    good = write_table(tmp_path / "good.parquet", {"image": [png(1)]})
    bad, empty = (
        tmp_path / "bad.parquet",
        write_table(tmp_path / "empty.parquet", {"path": pyarrow.array([], "string")}),
    )
    bad.write_bytes(good.read_bytes()[:-20])
    with pytest.raises(ImageError, match=r"table '.*bad\.parquet' is damaged: "):
        list_images(bad)
    with pytest.raises(ImageError, match=r"table '.*empty\.parquet' holds no rows"):
        list_images(empty)
    catalogue = list_images([bad, empty, good])
    assert greys(catalogue) == [1]
    assert [failure.name for failure in catalogue.failures] == [str(bad), str(empty)]


def test_table_gone_after_listing_is_an_error_of_the_image(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.parquet", {"image": [png(1), b"no image"]})
    first, second = list_images(path)
    with pytest.raises(ImageError, match=r"image '.*t\.parquet/1' must be one of PNG"):
        decode_image(second.open())
    path.unlink()
    sent = pickle.loads(pickle.dumps(first))
    tables._open.owner = None
    with pytest.raises(ImageError, match=r"image '.*t\.parquet/0' cannot be read: "):
        sent.open()


def test_table_without_pyarrow_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table(tmp_path / "t.parquet", {"path": ["a.png"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet")
    said = r'Parquet lists need the package pyarrow, which is not installed\. .*pip install "cnnviz_fast\[parquet\]"'
    with pytest.raises(ImageError, match=said):
        list_images(path)
