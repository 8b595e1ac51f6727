"""Patches, on photos in which what a channel looks for lies at a known place: the right patch, cut to the pixel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.assertions import RESAMPLED_LEVELS
from support.planted import BLUE, FIELD, HORIZONTAL, KERNEL, STRIDE, VERTICAL, planted, planted_network, saved, top_file
from torchvision import transforms
from torchvision.transforms._presets import ImageClassification, ObjectDetection

from cnnviz_fast.activations.fields.record import ReceptiveField
from cnnviz_fast.models.own_preprocess import OwnPreprocess
from cnnviz_fast.models.preprocess import as_image
from cnnviz_fast.patches import cut
from cnnviz_fast.patches.api import patch_sheet
from cnnviz_fast.patches.cut import Place, draw, drawn_rows, input_box, place
from cnnviz_fast.patches.photos import Photo
from cnnviz_fast.patches.sheet import PatchSheet

BACKGROUND = np.array([1, 2, 3], np.uint8)
GREY = "#010203"


def sheet_of(path: Path, **options: Any) -> PatchSheet:
    sheet = patch_sheet(path, "1", background=GREY, **options)
    assert not sheet.missing
    return sheet


def box_of(sheet: PatchSheet, channel: int, rank: int = 0) -> tuple[float, ...]:
    """Return y0, x0, y1, x1 of a patch in the photo, by the table."""
    (record,) = (each for each in sheet.table if (each["channel"], each["rank"]) == (channel, rank))
    return tuple(record[name] for name in ("y0", "x0", "y1", "x1"))


def expected(photo: Image.Image, box: tuple[float, ...]) -> np.ndarray:
    """Return the pixels of a photo in a box of whole pixels, and the background beyond it."""
    y0, x0, y1, x1 = map(round, box)
    assert box == (y0, x0, y1, x1)
    pixels = np.asarray(photo.convert("RGB"))
    out = np.tile(BACKGROUND, (y1 - y0, x1 - x0, 1))
    top, left = max(y0, 0), max(x0, 0)
    inside = pixels[top : max(y1, 0), left : max(x1, 0)]
    out[top - y0 : top - y0 + inside.shape[0], left - x0 : left - x0 + inside.shape[1]] = inside
    return out


def assert_found(sheet: PatchSheet, places: Mapping[int, tuple[int, int]], photo: Image.Image, scale: float) -> None:
    """Check that each channel's patch is the right one, with the pixels of the file where none is resampled."""
    for channel, (y, x) in places.items():
        box = box_of(sheet, channel)
        reach = scale * STRIDE / 2 + 1  # units stand this far from what they found at most
        assert y - reach <= (box[0] + box[2] - 1) / 2 <= y + reach
        assert x - reach <= (box[1] + box[3] - 1) / 2 <= x + reach
        np.testing.assert_array_equal(sheet.patch(channel, 0), expected(photo, box))


PLACES = {BLUE: (61, 150), VERTICAL: (120, 43), HORIZONTAL: (30, 60)}


def test_patch_is_that_of_the_file_where_the_model_sees_it_as_it_is(tmp_path: Path) -> None:
    photo = planted(160, 211, PLACES)
    path = top_file(planted_network(ObjectDetection()), saved(photo, tmp_path / "a.png"), tmp_path / "top.safetensors")
    assert_found(sheet_of(path, tile=KERNEL), PLACES, photo, 1)


@pytest.mark.parametrize(("height", "width"), [(320, 512), (512, 320), (320, 322)])
def test_patch_is_that_of_the_file_at_full_resolution_behind_resize_and_crop(
    tmp_path: Path, height: int, width: int
) -> None:
    middle = {BLUE: (height // 2 - 60, width // 2 + 70), VERTICAL: (height // 2 + 80, width // 2 - 50)}
    photo = planted(height, width, middle, scale=2)
    halved = ImageClassification(crop_size=128, resize_size=160)  # exactly half, so that boxes are whole pixels
    path = top_file(planted_network(halved), saved(photo, tmp_path / "a.png"), tmp_path / "top.safetensors")
    assert_found(sheet_of(path, tile=2 * KERNEL), middle, photo, 2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(tmp_path: Path, orientation: int) -> None:
    places = {BLUE: (80, 230), HORIZONTAL: (150, 120)}
    photo = planted(240, 320, places, scale=2)
    file = saved(photo, tmp_path / "a.png", orientation)
    np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(Image.open(file))), np.asarray(photo))
    halved = ImageClassification(crop_size=112, resize_size=120)
    sheet = sheet_of(top_file(planted_network(halved), file, tmp_path / "top.safetensors"), tile=2 * KERNEL)
    assert_found(sheet, places, photo, 2)


def test_small_photo_that_the_crop_pads_has_background_beyond_it(tmp_path: Path) -> None:
    places = {BLUE: (3, 40), VERTICAL: (20, 16)}
    photo = planted(31, 90, places)
    padded = OwnPreprocess(transforms.Compose([transforms.CenterCrop((64, 80)), transforms.ToTensor()]))
    sheet = sheet_of(
        top_file(planted_network(padded), saved(photo, tmp_path / "a.png"), tmp_path / "top.safetensors"), tile=KERNEL
    )
    assert box_of(sheet, BLUE)[0] < 0
    assert_found(sheet, places, photo, 1)


def test_what_the_crop_cut_off_is_not_shown(tmp_path: Path) -> None:
    places = {BLUE: (50, 33)}  # at the edge of the crop, which begins at column 32
    photo = planted(100, 128, places)
    middle = OwnPreprocess(transforms.Compose([transforms.CenterCrop((100, 64)), transforms.ToTensor()]))
    path = top_file(planted_network(middle), saved(photo, tmp_path / "a.png"), tmp_path / "top.safetensors")
    sheet = sheet_of(path, tile=KERNEL)
    _, x0, _, x1 = box_of(sheet, BLUE)
    assert x0 < 32 < x1
    shown = expected(photo, box_of(sheet, BLUE))
    shown[:, : 32 - round(x0)] = BACKGROUND
    np.testing.assert_array_equal(sheet.patch(BLUE, 0), shown)


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (231, 229), (90, 301)])
def test_patch_is_what_the_model_saw_behind_any_resize(tmp_path: Path, height: int, width: int) -> None:
    scale = min(height, width) / 128
    places = {BLUE: (height // 2 + 9, width // 2 - 17), VERTICAL: (height // 2 - 30, width // 2 + 22)}
    preprocess = ImageClassification(crop_size=112, resize_size=128, mean=(0,) * 3, std=(1,) * 3)
    photo = planted(height, width, places, scale)
    model = planted_network(preprocess)
    sheet = sheet_of(top_file(model, saved(photo, tmp_path / "a.png"), tmp_path / "top.safetensors"), tile=KERNEL)
    seen = as_image(preprocess(photo), preprocess)
    for channel in places:
        (record,) = (each for each in sheet.table if each["channel"] == channel)
        y0, x0, y1, x1 = FIELD.box(record["y"], record["x"])
        apart = sheet.patch(channel, 0).astype(float) - seen[y0:y1, x0:x1]
        assert np.abs(apart).mean() <= RESAMPLED_LEVELS


def test_patch_of_two_sizes_of_photo_is_found_in_each(tmp_path: Path) -> None:
    places = {BLUE: (90, 120)}
    for name, size in (("a", (200, 240)), ("b", (240, 200))):
        saved(planted(*size, places), tmp_path / f"{name}.png")
    model = planted_network(ObjectDetection())
    sheet = sheet_of(top_file(model, str(tmp_path), tmp_path / "top.safetensors"), tile=KERNEL)
    assert {record["image"][-5:] for record in sheet.table if record["channel"] == BLUE} == {"a.png", "b.png"}
    for rank in (0, 1):
        y0, x0, y1, x1 = box_of(sheet, BLUE, rank)
        assert y0 <= 90 < y1
        assert x0 <= 120 < x1


def test_whole_photo_is_shown_where_geometry_is_not_known(tmp_path: Path) -> None:
    photo = planted(40, 60, {BLUE: (20, 30)})
    mirrored = OwnPreprocess(transforms.Compose([transforms.RandomHorizontalFlip(1.0), transforms.ToTensor()]))
    path = top_file(planted_network(mirrored), saved(photo, tmp_path / "a.png"), tmp_path / "top.safetensors")
    sheet = sheet_of(path, tile=60)
    patch = sheet.patch(BLUE, 0)
    assert patch.shape == (60, 60, 3)
    np.testing.assert_array_equal(patch[10:50], np.asarray(photo))
    assert (patch[:10] == BACKGROUND).all()
    assert box_of(sheet, BLUE) == (-10, 0, 50, 60)


WHOLE = ReceptiveField((224, 224), (0.0, 0.0), (0.0, 0.0), whole=True)
SEEN = Photo("a", "/a", None, (100, 200), (0.0, 50.0, 100.0, 150.0), (50, 50))


def test_place_of_a_whole_field_is_all_that_the_model_saw() -> None:
    found = place(WHOLE, SEEN, (1, 3), (96, 96), (5, 5))
    assert found == Place((0, 50, 100, 150), (0, 50, 100, 150), (0.3, 0.7))


def test_place_of_a_vector_has_no_unit() -> None:
    found = place(WHOLE, SEEN, (0, 0), (96, 96), (0, 0))
    assert found is not None
    assert found.unit is None


def test_place_of_a_photo_of_unknown_size_is_none() -> None:
    assert place(WHOLE, Photo("a"), (0, 0), (9, 9), (1, 1)) is None


def test_input_box_takes_the_whole_input_only_along_the_axis_that_the_field_covers() -> None:
    field = ReceptiveField((11, 60), (4.0, 4.0), (0.0, 0.0))
    assert input_box(field, (50, 50), 2, 3) == (3, 0, 14, 50)


def test_patch_of_another_shape_has_room_beside_it() -> None:
    found = place(WHOLE, SEEN, (0, 0), (50, 100), (1, 1))
    assert found is not None
    assert found.box == (0, 0, 100, 200)
    assert found.seen == (0, 50, 100, 150)


def test_draw_leaves_out_pixels_that_are_only_partly_photo() -> None:
    photo = Image.new("RGB", (10, 10), (200, 100, 50))
    out = np.empty((8, 8, 3), np.uint8)
    there = Place((-3.0, -3.0, 13.0, 13.0), (0.0, 0.0, 10.0, 10.0), None)
    assert drawn_rows(there, (8, 8)) == (slice(2, 6), slice(2, 6))
    draw(photo, Photo("", size=(10, 10)), there, BACKGROUND, out)
    assert (out[2:6, 2:6] == (200, 100, 50)).all()
    out[2:6, 2:6] = BACKGROUND
    assert (out == BACKGROUND).all()


def test_draw_of_what_nobody_saw_is_background() -> None:
    out = np.empty((4, 4, 3), np.uint8)
    nowhere = Place((20.0, 0.0, 30.0, 10.0), (20.0, 0.0, 20.0, 10.0), None)
    draw(Image.new("RGB", (10, 10), "white"), Photo("", size=(10, 10)), nowhere, BACKGROUND, out)
    assert (out == BACKGROUND).all()


@pytest.mark.parametrize(
    ("height", "width", "shrink", "orientation"),
    [
        pytest.param(*size, orientation, marks=() if size[0] == 480 or orientation == 6 else pytest.mark.long)
        for size in [(480, 640, 2), (960, 1280, 4), (481, 640, 1), (160, 200, 1)]
        for orientation in (1, 3, 6)
    ],
)
def test_large_jpeg_is_decoded_as_small_as_its_patches_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, height: int, width: int, shrink: int, orientation: int
) -> None:
    places = {BLUE: (height // 2 - 20, width // 2 + 30)}
    photo = planted(height, width, places, height / 80)
    files = [saved(photo, tmp_path / f"a.{suffix}", orientation) for suffix in ("jpg", "png")]
    model = planted_network(ImageClassification(crop_size=72, resize_size=80))
    sizes = []
    decode = cut.decode_bytes

    def noted(*given: Any, **more: Any) -> Any:
        decoded = decode(*given, **more)
        sizes.append(decoded.size)
        return decoded

    monkeypatch.setattr(cut, "decode_bytes", noted)
    small, exact = (sheet_of(top_file(model, file, tmp_path / "top.safetensors"), tile=KERNEL) for file in files)
    assert sizes == [(width // shrink, height // shrink), (width, height)]
    assert box_of(small, BLUE) == box_of(exact, BLUE)
    difference = small.patch(BLUE, 0).astype(float) - exact.patch(BLUE, 0)
    assert np.square(difference).mean() <= RESAMPLED_LEVELS**2
