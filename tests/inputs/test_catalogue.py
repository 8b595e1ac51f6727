"""The catalogue: columns in little memory, items that travel, keys that are there once."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest

from cnnviz_fast.inputs import catalogue as module
from cnnviz_fast.inputs.catalogue import Catalogue, Files, InMemoryImage, ListedImage, normalised
from cnnviz_fast.inputs.sources import list_images
from cnnviz_fast.runtime.compact import Texts


def of_files(*paths: str) -> Catalogue:
    catalogue, files = Catalogue(), Files()
    for path in paths:
        catalogue.add(files, path)
    return catalogue


def test_texts_give_back_any_string() -> None:
    strings = ["", "cat", "é😀", "\ud800\udcff", "a\0b\n", ""]
    texts = Texts(strings)
    assert list(texts) == [texts[i] for i in range(6)] == strings
    assert texts[-3] == "\ud800\udcff"
    assert texts[1:6:2] == strings[1:6:2]
    with pytest.raises(IndexError):
        texts[6]


def test_catalogue_is_a_sequence_of_images() -> None:
    catalogue = of_files("a.png", "b/c.png", "d.png")
    assert len(catalogue) == 3
    assert [image.key for image in catalogue] == ["a.png", "b/c.png", "d.png"] == list(catalogue.keys())
    assert catalogue[-1] == ListedImage("d.png", Files())
    assert catalogue[1].open() == Path("b/c.png")
    assert catalogue.keys()[1] == catalogue.key(1) == "b/c.png"
    for index in (3, -4):
        with pytest.raises(IndexError):
            catalogue[index]


def test_catalogue_slice_shares_the_images() -> None:
    catalogue = of_files(*(f"{i}.png" for i in range(10)))
    catalogue.repeats = 3
    part = catalogue[1::4]
    assert [image.key for image in part] == list(part.keys()) == ["1.png", "5.png", "9.png"]
    assert [image.key for image in part[1:]] == ["5.png", "9.png"]
    assert list(catalogue.keys()[8:]) == ["8.png", "9.png"]
    assert part.repeats == 3
    assert len(catalogue) == 10


def test_drop_repeats_keeps_the_first_of_each_key() -> None:
    catalogue = of_files("a", "b", "a", "c", "b", "a")
    catalogue.drop_repeats()
    assert [image.key for image in catalogue] == list(catalogue.keys()) == ["a", "b", "c"]
    assert catalogue.repeats == 3
    assert [image.key for image in catalogue[::2]] == list(catalogue[::2].keys()) == ["a", "c"]
    assert list(pickle.loads(pickle.dumps(catalogue)).keys()) == ["a", "b", "c"]


def test_drop_repeats_of_equal_hashes_compares_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnviz_fast.inputs.catalogue.hash", lambda key: 7, raising=False)
    catalogue = of_files("a", "b", "a", "c")
    catalogue.drop_repeats()
    assert list(catalogue.keys()) == ["a", "b", "c"]
    assert catalogue.repeats == 1


def test_listed_images_can_be_sent_and_stay_small() -> None:
    catalogue = of_files(*(f"{i}.png" for i in range(1000)))
    sent = pickle.loads(pickle.dumps(catalogue[7]))
    assert sent == catalogue[7]
    assert len(pickle.dumps(catalogue[7])) < 300
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    held = pickle.loads(pickle.dumps(ListedImage("<memory>/image0", InMemoryImage(image))))
    assert np.array_equal(held.open(), image)
    assert held.name == "image0"


@pytest.mark.parametrize(("key", "name"), [
    ("b/é 😀.png", "b/é 😀.png"),
    ("a\nb\x1b[0m.png", r"a\nb\x1b[0m.png"),
    ("\udcff.png", r"\udcff.png"),
])  # fmt: skip
def test_listed_image_name_can_always_be_printed(key: str, name: str) -> None:
    assert ListedImage(key, Files()).name == name
    name.encode()


@pytest.mark.parametrize(("path", "key"), [
    ("./a//b/./c.png", "a/b/c.png"),
    ("a/../b.png", "a/../b.png"),
    ("/a/b.png/", "/a/b.png"),
    ("a/.", "a"),
    ("a.b/c..png", "a.b/c..png"),
])  # fmt: skip
def test_normalised_drops_what_says_nothing(path: str, key: str) -> None:
    assert normalised(path) == key


@pytest.mark.parametrize(("path", "key"), [
    ("photos\\cat.png", "photos/cat.png"),
    (".\\cat.png", "cat.png"),
    ("C:\\photos\\.\\cat.png", "C:/photos/cat.png"),
    ("C:cat.png", "C:cat.png"),
    ("\\\\server\\share\\cat.png", "//server/share/cat.png"),
    ("..\\cat.png", "../cat.png"),
])  # fmt: skip
def test_normalised_joins_the_parts_of_paths_of_windows(path: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sep", "\\")
    monkeypatch.setattr(module, "Path", PureWindowsPath)
    assert normalised(path) == key


def test_catalogue_of_50_000_takes_28_bytes_beside_each_text(tmp_path: Path) -> None:
    lines = [f"/data/train/n{i % 1000:08d}/n{i % 1000:08d}_{i}.JPEG" for i in range(50_000)]
    (tmp_path / "all.txt").write_text("\n".join(lines))
    catalogue = list_images(tmp_path / "all.txt")
    assert list(catalogue.keys()) == lines
    text = sum(map(len, lines))
    assert 28 * len(lines) + text <= sys.getsizeof(catalogue) < 1.15 * (28 * len(lines) + text)  # room to grow
