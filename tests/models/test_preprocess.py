"""Preprocessing, against the arithmetic done by hand with Pillow and numpy."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from support.assertions import FLOAT32_NORMALISED, FLOAT32_PIXELS, Tolerance, assert_close
from torchvision import models

from cnnviz_fast.errors import OptionError
from cnnviz_fast.models.expected import ExpectedInput
from cnnviz_fast.models.own_preprocess import ArrayPreprocess, OwnPreprocess
from cnnviz_fast.models.preprocess import as_image, grey_preset, imagenet_preset, with_options
from cnnviz_fast.options.reading import PreprocessOptions

MEAN = np.array([0.485, 0.456, 0.406])
STD = np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def coffee() -> Image.Image:
    """A photo that is not square: 600 x 400."""
    return Image.fromarray(skimage.data.coffee())


def by_hand(image: Image.Image, mean: Any = MEAN, std: Any = STD) -> np.ndarray:
    """Normalise an image to (3, H, W)."""
    return ((np.asarray(image) / 255 - mean) / std).transpose(2, 0, 1)


def assert_prepared(found: torch.Tensor, expected: np.ndarray, tolerance: Tolerance = FLOAT32_NORMALISED) -> None:
    """Compare a model's input with the one made by hand; shapes must agree."""
    assert found.dtype == torch.float32
    assert_close(found, expected, tolerance)


def test_imagenet_preset_is_256_then_the_middle_224(coffee: Image.Image) -> None:
    resized = coffee.resize((384, 256), Image.Resampling.BILINEAR)
    assert_prepared(imagenet_preset()(coffee), by_hand(resized.crop((80, 16, 304, 240))))


@pytest.mark.parametrize("options", [None, PreprocessOptions()])
def test_with_options_none_given_keeps_the_preset_itself(options: PreprocessOptions | None) -> None:
    preset = imagenet_preset()
    assert with_options(preset, options) is preset


@pytest.mark.parametrize(("size", "height", "width"), [(100, 100, 100), ((64, 96), 64, 96)])
def test_with_options_size_resizes_the_whole_image(coffee: Image.Image, size: Any, height: int, width: int) -> None:
    found = with_options(imagenet_preset(), PreprocessOptions(size=size))(coffee)
    assert_prepared(found, by_hand(coffee.resize((width, height), Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"])
def test_with_options_interpolation_changes_the_resize(coffee: Image.Image, name: str) -> None:
    way = Image.Resampling[name.upper()]
    sized = with_options(imagenet_preset(), PreprocessOptions(size=(64, 96), interpolation=name))(coffee)
    assert_prepared(sized, by_hand(coffee.resize((96, 64), way)))
    cropped = with_options(imagenet_preset(), PreprocessOptions(interpolation=name))(coffee)
    assert_prepared(cropped, by_hand(coffee.resize((384, 256), way).crop((80, 16, 304, 240))))


def test_with_options_mean_and_std_replace_one_or_both(coffee: Image.Image) -> None:
    resized = coffee.resize((384, 256), Image.Resampling.BILINEAR).crop((80, 16, 304, 240))
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    both = with_options(imagenet_preset(), PreprocessOptions(mean=mean, std=std))(coffee)
    assert_prepared(both, by_hand(resized, mean, std))
    only_mean = with_options(imagenet_preset(), PreprocessOptions(mean=mean))(coffee)
    assert_prepared(only_mean, by_hand(resized, mean, STD))
    only_std = with_options(imagenet_preset(), PreprocessOptions(std=std))(coffee)
    assert_prepared(only_std, by_hand(resized, MEAN, std))


def test_with_options_blue_first_turns_the_colours_and_what_is_subtracted(coffee: Image.Image) -> None:
    given = {"size": (400, 600), "mean": (0.4, 0.5, 0.6), "std": (0.1, 0.2, 0.3)}
    blue_first = with_options(imagenet_preset(), PreprocessOptions(**given, channel_order="bgr"))
    assert_prepared(blue_first(coffee), by_hand(coffee, given["mean"], given["std"])[::-1].copy())
    assert np.array_equal(as_image(blue_first(coffee), blue_first), np.asarray(coffee))
    assert torch.equal(
        with_options(imagenet_preset(), PreprocessOptions(**given, channel_order="rgb"))(coffee),
        blue_first(coffee).flip(0),
    )


@pytest.mark.parametrize(("preset", "message"), [
    (grey_preset(), "channel_order must be given for three colours, and this model takes 1"),
    (ArrayPreprocess(ExpectedInput(5)), "channel_order must not be given for this model"),
    (OwnPreprocess(np.asarray), "channel_order must not be given beside a preprocessing of your own"),
])  # fmt: skip
def test_with_options_blue_first_without_three_colours_is_refused(preset: Any, message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}"):
        with_options(preset, PreprocessOptions(channel_order="bgr"))


def test_with_options_mean_0_and_std_1_is_no_normalisation(coffee: Image.Image) -> None:
    found = with_options(imagenet_preset(), PreprocessOptions(mean=(0, 0, 0), std=(1, 1, 1)))(coffee)
    assert found.min() >= 0
    assert found.max() <= 1
    resized = coffee.resize((384, 256), Image.Resampling.BILINEAR).crop((80, 16, 304, 240))
    assert_prepared(found, by_hand(resized, 0, 1), FLOAT32_PIXELS)


def test_with_options_the_weights_own_mean_equals_the_preset_bit_for_bit(coffee: Image.Image) -> None:
    preset = models.EfficientNet_B1_Weights.IMAGENET1K_V2.transforms()
    same = with_options(preset, PreprocessOptions(mean=tuple(preset.mean)))
    assert torch.equal(same(coffee), preset(coffee))


def test_with_options_leaves_the_preset_as_it_was(coffee: Image.Image) -> None:
    preset = imagenet_preset()
    before = copy.deepcopy(vars(preset))
    with_options(preset, PreprocessOptions(mean=(0, 0, 0), interpolation="nearest"))
    assert vars(preset) == before


def test_with_options_segmentation_preset_is_changed_too(coffee: Image.Image) -> None:
    preset = models.segmentation.FCN_ResNet50_Weights.DEFAULT.transforms()
    found = with_options(preset, PreprocessOptions(mean=(0, 0, 0), std=(1, 1, 1)))(coffee)
    assert_prepared(found, by_hand(coffee.resize((780, 520), Image.Resampling.BILINEAR), 0, 1), FLOAT32_PIXELS)


def test_with_options_preset_without_normalisation_gets_one(coffee: Image.Image) -> None:
    preset = models.detection.FasterRCNN_ResNet50_FPN_Weights.DEFAULT.transforms()
    assert_prepared(
        with_options(preset, PreprocessOptions(mean=(0.5,) * 3))(coffee), by_hand(coffee, 0.5, 1), FLOAT32_PIXELS
    )
    sized = with_options(preset, PreprocessOptions(size=(40, 60), interpolation="nearest"))(coffee)
    assert_prepared(sized, by_hand(coffee.resize((60, 40), Image.Resampling.NEAREST), 0, 1), FLOAT32_PIXELS)


def test_with_options_interpolation_without_a_resize_is_refused() -> None:
    preset = models.detection.FasterRCNN_ResNet50_FPN_Weights.DEFAULT.transforms()
    with pytest.raises(OptionError, match="interpolation must go with size"):
        with_options(preset, PreprocessOptions(interpolation="nearest"))


def test_with_options_result_pickles(coffee: Image.Image) -> None:
    made = with_options(imagenet_preset(), PreprocessOptions(size=32, mean=(0, 0, 0)))
    assert torch.equal(pickle.loads(pickle.dumps(made))(coffee), made(coffee))
