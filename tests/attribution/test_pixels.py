"""Channels of inner layers as targets, one by one or many at once; and the sheets of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.assertions import FLOAT32_SUMS, assert_close
from support.command_line import run
from support.heat import Residual, images, made
from support.quick import quick
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.attribution.api import attribution
from cnnviz_fast.cli import main as cli
from cnnviz_fast.errors import OptionError

CAT = Path(cf.__file__).parent / "diagnostics" / "photos" / "cat.jpg"


def attributed(method: str, target: Any, batch: torch.Tensor | None = None, **how: Any) -> torch.Tensor:
    maps = cf.attribute(made(Residual), images() if batch is None else batch, method, target=target, **how)
    assert isinstance(maps, torch.Tensor)
    return maps


@pytest.mark.parametrize("method", quick(["gradient", "guided", "deconvolution"], ["guided"]))
def test_many_channels_at_once_give_what_each_gives(method: str) -> None:
    together = attributed(method, ("third", "all", "max"))
    assert together.shape == (3, 8, 3, 32, 32)
    for channel in range(8):
        assert_close(attributed(method, ("third", channel, "max")), together[:, channel], FLOAT32_SUMS)
    for chunk in (3, 8, 100):
        assert_close(attributed(method, ("third", "all", "max"), chunk=chunk), together, FLOAT32_SUMS)


def test_rows_of_other_inputs_go_with_their_images() -> None:
    class Scaled(Residual):
        def forward(self, x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
            return super().forward(x * by[:, None, None, None])

    def found(**how: Any) -> Any:
        by = torch.tensor([1.0, 2.0, 3.0])
        return cf.attribute(made(Scaled), images(), "gradient", target=("third", "0-4"), inputs={"by": by}, **how)

    assert_close(found(chunk=2), found(), FLOAT32_SUMS)


def test_strongest_unit_is_where_the_channel_is_strongest() -> None:
    maps = cf.capture(made(Residual), images(1), "third")["third"][0]
    for channel in range(8):
        y, x = divmod(int(maps[channel].argmax()), maps.shape[2])
        expected = attributed("guided", ("third", channel, y, x), images(1))
        assert torch.equal(attributed("guided", ("third", channel, "max"), images(1)), expected)


def test_channels_are_written_as_text_too() -> None:
    expected = attributed("gradient", ("third", range(2, 5), "max"))
    assert torch.equal(attributed("gradient", "third@2-4,max"), expected)
    assert torch.equal(attributed("gradient", ("third", "2-4", "max")), expected)
    assert torch.equal(attributed("gradient", ["third@2,max", "third@3-4,max"]), expected)
    several = attributed("gradient", "third@all")
    assert torch.equal(several[:, 6], attributed("gradient", ("third", 6)))
    labels = attribution(made(Residual), images(1), "gradient", None, ["third@2-3,max", "third@1,0,2"])[0].scores
    assert labels is not None
    assert labels.labels == (("third@2,max", "third@3,max", "third@1,0,2"),)


def test_dead_channel_has_no_cause_under_any_rule() -> None:
    class Dead(Residual):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.end(self.second(self.first(x)))

        def __init__(self) -> None:
            super().__init__()
            self.end = nn.ReLU()
            with torch.no_grad():
                self.second.bias[4] = -100.0

    with pytest.warns(UserWarning, match="nothing in the input matters to 1 of 8 targets, such as 'end@4,max'"):
        maps = cf.attribute(made(Dead), images(1), "deconvolution", target="end@all,max")
    assert isinstance(maps, torch.Tensor)
    assert maps[0].flatten(1).any(1).tolist() == [channel != 4 for channel in range(8)]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("third@7-8", "which has 8 channels of 8x8, got third@8"),
        (("third", "0-"), "target must have channels"),
        (("third", "5-2"), "target must have channels such as 12, '0-63' or 'all', got '5-2'"),
        (("third", range(0, 8, 2)), "target must have channels"),
        (("third", 1, "strongest"), r"\(layer, channel, 'max'\)"),
        (("third",), r"must be \(layer, channel\)"),
        ((), r"must be \(layer, channel\)"),
    ],
)
def test_channels_that_are_none_are_refused(target: Any, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        attributed("gradient", target)


def test_fewer_channels_go_at_once_where_memory_runs_out() -> None:
    sizes: list[int] = []

    class Limited(Residual):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(len(x))
            if len(x) > 3:
                raise torch.OutOfMemoryError("out of memory")
            return super().forward(x)

    expected = attributed("gradient", ("third", "all"), images(1))
    found = cf.attribute(made(Limited), images(1), "gradient", target=("third", "all"), chunk=8)
    assert isinstance(found, torch.Tensor)
    assert_close(found, expected, FLOAT32_SUMS)
    assert sizes[-3:] == [8, 4, 2]


def test_sheet_of_channels_has_a_tile_for_each(tmp_path: Path) -> None:
    argv = ["attribute", "cnnviz:small", CAT, "--method", "deconvolution", "--target", "stage3@0-3,max"]
    assert run(*argv, "--tile", 56, "--out", tmp_path) == cli.DONE
    manifest = json.loads((tmp_path / "deconvolution" / "cat.json").read_text())
    assert [each["target"] for each in manifest["attribution"]["targets"]] == [f"stage3@{c},max" for c in range(4)]
    assert manifest["attribution"]["rectifiers"] == 4
    assert (manifest["options"]["colormap"], manifest["options"]["normalize"]) == ("coolwarm", "symmetric")
    model = cf.load_model("cnnviz:small")
    maps = cf.attribute(model, cf.load_images(CAT, model), "deconvolution", target="stage3@0-3,max")
    assert isinstance(maps, torch.Tensor)
    for tile, values in zip(manifest["tiles"], maps[0].sum(1).abs(), strict=True):
        shown = values[values > 0].sort().values
        assert_close(max(-tile["min"], tile["max"]), shown[int(len(shown) * 0.995)], FLOAT32_SUMS)


def test_seed_of_the_command_is_that_of_the_noise(tmp_path: Path) -> None:
    argv = ["attribute", "cnnviz:small", CAT, "--method", "smoothgrad", "--samples", 2, "--target", "cat", "--size", 64]
    sheets = []
    for name, seed in (("a", 0), ("b", 1), ("c", 1)):
        assert run(*argv, "--seed", seed, "--out", tmp_path / name, "--plain", "--tile", 64) == cli.DONE
        sheets.append((tmp_path / name / "smoothgrad" / "cat.png").read_bytes())
    assert sheets[0] != sheets[1] == sheets[2]
