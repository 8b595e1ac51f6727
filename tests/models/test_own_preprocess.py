"""Preprocessing that users bring, and arrays of any channels and axes."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.assertions import assert_equal_tensors, assert_plane_within_a_level
from support.looping import over
from torch import nn
from torchvision import transforms as T
from torchvision.transforms import v2

import cnnviz_fast as cf
from cnnviz_fast.errors import ImageError, OptionError, ShapeError
from cnnviz_fast.models.expected import ExpectedInput
from cnnviz_fast.models.own_preprocess import ArrayPreprocess, OwnPreprocess, channels_first
from cnnviz_fast.models.preprocess import as_image, grey_preset, with_options
from cnnviz_fast.options.reading import PreprocessOptions

RGB = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
BANDS = ExpectedInput(5)


class Albumentations:
    """Called as a transform of albumentations is: by name, with an array."""

    def __call__(self, *, image: np.ndarray[Any, Any]) -> dict[str, Any]:
        assert isinstance(image, np.ndarray)
        return {"image": image[::2, ::2].astype(np.float32) / 255, "mask": None}


class OfArguments(Albumentations):
    """Takes what it is called with as a transform of albumentations declares it."""

    def __call__(self, *args: Any, force_apply: bool = False, **data: Any) -> dict[str, Any]:
        if args:
            raise KeyError("You have to pass data to augmentations as named arguments")
        return super().__call__(**data)


class Processor:
    """Called as an image processor of transformers is."""

    def __call__(self, image: Image.Image) -> dict[str, Any]:
        return {"pixel_values": [np.asarray(image).transpose(2, 0, 1) / 255.0]}


V2 = nn.Sequential(v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True))
FIRST = torch.from_numpy(RGB).permute(2, 0, 1) / 255
FUNCTIONS: dict[str, tuple[Any, torch.Tensor]] = {
    "Compose": (T.Compose([T.ToTensor()]), FIRST),
    "v2": (v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]), V2(Image.fromarray(RGB))),
    "a module": (V2, V2(Image.fromarray(RGB))),
    "a function": (lambda image: T.functional.to_tensor(image), FIRST),
    "an array, channels last": (lambda image: np.asarray(image) / np.float32(255), FIRST),
    "an array, channels first": (lambda image: np.asarray(image).transpose(2, 0, 1) / np.float32(255), FIRST),
    "grey without an axis": (lambda image: np.asarray(image)[:, :, 0] / np.float32(255), FIRST[:1]),
    "a batch of one": (lambda image: T.functional.to_tensor(image)[None], FIRST),
    "albumentations": (Albumentations(), FIRST[:, ::2, ::2]),
    "albumentations-like arguments": (OfArguments(), FIRST[:, ::2, ::2]),
    "an image and its target": (lambda image: (T.functional.to_tensor(image), 3), FIRST),
    "an image processor": (Processor(), FIRST),
}


@over("name", FUNCTIONS)
def test_own_preprocess_takes_functions_of_any_kind(name: str) -> None:
    function, expected = FUNCTIONS[name]
    made = OwnPreprocess(function)(Image.fromarray(RGB))
    assert_equal_tensors(made.float(), expected.float())


@pytest.mark.parametrize("made", [None, "text", object()])
def test_own_preprocess_of_something_else_is_refused(made: object) -> None:
    with pytest.raises(ImageError, match="preprocess must return a tensor or an array, got"):
        OwnPreprocess(lambda image: made)(Image.fromarray(RGB))


CROPS: dict[str, Any] = {
    "FiveCrop": T.FiveCrop(16),
    "TenCrop of tensors": T.Compose(
        [T.TenCrop(16), T.Lambda(lambda crops: [T.functional.to_tensor(c) for c in crops])]
    ),
    "two views": lambda image: [T.functional.to_tensor(image)] * 2,
    "a stack": T.Compose(
        [T.FiveCrop(16), T.Lambda(lambda crops: torch.stack([T.functional.to_tensor(c) for c in crops]))]
    ),
    "an array of crops": lambda image: np.stack([np.asarray(image, np.float32).transpose(2, 0, 1)[:, :16, :16]] * 4),
}


@pytest.mark.parametrize("name", CROPS)
def test_preprocessing_that_makes_crops_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    model = cf.LoadedModel(nn.Sequential(nn.Conv2d(3, 4, 3)), OwnPreprocess(CROPS[name]), "net", "none")
    message = r"preprocess must return one image.* got .*\. Return one of these crops, or give each crop as an image of"
    with pytest.raises(ImageError, match=message):
        cf.visualize(model, RGB, "0")
    Image.fromarray(RGB).save(tmp_path / "cat.png")
    if name.endswith(("stack", "crops")):
        with pytest.raises(ImageError, match=message):
            cf.run(model, tmp_path / "cat.png", "0", tmp_path / "out", readers=0, progress="none")


def test_clips_of_a_preprocessing_are_no_crops() -> None:
    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> Any:
            return self.conv(x.flatten(0, 1))

    model = cf.LoadedModel(Frames(), OwnPreprocess(lambda image: torch.rand(5, 3, 16, 16)), "net", "none")
    assert cf.load_images(RGB, model).shape == (1, 5, 3, 16, 16)
    volume = cf.LoadedModel(nn.Conv3d(3, 4, 3), OwnPreprocess(lambda image: torch.rand(3, 5, 16, 16)), "net", "none")
    assert cf.load_images(RGB, volume).shape == (1, 3, 5, 16, 16)


def test_image_with_its_target_is_the_image() -> None:
    pair = OwnPreprocess(lambda image: (T.functional.to_tensor(image), torch.zeros(30, 40)))
    assert_equal_tensors(pair(Image.fromarray(RGB)), FIRST)


def test_load_model_takes_a_preprocessing_of_the_users() -> None:
    own = T.Compose([T.Grayscale(), T.Resize((28, 28)), T.ToTensor(), T.Normalize((0.1307,), (0.3081,))])
    model = cf.load_model(nn.Sequential(nn.Conv2d(1, 8, 3, padding=1)), preprocess=own)
    assert_equal_tensors(cf.load_images(RGB, model), own(Image.fromarray(RGB))[None])
    (sheet,) = cf.visualize(model, RGB, "0", overlay=True, alpha=0, tile=28, plain=True)
    seen = sheet.rgb()[:28, :28]
    grey = T.functional.to_tensor(own.transforms[1](own.transforms[0](Image.fromarray(RGB))))
    assert_plane_within_a_level(seen[..., 0], (grey[0] * 255).round().numpy().astype(np.uint8))
    assert np.array_equal(seen[..., 0], seen[..., 2])


@pytest.mark.parametrize("preprocess", [3, "bilinear", {"size": 3}])
def test_load_model_preprocess_of_another_kind_is_refused(preprocess: Any) -> None:
    with pytest.raises(OptionError, match="preprocess must be PreprocessOptions or a function of an image, got"):
        cf.load_model(nn.Conv2d(3, 1, 1), preprocess=preprocess)


def test_own_preprocess_excludes_options() -> None:
    with pytest.raises(OptionError, match="size, mean must not be given beside a preprocessing of your own"):
        with_options(OwnPreprocess(T.ToTensor()), PreprocessOptions(size=3, mean=(0, 0, 0)))


def test_own_preprocess_of_several_sizes_is_told_where_to_set_the_size() -> None:
    model = cf.LoadedModel(nn.Conv2d(3, 4, 3), OwnPreprocess(T.ToTensor()), "net", "none")
    with pytest.raises(ShapeError, match=r"must come out in one size .* Have your preprocessing make one size\.$"):
        cf.load_images([RGB, RGB[:20]], model)


def test_array_preprocess_scales_integers_and_keeps_other_values() -> None:
    preprocess = ArrayPreprocess(BANDS)
    floats = np.random.default_rng(1).standard_normal((5, 6, 7)).astype(np.float32)
    assert_equal_tensors(preprocess(floats), torch.from_numpy(floats))
    assert_equal_tensors(preprocess(np.moveaxis(floats, 0, -1)), torch.from_numpy(floats))
    assert_equal_tensors(preprocess(floats.astype(">f8")), torch.from_numpy(floats))
    for dtype, most in ((np.uint8, 255), (np.uint16, 65535), (np.uint32, 2**32 - 1), (bool, 1)):
        scaled = preprocess(np.full((5, 6, 7), most, dtype))
        assert float(scaled.min()) == float(scaled.max()) == 1
    assert float(preprocess(np.full((5, 6, 7), -300, np.int16)).max()) == -300


@pytest.mark.parametrize(("expected", "shape", "size"), [
    (ExpectedInput(5), (5, 6, 7), (12, 14)), (ExpectedInput(2, 1), (2, 50), (100,)),
    (ExpectedInput(1, 3), (4, 6, 8), (8, 12, 16)),
])  # fmt: skip
def test_array_preprocess_options_resize_and_normalise(
    expected: ExpectedInput, shape: tuple[int, ...], size: tuple[int, ...]
) -> None:
    array = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    plain = ArrayPreprocess(expected)
    found = with_options(plain, PreprocessOptions(size=size, mean=2, std=4))(array)
    assert found.shape == (expected.channels, *size)
    same = with_options(plain, PreprocessOptions(mean=[2.0] * expected.channels, std=4))(array)
    assert_equal_tensors(same, (plain(array) - 2) / 4)
    for options in ({"size": (3, 4, 5, 6)}, {"mean": [1.0] * 7}, {"interpolation": "nearest"}):
        with pytest.raises(OptionError):
            with_options(plain, PreprocessOptions(**options))


@over(("shape", "expected"), [
    ((6, 7), BANDS), ((6, 7, 3), BANDS), ((5, 7, 5), BANDS), ((5, 0, 7), BANDS), ((2, 5, 6, 7), BANDS),
    ((6,), ExpectedInput(2, 1)), ((6, 7, 8), ExpectedInput(2, 3)),
])  # fmt: skip
def test_channels_first_refuses_what_fits_no_axis_or_two(shape: tuple[int, ...], expected: ExpectedInput) -> None:
    with pytest.raises(ShapeError, match=r"an array for this model must have shape \(\d, .*, got"):
        channels_first(np.zeros(shape), expected)


def test_grey_preset_is_imagenets_in_grey() -> None:
    image = Image.fromarray(RGB)
    found = grey_preset()(image)
    assert found.shape == (1, 224, 224)
    assert_equal_tensors(found, T.functional.to_tensor(T.CenterCrop(224)(T.Resize(256)(image.convert("L")))))
    small = with_options(grey_preset(), PreprocessOptions(size=(28, 20), mean=0.5, std=0.25))
    assert_equal_tensors(small(image), (T.functional.to_tensor(T.Resize((28, 20))(image.convert("L"))) - 0.5) / 0.25)
    with pytest.raises(OptionError, match="mean must have 1 numbers for this model, got 3"):
        with_options(grey_preset(), PreprocessOptions(mean=(1, 2, 3)))


@over("channels", [1, 2, 4, 13])
def test_as_image_of_other_channels_is_grey(channels: int) -> None:
    values = torch.rand(channels, 5, 6)
    shown = as_image(values, ArrayPreprocess(ExpectedInput(channels)))
    assert shown.shape == (5, 6, 3)
    assert np.array_equal(shown[..., 0], torch.floor(values.mean(0) * 255 + 0.5).numpy().astype(np.uint8))
    assert np.array_equal(shown[..., 0], shown[..., 2])


def test_preprocessing_pickles() -> None:
    for preprocess in (grey_preset(), ArrayPreprocess(BANDS), OwnPreprocess(T.Compose([T.ToTensor()]))):
        again = pickle.loads(pickle.dumps(preprocess))
        image: Any = np.zeros((5, 4, 4)) if isinstance(preprocess, ArrayPreprocess) else Image.fromarray(RGB)
        assert_equal_tensors(again(image), preprocess(image))


def paths(folder: Path, arrays: Sequence[np.ndarray[Any, Any]]) -> list[Path]:
    """Write arrays into files."""
    files = [folder / f"a{number}.npy" for number in range(len(arrays))]
    for file, array in zip(files, arrays, strict=True):
        np.save(file, array)
    return files


def test_array_files_reach_the_preprocessing_of_the_user(tmp_path: Path) -> None:
    def own(array: Any) -> torch.Tensor:
        return torch.from_numpy(np.asarray(array, np.float32).transpose(2, 0, 1))

    model = cf.load_model(nn.Conv2d(5, 2, 1), preprocess=own)
    array = np.random.default_rng(3).standard_normal((6, 7, 5)).astype(np.float32)
    (file,) = paths(tmp_path, [array])
    assert_equal_tensors(cf.load_images(file, model), own(array)[None])
