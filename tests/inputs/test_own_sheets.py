"""Sheets of this package among images: passed over in folders and globs, counted, and taken where they are named."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.runs import QUICK, make_images, small_model

import cnnviz_fast as cf
from cnnviz_fast.errors import ImageError
from cnnviz_fast.inputs.find import count_in_words, find_images
from cnnviz_fast.inputs.own_sheets import RUNS, SHEETS, own_sheets
from cnnviz_fast.inputs.sources import list_images
from cnnviz_fast.runtime.caller import Note

MAPS = torch.arange(18.0).view(2, 3, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with two photos, one with a document beside it, and everything that this package draws."""
    make_images(tmp_path, 2)
    (tmp_path / "p0000.json").write_text('{"shapes": [], "imagePath": "p0000.png"}')
    cf.save_sheet(MAPS, tmp_path / "sheet.png", tile=4)
    cf.save_sheet(MAPS, tmp_path / "p0001.jpg", tile=4)  # named as a photo
    cf.compare(MAPS, MAPS + 1, tile=4).save(tmp_path / "pair.png")
    return tmp_path


def photos(folder: Path) -> list[str]:
    return [str(folder / f"p{n:04}.png") for n in range(2)]


def test_folders_and_globs_pass_over_sheets(folder: Path) -> None:
    counted = "1 file is no image and was passed over: 1 .json. 4 sheets of this package were passed over."
    with pytest.warns(Note, match=f"folder '.*': {counted}"):
        assert list(map(str, find_images(folder))) == photos(folder)
    with pytest.warns(Note, match=r"glob '.*': 4 sheets of this package were passed over\."):
        assert list(map(str, find_images(f"{folder}/*.*g"))) == photos(folder)
    listed = list_images(folder)
    assert list(listed.keys()) == photos(folder)
    assert listed.passed_over == {".json": 1, SHEETS: 4}


def test_sheets_that_are_named_are_taken(folder: Path) -> None:
    assert find_images(folder / "sheet.png") == [folder / "sheet.png"]
    assert list(list_images(folder / "sheet.png").keys()) == [str(folder / "sheet.png")]


def test_single_files_are_passed_over_and_what_lies_among_them_is_not(tmp_path: Path) -> None:
    (photo,) = make_images(tmp_path, 1)
    cf.save_tiles(MAPS, tmp_path, tile=4)
    listed = list_images(tmp_path)
    assert (list(listed.keys()), listed.passed_over) == ([str(photo)], {SHEETS: 2})


def test_arrays_that_were_drawn_are_passed_over(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 4), np.float32))
    cf.render(MAPS, tile=4).save(tmp_path / "sheet.npy")
    assert list(list_images(tmp_path, arrays=True).keys()) == [str(tmp_path / "a.npy")]


def test_folders_of_sheets_alone_say_so(tmp_path: Path) -> None:
    cf.save_sheet(MAPS, tmp_path / "sheet.png", tile=4)
    for find, source in ((find_images, tmp_path), (list_images, tmp_path), (find_images, f"{tmp_path}/*.png")):
        with pytest.raises(ImageError, match=r"no images.* but 1 sheet of this package\."):
            find(source)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"cnnviz_fast":"0.1.0"}', b'[{"cnnviz_fast":"0.1.0"}]'])
def test_documents_that_are_no_manifests_leave_their_images(content: bytes, tmp_path: Path) -> None:
    cf.save_sheet(MAPS, tmp_path / "a.png", tile=4)
    (tmp_path / "a.json").write_bytes(content)
    (tmp_path / "manifest.json").write_bytes(content)
    assert own_sheets(str(tmp_path), ["a.png"], ["a.json", "manifest.json"]) == (set(), set())


def test_manifests_that_were_cut_short_or_changed_are_no_error(tmp_path: Path) -> None:
    cf.save_tiles(MAPS, tmp_path, tile=4)
    there = (tmp_path / "manifest.json").read_bytes()
    changed = json.loads(there) | {"tiles": [1, None]}
    for content in (there[:-9], json.dumps(changed, separators=(",", ":")).encode()):
        (tmp_path / "manifest.json").write_bytes(content)
        assert own_sheets(str(tmp_path), ["0.png"], ["manifest.json"])[0] == set()


def test_run_of_a_folder_in_which_sheets_and_runs_lie_takes_the_photos(tmp_path: Path) -> None:
    make_images(tmp_path, 2)
    (photo, _) = photos(tmp_path)
    cf.visualize(small_model(), photo, "0", tmp_path / "sheets", tile=4)
    cf.run(small_model(), photo, "0", tmp_path / "older", **QUICK)
    summaries = [cf.run(small_model(), tmp_path, "0", tmp_path / "out", **QUICK) for _ in range(2)]
    assert [(each.images, each.passed_over) for each in summaries] == [(2, 2), (2, 2)]  # a sheet and a run


def test_count_in_words_names_sheets_and_runs() -> None:
    assert count_in_words({SHEETS: 1}) == "1 sheet of this package was passed over."
    assert count_in_words({RUNS: 2}) == "2 folders of runs were passed over."
    said = (
        "1 file is no image and was passed over: 1 .txt. 1 sheet of this package and 1 folder of runs were passed over."
    )
    assert count_in_words({SHEETS: 1, ".txt": 1, RUNS: 1}) == said


def test_sheets_above_pillows_limit_are_passed_over_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photo,) = make_images(tmp_path, 1)
    cf.save_sheet(MAPS, tmp_path / "sheet.png", tile=4)
    cf.save_sheet(MAPS, photo.with_suffix(".webp"), tile=4)
    for limit in (1, 20):  # an error of Pillow, and a warning
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert list(list_images(tmp_path).keys()) == [str(photo)]
        assert said == []


def test_own_sheets_of_a_damaged_image_go_by_their_manifest(tmp_path: Path) -> None:
    cf.save_sheet(MAPS, tmp_path / "a.png", tile=4)
    (tmp_path / "a.png").write_bytes(b"cut")
    Image.new("RGB", (3, 3)).save(tmp_path / "a.bmp")
    assert own_sheets(str(tmp_path), ["a.png", "a.bmp"], ["a.json"]) == ({"a.png"}, {"a.json"})
