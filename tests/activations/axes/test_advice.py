"""Where axes of tokens cannot be told, the message names only readings that fit the output."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.errors import ShapeError


class Tokens(nn.Module):
    """Cuts a clip, or the frames of an image, into patches, with tokens before and behind them."""

    def __init__(self, patch: tuple[int, ...], before: int = 0, behind: int = 0, every: int = 1) -> None:
        super().__init__()
        kind = nn.Conv2d if len(patch) == 2 else nn.Conv3d
        self.patch = kind(3, 12, patch, patch)
        self.norm = nn.LayerNorm(12)
        self.cls_token = nn.Parameter(torch.zeros(1, before, 12))
        self.behind, self.every = behind, every

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)[:, :: self.every]
        last = tokens.new_zeros(len(tokens), self.behind, 12)
        result: torch.Tensor = self.norm(torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens, last], dim=1))
        return result


CLIP, IMAGE = torch.rand(1, 3, 8, 16, 24), torch.rand(1, 3, 16, 24)
CASES = {
    "a clip": (Tokens((2, 4, 4)), CLIP, "auto", "tokens:0:4x4x6"),
    "a clip with a class token": (Tokens((2, 4, 4), 1), CLIP, "auto", "tokens:1:4x4x6"),
    "every frame": (Tokens((1, 4, 4), 1), CLIP, "auto", "tokens:1:8x4x6"),
    "another prefix": (Tokens((2, 4, 4), 1), CLIP, "tokens:3", "tokens:1:4x4x6"),
    "an image": (Tokens((4, 4), 1), IMAGE, "tokens:3", "tokens:1:4x6"),
    "a suffix that is not known": (Tokens((4, 4), 1, 5), IMAGE, "tokens:2:4x6", "tokens:1:4x6:5"),
    "a suffix": (Tokens((4, 4), 1, 5), IMAGE, "tokens:1:4x4:5", "tokens:1:4x6:5"),
}


@pytest.mark.parametrize("name", CASES)
def test_reading_that_is_named_draws(name: str) -> None:
    model, batch, axes, expected = CASES[name]
    with pytest.raises(ShapeError) as refused:
        cf.visualize(model, batch, "norm", axes=axes)
    (named,) = re.findall(r"such as '([^']+)'", str(refused.value))
    assert named == expected
    steps = 1 if batch.ndim == 4 else int(named.split(":")[2].split("x")[0])
    assert len(cf.visualize(model, batch, "norm", axes=named, tile=4)) == steps


def test_without_a_grid_the_number_of_tokens_is_named_and_no_example() -> None:
    for axes in ("auto", "tokens", "tokens:0"):
        with pytest.raises(ShapeError) as refused:
            cf.visualize(Tokens((4, 4), every=5), IMAGE, "norm", axes=axes)
        assert "'tokens:PREFIX:HxW' or 'tokens:PREFIX:HxW:SUFFIX', of 5 tokens in all" in str(refused.value)
        assert "14x14" not in str(refused.value)
