"""A folder that is removed, renamed or replaced while a run writes into it: an error at the next write."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.quick import in_turns
from support.runs import COUNT, LAYERS, QUICK, assert_same_outcome, small_model

import cnnviz_fast as cf
from cnnviz_fast.errors import WriteError

SAVE = {"save": "sheets,atlases,statistics", **QUICK}


def linked_elsewhere(folder: Path) -> None:
    folder.rename(folder.with_name("kept"))
    folder.with_name("elsewhere").mkdir()
    folder.symlink_to("elsewhere")


def linked_to_itself(folder: Path) -> None:
    folder.rename(folder.with_name("kept"))
    folder.symlink_to("kept")


MOVES: dict[str, Callable[[Path], object]] = {
    "removed": shutil.rmtree,
    "renamed": lambda folder: folder.rename(folder.with_name("kept")),
    "made anew": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    "another one": lambda folder: (folder.rename(folder.with_name("kept")), folder.mkdir()),
    "a copy": lambda folder: shutil.copytree(folder.rename(folder.with_name("kept")), folder),
    "a link elsewhere": linked_elsewhere,
    "a link to itself": linked_to_itself,
}


def once(act: Callable[[], object], at: int) -> Callable[[Path], None]:
    """Return an `on_file` that acts at the file of a number."""
    told: list[Path] = []

    def on_file(path: Path) -> None:
        told.append(path)
        if len(told) == at:
            act()

    return on_file


@pytest.mark.parametrize(("move", "at"), in_turns(MOVES, [1, COUNT * len(LAYERS)]))  # the first file, and the last
def test_the_folder_of_a_run_is_the_one_it_began_in(move: str, at: int, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(WriteError) as caught:
        cf.run(small_model(), images, LAYERS, out, on_file=once(lambda: MOVES[move](out), at), **QUICK)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("move", ["removed", pytest.param("made anew", marks=pytest.mark.long), "a link elsewhere"])
def test_the_folder_of_a_layer_is_the_one_it_began_in(move: str, images: Path, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(WriteError, match=r"out/2: .*removed, renamed or replaced meanwhile\. Run it again\.$"):
        cf.run(small_model(), images, LAYERS, out, on_file=once(lambda: MOVES[move](out / "2"), 1), **SAVE)
    if (out / "2").is_symlink():
        (out / "2").unlink()
        shutil.rmtree(out / "kept")
        shutil.rmtree(out / "elsewhere")
    cf.run(small_model(), images, LAYERS, out, **SAVE)  # what went with it is done again
    assert_same_outcome(out, alone)


def test_the_index_of_a_run_is_the_one_it_began(images: Path, tmp_path: Path) -> None:
    index = tmp_path / "out" / "index.jsonl"

    def replaced() -> None:
        shutil.copy(index, index.with_name("copy"))
        os.replace(index.with_name("copy"), index)

    for act in (index.unlink, lambda: index.rename(index.with_name("kept")), replaced):
        with pytest.raises(WriteError, match=r"index\.jsonl: it was removed or replaced meanwhile\. Run it again\.$"):
            cf.run(small_model(), images, LAYERS, tmp_path / "out", on_file=once(act, 1), **QUICK)
        shutil.rmtree(tmp_path / "out")


def test_the_tar_of_a_run_is_the_one_it_began(images: Path, tmp_path: Path) -> None:
    class Spy:
        def __init__(self) -> None:
            self.images = sorted(images.iterdir())

        def __len__(self) -> int:
            return COUNT

        def __getitem__(self, position: int) -> object:
            if position == 12:
                (tmp_path / "out" / ".shard-000000.tar.part").unlink()
            return cf.load_images(self.images[position], small_model())[0]

    with pytest.raises(WriteError, match=r"^cannot write .*shard-000000\.tar: No such file or directory\.$"):
        cf.run(small_model(), Spy(), LAYERS, tmp_path / "out", shards=1, **QUICK)


def test_a_link_to_a_folder_takes_a_run(images: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    assert cf.run(small_model(), images, LAYERS, tmp_path / "out", **QUICK).finished == COUNT
