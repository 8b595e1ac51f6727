"""Sheets of patches: what is on them, what is written beside them, and what is said of photos that are gone."""

from __future__ import annotations

import dataclasses
import errno
import io
import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.assertions import ONE_LEVEL, assert_close
from support.planted import BLUE, DEAD, KERNEL, STRIDE, VERTICAL, planted, planted_network, saved, top_file
from support.shards import write_tar
from torchvision import transforms
from torchvision.transforms._presets import ObjectDetection

import cnnviz_fast as cf
from cnnviz_fast.errors import (
    CaptureError,
    EncodeError,
    ImageError,
    InputError,
    LayerNotFoundError,
    OptionError,
    WriteError,
)
from cnnviz_fast.inputs.sources import list_images
from cnnviz_fast.models.own_preprocess import OwnPreprocess
from cnnviz_fast.models.preprocess import imagenet_preset
from cnnviz_fast.palette import make_palette
from cnnviz_fast.patches import cut, sheet, wording
from cnnviz_fast.patches.api import open_top
from cnnviz_fast.patches.classes import ClassResponses
from cnnviz_fast.patches.photos import describe
from cnnviz_fast.patches.sheet import PatchSheet
from cnnviz_fast.patches.top import TopResponses
from cnnviz_fast.patches.top_files import TopFile, read_top, write_top
from cnnviz_fast.sheets.lettering import line_px

NAMES = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four photos, in which blue and upright stripes lie at different places."""
    folder = tmp_path_factory.mktemp("photos")
    for i, name in enumerate(NAMES):
        saved(planted(80, 100, {BLUE: (30 + 5 * i, 40), VERTICAL: (50, 70 - 8 * i)}), folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def model() -> Any:
    return planted_network(ObjectDetection())


@pytest.fixture
def top(photos: Path, model: Any, tmp_path: Path) -> Path:
    """A file of the three strongest, two at random and two bands."""
    return top_file(model, str(photos), tmp_path / "top.safetensors", random=2, bands=2)


def test_patch_sheet_takes_a_file_its_path_and_the_folder_of_a_run(top: Path) -> None:
    sheets = [cf.patch_sheet(each, "1") for each in (top, str(top), top.parent, read_top(top))]
    assert len({each.rgb().tobytes() for each in sheets}) == 1


def test_layer_may_be_left_out_where_there_is_one(top: Path) -> None:
    assert cf.patch_sheet(top).layer == "1"


def test_photo_is_read_and_decoded_once_in_the_order_of_the_files(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    decode = cut.decode_bytes
    monkeypatch.setattr(
        cut, "decode_bytes", lambda content, name, *more, **by: read.append(name) or decode(content, name, *more, **by)
    )
    cf.patch_sheet(top, threads=1, draw="bands")
    assert read == sorted(set(read))
    assert len(read) >= 3


def test_table_lists_every_patch_and_where_it_lies(top: Path, photos: Path) -> None:
    made = cf.patch_sheet(top, channels=[VERTICAL, BLUE], per_channel=2)
    entries = read_top(top)["1"]
    assert [(record["channel"], record["rank"]) for record in made.table] == [(1, 0), (1, 1), (0, 0), (0, 1)]
    for record in made.table:
        channel, rank = record["channel"], record["rank"]
        assert record["value"] == entries.values[channel, rank]
        assert record["image"] == entries.images[channel, rank]
        assert record["path"] == str(Path(record["image"]))
        assert (record["y"], record["x"]) == tuple(entries.positions[channel, rank])
        assert (record["y0"], record["x1"]) == (
            STRIDE * record["y"] - KERNEL // 2,
            STRIDE * record["x"] + KERNEL // 2 + 1,
        )
    assert made.manifest["patches"] == made.table


def test_table_is_written_as_parquet(top: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    made = cf.patch_sheet(top)
    assert parquet.read_table(made.save_table(tmp_path / "t.parquet")).to_pylist() == made.table


@pytest.mark.parametrize("draw", ["top", "random", "bands"])
def test_draws_are_those_of_the_file(top: Path, draw: str) -> None:
    made = cf.patch_sheet(top, draw=draw, channels=BLUE)
    entries = read_top(top)["1"]
    kinds = {"top": ["top"], "random": ["random"], "bands": ["band:0", "band:1"]}[draw]
    images = itertools.chain(*(entries.draws(kind).images[BLUE].tolist() for kind in kinds))
    assert [record["image"] for record in made.table] == [image for image in images if image]


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_save_writes_the_sheet_and_its_manifest(top: Path, tmp_path: Path, suffix: str) -> None:
    made = cf.patch_sheet(top)
    path = made.save(tmp_path / f"out.{suffix}")
    written = np.asarray(Image.open(path).convert("RGB"))
    assert written.shape == made.rgb().shape
    if suffix == "png":
        np.testing.assert_array_equal(written, made.rgb())
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert manifest["sheet"] == {"height": written.shape[0], "width": written.shape[1], "rows": 4, "cols": 3}
    assert manifest["dead"] == [DEAD]
    assert manifest["patches"] == json.loads(json.dumps(made.table))


def test_saved_sheet_is_passed_over_when_its_folder_is_searched_for_images(
    top: Path, photos: Path, tmp_path: Path
) -> None:
    saved(planted(9, 9, {}), tmp_path / "only.png")
    cf.patch_sheet(top).save(tmp_path / "patches.png")
    assert [Path(key).name for key in list_images(str(tmp_path)).iter_keys()] == ["only.png"]


def test_sheet_written_in_strips_is_the_sheet_drawn_whole(
    top: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = cf.patch_sheet(top, title="of all").rgb()
    monkeypatch.setattr(sheet.png, "RGB_STRIP_PX", 1)
    monkeypatch.setattr(sheet, "IN_MEMORY_BYTES", 0)
    made = cf.patch_sheet(top, title="of all")
    assert len(made._look.strips(4)) == 4
    assert isinstance(made._tiles.base, np.memmap)
    written = Image.open(made.save(tmp_path / "out.png"))
    np.testing.assert_array_equal(np.asarray(written), whole)


def test_tiles_for_which_the_disk_has_no_room_are_refused_before_they_are_drawn(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sheet, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(WriteError, match=r"^cannot write 0 MB of tiles .*: No space left on device\. Set TMPDIR to an"):
        cf.patch_sheet(top)


def cells(made: PatchSheet) -> np.ndarray:
    """Return the tiles of a sheet, (rows, columns, tile_h, tile_w, 3), as they stand on it."""
    look, pixels = made._look, made.rgb()
    grid = look.grid
    tops = [grid.top + row * grid.step_y for row in range(grid.rows)]
    lefts = [look.left + col * grid.step_x for col in range(grid.cols)]
    return np.array([[pixels[y : y + grid.tile_h, x : x + grid.tile_w] for x in lefts] for y in tops])


def test_patches_stand_in_rows_of_channels_in_their_order(top: Path) -> None:
    made = cf.patch_sheet(top, marks=False, tile=40)
    shown = cells(made)
    assert shown.shape == (4, 3, 40, 40, 3)
    for row, rank in itertools.product(range(3), range(3)):
        np.testing.assert_array_equal(shown[row, rank], made.patch(row, rank))
    assert (shown[DEAD] == shown[DEAD, 0, 0, 0]).all()


def test_marks_stand_around_the_unit_and_leave_its_centre_free(top: Path) -> None:
    plain, marked = (cells(cf.patch_sheet(top, marks=marks, tile=48))[BLUE, 0] for marks in (False, True))
    changed = (plain != marked).any(axis=-1)
    assert changed.any()
    assert not changed[23:26, 23:26].any()
    assert not changed[:14].any()


def test_labels_and_title_are_written_only_where_they_are_wanted(top: Path) -> None:
    written = cf.patch_sheet(top)
    bare = cf.patch_sheet(top, label=False, title="")
    assert bare.rgb().shape[0] < written.rgb().shape[0]
    np.testing.assert_array_equal(cells(bare), cells(written))
    assert cf.patch_sheet(top, title="{layer} of {model}, {field}, {draw}")._look.title is not None


def test_mean_patch_is_the_mean_weighted_by_response(top: Path) -> None:
    made = cf.patch_sheet(top, mean_patch=True, marks=False, tile=KERNEL)
    weights = read_top(top)["1"].values[BLUE].astype(float)
    patches = np.stack([made.patch(BLUE, rank) for rank in range(3)]).astype(float)
    expected = np.floor(np.average(patches, axis=0, weights=weights) + 0.5)
    np.testing.assert_array_equal(made.mean_patch(BLUE), expected)
    np.testing.assert_array_equal(cells(made)[BLUE, 0], expected)
    np.testing.assert_array_equal(cells(made)[BLUE, 1], made.patch(BLUE, 0))
    assert (made.mean_patch(DEAD) == made._look.colours.background).all()


def test_mean_patch_leaves_out_what_lies_beyond_a_photo(model: Any, tmp_path: Path) -> None:
    for name, place in (("in", (40, 50)), ("in_too", (42, 60)), ("corner", (2, 2))):
        saved(planted(80, 100, {BLUE: place}), tmp_path / f"{name}.png")
    made = cf.patch_sheet(
        top_file(model, str(tmp_path), tmp_path / "top.safetensors"), tile=KERNEL, background="#ff0000"
    )
    inside = [rank for rank in range(3) if (made.patch(BLUE, rank) != (255, 0, 0)).any(-1).all()]
    assert len(inside) == 2
    weights = np.abs(read_top(tmp_path / "top.safetensors")["1"].values[BLUE, inside]).astype(float)
    expected = np.average([made.patch(BLUE, rank)[0, 0] for rank in inside], axis=0, weights=weights)
    np.testing.assert_array_equal(made.mean_patch(BLUE)[0, 0], np.floor(expected + 0.5))


def test_mean_patch_fades_where_few_patches_show_the_photo(model: Any, tmp_path: Path) -> None:
    for name, place in (("in", (40, 50)), ("corner", (2, 2)), ("edge", (2, 50)), ("edge_too", (2, 60))):
        saved(planted(80, 100, {BLUE: place}), tmp_path / f"{name}.png")
    path = top_file(model, str(tmp_path), tmp_path / "top.safetensors", k=4)
    made = cf.patch_sheet(path, tile=KERNEL, background="#ff0000", mean_patch=True)
    (alone,) = [rank for rank in range(4) if (made.patch(BLUE, rank) != (255, 0, 0)).any(-1).all()]
    weights = np.abs(read_top(path)["1"].values[BLUE]).astype(float)
    share = 2 * weights[alone] / weights.sum()
    assert 0.3 < share < 0.9
    expected = share * made.patch(BLUE, alone)[0, 5] + (1 - share) * np.array([255, 0, 0])
    np.testing.assert_array_equal(made.mean_patch(BLUE)[0, 5], np.floor(expected + 0.5))


def test_mean_patch_says_of_how_many_it_is(photos: Path, model: Any, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    path = top_file(model, str(folder), tmp_path / "top.safetensors", k=4)
    (folder / "a.png").unlink()
    made = cf.patch_sheet(path, mean_patch=True)
    wide = made._look.grid.tile_w

    def above(row: int) -> np.ndarray:
        top = made._look.grid.top + row * made._look.grid.step_y
        return made.rgb()[top - made._look.grid.label_h : top, made._look.left : made._look.left + wide]

    background = made._look.colours.background
    ink = np.concatenate([wording.glyph(character, made._look.size) for character in "mean of 3"], axis=1)
    written = (above(BLUE) != background).any(-1)
    assert written.any()
    np.testing.assert_array_equal(written[-len(ink) :, : ink.shape[1]], ink)
    assert (above(DEAD) == background).all()


def test_save_each_writes_every_patch_without_marks(top: Path, tmp_path: Path) -> None:
    made = cf.patch_sheet(top, channels=[VERTICAL, DEAD], mean_patch=True)
    paths = made.save_each(tmp_path / "each")
    assert [path.name for path in paths] == ["1_0.png", "1_1.png", "1_2.png", "1_mean.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(paths[1])), made.patch(0, 1))
    np.testing.assert_array_equal(np.asarray(Image.open(paths[3])), made.mean_patch(0))


def test_classes_stand_beside_their_channels(top: Path, tmp_path: Path) -> None:
    file = read_top(top)
    classes = ClassResponses(4)
    classes.update(
        torch.tensor([[9.0, 1, 1, 0], [8, 2, 1, 0], [1, 1, 9, 0], [2, 2, 8, 0]]), ["cat", "cat", "dog", "dog"]
    )
    with_classes = TopFile(file.layers, file.photos, file.fields, {"1": classes}, file.facts)
    lines = [row.lines for row in cf.patch_sheet(with_classes)._rows]
    assert lines[BLUE][0] == "cat"
    assert lines[BLUE][1].startswith("d' ")
    assert lines[2][0] == "dog"
    assert lines[DEAD] == ("dead",)


def test_notebook_shows_a_png_of_bounded_size(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = cf.patch_sheet(top)
    monkeypatch.setattr(sheet, "NOTEBOOK_PX", 1)
    shown = Image.open(io.BytesIO(made._repr_png_()))
    assert shown.width == made.rgb().shape[1]
    assert shown.height < made.rgb().shape[0]
    assert repr(made).startswith("PatchSheet(1, 4 channels, 9 patches, ")


def test_photo_that_changed_is_named_and_the_rest_drawn(photos: Path, model: Any, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    path = top_file(model, str(folder), tmp_path / "top.safetensors", k=4)
    content = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (folder / "c.png").write_bytes(b"shorter")
    (folder / "d.png").unlink()
    made = cf.patch_sheet(path)
    reasons = {Path(each.name).name: each.reason for each in made.missing}
    assert sorted(reasons) == ["b.png", "c.png", "d.png"]
    assert "has changed since the run: its content is another" in reasons["b.png"]
    assert "has changed since the run: it had" in reasons["c.png"]
    assert "d.png" in reasons["d.png"]
    shown = [Path(record["image"]).stem for record in made.table if record["channel"] == BLUE]
    for rank, name in enumerate(shown):
        is_background = (made.patch(BLUE, rank) == made._look.colours.background).all()
        assert is_background == (name != "a")
        assert (made._rows[BLUE].labels[rank] == "missing") == (name != "a")
    assert made.drawn == 3


def test_photos_are_named_as_in_the_run(
    photos: Path, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    path = top_file(model, "photos", tmp_path / "top.safetensors", k=4)
    Path("photos/a.png").unlink()
    Path("photos/b.png").write_bytes(b"shorter")
    missing = cf.patch_sheet(path).missing
    assert [each.reason.split("'")[1] for each in missing] == ["photos/a.png", "photos/b.png"]


def test_tar_that_is_gone_is_named(photos: Path, model: Any, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "s.tar", {f"{name}.png": (photos / f"{name}.png").read_bytes() for name in NAMES})
    path = top_file(model, str(tar), tmp_path / "top.safetensors")
    loose = top_file(model, str(photos), tmp_path / "loose.safetensors")
    np.testing.assert_array_equal(cells(cf.patch_sheet(path)), cells(cf.patch_sheet(loose)))
    (tmp_path / "now").mkdir()
    tar.rename(tmp_path / "now" / "s.tar")
    with pytest.raises(ImageError, match=r"none of the \d photos .*s\.tar'\. .*--photos FOLDER"):
        cf.patch_sheet(path)
    there = cf.patch_sheet(path, photos=tmp_path / "now")
    np.testing.assert_array_equal(cells(there), cells(cf.patch_sheet(loose)))
    write_tar(tmp_path / "now" / "s.tar", {"other.png": b""})
    made = cf.patch_sheet(path, photos=tmp_path / "now")
    assert made.drawn == 0
    assert all("s.tar" in each.reason for each in made.missing)


def test_photos_that_were_moved_are_found_by_the_end_of_their_path(photos: Path, model: Any, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for name in NAMES:
        (old / "in" / name).mkdir(parents=True)  # all of one name
        shutil.copy(photos / f"{name}.png", old / "in" / name / "photo.png")
    path = top_file(model, str(old), tmp_path / "top.safetensors", k=4)
    expected = cells(cf.patch_sheet(path))
    old.rename(new)
    for folder in (new, new / "in"):
        made = cf.patch_sheet(path, photos=folder)
        assert made.missing == []
        np.testing.assert_array_equal(cells(made), expected)
        assert {record["path"] for record in made.table} == set(map(str, new.glob("in/*/photo.png")))
    (new / "in" / "a" / "photo.png").unlink()
    shutil.copy(photos / "b.png", new / "photo.png")
    (missing,) = cf.patch_sheet(path, photos=new).missing
    assert "has changed since the run" in missing.reason


def test_image_that_was_no_file_is_named(photos: Path, model: Any, tmp_path: Path) -> None:
    held = np.asarray(planted(80, 100, {BLUE: (40, 40)}))
    with pytest.raises(ImageError, match="no image of this run was a file"):
        cf.patch_sheet(top_file(model, [held], tmp_path / "top.safetensors"))
    made = cf.patch_sheet(top_file(model, [held, str(photos / "a.png")], tmp_path / "top.safetensors"))
    assert made.drawn
    assert [each.reason for each in made.missing] == ["image 'image0' was no file in the run."]


def test_layer_without_a_recorded_field_is_shown_whole(photos: Path, model: Any, tmp_path: Path) -> None:
    path = top_file(model, str(photos), tmp_path / "top.safetensors", fields={"other": {}})
    assert [cf.patch_sheet(path).table[0][name] for name in ("y0", "x0", "y1", "x1")] == [0, 0, 80, 100]


def test_wrong_options_are_refused(top: Path, photos: Path) -> None:
    both = TopFile({"1": read_top(top)["1"], "2": read_top(top)["1"]})
    with pytest.raises(LayerNotFoundError, match=r"no layer 'layer1' in this run\. It kept 1, 2"):
        cf.patch_sheet(both, "layer1")
    with pytest.raises(OptionError, match="layer must be one of 1, 2, got none"):
        cf.patch_sheet(both)
    with pytest.raises(OptionError, match="channels must be below 4 for this layer, got 7"):
        cf.patch_sheet(top, channels=[1, 7])
    with pytest.raises(OptionError, match="no such colour"):
        cf.patch_sheet(top, background="no such colour")
    with pytest.raises(InputError, match=r"--save top"):
        cf.patch_sheet(photos)
    with pytest.raises(OptionError, match="alpha goes with overlay"):
        cf.patch_sheet(top, alpha=0.3)


@pytest.mark.parametrize(("draw", "option"), [("random", "--top-random"), ("bands", "--top-bands")])
def test_draw_that_the_run_did_not_keep_is_refused_with_the_option_that_keeps_it(
    photos: Path, model: Any, tmp_path: Path, draw: str, option: str
) -> None:
    path = top_file(model, str(photos), tmp_path / "top.safetensors")
    with pytest.raises(OptionError, match=option):
        cf.patch_sheet(path, draw=draw)


def test_sheet_that_a_format_cannot_hold_is_refused(top: Path, tmp_path: Path) -> None:
    with pytest.raises(EncodeError, match="JPEG holds at most"):
        cf.patch_sheet(top, channels=[BLUE] * 800, per_channel=1).save(tmp_path / "a.jpg")
    (tmp_path / "b.json").write_text("[1]")
    with pytest.raises(WriteError, match="no manifest"):
        cf.patch_sheet(top).save(tmp_path / "b.png")


def test_class_of_an_image_stands_in_table_and_label(photos: Path, model: Any, tmp_path: Path) -> None:
    images = list_images(str(photos))
    described = describe(images, list(images.keys()), model, label_of=lambda key: Path(key).stem.upper())
    path = top_file(model, str(photos), tmp_path / "top.safetensors", photos=described)
    made = cf.patch_sheet(path, channels=BLUE)
    assert [record["class"] for record in made.table] == [Path(record["image"]).stem.upper() for record in made.table]
    for record, label in zip(made.table, made._rows[0].labels, strict=True):
        assert label == f"{record['value']:.3g} {record['class']}\n{Path(record['image']).stem}"
    plain = cf.patch_sheet(top_file(model, str(photos), tmp_path / "plain.safetensors"), channels=BLUE)
    assert made._look.grid.label_h == plain._look.grid.label_h + line_px(made._look.size)
    np.testing.assert_array_equal(cells(made), cells(plain))


def test_values_that_are_not_finite_stand_beside_their_channel(top: Path) -> None:
    file = read_top(top)
    file["1"].update(torch.tensor([[[[torch.inf, 1]], [[1, 1]], [[1, 1]], [[0, 0]]]]), ["other"])
    assert cf.patch_sheet(file)._rows[BLUE].lines == ("1 not finite",)


def test_photo_that_could_not_be_read_at_the_end_of_the_run_is_named(photos: Path, model: Any, tmp_path: Path) -> None:
    images = list_images(str(photos))
    described = describe(images, list(images.keys()), model)
    described[images.key(0)] |= {"size": None, "digest": None, "bytes": None}
    made = cf.patch_sheet(top_file(model, str(photos), tmp_path / "top.safetensors", photos=described, k=4))
    assert "could not be read at the end of the run" in made.missing[0].reason
    assert made.drawn == 9


def test_overlay_lays_the_map_of_the_channel_over_its_patches(top: Path, photos: Path, model: Any) -> None:
    plain, over = (cf.patch_sheet(top, tile=KERNEL, **more) for more in ({}, {"overlay": model, "alpha": 1}))
    viridis = make_palette("viridis", shows_background=False, shows_bad=False).colors
    for channel in (BLUE, VERTICAL):
        record = next(each for each in over.table if each["channel"] == channel)
        batch = cf.load_images(record["path"], model)
        maps = cf.capture(model, batch, "1")["1"][0, channel].numpy()
        # Every other pixel lies over a unit, and those between in the middle of two.
        around = maps[record["y"] - 2 : record["y"] + 3, record["x"] - 2 : record["x"] + 3] / record["value"]
        entries = np.floor(255 * around.clip(0, 1) + 0.5).astype(int)
        assert_close(over.patch(channel, 0)[1::2, 1::2], viridis[entries], ONE_LEVEL)
        assert (over.patch(channel, 0) != plain.patch(channel, 0)).any()
    half = cf.patch_sheet(top, tile=KERNEL, overlay=model)
    mixed = (over.patch(BLUE, 0).astype(float) + plain.patch(BLUE, 0)) / 2
    assert_close(half.patch(BLUE, 0), mixed, ONE_LEVEL)


def test_overlay_of_a_whole_field_spreads_the_map_over_the_input(photos: Path, model: Any, tmp_path: Path) -> None:
    path = top_file(model, str(photos), tmp_path / "top.safetensors", fields={"other": {}})
    over = cf.patch_sheet(path, overlay=model, alpha=1, tile=100)
    record = next(each for each in over.table if each["channel"] == BLUE)
    brightest = over.patch(BLUE, 0).astype(int).sum(-1).argmax()
    y, x = divmod(int(brightest), 100)
    assert y // 2 in range(record["y"] - 1, record["y"] + 2)
    assert x // 2 in range(record["x"] - 1, record["x"] + 2)


def test_overlay_by_another_model_is_refused(top: Path, photos: Path, tmp_path: Path) -> None:
    other = planted_network(imagenet_preset())
    with pytest.raises(CaptureError, match="sees another part of"):
        cf.patch_sheet(top, overlay=other, threads=1)
    (tmp_path / "run.json").write_text(json.dumps({"fingerprint": {"model": "of the run", "weights": "another"}}))
    assert dict(open_top(tmp_path).facts) == {"model": "planted", "weights_digest": "another"}
    with pytest.raises(OptionError, match="has other weights"):
        cf.patch_sheet(tmp_path, overlay=planted_network(ObjectDetection()))


@pytest.mark.parametrize("by", ["max", "mean"])
def test_overlay_by_another_preprocessing_of_the_same_view_is_refused(
    photos: Path, model: Any, tmp_path: Path, by: str
) -> None:
    path = top_file(model, str(photos), tmp_path / "top.safetensors", by=by)
    assert cf.patch_sheet(path, overlay=model).missing == []
    brighter = dataclasses.replace(model, preprocess=OwnPreprocess(Brighter()))
    with pytest.raises(CaptureError, match="another preprocessing than the run's"):
        cf.patch_sheet(path, overlay=brighter, threads=1)


class Brighter:
    """The preprocessing of the run, and values that are larger by a tenth."""

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return ObjectDetection()(image) * 1.1


def test_overlay_is_left_out_where_geometry_is_not_known(photos: Path, tmp_path: Path) -> None:
    mirrored = planted_network(
        OwnPreprocess(transforms.Compose([transforms.RandomHorizontalFlip(1.0), transforms.ToTensor()]))
    )
    path = top_file(mirrored, str(photos), tmp_path / "top.safetensors")
    sheets = [cf.patch_sheet(path, overlay=overlay).rgb() for overlay in (None, mirrored)]
    np.testing.assert_array_equal(*sheets)


def test_file_without_any_image_is_drawn_empty(tmp_path: Path) -> None:
    made = cf.patch_sheet(write_top(tmp_path / "top.safetensors", {"1": TopResponses(3)}))
    assert made.table == []
    assert cells(made).shape[:2] == (3, 1)
