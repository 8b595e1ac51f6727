"""How the trained networks are made, and that they are trained: by a probe of the stored weights."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest
import torch
from PIL import Image
from support.assertions import FLOAT32_NORMALISED, close_to

import cnnviz_fast as cf
from benchmarks.training import filters, photos, probe, small
from cnnviz_fast.models.cnnviz_zoo import FOLDER
from cnnviz_fast.models.small_networks import CATEGORIES

PROBED = 360
"""Windows that the probe is fitted on; half as many are held out. A few seconds of one core."""

MARGIN = 0.15
"""By how much more of the held-out windows the trained network has to get right than the same network untrained."""


@pytest.fixture
def split_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every photo white where it is held out and black elsewhere."""

    def read(photo: photos.Photo) -> tuple[Image.Image, Image.Image]:
        image = Image.new("RGB", (500, 400))
        image.paste((255, 255, 255), photos.parts(photo, image.size)[1])
        return image, Image.new("L", image.size)

    monkeypatch.setattr(photos, "read", read)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.usefixtures("split_photos")
def test_windows_keep_to_their_part_of_the_photos(held_out: bool) -> None:
    images, _ = photos.windows(5 * len(photos.PHOTOS), (64, 420), 32, held_out=held_out, seed=1)
    assert (images == (255 if held_out else 0)).all()


def test_windows_have_the_labels_of_their_places() -> None:
    _, labels = photos.windows(200, (64, 112), 24, held_out=False, seed=0)
    photo = np.arange(200) % len(photos.PHOTOS)
    for index, expected in enumerate(photos.PHOTOS):
        found = {[*CATEGORIES, "none"][label] for label in np.unique(labels[photo == index])}
        assert found <= {name for name, _ in expected.regions} | {"none"}
    assert len(np.unique(labels)) > len(CATEGORIES) - 3


def test_categories_are_those_of_the_regions() -> None:
    assert sorted({name for photo in photos.PHOTOS for name, _ in photo.regions}) == list(CATEGORIES)


def test_weights_have_their_digests_beside_them() -> None:
    text = (FOLDER / "README.md").read_text("utf-8")
    said = dict(re.findall(r"^\| `(\S+)` \| `([0-9a-f]{64})` \|$", text, re.MULTILINE))
    assert said == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in FOLDER.glob("*.safetensors")}


def test_photos_have_their_sources_and_licences_beside_the_weights() -> None:
    text = (FOLDER / "README.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `(\S+)` \| \S.*\| (\S.*) \|$", text, re.MULTILINE))
    assert sorted(rows) == sorted(photo.file for photo in photos.PHOTOS)
    assert all(re.search(r"CC0|public domain", licence) for licence in rows.values())


def test_augment_moves_the_labels_with_the_image() -> None:
    torch.manual_seed(0)
    labels = torch.zeros(16, 136, 136, dtype=torch.uint8)
    labels[:, 50:] = 1
    labels[:, :, 70:] += 2
    views, places = small.augment((labels * 80)[:, None].expand(-1, 3, -1, -1), labels)
    assert views.shape == (16, 3, small.VIEW_PX, small.VIEW_PX)
    step = small.VIEW_PX // places.shape[-1]
    for view, place in zip(views[:, 0, step // 2 :: step, step // 2 :: step], places, strict=True):
        medians = [view[place == label].median().item() for label in place.unique()]
        assert len(medians) > 1
        assert medians == sorted(medians)


def test_alike_is_least_where_pairs_are() -> None:
    pairs = torch.eye(4).repeat(2, 1)
    crossed = torch.cat([torch.eye(4), torch.eye(4).roll(1, 0)])
    # By hand: e^(1 / 0.2) for the pair, and six vectors at right angles.
    assert small.alike(pairs).item() == close_to(np.log(1 + 6 * np.exp(-1 / small.TEMPERATURE)), FLOAT32_NORMALISED)
    assert small.alike(crossed) > small.alike(pairs) + 4


def test_correlation_is_of_different_channels() -> None:
    wave = torch.linspace(0, 40, 64).sin()
    alike, other = wave.view(1, 1, 8, 8), (2 * torch.linspace(0, 40, 64)).cos().view(1, 1, 8, 8)
    assert small.correlation(torch.cat([alike, 3 - 2 * alike], 1)).item() == close_to(1.0, FLOAT32_NORMALISED)
    assert small.correlation(torch.cat([alike, other], 1)).item() < small.correlation(torch.cat([alike, alike], 1)) / 10


def test_filters_are_edges_and_waves() -> None:
    trained, random = (
        cf.load_model("cnnviz:filters", weights=weights, device="cpu").module.conv.weight.detach().numpy()
        for weights in ("DEFAULT", "none")
    )
    assert filters.concentration(trained) > filters.concentration(random) + 0.3
    first = cf.load_model("cnnviz:small", device="cpu").module.stage1.conv1.weight.detach().numpy()
    assert filters.concentration(first) > filters.concentration(random) + 0.2


def test_learn_finds_the_structure_of_its_patches() -> None:
    random = np.random.default_rng(0)
    x = np.arange(7)
    waves = np.sin(2 * np.pi * (random.integers(1, 3, (600, 1)) * x / 7 + random.random((600, 1))))
    patches = np.broadcast_to(waves[:, None, :, None], (600, 7, 7, 3)) + random.normal(0, 0.05, (600, 7, 7, 3))
    kernels = filters.learn(patches.reshape(600, -1).astype(np.float32), 6, seed=0)
    assert kernels.shape == (6, 3, 7, 7)
    along, across = (np.abs(np.diff(kernels.mean(1), axis=axis)).sum((1, 2)) for axis in (2, 1))
    assert (along > 2 * across).all()


@pytest.mark.long  # what is stored has its digest, above
def test_stored_network_tells_held_out_places_better_than_untrained() -> None:
    trained, random = (
        probe.accuracies(cf.load_model("cnnviz:small", weights=weights, device="cpu").module, PROBED)
        for weights in ("DEFAULT", "none")
    )
    assert trained["stage5"] > random["stage5"] + MARGIN
    assert trained["head"] > 0.75
