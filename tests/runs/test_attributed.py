"""Heat maps over data sets: those of `cf.attribute`, however the run came about."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from support.assertions import FLOAT16, assert_close
from support.attention import transformer
from support.command_line import run
from support.heat import ClassToken, made
from support.processes import Python
from support.runs import (
    QUICK,
    Picky,
    assert_same_outcome,
    digests,
    interpolation,
    make_images,
    members,
    rows,
    wait_for_rows,
)
from support.waiting import await_random_moment
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.attribution.api import METHODS
from cnnviz_fast.cli import main as cli
from cnnviz_fast.errors import CaptureError, CnnvizError, OptionError, ShapeError
from cnnviz_fast.formats.atlas import parse_atlas
from cnnviz_fast.models.loaded import LoadedModel
from cnnviz_fast.models.preprocess import Preprocessing
from cnnviz_fast.runtime.caller import Note

HEAT: dict[str, Any] = {**QUICK, "save": "attribution"}
LAYER = "2"
CLASSIFIER = '''
"""A classifier of images of 24 px, which tells apart by what they have beyond a grey one."""
import torch
from torch import nn


def make():
    torch.manual_seed(1)
    trunk = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1)
    model = nn.Sequential(*trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    with torch.no_grad():
        model[5].weight *= 50
        model[5].bias -= model(torch.zeros(1, 3, 24, 24))[0]
    return model
'''


def classifier(module: nn.Module | None = None) -> LoadedModel:
    """Make a small classifier, whose last stage goes into its linear layer by a global mean."""
    if module is None:
        made: dict[str, Any] = {}
        exec(CLASSIFIER, made)
        module = made["make"]()
    preprocess = Preprocessing(None, (24, 24), interpolation(), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # type: ignore[arg-type]
    return LoadedModel(module.eval(), preprocess, "classifier", "seeded")  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def left_alone(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run over all images: heat maps and statistics."""
    folder = tmp_path_factory.mktemp("alone")
    cf.run(classifier(), images, [LAYER], folder, **{**HEAT, "save": "attribution,statistics"}, target=["top2", 1])
    return folder


def maps_in(folder: Path, method: str = "gradcam") -> torch.Tensor:
    """Return the heat maps that a run has kept, (N, K, h, w) float32, in the order of the images' names."""
    return torch.stack([cf.read_atlas(path).maps for path in sorted((folder / method).rglob("*.atlas"))])


def batch_of(images: Path, count: int | None = None) -> torch.Tensor:
    return cf.load_images(sorted(images.iterdir())[:count], classifier())


@pytest.mark.parametrize("method", METHODS)
def test_maps_are_those_of_attribute_to_the_last_bit(method: str, images: Path, tmp_path: Path) -> None:
    known = {"steps": 256, "samples": 3, "noise": 0.1, "seed": 5, "chunk": 64}
    options = {name: value for name, value in known.items() if name in METHODS[method].options}
    layer = LAYER if METHODS[method].of in ("layers", "both") else None
    model = classifier(transformer() if METHODS[method].of == "attention" else None)
    some = sorted(images.iterdir())[:4]
    target = None if METHODS[method].target == "none" else ["top2", 1]
    cf.run(model, some, layer, tmp_path, **HEAT, method=method, target=target, **options)
    found = maps_in(tmp_path, method)
    expected = cf.attribute(model, batch_of(images, 4), method, layer, target, **options)
    assert isinstance(expected, torch.Tensor)
    expected = expected.reshape(found.shape)
    for n, row in enumerate(rows(tmp_path)):
        assert torch.equal(found[n], expected[n].half().float())
        assert row["attribution"]["method"] == method
        of = "blocks.2.attn" if METHODS[method].of == "attention" else layer or "input"
        assert row["layer"] == f"{method}/{of}"
    assert {row["dtype"] for row in rows(tmp_path)} == {"float16"}
    if method in ("hirescam", "gradient"):
        assert (found < 0).any()


def test_attention_without_a_target_has_a_channel_for_each_head(images: Path, tmp_path: Path) -> None:
    some, model = sorted(images.iterdir())[:2], classifier(transformer())
    cf.run(model, some, None, tmp_path, **HEAT, method="attention")
    expected = cf.attribute(model, batch_of(images, 2), "attention")
    assert isinstance(expected, torch.Tensor)
    assert torch.equal(maps_in(tmp_path, "attention"), expected.half().float())
    assert all(row["attribution"]["targets"] is None for row in rows(tmp_path))


def test_rows_tell_which_class_was_explained(images: Path, left_alone: Path) -> None:
    scores = torch.cat([classifier().module(batch.unsqueeze(0)) for batch in batch_of(images)]).detach()
    classes = scores.argmax(1).tolist()
    assert len(set(classes)) > 1
    told = [row["attribution"]["targets"] for row in rows(left_alone) if row["layer"] == f"gradcam/{LAYER}"]
    assert [int(targets[0]["target"]) for targets in told] == classes
    assert [int(targets[2]["target"]) for targets in told] == [1] * len(classes)
    assert_close(np.array([targets[2]["score"] for targets in told]), scores[:, 1].numpy(), FLOAT16)


def test_statistics_are_of_the_layers_and_of_their_heat_maps(left_alone: Path) -> None:
    found = cf.read_statistics(left_alone / "statistics.safetensors")
    assert list(found) == [LAYER, f"gradcam/{LAYER}"]
    heat = maps_in(left_alone)
    assert found[f"gradcam/{LAYER}"].vmax.tolist() == heat.amax((0, 2, 3)).tolist()
    assert found[f"gradcam/{LAYER}"].images == len(heat)


def test_a_run_that_is_taken_up_has_come_to_the_same(images: Path, left_alone: Path, tmp_path: Path) -> None:
    options = {**HEAT, "save": "attribution,statistics", "target": ["top2", 1]}
    cf.run(classifier(), sorted(images.iterdir())[:9], [LAYER], tmp_path, **options)
    for path in tmp_path.glob("statistics*"):
        path.unlink()  # so that the heat maps of those are measured again
    cf.run(classifier(), images, [LAYER], tmp_path, **options)
    assert_same_outcome(tmp_path, left_alone)


def test_a_run_that_ctrl_c_stopped_has_come_to_the_same(images: Path, left_alone: Path, tmp_path: Path) -> None:
    options = {**HEAT, "save": "attribution,statistics", "target": ["top2", 1]}

    def interrupt(path: Path) -> None:
        if path.stem == "p0005":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        cf.run(classifier(), images, [LAYER], tmp_path, on_file=interrupt, **options)
    assert len(rows(tmp_path)) < len(rows(left_alone))
    cf.run(classifier(), images, [LAYER], tmp_path, **options)
    assert_same_outcome(tmp_path, left_alone)


@pytest.mark.long
def test_a_run_that_was_killed_has_come_to_the_same(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 120)
    (tmp_path / "net.py").write_text(CLASSIFIER)
    arguments = [
        "run", f"{tmp_path / 'net.py'}:make", str(tmp_path / "in"), "--layer", LAYER, "--size", "24", "--batch", "4",
        "--save", "attribution,statistics", "--target", "top2",
    ]  # fmt: skip
    assert run(*arguments, "--out", tmp_path / "alone") == cli.DONE
    random = np.random.default_rng(3)
    for kill in range(1, 3):
        process = Python("-m", "cnnviz_fast", *arguments, "--out", str(tmp_path / "out"))
        wait_for_rows(tmp_path / "out", 60 * kill, process)
        await_random_moment(random, 0.02)
        process.kill()
        assert process.end() == -signal.SIGKILL, "it ended before it was killed"
    assert run(*arguments, "--out", tmp_path / "out") == cli.DONE
    assert_same_outcome(tmp_path / "out", tmp_path / "alone")


def test_processes_share_the_images(images: Path, left_alone: Path, tmp_path: Path, monkeypatch: Any) -> None:
    for rank in range(2):
        for name, value in (("RANK", rank), ("WORLD_SIZE", 2), ("LOCAL_RANK", rank)):
            monkeypatch.setenv(name, str(value))
        options = {**HEAT, "save": "attribution,statistics"}
        cf.run(classifier(), images, [LAYER], tmp_path, **options, target=["top2", 1])
    assert_close(maps_in(tmp_path), maps_in(left_alone), FLOAT16)
    assert len(rows(tmp_path)) == len(rows(left_alone))
    assert list(cf.read_statistics(tmp_path / "statistics.safetensors")) == [LAYER, f"gradcam/{LAYER}"]


@pytest.mark.parametrize(
    "options", [{"batch": 1}, pytest.param({"batch": 64}, marks=pytest.mark.long), {"readers": 1}], ids=repr
)
def test_maps_do_not_depend_on_how_the_run_goes_about_it(
    options: dict[str, Any], images: Path, left_alone: Path, tmp_path: Path
) -> None:
    cf.run(classifier(), images, [LAYER], tmp_path, **{**HEAT, **options}, target=["top2", 1])
    assert_close(maps_in(tmp_path), maps_in(left_alone), FLOAT16)


def test_tars_hold_the_same_files(images: Path, left_alone: Path, tmp_path: Path) -> None:
    cf.run(classifier(), images, [LAYER], tmp_path, **HEAT, target=["top2", 1], shards=1)
    held = members(tmp_path)
    assert set(held) == set(digests(left_alone))
    assert all(held[name] == (left_alone / name).read_bytes() for name in held)


class Passes(nn.Module):
    """A classifier that counts how often it runs, where no run sets it back."""

    counted: ClassVar[list[int]] = []

    def __init__(self) -> None:
        super().__init__()
        self.inner = classifier().module

    def forward(self, batch: torch.Tensor) -> Any:
        self.counted.append(len(batch))
        return self.inner(batch)


def test_sheets_of_the_same_layers_take_no_second_pass(images: Path, tmp_path: Path) -> None:
    some, layer = sorted(images.iterdir())[:4], f"inner.{LAYER}"
    model = classifier(Passes())
    cf.run(model, some, [layer], tmp_path / "both", **{**HEAT, "save": "sheets,top,attribution"})
    assert Passes.counted.count(4) == 1
    cf.run(model, some, [layer], tmp_path / "sheets", **QUICK)
    made = digests(tmp_path / "both")
    assert {name: each for name, each in made.items() if name.startswith("inner")} == digests(tmp_path / "sheets")
    assert list(cf.read_top(tmp_path / "both")) == [layer]


class Fragile(nn.Module):
    """A classifier whose scores of bright images are NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = classifier().module

    def forward(self, batch: torch.Tensor) -> Any:
        bright = batch.amin(dim=(1, 2, 3)) == 1
        return self.inner(batch + torch.where(bright, torch.nan, 0.0)[:, None, None, None])


@pytest.mark.parametrize("method", ["gradcam", "eigencam", "cam", "ablationcam", "gradient"])
def test_an_image_without_a_score_fails_alone(method: str, tmp_path: Path) -> None:
    batch = torch.rand(6, 3, 24, 24, generator=torch.Generator().manual_seed(0)).sub(0.5)
    batch[[0, 3]] = 1
    layer = None if method == "gradient" else f"inner.{LAYER}"
    options = {**HEAT, "method": method, "batch": 3}
    summary = cf.run(classifier(Fragile()), batch, layer, tmp_path / "all", **options)
    assert (summary.finished, summary.failed) == (4, 2)
    for row in rows(tmp_path / "all", "failed"):
        assert "has a score of nan." in row["reason"] or "values that are not finite." in row["reason"]
    cf.run(classifier(), batch[[1, 2, 4, 5]], None if layer is None else LAYER, tmp_path / "sound", **options)
    assert_close(maps_in(tmp_path / "all", method), maps_in(tmp_path / "sound", method), FLOAT16)


def test_memory_that_runs_out_halves_the_batch(images: Path, tmp_path: Path) -> None:
    model = nn.Sequential(Picky(most=3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    summary = cf.run(classifier(model), images, ["0.conv"], tmp_path, **{**HEAT, "batch": 8})
    assert (summary.finished, summary.failed) == (len(list(images.iterdir())), 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "layercam"}, "attribution.method: layercam here, gradcam there"),
        ({"target": 2}, "attribution.target: 2 here, top there"),
        ({"method": "gradient", "layers": None}, "attribution.method"),
        ({"overlay": True}, "overlay"),
    ],
)
def test_a_folder_of_other_heat_maps_is_refused(
    change: dict[str, Any], message: str, images: Path, tmp_path: Path
) -> None:
    some, given = sorted(images.iterdir())[:2], {"layers": LAYER, **HEAT}
    cf.run(classifier(), some, out=tmp_path, **given)
    with pytest.raises(OptionError, match=message):
        cf.run(classifier(), some, out=tmp_path, **{**given, **change})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a method without": ({"save": "sheets", "method": "gradcam"}, "method goes with save 'attribution', got save"),
    "a target without": ({"save": "maps,top", "target": 1}, "target goes with save 'attribution', got save 'maps,top'"),
    "an option without": ({"save": "sheets", "steps": 3}, "steps goes with save 'attribution'"),
    "no such method": ({"method": "grad"}, "method must be one of gradcam"),
    "another method's option": ({"steps": 3}, "steps goes with integrated-gradients, got method 'gradcam'"),
    "a layer of the input": ({"method": "guided"}, "layers must be left out for guided, which is of the input"),
    "no layers of sheets": (
        {"save": "sheets,attribution", "layers": None},
        "layers must be named with save 'sheets,attribution'",
    ),
    "no such class": ({"target": 9}, "target must be a class from 0 to 4 for this model, got 9"),
    "no such name": ({"target": "zebra"}, "target must be the index of a class, as this model's classes have no names"),
    "a target of none": ({"method": "eigencam", "target": 1}, "target must be left out for eigencam"),
    "rows of others": ({"target": [[1], [2]]}, "target must have a row of classes for each image, got 2 rows for 3"),
    "planes of nothing": ({"planes": "0"}, "planes must be left out"),
    "a scale of pixels": (
        {"method": "gradient", "layers": None, "overlay": True, "normalize": "dataset"},
        "normalize 'dataset' goes with heat maps of layers, got method 'gradient'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_line(case: str, images: Path, tmp_path: Path) -> None:
    change, message = REFUSED[case]
    with pytest.raises(CnnvizError, match=message):
        cf.run(classifier(), sorted(images.iterdir())[:3], out=tmp_path / "out", **{"layers": LAYER, **HEAT, **change})
    left = list(tmp_path.glob("out/*"))
    assert left == [] or case == "no such class"  # of which there are so many shows when the model runs


def test_rows_of_targets_go_with_their_images(images: Path, tmp_path: Path) -> None:
    classes = np.arange(6) % 5
    some = sorted(images.iterdir())[:6]
    cf.run(classifier(), some, LAYER, tmp_path, **HEAT, target=classes)
    expected = cf.attribute(classifier(), batch_of(images, 6), layer=LAYER, target=classes)
    assert_close(maps_in(tmp_path)[:, 0], expected, FLOAT16)
    with pytest.raises(ShapeError, match=r"got 6 rows for images whose number is not known\."):
        cf.run(classifier(), iter(batch_of(images, 6)), LAYER, tmp_path / "other", **HEAT, target=classes)


def test_a_target_that_other_images_have_fails_their_image_alone(tmp_path: Path) -> None:
    sizes = [24, 24, 8]
    images = [torch.rand(3, size, size, generator=torch.Generator().manual_seed(size)) for size in sizes]
    summary = cf.run(
        classifier(nn.Sequential(nn.Conv2d(3, 2, 1), nn.Sigmoid())),
        images,
        "0",
        tmp_path,
        **HEAT,
        target=("1", 0, 20, 20),
    )
    assert (summary.finished, summary.failed) == (2, 1)
    assert "target must be a unit of layer '1', which has 2 channels of 8x8" in rows(tmp_path, "failed")[0]["reason"]


def test_without_layers_the_last_stage_is_explained(images: Path, tmp_path: Path) -> None:
    cf.run(classifier(), sorted(images.iterdir())[:2], None, tmp_path, **HEAT)
    expected = cf.attribute(classifier(), batch_of(images, 2))
    assert isinstance(expected, torch.Tensor)
    assert torch.equal(maps_in(tmp_path)[:, 0], expected.half().float())


def test_a_layer_without_a_gradient_ends_the_run_and_the_one_that_works_is_named(tmp_path: Path) -> None:
    model, batch = made(ClassToken), torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with pytest.raises(CaptureError, match=r"This one works: 'blocks\.0'"):
        cf.run(model, batch, "blocks.1", tmp_path / "named", **HEAT, target=3)
    with pytest.warns(Note, match=r"has no gradient at its places; taking 'blocks\.0'"):
        cf.run(model, batch, None, tmp_path / "free", **{**HEAT, "batch": 2}, target=3)
    assert [row["layer"] for row in rows(tmp_path / "free")] == ["gradcam/blocks.0"] * 4


def test_gradients_that_float16_would_lose_stay_float32(images: Path, tmp_path: Path) -> None:
    def faint(output: torch.Tensor) -> torch.Tensor:
        return output[:, 1] * 1e-9

    cf.run(classifier(), sorted(images.iterdir())[:2], None, tmp_path, **HEAT, method="gradient", target=faint)
    found, expected = (
        maps_in(tmp_path, "gradient"),
        cf.attribute(classifier(), batch_of(images, 2), "gradient", target=1),
    )
    assert {row["dtype"] for row in rows(tmp_path)} == {"float32"}
    assert_close(found * 1e9, expected, FLOAT16)


def test_overlays_are_the_sheets_of_the_command_attribute(tmp_path: Path) -> None:
    photos = [Path(cf.__file__).parent / "diagnostics" / "photos" / f"{name}.jpg" for name in ("cat", "coffee")]
    shared = ("cnnviz:small", *photos, "--layer", "stage2", "--method", "hirescam", "--target", "top2", "--tile", 40,
              "--align", "field")  # fmt: skip
    assert run("attribute", *shared, "--out", tmp_path / "few") == cli.DONE
    assert run("run", *shared, "--save", "attribution", "--overlay", "--batch", 1, "--readers", 0,
               "--out", tmp_path / "run") == cli.DONE  # fmt: skip
    for name in ("cat", "coffee"):
        path = f"hirescam/stage2/{name}.png"
        assert (tmp_path / "run" / path).read_bytes() == (tmp_path / "few" / path).read_bytes()


def test_one_scale_over_all_images_is_that_of_a_run_before(images: Path, tmp_path: Path) -> None:
    options = {**HEAT, "overlay": True, "normalize": "dataset"}
    cf.run(classifier(), sorted(images.iterdir())[:6], [LAYER], tmp_path, **options)
    assert len(list(tmp_path.glob(f"gradcam/{LAYER}/*.png"))) == 6
    assert f"gradcam/{LAYER}" in cf.read_statistics(tmp_path / ".dataset" / "statistics.safetensors")


def test_a_layer_that_is_called_as_the_method_has_another_folder(images: Path, tmp_path: Path) -> None:
    model = nn.Sequential()
    model.add_module("gradient", nn.Conv2d(3, 4, 3))
    options = {**HEAT, "save": "atlases,attribution", "method": "gradient", "target": ("gradient", 1)}
    cf.run(classifier(model), sorted(images.iterdir())[:2], ["gradient"], tmp_path, **options)
    files = [file for row in rows(tmp_path) for file in row["files"]]
    assert len(set(files)) == 4
    assert all((tmp_path / file).exists() for file in files)


def test_signals_and_volumes_have_heat_maps(tmp_path: Path) -> None:
    for name, make, shape in (("signals", nn.Conv1d, (4, 2, 20)), ("volumes", nn.Conv3d, (4, 2, 3, 6, 5))):
        torch.manual_seed(0)
        model = nn.Sequential(make(2, 3, 1), nn.ReLU(), nn.Flatten(2)).eval()
        batch = torch.rand(shape)
        for method, layer in (("gradcam", "0"), ("gradient", None)):
            options = {**HEAT, "method": method, "target": ("1", 1)}
            cf.run(model, batch, layer, tmp_path / name / method, **options)
            expected = cf.attribute(model, batch, method, layer, ("1", 1))
            assert isinstance(expected, torch.Tensor)
            found = maps_in(tmp_path / name / method, method)
            assert torch.equal(found, expected.half().float().reshape(found.shape))


def test_the_command_makes_atlases_that_can_be_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cat = Path(cf.__file__).parent / "diagnostics" / "photos" / "cat.jpg"
    out = tmp_path / "run"
    assert run("run", "cnnviz:small", cat, "--save", "attribution", "--method", "smoothgrad", "--samples", 2,
               "--target", "cat", "cup", "--readers", 0, "--seed", 3, "--out", out) == cli.DONE  # fmt: skip
    assert capsys.readouterr().out.split() == [str(out / "smoothgrad" / "cat.atlas")]
    atlas = parse_atlas((out / "smoothgrad" / "cat.atlas").read_bytes(), "cat")
    model = cf.load_model("cnnviz:small")
    batch = cf.load_images(cat, model)
    expected = cf.attribute(model, batch, "smoothgrad", target=["cat", "cup"], samples=2, seed=3)
    assert isinstance(expected, torch.Tensor)
    assert torch.equal(atlas.maps, expected.flatten(0, 2).half().float())
    assert run("atlas", out, "--normalize", "symmetric", "--out", tmp_path / "drawn") == cli.DONE
    assert run("run", "cnnviz:small", cat, "--method", "gradcam", "--out", tmp_path / "other") == cli.USAGE
    assert "method goes with save 'attribution', got save 'sheets'" in capsys.readouterr().err
