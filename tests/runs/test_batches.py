"""What is made of a batch: memory that runs out meanwhile, and layers that change their shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import (
    LAYERS,
    QUICK,
    Small,
    assert_same_outcome,
    rows,
    small_model,
)

import cnnviz_fast as cf
from cnnviz_fast.channels.dataset_files import read_statistics
from cnnviz_fast.runs import batches


def test_memory_that_runs_out_while_files_are_made_halves_the_images(
    images: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = batches.measure_batch

    def scarce(maps: torch.Tensor, options: Any) -> Any:
        if len(maps) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return measure(maps, options)

    monkeypatch.setattr(batches, "measure_batch", scarce)
    cf.run(small_model(), images, LAYERS, tmp_path, save="sheets,atlases,statistics", **QUICK)
    assert_same_outcome(tmp_path, alone)


class Growing(torch.nn.Module):
    """A model with a layer of as many channels as its input is high."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Identity()

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.layer(batch[:, :1].expand(-1, batch.shape[2], -1, -1))


class Sizes(Small):
    """Images of which the third one is larger."""

    def __getitem__(self, position: int) -> torch.Tensor:
        return torch.ones(3, 30 if position == self.small else 24, 24)


@pytest.mark.parametrize("batch", [1, 4])
def test_a_layer_of_other_channels_costs_its_image_where_statistics_are_kept(batch: int, tmp_path: Path) -> None:
    options = {**QUICK, "batch": batch, "save": "sheets,statistics"}
    for _ in range(2):  # taken up, too
        summary = cf.run(Growing(), Sizes(2), ["layer"], tmp_path, **options)
        assert (summary.finished + summary.skipped, summary.failed) == (11, 1)
    (failed,) = rows(tmp_path, "failed")
    assert failed["reason"] == (
        "layer 'layer' must have as many channels for every image, 24, got 30. Leave statistics out."
    )
    assert read_statistics(tmp_path / "statistics.safetensors")["layer"].images == 11
    assert cf.run(Growing(), Sizes(2), ["layer"], tmp_path / "sheets", **QUICK).finished == 12


class Windows(torch.nn.Module):
    """A model whose layer puts out tokens, which are maps where they come to a square alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Identity()

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.layer(batch[:, :, :, ::6].flatten(2).transpose(1, 2))


def test_a_run_whose_first_image_left_has_no_maps_is_taken_up(tmp_path: Path) -> None:
    summary = cf.run(Windows(), Sizes(2), ["layer"], tmp_path, axes="tokens:0:24x4", **QUICK)
    assert (summary.finished, summary.failed) == (11, 1)
    again = cf.run(Windows(), Sizes(2), ["layer"], tmp_path, axes="tokens:0:24x4", **QUICK)
    assert (again.finished, again.failed, again.skipped) == (0, 1, 11)
