"""Files that stand for any number of images are known by their endings, and an error on them names what takes them."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

import cnnviz_fast as cf
from cnnviz_fast.errors import ImageError
from cnnviz_fast.inputs.sets import kind_of_set, unpacked_name

KINDS = {
    "list.txt": "a list of images",
    "LIST.LST": "a list of images",
    "a.tar": "a tar file of images",
    "a.Tar.Gz": "a compressed tar file of images",
    "a.tzst": "a compressed tar file of images",
    "a.b.parquet": "a table of images",
    "cat.png": None,
    "tar": None,
    "cat.gz": None,
}


@pytest.mark.parametrize("name", KINDS)
def test_kind_of_set_goes_by_the_ending(name: str) -> None:
    assert kind_of_set(f"photos.tar/{name}") == KINDS[name]


def test_unpacked_name_ends_in_tar() -> None:
    for name in ("x/a.tgz", "x/a.TAR.XZ", "x/a.tbz2"):
        assert unpacked_name(name) == "x/a.tar"
    for name in ("a.tar", "a.png", "tgz"):
        assert unpacked_name(name) == name


@pytest.mark.parametrize("name", ["list.txt", "a.tar", "a.tgz", "a.parquet"])
def test_a_set_of_images_in_place_of_one_says_what_draws_it(name: str, photo: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    if "list" in name:
        path.write_text(str(photo))
    elif name == "a.parquet":
        path.write_bytes(b"PAR1" * 4)
    else:
        with tarfile.open(path, "w:gz" if name == "a.tgz" else "w") as tar:
            tar.add(photo, "photo.jpg")
    model = cf.load_model("squeezenet1_1", weights="none")
    advice = "Unpack it once. Then draw" if name == "a.tgz" else "Draw"
    for call in (lambda: cf.visualize(model, path, "features.0"), lambda: cf.load_images([photo, path], model)):
        with pytest.raises(ImageError) as caught:
            call()
        assert str(caught.value).endswith(
            f", but its ending is that of {kind_of_set(name)}. {advice} data sets with cf.run or cnnviz run."
        )
