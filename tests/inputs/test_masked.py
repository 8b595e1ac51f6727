"""Masked arrays as input images: what is masked is NaN, as in maps, or the image is refused where it cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.assertions import assert_equal_tensors
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.errors import ImageError
from cnnviz_fast.inputs.images import usual_spec
from cnnviz_fast.inputs.reading import read_loader

VALUES = np.random.default_rng(0).integers(1, 200, (5, 9, 8))
MASK = np.random.default_rng(1).random((5, 9, 8)) < 0.2


def masked(channels: int, dtype: Any) -> np.ma.MaskedArray[Any, Any]:
    return np.ma.masked_array(VALUES[:channels].astype(dtype), MASK[:channels])


def filled(channels: int, divisor: float) -> torch.Tensor:
    values = torch.from_numpy(VALUES[:channels].astype(np.float32) / np.float32(divisor))
    return values.where(~torch.from_numpy(MASK[:channels]), torch.nan)


def assert_equal_with_nan(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert torch.equal(found.isnan(), expected.isnan())
    assert_equal_tensors(found.nan_to_num(-1), expected.nan_to_num(-1))


@pytest.mark.parametrize(("channels", "dtype", "divisor"), [
    (5, np.float64, 1), (5, np.uint8, 255), (5, np.uint16, 65535), (5, np.int32, 1), (3, np.float32, 1),
    (1, np.uint16, 65535), (1, np.int64, 1),
])  # fmt: skip
def test_load_images_masked_values_are_nan(channels: int, dtype: Any, divisor: float) -> None:
    array = masked(channels, dtype)
    given = array[0] if channels == 1 else array
    model = nn.Conv2d(channels, 2, 3)
    expected = filled(channels, divisor)
    assert_equal_with_nan(cf.load_images(given, model)[0], expected)
    assert_equal_with_nan(cf.load_images([given, given], model)[1], expected)
    whole = np.ma.stack([array, array])
    assert_equal_with_nan(cf.load_images(whole if channels > 1 else whole[:, 0], model)[1], expected)
    assert array.mask.sum() == MASK[:channels].sum()


def test_load_images_masked_channels_last_signals_and_volumes() -> None:
    bands = np.ma.masked_array(np.moveaxis(VALUES, 0, -1).astype(np.uint8), np.moveaxis(MASK, 0, -1))
    assert_equal_with_nan(cf.load_images(bands, nn.Conv2d(5, 2, 3))[0], filled(5, 255))
    assert_equal_with_nan(cf.load_images(masked(5, float)[:, 0], nn.Conv1d(5, 2, 3))[0], filled(5, 1)[:, 0])
    assert_equal_with_nan(cf.load_images(masked(5, float), nn.Conv3d(1, 2, 3))[0, 0], filled(5, 1))


def test_load_images_masked_photo_is_refused_unless_nothing_is_masked() -> None:
    photo = np.ma.masked_array(np.moveaxis(VALUES[:3], 0, -1).astype(np.uint8), np.moveaxis(MASK[:3], 0, -1))
    for image in (photo, photo[..., 0], photo / 255):
        with pytest.raises(ImageError, match=r"^image must not be masked, .* Fill it in: image\.filled\(255\)\.$"):
            cf.load_images(image)
    with pytest.raises(ImageError, match="must not be masked"):
        cf.load_images(photo[..., 0], nn.Conv2d(1, 2, 3))
    for mask in (np.ma.nomask, np.zeros(photo.shape, bool)):
        assert_equal_tensors(cf.load_images(np.ma.masked_array(photo.data, mask)), cf.load_images(photo.data))


def test_masked_samples_of_sets_and_loaders_and_of_own_functions_are_nan(tmp_path: Any) -> None:
    model, array = nn.Conv2d(5, 2, 3), masked(5, np.float32)
    spec = usual_spec(model)
    (batch,) = read_loader([np.ma.stack([array, array])], lambda position: False, spec)
    assert_equal_with_nan(batch.parts[0][1][1], filled(5, 1))
    (batch,) = read_loader([(array, 1)], lambda position: False, spec)
    assert_equal_with_nan(batch.parts[0][1][0], filled(5, 1))
    own = cf.load_model(nn.Conv2d(5, 2, 3), preprocess=lambda image: array)
    assert_equal_with_nan(cf.load_images(np.zeros((9, 8, 3), np.uint8), own)[0], filled(5, 1))
