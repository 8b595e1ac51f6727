"""Priors: what a spectrum of coefficients looks like, what is measured of photos, and what a model takes as colours."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from support.assertions import FLOAT32_RATIO, FLOAT32_SUMS, MEASURED, assert_close, close_to
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.attribution.priors import Colours, Spectrum, Statistics, checkpoints, psnr, total_variation
from cnnviz_fast.errors import InputError, ShapeError
from cnnviz_fast.models.loaded import as_given


def drawn(statistics: Statistics, side: int = 96) -> torch.Tensor:
    """Draw eight images of these statistics."""
    spectrum = Spectrum(statistics, (side, side), torch.device("cpu"))
    noise = torch.randn(8, *spectrum.shape, generator=torch.Generator().manual_seed(0))
    return 0.5 + 0.05 * spectrum.image(noise)


@pytest.mark.parametrize("decay", [0.5, 1.0, 1.5])
def test_statistics_of_images_are_those_that_they_were_drawn_with(decay: float) -> None:
    usual = Statistics.usual(3)
    found = Statistics.of(drawn(Statistics(usual.mean, usual.colours, decay)))
    assert found.decay == close_to(decay, MEASURED)
    a, b = (each.colours @ each.colours.T for each in (found, usual))
    assert_close(a / a.norm(), b / b.norm(), MEASURED)


def test_statistics_need_images_that_vary() -> None:
    with pytest.raises(InputError, match="vary"):
        Statistics.of(torch.full((1, 3, 32, 32), 0.5))


def test_total_variation_is_the_length_of_a_ramps_gradient() -> None:
    ramp = torch.arange(8.0)[:, None].expand(8, 8) * 3
    assert float(total_variation(ramp[None, None])) == close_to(3, FLOAT32_RATIO)


@pytest.mark.parametrize("options", [{}, {"channel_order": "bgr"}, {"mean": "0,0,0", "std": "1,1,1"}])
def test_colours_are_those_of_the_models_preprocessing(options: dict[str, str]) -> None:
    model = cf.load_model("cnnviz:small", preprocess=cf.PreprocessOptions(**options))
    colours = Colours.of(model)
    image = Image.new("RGB", (300, 300), (200, 100, 30))
    pixels = torch.tensor([200, 100, 30])[None, :, None, None] / 255
    inputs = model.preprocess(image)[None]
    assert_close(colours.inputs(pixels.expand(1, 3, *colours.size)), inputs, FLOAT32_SUMS)
    assert_close(colours.pixels(inputs), pixels.expand(1, 3, *colours.size), FLOAT32_SUMS)


def test_models_of_one_channel_and_of_several_bands_take_pixels_too() -> None:
    for channels in (1, 5):
        model = nn.Sequential(nn.Conv2d(channels, 2, 3))
        found = cf.maximize(model, "0", size=12, steps=2)
        assert found.images.shape == (2, channels, 12, 12)
        assert found.rgb().shape == (2, 12, 12, 3)


def test_models_of_other_inputs_are_refused() -> None:
    with pytest.raises(ShapeError, match="must take images"):
        Colours.of(as_given(nn.Sequential(nn.Conv1d(3, 2, 3))))


def test_checkpoints_end_with_the_last_step() -> None:
    assert checkpoints(100)[-1] == 100
    assert checkpoints(3) == [1, 2, 3]
    assert checkpoints(0) == []
    assert psnr(torch.zeros(1, 2, 2), torch.full((1, 2, 2), 0.1)) == close_to(20, FLOAT32_RATIO)
