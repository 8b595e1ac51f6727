"""Images in tar shards: the places of members, and what is left of a shard that is damaged."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.shards import greys, png, write_tar

from cnnviz_fast.errors import ImageError
from cnnviz_fast.inputs import tar_shards
from cnnviz_fast.inputs.in_memory import decode_image
from cnnviz_fast.inputs.sources import list_images
from cnnviz_fast.inputs.tar_shards import members_of


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write_tar(tmp_path / "s.tar", {f"{i:03d}.png": png(i) for i in range(5)})


def test_shard_members_with_a_images_name_are_read_in_their_order(tmp_path: Path) -> None:
    members = {
        "2.png": png(2),
        "2.json": b"{}",
        "a/1.PNG": png(1),
        "2.mask.png": png(3),
        "._2.png": b"x",
        "2.cls": b"5",
    }
    path = write_tar(tmp_path / "s.tar", members)
    catalogue = list_images(path)
    assert [image.key for image in catalogue] == [f"{path}/{name}" for name in ("2.png", "a/1.PNG", "2.mask.png")]
    assert greys(catalogue) == [2, 1, 3]
    assert catalogue.failures == []


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_shard_long_and_foreign_names_of_both_formats(form: int, tmp_path: Path) -> None:
    names = ["a" * 300 + ".png", "d/" * 60 + "é😀.png", "b.png"]
    path = write_tar(tmp_path / "s.tar", {name: png(i) for i, name in enumerate(names)}, form)
    catalogue = list_images(path)
    assert list(catalogue.keys()) == [f"{path}/{name}" for name in names]
    assert greys(catalogue) == [0, 1, 2]


def test_shard_hostile_names_stay_names(tmp_path: Path) -> None:
    names = ["../../up.png", "/etc/x.png", "etc/x.png", "a\nb.png", "\udcff.png"]
    path = write_tar(tmp_path / "s.tar", {name: png(i) for i, name in enumerate(names)}, tarfile.GNU_FORMAT)
    catalogue = list_images(path)
    assert [image.key.removeprefix(f"{path}/") for image in catalogue] == names
    assert greys(catalogue) == [0, 1, 2, 3, 4]


def test_shard_links_folders_and_devices_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("d.png", tarfile.DIRTYPE), ("s.png", tarfile.SYMTYPE), ("h.png", tarfile.LNKTYPE),
                           ("f.png", tarfile.FIFOTYPE), ("c.png", tarfile.CHRTYPE)):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "real.png"
            tar.addfile(info)
        info = tarfile.TarInfo("./real.png")
        info.size = len(png(9))
        tar.addfile(info, io.BytesIO(png(9)))
    catalogue = list_images(path)
    assert [image.key for image in catalogue] == [f"{path}/real.png"]
    assert greys(catalogue) == [9]


def test_shard_same_name_twice_is_the_last_of_them(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"a.png": png(1), "b.png": png(2)})
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("./a.png")
        info.size = len(png(7))
        tar.addfile(info, io.BytesIO(png(7)))
    catalogue = list_images(path)
    assert greys(catalogue) == [7, 2]
    assert catalogue.repeats == 1


def test_shard_sparse_and_empty_members_fail_when_they_are_read(tmp_path: Path) -> None:
    with open(tmp_path / "hole.png", "wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"x")
    (tmp_path / "empty.png").touch()
    (tmp_path / "good.png").write_bytes(png(3))
    command = ["tar", "--sparse", "-cf", "s.tar", "hole.png", "empty.png", "good.png"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert os.path.getsize(tmp_path / "s.tar") < 1 << 19  # the hole is one
    catalogue = list_images(tmp_path / "s.tar")
    assert catalogue.failures == []
    for image in catalogue[:2]:
        with pytest.raises(ImageError, match=r"(hole|empty)\.png' is empty \(0 bytes\) or sparse"):
            image.open()
    assert greys(catalogue[2:]) == [3]


@pytest.mark.parametrize(("kept", "found", "said"), [
    (512 + 40, 0, "'000.png' is cut off"),
    (2 * 1024 + 512 + 40, 2, "after 2 images: '002.png' is cut off"),
    (2 * 1024 + 100, 2, "after 2 images: it ends without the mark of its end"),
    (3 * 1024, 3, "after 3 images: it ends without the mark of its end"),
    (5 * 1024 + 511, 5, "after 5 images: it ends without the mark of its end"),
    (5 * 1024 + 512, 5, None),
])  # fmt: skip
def test_shard_cut_off_keeps_what_is_whole(shard: Path, kept: int, found: int, said: str | None) -> None:
    assert len(png(0)) < 512  # so that each member takes 1024 bytes
    os.truncate(shard, kept)
    if not found:
        with pytest.raises(ImageError, match=f"shard '.*s.tar' is damaged: {said}"):
            list_images(shard)
        return
    catalogue = list_images(shard)
    assert greys(catalogue) == list(range(found))
    assert [failure.name for failure in catalogue.failures] == ([str(shard)] if said else [])
    assert all(said in failure.reason for failure in catalogue.failures if said)


def test_shard_damaged_in_the_middle_is_one_failure(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    content[3 * 1024 : 3 * 1024 + 512] = b"\xa5" * 512
    shard.write_bytes(content)
    catalogue = list_images(shard)
    assert greys(catalogue) == [0, 1, 2]
    assert len(catalogue.failures) == 1
    assert "is damaged after 3 images: no valid header at byte 3,072" in catalogue.failures[0].reason


@pytest.mark.parametrize(("content", "said"), [
    (b"", "is damaged: "),
    (b"no tar at all" * 100, "is damaged: "),
    (bytes(10240), "holds no images"),
])  # fmt: skip
def test_shard_without_images_is_an_error_alone_and_a_failure_among_others(
    content: bytes, said: str, shard: Path
) -> None:
    bad = shard.with_name("bad.tar")
    bad.write_bytes(content)
    with pytest.raises(ImageError, match=f"shard '.*bad.tar' {said}"):
        list_images(bad)
    catalogue = list_images(str(shard.parent / "*.tar"))
    assert greys(catalogue) == [0, 1, 2, 3, 4]
    assert [failure.name for failure in catalogue.failures] == [str(bad)]


@pytest.mark.parametrize("name", ["s.tar.gz", "s.tgz", "packed.tar"])
def test_shard_compressed_is_refused_with_what_to_do(name: str, shard: Path) -> None:
    packed = shard.with_name(name)
    packed.write_bytes(gzip.compress(shard.read_bytes()))
    with pytest.raises(ImageError, match=rf"must be a plain \.tar, .* Unpack it once: gunzip {name}\."):
        list_images(packed)


def test_shard_changed_after_listing_is_an_error_of_the_image(shard: Path) -> None:
    catalogue = list_images(shard)
    os.truncate(shard, 600)
    with pytest.raises(ImageError, match=r"s\.tar/004\.png' is cut off: the shard has changed"):
        catalogue[4].open()
    shard.unlink()
    with pytest.raises(ImageError, match=r"s\.tar/004\.png' cannot be read: .*No such file"):
        catalogue[4].open()


def test_shard_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"bad.png": b"no image", "cut.png": png(1)[:45]})
    for image, said in zip(list_images(path), ["must be one of PNG", "cannot be read"], strict=True):
        with pytest.raises(ImageError, match=rf"image '.*s\.tar/(bad|cut)\.png' {said}"):
            decode_image(image.open())


def test_shard_of_many_members_is_scanned_without_reading_them(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(700)
    path = write_tar(tmp_path / "s.tar", {f"{i}.jpg": noise for i in range(2000)})
    catalogue = list_images(path)
    assert len(catalogue) == 2000
    assert catalogue[1999].open().content == noise


class AFewBytes(io.FileIO):
    """A file of which a system call reads a few bytes, as Linux reads at most 2 GiB of any."""

    def readinto(self, buffer: Any) -> int | None:
        return super().readinto(memoryview(buffer)[:7])

    def read(self, size: int | None = -1) -> bytes | None:
        return super().read(7 if size is None or size < 0 else min(size, 7))


def test_shard_members_that_take_several_reads_are_whole(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = list(list_images(shard))

    def opened(path: str, mode: str = "rb", buffering: int = -1) -> Any:
        return io.BufferedReader(AFewBytes(path)) if buffering else AFewBytes(path)

    monkeypatch.setattr(tar_shards, "open_regular", opened)
    assert [item.open().content for item in items] == [png(i) for i in range(5)]


@pytest.mark.long
def test_shard_members_above_2_gib_are_whole(tmp_path: Path) -> None:
    size = 2**31 + 4096
    header = tarfile.TarInfo("large.png")
    header.size = size
    with open(tmp_path / "s.tar", "wb") as file:
        file.write(header.tobuf())
        file.seek(512 + size - 1)
        file.write(b"x" + bytes(1024))
    (item,) = list_images(tmp_path / "s.tar")
    content = item.open().content
    assert (len(content), content[-1:]) == (size, b"x")


def test_shard_pipes_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "s.tar")
    with pytest.raises((ImageError, OSError), match="pipe"):
        list(members_of(str(tmp_path / "s.tar")))
