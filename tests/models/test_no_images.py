"""Models that take latent vectors or ids: what is wrong is said in words of theirs, not of photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.looping import over
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.errors import ModelFailedError, OptionError, ShapeError
from cnnviz_fast.models.expected import expected_of
from cnnviz_fast.models.no_images import taken_instead


class Latents(nn.Module):
    """A generator that begins with a fully connected layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 256)
        self.out = nn.Conv2d(16, 8, 3)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.out(self.fc(z.float()).view(-1, 16, 4, 4))
        return result


class Ids(nn.Module):
    """Takes ids of tokens, and looks at their shape first."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(50, 16)
        self.positions = nn.Embedding(9, 16)
        self.out = nn.Conv1d(16, 8, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        _, length = ids.shape
        result: torch.Tensor = self.out((self.emb(ids) + self.positions(torch.arange(length))).transpose(1, 2))
        return result


class Patches(nn.Module):
    """Takes images, though it begins with an embedding of positions and ends in a fully connected layer."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Embedding(9, 16)
        self.out = nn.Conv2d(3, 16, 3)
        self.fc = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        place = self.positions(torch.arange(3, device=x.device)).mean(0)
        result: torch.Tensor = self.fc(self.out(x).mean((2, 3)) + place)
        return result


@over(
    ("model", "said"),
    [
        (Latents(), "vectors of 64 numbers"),
        (Ids(), "ids from 0 to 49"),
        (Patches(), ""),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), ""),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(784, 10)), ""),
        (nn.ReLU(), ""),
    ],
)
def test_what_a_model_takes_is_said_by_the_first_layer_that_runs(model: nn.Module, said: str) -> None:
    assert taken_instead(model) == said


PHOTO = np.zeros((20, 24, 3), np.uint8)


REFUSED = {
    "latents": (Latents(), torch.zeros(4, 64), r"vectors of 64 numbers, which are no images, got float32 \(4, 64\)"),
    "a photo": (Latents(), PHOTO, r"vectors of 64 numbers, which are no images, got uint8 \(20, 24, 3\)"),
    "ids": (Ids(), torch.zeros(4, 7).long(), r"ids from 0 to 49, which are no images, got int64 \(4, 7\)"),
    "floats for ids": (Ids(), torch.zeros(4, 7), r"ids from 0 to 49, which are no images, got float32 \(4, 7\)"),
}
CALLS = {
    "load_images": lambda model, given, folder: cf.load_images(given, model),
    "visualize": lambda model, given, folder: cf.visualize(model, given, "out"),
    "run": lambda model, given, folder: cf.run(model, given, "out", folder),
}
# In a run each image is read by itself, and fails by itself, but for floats, which are split into samples before.
READ_BY_ITSELF = {("run", "a photo"), ("run", "ids")}


@pytest.mark.parametrize(("call", "what"), sorted({(c, w) for c in CALLS for w in REFUSED} - READ_BY_ITSELF))
def test_what_is_no_image_is_refused_in_words_of_the_model(call: str, what: str, tmp_path: Path) -> None:
    model, given, got = REFUSED[what]
    with pytest.raises(ShapeError, match=rf"^this model takes {got}\. In Python capture\(model, batch, layers\) takes"):
        CALLS[call](model, given, tmp_path)


def test_what_the_message_advises_works() -> None:
    assert len(list(cf.render_batch(cf.capture(Latents(), torch.zeros(4, 64), "out"), tile=4))) == 4
    assert len(list(cf.render_batch(cf.capture(Ids(), torch.ones(2, 7).long(), "out"), axes="ncl"))) == 2


def test_function_makes_latents_whatever_the_image_is(tmp_path: Path) -> None:
    model, latents = Latents(), torch.linspace(-1, 1, 128).view(2, 64)
    expected = [sheet.index for sheet in cf.render_batch(cf.capture(model, latents[1:], "out"), tile=8, plain=True)]
    drawn = cf.visualize(model, PHOTO, "out", tile=8, plain=True, inputs=lambda batch: latents[1:])
    assert [sheet.index.tobytes() for sheet in drawn] == [index.tobytes() for index in expected]
    summary = cf.run(model, [PHOTO], "out", tmp_path, workers=0, progress="none", inputs=lambda batch: latents[1:])
    assert summary.finished == 1
    with pytest.raises(OptionError, match="overlay must go with maps of the image"):
        cf.visualize(model, PHOTO, "out", tile=8, inputs=lambda batch: latents[1:], overlay=True)


def test_pass_that_fails_says_what_the_model_takes() -> None:
    with pytest.raises(ModelFailedError, match=r"mat1 and mat2.* It takes vectors of 64 numbers$"):
        cf.capture(Latents(), torch.zeros(2, 3, 8, 8), "out")
    with pytest.raises(ModelFailedError, match=r"indices.* It takes ids from 0 to 49$"):
        cf.capture(Ids(), torch.zeros(2, 7), "out")
    resnet = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5))
    with pytest.raises(
        ModelFailedError, match=r"If it takes another size, give it: PreprocessOptions\(size=\.\.\.\), or make it in"
    ):
        cf.capture(resnet, torch.zeros(2, 3, 9, 9), "0")


def test_transposed_convolutions_say_what_a_generator_takes() -> None:
    generator = nn.Sequential(nn.ConvTranspose2d(100, 16, 4), nn.ReLU(), nn.Conv2d(16, 3, 3))
    assert expected_of(generator).axes == "100, H, W"
    assert len(cf.visualize(generator, torch.randn(2, 100, 1, 1), "0", tile=4)) == 2
