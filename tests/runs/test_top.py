"""The strongest images of each channel over a run: exactly the same, however it came about."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.assertions import MERGED, assert_close
from support.command_line import run
from support.processes import Python
from support.runs import NET, QUICK, assert_same_top, command, interpolation, make_images, rows, wait_for_rows
from support.waiting import await_random_moment
from torch import nn
from torch.utils.data import Dataset

import cnnviz_fast as cf
from cnnviz_fast.activations.fields.record import ReceptiveField
from cnnviz_fast.errors import CaptureError, OptionError
from cnnviz_fast.models.loaded import LoadedModel
from cnnviz_fast.models.preprocess import Preprocessing
from cnnviz_fast.patches.top import TopResponses
from cnnviz_fast.runs import top as top_of_runs
from cnnviz_fast.runs.top import LayerTop

K = 5
TOP: dict[str, Any] = {**QUICK, "save": "top", "top_k": K, "top_random": 2, "top_bands": 2, "labels": "folders"}
ALL = {**TOP, "top_k": 30}
"""As many as there are images, all of which are in the lists."""

LAYERS = ["0", "1"]
LEVELS = (0, 85, 170, 255)
"""Of which all images are made, so that most responses are equal to others."""


def exact_model() -> LoadedModel:
    """Make a model whose maps do not depend on the size of the batch."""
    preprocess = Preprocessing(None, (24, 24), interpolation(), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # type: ignore[arg-type]
    return LoadedModel(nn.Sequential(nn.MaxPool2d(4), nn.Hardtanh()).eval(), preprocess, "exact", "none")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of images in folders of three classes."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for n in range(23):
        path = folder / f"class{n % 3}" / f"p{n:02d}.png"
        path.parent.mkdir(exist_ok=True)
        coarse = Image.fromarray(random.choice(LEVELS, (3, 3, 3), p=(0.4, 0.4, 0.18, 0.02)).astype(np.uint8))
        coarse.resize((24, 24), Image.Resampling.NEAREST).save(path)
    return folder


@pytest.fixture(scope="module")
def left_alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run over them."""
    folder = tmp_path_factory.mktemp("alone")
    cf.run(exact_model(), photos, LAYERS, folder, **TOP)
    return folder


def paths_in(photos: Path) -> list[Path]:
    return sorted(photos.glob("*/*.png"))


@functools.cache
def maps_of(path: Path) -> Mapping[str, torch.Tensor]:
    return {
        layer: maps[0] for layer, maps in cf.capture(exact_model(), cf.load_images(path, exact_model()), LAYERS).items()
    }


def digest(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big", signed=True)


def strongest(
    paths: Sequence[Path], layer: str, channel: int, by: str = "max"
) -> list[tuple[float, str, tuple[int, int]]]:
    """Sort all images as they should be: value, key and position of each."""
    sign = -1 if by == "min" else 1
    entries = []
    for path in paths:
        maps = maps_of(path)[layer][channel].double().numpy()
        at = divmod(int((sign * maps).argmax()), maps.shape[1])
        value = float(np.float32(maps.mean())) if by == "mean" else float(maps[at])
        entries.append((-sign * value, digest(str(path)), at, str(path)))
    return [(-sign * score, key, at) for score, _, at, key in sorted(entries)]


@pytest.mark.parametrize("by", ["max", "mean", "min"])
def test_lists_are_those_of_all_activations_in_memory(by: str, photos: Path, tmp_path: Path) -> None:
    summary = cf.run(exact_model(), photos, LAYERS, tmp_path, save="top", top_k=K, top_by=by, **QUICK)
    assert summary.top == tmp_path / "top.safetensors"
    found = cf.read_top(tmp_path)
    for layer in LAYERS:
        for channel in range(3):
            expected = strongest(paths_in(photos), layer, channel, by)
            values = [value for value, _, _ in expected]
            assert len(set(values)) < len(values), "no ties"
            assert found[layer].values[channel].tolist() == values[:K]
            assert found[layer].images[channel].tolist() == [key for _, key, _ in expected[:K]]
            assert found[layer].positions[channel].tolist() == [list(at) for _, _, at in expected[:K]]


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 1},
        pytest.param({"batch": 64}, marks=pytest.mark.long),
        {"save": "top,statistics", "readers": 1},
        {"save": "sheets,top", "channels": "0"},
    ],
    ids=repr,
)
def test_lists_do_not_depend_on_how_the_run_goes_about_it(
    options: dict[str, Any], photos: Path, left_alone: Path, tmp_path: Path
) -> None:
    cf.run(exact_model(), photos, LAYERS, tmp_path, **{**TOP, **options})
    assert_same_top(tmp_path, left_alone)


def test_lists_are_the_same_for_a_shuffled_list_of_the_same_files(
    photos: Path, left_alone: Path, tmp_path: Path
) -> None:
    shuffled = np.random.default_rng(1).permutation([str(path) for path in paths_in(photos)])
    (tmp_path / "list.txt").write_text("\n".join(shuffled))
    cf.run(exact_model(), tmp_path / "list.txt", LAYERS, tmp_path / "out", **TOP)
    assert rows(tmp_path / "out")[0]["key"] == shuffled[0]
    assert_same_top(tmp_path / "out", left_alone)


def test_lists_are_the_same_from_several_processes(
    photos: Path, left_alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in range(3):
        for name, value in (("RANK", rank), ("WORLD_SIZE", 3), ("LOCAL_RANK", rank)):
            monkeypatch.setenv(name, str(value))
        summary = cf.run(exact_model(), photos, LAYERS, tmp_path, **TOP)
    assert summary.top == tmp_path / "top.safetensors"
    assert_same_top(tmp_path, left_alone)


def test_lists_are_the_same_where_a_run_is_taken_up(photos: Path, left_alone: Path, tmp_path: Path) -> None:
    paths = paths_in(photos)
    cf.run(exact_model(), paths[:9], LAYERS, tmp_path, **TOP)
    kept = (tmp_path / "top.safetensors").read_bytes()
    cf.run(exact_model(), paths[:17], LAYERS, tmp_path, **TOP)
    (tmp_path / "top.safetensors").write_bytes(kept)  # as a kill leaves it: eight images behind the index
    summary = cf.run(exact_model(), photos, LAYERS, tmp_path, **TOP)
    assert (summary.finished, summary.skipped) == (len(paths) - 17, 17)
    assert_same_top(tmp_path, left_alone)


def test_lists_are_the_same_after_ctrl_c(photos: Path, left_alone: Path, tmp_path: Path) -> None:
    options = {**TOP, "save": "sheets,top"}

    def interrupt(path: Path) -> None:
        if path.stem == "p09" and path.parent.name == "0":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        cf.run(exact_model(), photos, LAYERS, tmp_path, on_file=interrupt, **options)
    assert len(rows(tmp_path)) < len(rows(left_alone))
    assert list(tmp_path.glob(".top.*"))
    cf.run(exact_model(), photos, LAYERS, tmp_path, **options)
    assert_same_top(tmp_path, left_alone)


@pytest.mark.long
def test_lists_are_the_same_after_kills(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 160)
    (tmp_path / "net.py").write_text(NET)
    top = ("--save", "top,statistics", "--top-random", "3", "--labels", "folders")
    assert run(*command(tmp_path / "net.py", tmp_path / "in", tmp_path / "alone", *top)) == 0
    arguments = command(tmp_path / "net.py", tmp_path / "in", tmp_path / "out", *top)
    random = np.random.default_rng(5)
    for kill in range(1, 4):
        process = Python("-m", "cnnviz_fast", *arguments)
        wait_for_rows(tmp_path / "out", 70 * kill, process)
        await_random_moment(random, 0.02)
        process.kill()
        assert process.end() == -signal.SIGKILL, "it ended before it was killed"
    assert run(*arguments) == 0
    assert_same_top(tmp_path / "out", tmp_path / "alone")


def test_a_finished_run_writes_the_same_file_again(photos: Path, left_alone: Path) -> None:
    before = (left_alone / "top.safetensors").read_bytes()
    assert cf.run(exact_model(), photos, LAYERS, left_alone, **TOP).finished == 0
    assert (left_alone / "top.safetensors").read_bytes() == before


def test_the_index_and_the_files_are_those_of_statistics_alone(photos: Path, left_alone: Path, tmp_path: Path) -> None:
    cf.run(exact_model(), photos, LAYERS, tmp_path, save="statistics", **QUICK)
    assert rows(left_alone) == rows(tmp_path)
    assert {path.name for path in left_alone.iterdir()} - {path.name for path in tmp_path.iterdir()} == {
        "top.safetensors"
    }
    assert json.loads((left_alone / "manifest.json").read_text())["top"] == "top.safetensors"


def test_model_that_cannot_be_followed_has_whole_fields_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*given: object) -> None:
        raise CaptureError("no input goes through the model.")

    monkeypatch.setattr(top_of_runs, "receptive_field", fail)
    fields = top_of_runs._fields_of(["a", "b"], exact_model(), (8, 12))
    assert set(fields) == {"a", "b"}
    assert (fields["b"]["size"], fields["b"]["whole"]) == ([8, 12], True)
    assert fields["b"]["reasons"] == ["no input goes through the model."]
    assert ReceptiveField.from_json(fields["b"]).box(0, 0) == (0, 0, 8, 12)
    assert top_of_runs._fields_of(["a"], exact_model(), None) == {}


def test_images_in_the_lists_and_fields_of_layers_are_described(photos: Path, left_alone: Path) -> None:
    found = cf.read_top(left_alone)
    listed = {key for top in found.values() for kind in top.kinds for key in top.draws(kind).images.flat}
    assert set(found.photos) == listed - {""}
    assert all(photo["path"] == key for key, photo in found.photos.items())
    photo = next(iter(found.photos.values()))
    assert (photo["size"], photo["view"], photo["input"]) == ([24, 24], [0, 0, 24, 24], [24, 24])
    assert [found.fields[layer]["size"] for layer in LAYERS] == [[4, 4], [4, 4]]
    assert found.facts["model"] == "exact"


def test_a_finished_image_that_is_gone_is_no_error(photos: Path, tmp_path: Path) -> None:
    image = tmp_path / "in" / "a.png"
    image.parent.mkdir()
    image.write_bytes(paths_in(photos)[0].read_bytes())
    (tmp_path / "list.txt").write_text(str(image))
    for _ in range(2):
        cf.run(exact_model(), tmp_path / "list.txt", ["0"], tmp_path / "out", save="top", **QUICK)
        image.unlink(missing_ok=True)
    found = cf.read_top(tmp_path / "out")
    assert found["0"].seen == 1
    assert found.photos[str(image)]["size"] is None


def test_photo_that_changed_after_the_model_read_it_is_named_and_not_drawn(photos: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(photos, folder)
    paths = paths_in(folder)
    cf.run(exact_model(), paths[:12], ["0"], out, **ALL)
    before = paths[0].stat()
    Image.new("RGB", (24, 24), "magenta").save(paths[0])
    os.utime(paths[0], ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert cf.run(exact_model(), folder, ["0"], out, **{**ALL, "batch": 2}).finished == len(paths) - 12
    made = cf.patch_sheet(out)
    assert {each.name: each.reason for each in made.missing} == {
        str(paths[0]): f"image {str(paths[0])!r} had changed by the end of the run since the model read it."
    }
    assert 0 < made.drawn < len(made.table)


def test_photo_that_changes_before_the_run_ends_is_named(photos: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(photos, folder)

    def change(path: Path) -> None:
        if path.stem == "p22":
            Image.new("RGB", (24, 24), "magenta").save(paths_in(folder)[0])

    cf.run(exact_model(), folder, ["0"], out, on_file=change, **{**ALL, "save": "sheets,top"})
    assert [each.name for each in cf.patch_sheet(out).missing] == [str(paths_in(folder)[0])]


def test_stamps_of_images_that_left_the_lists_are_forgotten(photos: Path) -> None:
    record = LayerTop(TopResponses(1, 1))
    for n, path in enumerate(map(str, paths_in(photos))):
        one = record.blank()
        one.top.update(torch.full((1, 1, 2, 2), float(n + 1)), [path])
        one.stamp([path])
        record.merge(one)
    record.top.to_arrays()  # which asks what is in the lists
    record.forget()
    assert list(record.stamps) == [str(paths_in(photos)[-1])]


class Frames(Dataset[torch.Tensor]):
    """Volumes of two planes."""

    def __init__(self) -> None:
        self.values = torch.randint(-9, 9, (12, 3, 2, 5, 6), generator=torch.Generator().manual_seed(0)).float()

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, position: int) -> torch.Tensor:
        return self.values[position]


@pytest.mark.parametrize("by", ["max", "min"])
def test_planes_of_a_volume_are_one_image(by: str, tmp_path: Path) -> None:
    volumes = Frames()
    (tmp_path / "labels.csv").write_text("".join(f"{n:08d},{'odd' if n % 2 else 'even'}\n" for n in range(12)))
    labels = str(tmp_path / "labels.csv")
    model = nn.Sequential(nn.Conv3d(3, 3, 1, bias=False), nn.Identity())  # its first layer asks for volumes
    nn.init.dirac_(model[0].weight)
    cf.run(model, volumes, ["1"], tmp_path / "out", save="top", top_k=K, top_by=by, labels=labels, **QUICK)
    file = cf.read_top(tmp_path / "out")
    top = file["1"]
    assert top.seen == 12
    expected = volumes.values.amin(dim=(2, 3, 4)) if by == "min" else volumes.values.amax(dim=(2, 3, 4))
    order = expected.sort(dim=0, descending=by == "max").values[:K]
    assert np.array_equal(top.values, order.T.numpy())
    assert all(len(set(keys)) == K for keys in top.images)
    known = {name: n for n, name in enumerate(file.classes["1"].classes)}
    assert_close(file.classes["1"].mean[known["odd"]], expected[1::2].double().mean(dim=0).numpy(), MERGED)


class Broken(Frames):
    """Images of which some hold NaN."""

    def __getitem__(self, position: int) -> torch.Tensor:
        image = self.values[position, :, 0].clone()
        if position % 3 == 0:
            image[1, 2:] = torch.nan
        return image


def test_values_that_are_not_finite_are_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cf.run(nn.Sequential(nn.Identity()), Broken(), ["0"], tmp_path, save="top", top_k=12, **QUICK)
    top = cf.read_top(tmp_path)["0"]
    assert top.nonfinite.tolist() == [0, 4 * 3 * 6, 0]
    assert np.isfinite(top.values).all()
    assert capsys.readouterr().err == (
        "cnnviz: 0 has NaN or infinite values in 1 channels, which are never among the strongest\n"
        "cnnviz: patches cannot be cut from this run, since no image of it is a file\n"
    )


def test_fewer_images_than_entries_are_said(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cf.run(exact_model(), paths_in(photos)[:3], ["0"], tmp_path, save="top", top_k=4, **QUICK)
    assert capsys.readouterr().err == "cnnviz: 0 has 3 images for each channel, not 4, since there are no more\n"
    top = cf.read_top(tmp_path)["0"]
    assert (top.images[:, :3] != "").all()
    assert (top.images[:, 3] == "").all()


def test_images_without_a_class_are_counted_and_said(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {str(path.relative_to(photos)): path.parent.name for path in paths_in(photos)[2:]}
    (tmp_path / "labels.json").write_text(json.dumps(named))
    labels = str(tmp_path / "labels.json")
    cf.run(exact_model(), photos, ["0"], tmp_path / "out", save="top", labels=labels, **QUICK)
    assert capsys.readouterr().err == "cnnviz: 0: 2 of 23 images have no class in labels\n"
    classes = cf.read_top(tmp_path / "out").classes["0"]
    of_class = {name: set(count.tolist()) for name, count in zip(classes.classes, classes.count, strict=True)}
    assert of_class == {"class0": {6}, "class1": {8}, "class2": {7}}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"top_k": 4}, "top_k: 4 here, 5 there"),
        ({"top_seed": 1}, "top_seed: 1 here, 0 there"),
        ({"labels": None}, "labels: null here, folders there"),
    ],
)
def test_another_choice_is_another_run(changed: dict[str, Any], message: str, photos: Path, left_alone: Path) -> None:
    with pytest.raises(OptionError, match=message):
        cf.run(exact_model(), photos, LAYERS, left_alone, **{**TOP, **changed})


def test_labels_of_other_content_are_another_run(photos: Path, tmp_path: Path) -> None:
    options = {**TOP, "labels": str(tmp_path / "labels.csv")}
    for content in ("p00.png,a\n", "p00.png,b\n"):
        (tmp_path / "labels.csv").write_text(content)
        if content.endswith("a\n"):
            cf.run(exact_model(), photos, ["0"], tmp_path / "out", **options)
    with pytest.raises(OptionError, match=r"other settings: labels: \w{8} here, \w{8} there"):
        cf.run(exact_model(), photos, ["0"], tmp_path / "out", **options)


def test_folders_are_no_classes_of_a_data_set(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^labels 'folders' go with files"):
        cf.run(nn.Sequential(nn.Identity()), Broken(), ["0"], tmp_path / "out", **TOP)
    assert not (tmp_path / "out").exists()


def test_options_that_do_not_go_together_are_refused_before_anything_is_done(photos: Path, tmp_path: Path) -> None:
    for options, said in (
        ({"top_by": "mean", "top_repeat": 2}, "top_repeat must be 1 with top_by 'mean', since a map has one, got 2"),
        ({"top_k": 99_999_999}, "top_k must be a whole number from 1 to 65536, got 99999999"),
        ({"top_repeat": 999}, "top_repeat must be a whole number from 1 to 256"),
        ({"top_random": 5000, "top_bands": 60}, "top_random must be at most 136 with 60 top_bands, got 5,000"),
        ({"top_random": 1, "top_bands": 99}, "top_bands must be a whole number from 0 to 64"),
    ):
        with pytest.raises(OptionError, match=f"^{said}"):
            cf.run(exact_model(), photos, ["0"], tmp_path / "out", save="top", **options)
    assert not (tmp_path / "out").exists()


def test_the_command_names_the_file_and_what_draws_it(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\n\ndef make():\n    return nn.Sequential(nn.MaxPool2d(4))\n")
    out = tmp_path / "out"
    arguments = ["--layer", "0", "--size", "24", "--readers", "0", "--out", str(out), "--save", "top", "--top-k", "3"]
    assert run("run", f"{tmp_path / 'net.py'}:make", str(photos), *arguments) == 0
    printed, said = capfd.readouterr()
    assert printed == ""
    line = f"{out / 'top.safetensors'} has the images of each channel; draw them: cnnviz patches {out}"
    assert line in said.splitlines()
    assert cf.read_top(out)["0"].k == 3
    assert run("patches", str(out), "--out", str(tmp_path / "sheets")) == 0


def test_vectors_have_no_places(tmp_path: Path) -> None:
    model = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
    cf.run(model, [torch.full((3, 8, 8), float(n)) for n in range(6)], ["1"], tmp_path, save="top", top_k=K, **QUICK)
    top = cf.read_top(tmp_path)["1"]
    assert top.map_size == (0, 0)
    assert top.values.tolist() == [[5, 4, 3, 2, 1]] * 3
