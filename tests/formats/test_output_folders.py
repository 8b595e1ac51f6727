"""A run has a folder of its own: what one writes is never mixed with what another has written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.cases import noise
from support.runs import QUICK, digests, make_images, small_model

import cnnviz_fast as cf
from cnnviz_fast.errors import OptionError, WriteError
from cnnviz_fast.formats import output_folders
from cnnviz_fast.formats.output_folders import holds_a_run, output_folder, refuse_mixing
from cnnviz_fast.models.loaded import LoadedModel
from cnnviz_fast.runtime.run_files import RUN

OLDER = json.loads((Path(__file__).parent / "older_outputs.json").read_text())


def a_run(folder: Path, older: bool = False) -> Path:
    """Make a folder look like that of a run."""
    folder.mkdir(exist_ok=True)
    (folder / RUN).write_text(json.dumps(OLDER["run/run.json"]) if older else "{}")
    (folder / "index.jsonl").touch()
    return folder


def a_sheet(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cf.save_sheet(noise(2, 3, 3), path, tile=4)


@pytest.mark.parametrize(
    ("names", "is_run"),
    [
        (["run.json", "index.jsonl"], True),
        (["run.json", "index-1-of-2.jsonl"], True),
        (["run.json"], False),
        (["index.jsonl"], False),
        (["run.json", "failed.jsonl"], False),
        (["run.json", "my-index.jsonl"], False),
    ],
)
def test_holds_a_run_needs_the_settings_and_an_index(names: list[str], is_run: bool, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert holds_a_run(tmp_path) is is_run
    assert not holds_a_run(tmp_path / "missing")


@pytest.mark.parametrize("older", [False, True])
def test_refuse_mixing_keeps_others_out_of_a_run(older: bool, tmp_path: Path) -> None:
    a_run(tmp_path, older)
    with pytest.raises(OptionError) as caught:
        refuse_mixing(tmp_path)
    assert str(caught.value) == (
        "out must not be the folder of a run, which would take other files for its own, "
        f"got {str(tmp_path)!r}. Give another folder."
    )
    refuse_mixing(tmp_path, of_run=True)


@pytest.mark.parametrize("sheet", ["conv1/cat.png", "conv1/cat.npy", "layer4/a.b.jpg"])
def test_refuse_mixing_keeps_a_run_out_of_sheets(sheet: str, tmp_path: Path) -> None:
    a_sheet(tmp_path / sheet)
    with pytest.raises(OptionError) as caught:
        refuse_mixing(tmp_path, of_run=True)
    assert str(caught.value) == (
        f"out must be a folder of its own for a run, got {str(tmp_path)!r}, where another command wrote "
        f"{sheet.rpartition('.')[0]!r}. Give another folder."
    )
    refuse_mixing(tmp_path)


def test_refuse_mixing_keeps_a_run_out_of_single_files_and_comparisons(tmp_path: Path) -> None:
    cf.save_tiles(noise(2, 3, 3), tmp_path / "tiles" / "conv1" / "tiles" / "cat", tile=4)
    (tmp_path / "pair" / "conv1").mkdir(parents=True)
    cf.compare(noise(2, 3, 3), noise(2, 3, 3), tile=4).save(tmp_path / "pair" / "conv1" / "a_b.png")
    for folder, wanted in (("tiles", "conv1/tiles/cat"), ("pair", "conv1/a_b_(compare|difference)")):
        with pytest.raises(OptionError, match=f"'{wanted}'"):
            refuse_mixing(tmp_path / folder, of_run=True)


def test_refuse_mixing_lets_a_run_beside_what_it_would_not_write_over(tmp_path: Path) -> None:
    a_sheet(tmp_path / "cat.png")
    a_sheet(tmp_path / "mine" / "sheets" / "cat.png")
    cf.save_tiles(noise(2, 3, 3), tmp_path / "mine" / "tiles-of-cat", tile=4)
    photo = tmp_path / "photos" / "cat.jpg"
    photo.parent.mkdir()
    photo.touch()
    photo.with_suffix(".json").write_text('{"label": "cat"}')
    refuse_mixing(tmp_path, of_run=True)
    refuse_mixing(tmp_path / "missing", of_run=True)


def test_refuse_mixing_lets_a_process_into_the_run_that_another_has_just_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(manifest: Path) -> bool:
        a_run(tmp_path)
        return True

    cf.save_tiles(noise(2, 3, 3), tmp_path / "conv1" / "tiles" / "cat", tile=4)
    monkeypatch.setattr(output_folders, "_is_ours", meanwhile)
    refuse_mixing(tmp_path, of_run=True)


@pytest.mark.parametrize("of_run", [False, True])
def test_output_folder_refuses_before_it_makes_a_folder(of_run: bool, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"must be one of \.png"):
        output_folder(tmp_path / "new", "gif", of_run=of_run)
    older = tmp_path / "older" / "cat_conv1" / "manifest.json"
    older.parent.mkdir(parents=True)
    older.write_text(json.dumps(OLDER["each/cat_conv1/manifest.json"]))
    with pytest.raises(OptionError, match="older layout"):
        output_folder(tmp_path / "older", of_run=of_run)
    (tmp_path / "a_file").touch()
    with pytest.raises(WriteError, match="a_file"):
        output_folder(tmp_path / "a_file", of_run=of_run)
    assert not (tmp_path / "new").exists()
    assert output_folder(str(tmp_path / "new" / "er"), of_run=of_run).path == tmp_path / "new" / "er"
    assert (tmp_path / "new" / "er").is_dir()


def test_visualize_and_run_keep_out_of_each_others_folders(tmp_path: Path) -> None:
    (image,) = make_images(tmp_path / "in", 1)
    cf.run(small_model(), image, "0", tmp_path / "run", **QUICK)
    cf.visualize(small_model(), image, "0", tmp_path / "few", tile=8)
    before = [digests(tmp_path / name) for name in ("run", "few")]
    with pytest.raises(OptionError, match="must not be the folder of a run"):
        cf.visualize(small_model(), image, "0", tmp_path / "run", tile=8)
    with pytest.raises(OptionError, match="where another command wrote '0/p0000'"):
        cf.run(small_model(), image, "0", tmp_path / "few", **QUICK)
    assert cf.run(small_model(), image, "0", tmp_path / "run", **QUICK).skipped == 1
    assert [digests(tmp_path / name) for name in ("run", "few")] == before


@pytest.mark.parametrize("save", ["tiles", "sheets,tiles"])
def test_run_that_writes_tiles_is_taken_up(save: str, tmp_path: Path) -> None:
    images = make_images(tmp_path / "in", 2)
    for skipped in (0, 1):
        done = cf.run(small_model(), images[: skipped + 1], "0", tmp_path / "run", save=save, **QUICK)
        assert (done.finished, done.skipped) == (1, skipped)


def test_run_refuses_an_older_folder_before_anything_is_made(tmp_path: Path) -> None:
    older = tmp_path / "out" / "cat_conv1" / "manifest.json"
    older.parent.mkdir(parents=True)
    older.write_text(json.dumps(OLDER["each/cat_conv1/manifest.json"]))
    with pytest.raises(OptionError, match="older layout"):
        cf.run("no model", tmp_path / "no images", "0", tmp_path / "out")
    assert list((tmp_path / "out").rglob("*")) == [older.parent, older]


def test_refuse_mixing_keeps_few_of_many_files_in_memory(tmp_path: Path) -> None:
    import tracemalloc

    for n in range(5000):
        (tmp_path / "layer4").mkdir(exist_ok=True)
        (tmp_path / "layer4" / f"{n}.png").touch()
    for of_run in (False, True):
        tracemalloc.start()
        try:
            refuse_mixing(tmp_path, of_run=of_run)
            assert tracemalloc.get_traced_memory()[1] < 5000 * 20
        finally:
            tracemalloc.stop()


def resnet_like(name: str, weights: str = "seeded") -> LoadedModel:
    return dataclasses.replace(small_model(), spec=name, weights=weights)


def test_visualize_keeps_sheets_of_other_models_unless_told_otherwise(tmp_path: Path) -> None:
    (image,) = make_images(tmp_path / "in", 1)

    def draw(name: str, **options: Any) -> str:
        cf.visualize(resnet_like(name), image, "0", tmp_path / "out", tile=8, **options)
        return json.loads((tmp_path / "out" / "0" / "p0000.json").read_text())["model"]

    assert draw("a") == draw("a") == "a"
    before = digests(tmp_path / "out")
    said = r"^out must not hold what another model made where this one's goes, got '.*p0000\.png' of a, seeded\. Give"
    for other in (resnet_like("b"), resnet_like("a", "tuned.pth")):
        with pytest.raises(OptionError, match=said):
            cf.visualize(other, image, "0", tmp_path / "out", tile=8)
    assert digests(tmp_path / "out") == before
    assert draw("b", overwrite=True) == "b"
    (tmp_path / "out" / "0" / "p0000.json").unlink()  # a sheet alone may be anybody's
    assert draw("c") == "c"


def test_visualize_keeps_sheets_of_another_module_of_the_same_class(tmp_path: Path) -> None:
    def net(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.LazyConv2d(4, 3), torch.nn.BatchNorm2d(4)).eval()

    (image,) = make_images(tmp_path / "in", 1)
    first = net(0)
    for model in (first, first, net(0)):  # lazy layers have their values after the first pass
        torch.manual_seed(0)
        cf.visualize(model, image, "0", tmp_path / "out", tile=8)
    before = digests(tmp_path / "out")
    torch.manual_seed(1)
    other = net(1)
    said = r"got '.*p0000\.png' of Sequential, as given, whose weights have other values\. Give another folder, or"
    with pytest.raises(OptionError, match=said):
        cf.visualize(other, image, "0", tmp_path / "out", tile=8)
    first[1].running_mean += 1  # trained on, it is another
    with pytest.raises(OptionError, match=said):
        cf.visualize(first, image, "0", tmp_path / "out", tile=8)
    assert digests(tmp_path / "out") == before
    cf.visualize(other, image, "0", tmp_path / "out", tile=8, overwrite=True)
    assert digests(tmp_path / "out") != before


def test_check_takes_older_manifests_without_digests(tmp_path: Path) -> None:
    folder = output_folder(tmp_path)
    known = {"model": "a", "weights": "w"}
    older, newer = cf.Provenance(**known), cf.Provenance(**known, weights_digest="1")
    for n, there in enumerate((older, newer)):
        path = folder.place("0", str(n), ".png", dict)
        cf.save_sheet(noise(2, 3, 3), path, tile=4, provenance=there)
        for digest in (None, "1"):
            folder.check(path, lambda digest=digest: known | {"weights_digest": digest})
    with pytest.raises(OptionError, match="whose weights have other values"):
        folder.check(path, lambda: known | {"weights_digest": "2"})


def test_visualize_in_a_folder_that_is_swapped_meanwhile_is_an_error(tmp_path: Path) -> None:
    images = make_images(tmp_path / "in", 2)
    out = tmp_path / "out"

    class Swapping(torch.nn.Conv2d):
        calls = 0

        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            if list(out.glob("*/*.png")):
                out.rename(tmp_path / "kept")
                out.symlink_to("kept")
            return super().forward(batch)

    with pytest.raises(
        WriteError, match=r"out: the folder was removed, renamed or replaced meanwhile\. Run it again\.$"
    ):
        cf.visualize(torch.nn.Sequential(Swapping(3, 4, 3)), images, "0", out, tile=8)
    assert len(list((tmp_path / "kept").glob("*/*.png"))) == 1


def test_place_of_single_files_and_comparisons_keeps_other_models(tmp_path: Path) -> None:
    maps = noise(2, 3, 3)
    a, b = (cf.Provenance(model=name, weights="w") for name in "ab")
    folder = output_folder(tmp_path)
    tiles = folder.place("0", "cat", "", dict, kind="tiles")
    cf.save_tiles(maps, tiles, tile=4, provenance=a)
    compared = cf.compare(maps, maps, tile=4, provenance_a=a, provenance_b=b)
    compared.save(tmp_path / "0" / "cat.png")
    folder.place("0", "cat", "", lambda: {"model": "a", "weights": "w"}, kind="tiles")
    folder.place("0", "cat_difference", ".png", lambda: compared.difference.manifest)
    for name, ending, kind in (("cat", "", "tiles"), ("cat_difference", ".png", "")):
        with pytest.raises(OptionError, match="what another model made"):
            folder.place("0", name, ending, lambda: {"model": "b", "weights": "w"}, kind=kind)
        output_folder(tmp_path, overwrite=True).place("0", name, ending, dict, kind=kind)


@pytest.mark.parametrize("of_run", [False, True])
def test_output_folder_of_odd_names_and_links_is_made_or_refused(of_run: bool, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match="File name too long"):
        output_folder(tmp_path / ("x" * 300), of_run=of_run)
    with pytest.raises(WriteError, match="cannot hold the character NUL"):
        output_folder(tmp_path / "a\0b", of_run=of_run)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "itself").symlink_to(tmp_path / "out" / "itself")
    (tmp_path / "out" / "above").symlink_to(tmp_path / "out")
    (tmp_path / "out" / "nowhere.json").symlink_to(tmp_path / "nowhere")
    assert output_folder(tmp_path / "out", of_run=of_run).path == tmp_path / "out"
