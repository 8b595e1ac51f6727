"""Which images a run is over: every kind of source, and what is wrong with it."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.processes import forking
from support.shards import greys, png, write_tar

from cnnviz_fast.errors import ImageError
from cnnviz_fast.formats.names import output_stems
from cnnviz_fast.inputs.images import load_images
from cnnviz_fast.inputs.in_memory import Encoded, decode_image
from cnnviz_fast.inputs.sources import list_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images in a tree: 2 before 10, each of a grey of its own, and things that are no images."""
    root = tmp_path / "photos"
    for grey, name in enumerate(["img10.png", "img2.png", "b10/x.png", "b2/x.png", "b2/deep/y.jpg", "B1/X.PNG"]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(grey))
    (root / ".hidden").mkdir()
    for name in ("notes.txt", ".img.png", ".hidden/z.png", "b2/._x.png"):
        (root / name).write_text("no image")
    return root


def below(root: Path, items: object) -> list[str]:
    return [image.key.removeprefix(f"{root}/") for image in items]


TREE = ["img2.png", "img10.png", "B1/X.PNG", "b2/x.png", "b2/deep/y.jpg", "b10/x.png"]


def test_list_images_folder_gives_all_below_it_in_natural_order(folder: Path) -> None:
    catalogue = list_images(folder)
    assert below(folder, catalogue) == TREE
    assert greys(catalogue) == [1, 0, 5, 3, 4, 2]
    assert list(list_images(f"{folder}/.//").keys()) == list(catalogue.keys())


def test_list_images_same_name_in_two_folders_are_two_images(folder: Path) -> None:
    stems = dict(zip(TREE, output_stems(list_images(folder).keys()), strict=True))
    assert len({stem.casefold() for stem in stems.values()}) == 6
    assert stems["img2.png"] == "img2"
    assert stems["b2/x.png"].startswith("x-")


def test_list_images_folder_with_loops_of_links_ends(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "o.png").write_bytes(png(9))
    for name, target in (("b2/up", folder), ("b2/deep/here", folder / "b2"), ("a_link", tmp_path / "outside"),
                         ("a_twin", tmp_path / "outside"), ("self.png", folder / "self.png")):  # fmt: skip
        (folder / name).symlink_to(target)
    (folder / "b10" / "link.png").symlink_to(folder / "img2.png")
    catalogue = list_images(folder)
    expected = [*TREE[:2], "self.png", *TREE[2:5], "b10/link.png", TREE[5], "a_link/o.png"]
    assert below(folder, catalogue) == expected
    with pytest.raises(ImageError, match=r"self\.png' cannot be read"):
        decode_image(catalogue[2].open())
    assert greys(catalogue[6:]) == [1, 2, 9]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("name", ["list.txt", "list.lst", "shard.tar", "table.parquet"])
def test_list_images_sets_that_are_pipes_or_devices_are_refused_and_not_read(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(ImageError, match=r"it must be a regular file, but is a pipe\."):
        list_images(tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(ImageError, match=r"it must be a regular file, but is a device\."):
        list_images(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_list_images_pipes_are_passed_over_in_folders_and_refused_when_named(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    assert below(folder, list_images(folder)) == TREE
    (named,) = list_images(folder / "pipe.png")
    with pytest.raises(ImageError, match=r"pipe\.png' must be a regular file, not a pipe or a device"):
        decode_image(named.open())
    with pytest.raises(ImageError, match="must be a regular file"):
        decode_image("/dev/zero")


def test_list_images_link_to_nothing_is_a_image_that_is_missing(folder: Path) -> None:
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    image = list_images(folder)[0]
    with pytest.raises(ImageError, match=r"no file '.*gone\.png'"):
        decode_image(image.open())


def test_list_images_folder_that_cannot_be_read_is_a_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def forbid(path: str) -> object:
        if str(path).endswith("b2"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr("os.scandir", forbid)
    catalogue = list_images(folder)
    assert below(folder, catalogue) == [*TREE[:3], TREE[5]]
    assert [failure.name for failure in catalogue.failures] == [f"{folder}/b2"]
    with pytest.raises(ImageError, match=r"folder '.*b2' cannot be read: .*Permission denied"):
        list_images(folder / "b2")


def test_list_images_glob_gives_images_lists_and_shards(folder: Path) -> None:
    assert below(folder, list_images(f"{folder}/img*")) == TREE[:2]
    assert below(folder, list_images(f"{folder}/*/x.png")) == ["b2/x.png", "b10/x.png"]
    (folder / "notes.txt").write_text("img2.png\n")
    assert below(folder, list_images(f"{folder}/*.txt")) == ["img2.png"]
    write_tar(folder / "s2.tar", {"a.png": png(1)})
    write_tar(folder / "s10.tar", {"a.png": png(2)})
    assert below(folder, list_images(f"{folder}/*.tar")) == ["s2.tar/a.png", "s10.tar/a.png"]


@pytest.mark.parametrize("name", ["list.txt", "list.LST"])
def test_list_images_list_is_relative_to_its_own_folder(name: str, folder: Path) -> None:
    (folder / name).write_text(
        "# a comment\n\nimg2.png\r\n  \n./b2//x.png\n../photos/img10.png\n/absent/abs.png\nabsent.png"
    )
    catalogue = list_images(folder / name)
    assert below(folder, catalogue) == ["img2.png", "b2/x.png", "../photos/img10.png", "/absent/abs.png", "absent.png"]
    assert greys(catalogue[:3]) == [1, 3, 0]
    for image in catalogue[3:]:  # what is missing is an error of the image, not of the list
        with pytest.raises(ImageError, match=r"no file '.*abs(ent)?\.png'"):
            decode_image(image.open())


@pytest.mark.parametrize(
    "name", ["a" * 300 + ".png", "../" * 2000 + "x.png", "x.png/y.png", "\x01\x1b.png", "CON", "\udcff.png"]
)
def test_list_images_hostile_name_in_a_list_is_an_error_of_its_image(name: str, folder: Path) -> None:
    (folder / "x.png").write_bytes(png(1))
    (folder / "list.txt").write_bytes(b"x.png\n" + name.encode(errors="surrogateescape"))
    good, bad = list_images(folder / "list.txt")
    assert greys([good]) == [1]
    with pytest.raises(ImageError, match=r"^(no file '.*'|image '.*' cannot be read: .*)\.$") as caught:
        decode_image(bad.open())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-8"])
def test_list_images_list_of_any_unicode(encoding: str, folder: Path) -> None:
    (folder / "list.txt").write_text("é😀.png\r\nb.png", encoding)
    assert below(folder, list_images(folder / "list.txt")) == ["é😀.png", "b.png"]


def test_list_images_list_with_names_that_are_no_text(folder: Path) -> None:
    name = os.fsdecode(b"\xff\x01.png")
    try:
        (folder / name).write_bytes(png(7))
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    (folder / "list.txt").write_bytes(b"\xff\x01.png\n")
    catalogue = list_images(folder / "list.txt")
    assert greys(catalogue) == [7]
    assert catalogue[0] in list(list_images(folder))
    assert list(output_stems(catalogue.keys())) == ["--"]


def test_list_images_list_with_nuls_takes_paths_as_they_are(folder: Path) -> None:
    (folder / "list.txt").write_bytes(b"#1.png\0a\nb.png\0 \0img2.png\0")
    assert below(folder, list_images(folder / "list.txt")) == ["#1.png", "a\nb.png", " ", "img2.png"]


@pytest.mark.parametrize("content", [b"img2.png\nb2/x.png\n", b"img2.png\0b2/x.png\0"])
def test_list_images_standard_input_is_relative_to_the_working_folder(
    content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    catalogue = list_images("-")
    assert list(catalogue.keys()) == ["img2.png", "b2/x.png"]
    assert greys(catalogue) == [1, 3]


def test_list_images_in_memory_images_are_taken_as_load_images_takes_them() -> None:
    array, image = np.full((4, 4, 3), 5, np.uint8), Image.new("RGB", (4, 4), (6, 6, 6))
    floats = torch.stack([torch.full((3, 4, 4), 7.0), torch.full((3, 4, 4), 8.0)])
    sources = [array, [image, torch.full((3, 4, 4), 9, dtype=torch.uint8)], floats, Encoded("e.png", png(10))]
    catalogue = list_images(iter(sources))
    assert [image.name for image in catalogue] == [f"image{i}" for i in range(6)]
    assert list(output_stems(catalogue.keys())) == [f"image{i}" for i in range(6)]
    assert greys([*catalogue[:3], catalogue[5]]) == [5, 6, 9, 10]
    assert [image.open().shape for image in catalogue[3:5]] == [(1, 3, 4, 4)] * 2
    for image, value in zip(catalogue[3:5], (7.0, 8.0), strict=True):
        assert torch.equal(load_images(image.open()), torch.full((1, 3, 4, 4), value))
    assert len(list_images(floats[0])) == len(list_images(array)) == 1


def test_list_images_catalogue_comes_back_as_it_is(folder: Path) -> None:
    catalogue = list_images(folder)
    assert list_images(catalogue) is catalogue


def test_list_images_same_key_again_is_dropped_and_counted(folder: Path) -> None:
    (folder / "list.txt").write_text("img2.png\nimg2.png\nnew.png\n./img2.png\n")
    catalogue = list_images([folder, folder / "list.txt", folder / "b2"])
    assert below(folder, catalogue) == [*TREE, "new.png"]
    assert catalogue.repeats == 5
    assert list_images(folder).repeats == 0


def test_list_images_key_is_the_same_in_whatever_order_it_is_listed(folder: Path) -> None:
    tar = write_tar(folder.parent / "s.tar", {"a.png": png(1)})
    one = list_images([folder, tar])
    other = list_images([tar, *reversed([image.key for image in list_images(folder)])])
    assert sorted(one.keys()) == sorted(other.keys())
    assert dict(zip(one.keys(), output_stems(one.keys()), strict=True)) == dict(
        zip(other.keys(), output_stems(other.keys()), strict=True)
    )


@pytest.mark.parametrize(("name", "content", "said"), [
    ("absent.png", None, "no file or folder '.*absent.png'"),
    ("empty", None, "folder '.*empty' holds no images"),
    ("empty/*.png", None, r"glob '.*\*\.png' matches no images"),
    ("list.txt", b"# nothing\n\n", r"list '.*list\.txt' names no images\."),
    ("list.lst", b"", r"list '.*list\.lst' names no images\."),
])  # fmt: skip
def test_list_images_nothing_there_is_one_line(name: str, content: bytes | None, said: str, tmp_path: Path) -> None:
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=said) as caught:
        list_images(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_list_images_empty_input_and_other_kinds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    with pytest.raises(ImageError, match="standard input names no images"):
        list_images("-")
    with pytest.raises(ImageError, match="images must name at least one image, got none"):
        list_images([])
    for kind in (3, None, b"bytes.png", {"a": 1}, [3]):
        with pytest.raises(
            ImageError, match=r"images must be paths, folders, globs, .* got (int|NoneType|bytes|dict)\."
        ):
            list_images(kind)


def open_in_child(sent: bytes) -> tuple[str, int]:
    """Read an item in a process of its own."""
    image = pickle.loads(sent)
    return image.name, decode_image(image.open()).getpixel((0, 0))[0]


def test_listed_images_are_read_in_other_processes(folder: Path) -> None:
    tar = write_tar(folder.parent / "s.tar", {"a.png": png(1), "b.png": png(8)})
    array = np.full((4, 4, 3), 5, np.uint8)
    sent = [pickle.dumps(image) for image in list_images([folder / "img2.png", tar, array])]
    with forking().Pool(1) as pool:
        read = pool.map(open_in_child, sent)
    assert read == [(f"{folder}/img2.png", 1), (f"{tar}/a.png", 1), (f"{tar}/b.png", 8), ("image3", 5)]


def test_opened_images_go_through_load_images(folder: Path) -> None:
    tar = write_tar(folder.parent / "s.tar", {"a.png": png(255), "b.png": b"damaged"})
    good, bad = list_images(tar)
    assert load_images(good.open()).shape == (1, 3, 224, 224)
    with pytest.raises(ImageError, match=r"image '.*s\.tar/b\.png' must be one of"):
        load_images(bad.open())


def test_sources_list_without_torch_pillow_or_pyarrow(folder: Path) -> None:
    code = (
        "import sys; from cnnviz_fast.inputs.sources import list_images; "
        f"assert len(list_images({str(folder)!r})) == 6; "
        "print([name for name in ('torch', 'PIL', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_list_images_counts_what_folders_hold_beside_images(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("a.png", "b.heic", "below/c.HEIC", "below/d.txt", "below/.hidden"):
        (tmp_path / name).write_bytes(b"")
    assert list_images(tmp_path).passed_over == {".heic": 2, ".txt": 1}
