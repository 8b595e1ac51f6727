"""What users hand to a run: data sets of any kind, loaders, generators, dicts, pairs, arrays."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

import cnnviz_fast as cf
from cnnviz_fast.errors import ImageError

PHOTOS = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), np.uint8)
MODEL = nn.Sequential(nn.Conv2d(3, 4, 3))
LOOK: dict[str, Any] = {"tile": 32, "title": ""}
"""Without the name of the image, which is another where it comes from a file."""


class MapStyle:
    """A data set of no framework."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, position: int) -> dict[str, Any]:
        return {"image": Image.fromarray(PHOTOS[position]), "label": position}


class Torch(Dataset[Any]):
    """A data set of torch, with pairs."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, position: int) -> tuple[Any, int]:
        return PHOTOS[position], position


class Stream(IterableDataset[Any]):
    """A data set of torch without positions."""

    def __iter__(self) -> Iterator[Any]:
        return iter([{"image": photo} for photo in PHOTOS])


class Floats(Dataset[Any]):
    """A data set of torch, with preprocessed images and what detectors are trained on."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, position: int) -> tuple[Any, dict[str, Any]]:
        image = cf.load_images(PHOTOS[position], MODEL)[0]
        return image, {"boxes": torch.zeros(position, 4), "mask": image[0] > 0}


def as_they_are(samples: list[Any]) -> list[Any]:
    return samples


def in_two_tuples(samples: list[Any]) -> tuple[Any, ...]:
    return tuple(zip(*samples, strict=True))


def in_two_lists(samples: list[Any]) -> list[Any]:
    return [list(each) for each in zip(*samples, strict=True)]


def without_targets(samples: list[Any]) -> list[Any]:
    return [image for image, _ in samples]


def pairs(first: list[Any]) -> Any:
    return list(zip(first, range(3), strict=True))


def written(folder: Path) -> list[Path]:
    paths = []
    for number, photo in enumerate(PHOTOS):
        Image.fromarray(photo).save(folder / f"{number}.png")
        paths.append(folder / f"{number}.png")
    return paths


SETS: dict[str, Any] = {
    "map-style": lambda folder: MapStyle(),
    "torch": lambda folder: Torch(),
    "a stream of torch": lambda folder: Stream(),
    "a list of dicts": lambda folder: [{"image": photo} for photo in PHOTOS],
    "a list of pairs": lambda folder: [(Image.fromarray(photo), n) for n, photo in enumerate(PHOTOS)],
    "a generator of dicts": lambda folder: ({"image": Image.fromarray(photo)} for photo in PHOTOS),
    "a generator of pairs": lambda folder: ((photo, "label") for photo in PHOTOS),
    "a generator of images": lambda folder: (Image.fromarray(photo) for photo in PHOTOS),
    "a generator of paths": lambda folder: iter(written(folder)),
    "a generator of arrays": lambda folder: iter([PHOTOS]),
    "an array": lambda folder: PHOTOS,
    "an array of floats": lambda folder: PHOTOS / np.float32(255),
    "a tensor of bytes": lambda folder: torch.from_numpy(PHOTOS).permute(0, 3, 1, 2),
    "a loader of arrays": lambda folder: DataLoader(Torch(), batch_size=2),
    "a loader of paths": lambda folder: DataLoader([str(path) for path in written(folder)], batch_size=2),  # type: ignore[arg-type]
    "a loader of dicts, not collated": lambda folder: DataLoader(MapStyle(), batch_size=2, collate_fn=as_they_are),  # type: ignore[arg-type]
    "a loader of pairs, not collated": lambda folder: DataLoader(Torch(), batch_size=2, collate_fn=as_they_are),
    "a loader of paths, not collated": lambda folder: DataLoader(
        pairs(written(folder)), batch_size=2, collate_fn=as_they_are
    ),
    "a loader of images, not collated": lambda folder: DataLoader(
        [Image.fromarray(photo) for photo in PHOTOS],
        batch_size=2,
        collate_fn=as_they_are,  # type: ignore[arg-type]
    ),
    "a loader for detectors": lambda folder: DataLoader(Floats(), batch_size=2, collate_fn=in_two_tuples),
    "a loader for detectors, in lists": lambda folder: DataLoader(Floats(), batch_size=2, collate_fn=in_two_lists),
    "a loader of a list of floats": lambda folder: DataLoader(Floats(), batch_size=2, collate_fn=without_targets),
    "a loader of floats and masks, not collated": lambda folder: DataLoader(
        Floats(), batch_size=2, collate_fn=as_they_are
    ),
}


@functools.cache
def expected_sheets() -> list[cf.Sheet]:
    """Return the sheets of PHOTOS as images in memory."""
    return cf.visualize(MODEL, list(PHOTOS), "0", **LOOK)


@pytest.mark.parametrize("name", SETS)
def test_run_takes_what_users_have(name: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = SETS[name](tmp_path)
    summary = cf.run(MODEL, given, "0", out, save="sheets", progress="none", workers=0, batch=2, **LOOK)
    assert (summary.finished, summary.failed) == (3, 0)
    sheets = sorted((out / "0").glob("*.png"))
    for path, sheet in zip(sheets, expected_sheets(), strict=True):
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image.convert("RGB")), sheet.rgb())


@pytest.mark.parametrize("name", [name for name in SETS if "loader" not in name or "collated" in name])
def test_visualize_takes_what_users_have(name: str, tmp_path: Path) -> None:
    sheets = cf.visualize(MODEL, SETS[name](tmp_path), "0", **LOOK)
    assert [sheet.index.tobytes() for sheet in sheets] == [sheet.index.tobytes() for sheet in expected_sheets()]


def test_run_takes_the_images_that_torch_has_collated_alone(tmp_path: Path) -> None:
    names = [(str(path), str(path)) for path in written(tmp_path)]
    floats = [(cf.load_images(photo, MODEL)[0], torch.zeros(2, 2)) for photo in PHOTOS]
    masks = [(image, image[0]) for image, _ in floats]
    for number, samples in enumerate((names, floats, masks, [{"image": a, "mask": b} for a, b in masks])):
        loader = DataLoader(samples, batch_size=2)  # type: ignore[arg-type]
        assert cf.run(MODEL, loader, "0", tmp_path / f"{number}", progress="none", workers=0, tile=8).finished == 3


def test_run_of_a_stream_goes_on_where_it_was_and_notes_what_fails(tmp_path: Path) -> None:
    def samples() -> Iterator[Any]:
        yield {"image": PHOTOS[0]}
        yield {"image": "absent.png"}
        yield {"image": PHOTOS[1]}

    out = tmp_path / "out"
    first = cf.run(MODEL, samples(), "0", out, progress="none", workers=0)
    assert (first.finished, first.failed) == (2, 1)
    assert "no file 'absent.png'" in (out / "failed.jsonl").read_text()
    again = cf.run(MODEL, samples(), "0", out, progress="none", workers=0)
    assert (again.finished, again.skipped, again.failed) == (0, 2, 1)


@pytest.mark.parametrize("images", [[], iter([]), (n for n in ()), {}])
def test_run_of_nothing_is_one_line(images: Any, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"images? must|must hold an image"):
        cf.run(MODEL, images, "0", tmp_path / "out", progress="none", workers=0)


@pytest.mark.parametrize("channels", [1, 4, 13])
def test_run_takes_other_channels_from_files_tensors_sets_and_loaders(channels: int, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(channels, 4, 3))
    batch = torch.rand(3, channels, 9, 8)

    class Samples(Dataset[Any]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, position: int) -> tuple[torch.Tensor, int]:
            return batch[position], position

    files = tmp_path / "files"
    files.mkdir()
    for number, sample in enumerate(batch.numpy()):
        np.save(files / f"{number}.npy", sample)
    given: dict[str, Any] = {
        "tensor": batch, "set": Samples(), "loader": DataLoader(Samples(), batch_size=2),
        "files": sorted(files.iterdir()), "list": list(batch),
    }  # fmt: skip
    expected = [sheet.index for sheet in cf.visualize(model, batch, "0", **LOOK)]
    for name, images in given.items():
        summary = cf.run(model, images, "0", tmp_path / name, format="npy", progress="none", workers=0, **LOOK)
        assert (summary.finished, summary.failed) == (3, 0), name
        planes = [np.load(path) for path in sorted((tmp_path / name / "0").glob("*.npy"))]
        assert all(np.array_equal(*pair) for pair in zip(planes, expected, strict=True)), name


class Called(nn.Module):
    """Takes a second input, and has another method to run."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor, shift: Any = 0.0) -> torch.Tensor:
        return self.net(x) + shift

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).square()


def _with_a_table(batch: torch.Tensor, table: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return batch, table


def test_run_calls_the_model_with_inputs_and_forward_as_visualize_does(tmp_path: Path) -> None:
    model, batch = Called(), torch.rand(2, 3, 8, 8)
    ramp = torch.linspace(0, 9, 8)
    beside = functools.partial(_with_a_table, table=ramp)  # which has no row for each image
    ways: dict[str, dict[str, Any]] = {"plain": {}, "inputs": {"inputs": beside}, "forward": {"forward": "encode"}}
    for name, how in ways.items():
        out = tmp_path / name
        cf.run(model, batch, "output", out, format="npy", progress="none", readers=0, tile=16, **how)
        expected = cf.visualize(model, batch, "output", tile=16, **how)
        for number, sheet in enumerate(expected):
            assert np.array_equal(np.load(out / "output" / f"image{number}.npy"), sheet.index), name
    with pytest.raises(cf.CnnvizError, match="run with other"):
        cf.run(
            model,
            batch,
            "output",
            tmp_path / "plain",
            format="npy",
            progress="none",
            readers=0,
            tile=16,
            forward="encode",
        )
