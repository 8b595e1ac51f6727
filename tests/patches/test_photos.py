"""Where photos lie, how large they are, and how they are found again."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.looping import over
from support.planted import planted, planted_network, saved
from support.shards import write_tar
from torchvision.transforms._presets import ImageClassification

from cnnviz_fast.errors import ImageError
from cnnviz_fast.inputs.catalogue import ListedImage
from cnnviz_fast.inputs.decode import upright_size
from cnnviz_fast.inputs.sources import list_images
from cnnviz_fast.models import views
from cnnviz_fast.options.reading import MAX_PIXELS
from cnnviz_fast.patches import photos
from cnnviz_fast.patches.photos import Photo, content_of, describe, find

MODEL = planted_network(ImageClassification(crop_size=32, resize_size=40))


def described(source: object) -> dict[str, Photo]:
    """Return the records of all images of a source, by way of JSON."""
    images = list_images(source)
    records = json.loads(json.dumps(describe(images, list(images.keys()), MODEL)))
    assert list(records) == list(images.keys())
    return {key: Photo.from_json(record) for key, record in records.items()}


def jpeg(height: int, width: int, orientation: int = 1) -> bytes:
    """Return the file of a JPEG of these sides as they lie in it."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height), "teal").save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_describe_says_where_a_file_lies_and_what_the_model_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = jpeg(60, 80)
    (tmp_path / "a.jpg").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    digest = hashlib.blake2b(content, digest_size=16).hexdigest()
    view = (6.0, 16.5, 54.0, 64.5)  # 80 px wide become 53, of which the middle 32 begin at 10 after rounding to even
    found = described("a.jpg")["a.jpg"]
    assert found == Photo("a.jpg", str(tmp_path / "a.jpg"), None, (60, 80), found.view, (32, 32), digest, len(content))
    assert found.view == views.view_of(MODEL.preprocess, 60, 80, MAX_PIXELS).box  # type: ignore[union-attr]
    assert found.view is not None
    assert found.view[::2] == view[::2]


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "bmp"])
def test_upright_size_is_that_of_the_decoded_image(tmp_path: Path, suffix: str, orientation: int) -> None:
    if suffix == "bmp" and orientation > 1:
        pytest.skip("a BMP has no EXIF")
    file = saved(planted(20, 31, {}), tmp_path / f"a.{suffix}", orientation)
    assert upright_size(file.read_bytes(), "a", MAX_PIXELS) == (20, 31)


@over("content", [b"", b"GIF89a", b"\xff\xd8\xff\xe0 and nothing more", jpeg(9, 9)[:40]])
def test_upright_size_refuses_what_is_no_image(content: bytes) -> None:
    with pytest.raises(ImageError):
        upright_size(content, "a", MAX_PIXELS)


def test_upright_size_refuses_images_that_are_too_large() -> None:
    with pytest.raises(ImageError, match="pixels"):
        upright_size(jpeg(20, 30), "a", 599)


def test_describe_measures_each_size_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, size in enumerate([(30, 40), (40, 30)] * 3):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(*size))
    calls = []
    monkeypatch.setattr(photos, "view_of", lambda *given: calls.append(given[1:3]))
    assert {photo.view for photo in described(str(tmp_path)).values()} == {None}
    assert sorted(calls) == [(30, 40), (40, 30)]


def test_describe_of_some_keys_reads_no_other(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(30, 40))
    (tmp_path / "b.jpg").write_bytes(b"")
    images = list_images([str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")])
    assert list(describe(images, [images.key(0)], MODEL)) == [images.key(0)]


def test_describe_of_a_file_that_is_gone_keeps_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(30, 40))
    images = list_images(str(tmp_path))
    (tmp_path / "a.jpg").unlink()
    (record,) = describe(images, list(images.keys()), MODEL).values()
    assert Photo.from_json(record) == Photo(images[0].name, str(tmp_path / "a.jpg"))


def test_describe_of_images_in_memory_and_of_a_loader_has_their_names_alone() -> None:
    images = list_images([np.zeros((9, 9, 3), np.uint8)])
    assert describe(images, ["<memory>/image0"], MODEL) == {"<memory>/image0": Photo("image0").to_json()}
    assert describe(None, ["dataset/1"], MODEL) == {"dataset/1": Photo("dataset/1").to_json()}


def test_from_json_passes_over_entries_of_later_versions() -> None:
    assert Photo.from_json({"name": "a", "size": [1, 2], "later": 3}) == Photo("a", size=(1, 2))


def test_members_of_a_tar_are_found_again(tmp_path: Path) -> None:
    files = {"x/a.jpg": jpeg(30, 40), "b.jpg": jpeg(40, 30)}
    tar = write_tar(tmp_path / "s.tar", files)
    found = described(str(tar))
    assert [(photo.path, photo.member) for photo in found.values()] == [(str(tar), "x/a.jpg"), (str(tar), "b.jpg")]
    for photo, again in zip(found.values(), find(list(found.values())), strict=True):
        assert isinstance(again, ListedImage)
        assert content_of(again) == files[photo.member]  # type: ignore[index]


def test_rows_of_a_table_are_found_again(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "c.jpg").write_bytes(jpeg(22, 33))
    rows = [{"bytes": jpeg(30, 40), "path": None}, {"bytes": None, "path": "c.jpg"}]
    parquet.write_table(arrow.table({"image": rows}), tmp_path / "t.parquet")
    found = described(str(tmp_path / "t.parquet"))
    assert [(photo.member, photo.size) for photo in found.values()] == [("0", (30, 40)), ("1", (22, 33))]
    sizes = [upright_size(content_of(image), "a", MAX_PIXELS) for image in find(list(found.values()))]  # type: ignore[arg-type]
    assert sizes == [(30, 40), (22, 33)]


def test_find_names_a_tar_that_is_gone_and_a_member_that_is_not_in_it(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "s.tar", {"a.jpg": jpeg(9, 9), "b.jpg": jpeg(9, 9)})
    photo = described(str(tar))[f"{tar}/a.jpg"]
    write_tar(tar, {"b.jpg": jpeg(9, 9)})
    (gone,) = find([photo])
    assert "no longer in" in str(gone)
    tar.unlink()
    first, second = find([photo, photo])
    assert first is second
    assert isinstance(first, ImageError)
    assert "s.tar" in str(first)
