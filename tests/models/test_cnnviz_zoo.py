"""The package's own networks: names, weights, classes, and what they say of a photo."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.assertions import assert_equal_tensors
from support.looping import over

import cnnviz_fast as cf
from cnnviz_fast.cli import main as cli
from cnnviz_fast.errors import ModelError
from cnnviz_fast.models import cnnviz_zoo

SPECS = [f"cnnviz:{name}" for name in cnnviz_zoo.NAMES]
PHOTOS = Path(cf.__file__).parent / "diagnostics" / "photos"


@pytest.mark.parametrize("spec", SPECS)
def test_load_model_is_trained_unless_asked_otherwise(spec: str) -> None:
    trained, named, random, again, other = (
        cf.load_model(spec, weights=weights, seed=seed, device="cpu")
        for weights, seed in [(None, 0), (cnnviz_zoo.TRAINED, 5), ("none", 5), ("None", 5), ("none", 6)]
    )
    assert (trained.spec, trained.weights, random.weights) == (spec, "PHOTOS_V1", "random, seed 5")
    kernels = [next(model.module.parameters()) for model in (trained, named, random, again, other)]
    assert_equal_tensors(kernels[0], kernels[1])
    assert_equal_tensors(kernels[2], kernels[3])
    assert not torch.equal(kernels[0], kernels[2])
    assert not torch.equal(kernels[2], kernels[4])
    assert not trained.module.training


def test_load_model_classes_come_with_the_trained_weights_alone() -> None:
    trained, random = (cf.load_model("cnnviz:small", weights=weights, device="cpu") for weights in ("DEFAULT", "none"))
    assert trained.categories is not None
    assert {"brick", "cat", "cup", "grass"} < set(trained.categories)
    assert len(trained.categories) == trained.module.head.out_features
    assert random.categories is None
    assert cf.load_model("cnnviz:filters", device="cpu").categories is None


def test_load_model_takes_a_checkpoint_of_its_own_names(tmp_path: Path) -> None:
    state = cf.load_model("cnnviz:small", weights="none", seed=3, device="cpu").module.state_dict()
    torch.save(state, tmp_path / "mine.pth")
    model = cf.load_model("cnnviz:small", weights=tmp_path / "mine.pth", device="cpu", strict_weights=True)
    assert (model.weights, model.categories) == ("mine.pth", None)
    assert_equal_tensors(model.module.head.weight, state["head.weight"])


def test_trained_files_are_small_finite_and_complete() -> None:
    files = [cnnviz_zoo.trained_file(name) for name in cnnviz_zoo.NAMES]
    assert sum(file.stat().st_size for file in files) <= 1_500_000
    for spec, file in zip(SPECS, files, strict=True):
        model = cf.load_model(spec, weights=file, device="cpu", strict_weights=True)
        assert all(torch.isfinite(value).all() for value in model.module.state_dict().values())


@pytest.mark.parametrize(("photo", "category"), [("cat.jpg", "cat"), ("coffee.jpg", "cup")])
def test_small_network_tells_what_a_photo_shows(photo: str, category: str) -> None:
    model = cf.load_model("cnnviz:small", device="cpu")
    with torch.no_grad():
        scores = model.module(cf.load_images(PHOTOS / photo, model))[0]
    assert model.categories is not None
    assert model.categories[scores.argmax()] == category


def test_photos_are_small_and_their_sources_lie_beside_them() -> None:
    photos = sorted(PHOTOS.glob("*.jpg"))
    sources = (PHOTOS / "README.md").read_text("utf-8")
    assert len(photos) == 2
    for photo in photos:
        with Image.open(io.BytesIO(photo.read_bytes())) as image:
            assert 400 <= max(image.size) <= 640
        assert photo.stat().st_size <= 90_000
        assert re.search(rf"^\| `{photo.name}` \|.*\| CC0[^|]* \|$", sources, re.MULTILINE)


@over("name", ["foo", "smal", "", "small.PHOTOS_V1"])
def test_load_model_unknown_name_says_which_there_are(name: str) -> None:
    with pytest.raises(
        ModelError, match=r"^no network '.*' in cnnviz\. There are cnnviz:filters and cnnviz:small\."
    ) as caught:
        cf.load_model(f"cnnviz:{name}")
    assert "\n" not in str(caught.value)


@over(("options", "said"), [
    ({"weights": "PHOTOS_V2"}, r"^no weights 'PHOTOS_V2' for cnnviz:small\. There are none, PHOTOS_V1, DEFAULT, and "),
    ({"weights": "PHOTOS_V2"}, r"Closest: 'PHOTOS_V1'"),
    ({"arguments": {"width": 3}}, r"^cnnviz:small\(width=3\) cannot be built: TypeError: .*'width'"),
    ({"weights": "none", "arguments": {"width": 3}}, r"^cnnviz:small\(width=3\) cannot be built: TypeError: .*'width'"),
])  # fmt: skip
def test_load_model_of_what_there_is_not_is_one_line(options: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        cf.load_model("cnnviz:small", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_load_model_without_its_file_of_weights_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cnnviz_zoo, "FOLDER", tmp_path)
    with pytest.raises(
        ModelError, match=r"^the trained weights of cnnviz:small are missing: .*Install the package again"
    ) as caught:
        cf.load_model("cnnviz:small")
    assert "\n" not in str(caught.value)
    assert cf.load_model("cnnviz:small", weights="none").weights == "random, seed 0"


@pytest.mark.parametrize("spec", SPECS)
def test_commands_take_the_spec(spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["layers", spec]) == cli.DONE
    assert ("stage5.conv1" if spec == "cnnviz:small" else "conv") in capsys.readouterr().out
    assert cli.main(["render", spec, str(PHOTOS / "cat.jpg"), "--out", str(tmp_path / "sheets")]) == cli.DONE
    stages = [f"stage{number}" for number in range(1, 6)] if spec == "cnnviz:small" else ["conv"]
    assert [path.name for path in sorted((tmp_path / "sheets").iterdir())] == stages
    assert cli.main(["weights", spec, "--out", str(tmp_path / "weights")]) == cli.DONE
