"""What a model takes beside its images has a row for each: the size of the batch and the processes do not matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.assertions import FLOAT32_SUMS, assert_close, assert_equal_planes
from support.quick import in_turns
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cnnviz_fast as cf
from cnnviz_fast.errors import InputError

COUNT = 5
BATCH = torch.randn(COUNT, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LATENTS = torch.arange(1.0, 1 + 4 * COUNT).view(COUNT, 4)
STEPS = torch.arange(COUNT) * 10
FIXED = {"normalize": "fixed", "vmin": -100, "vmax": 100, "tile": 6, "plain": True}


class Guided(nn.Module):
    """Takes a latent vector and a time step for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.out = nn.Identity()

    def forward(self, x: torch.Tensor, latents: torch.Tensor, step: torch.Tensor, scale: Any = 1) -> torch.Tensor:
        joined = torch.cat([self.conv(x).mean((2, 3)), latents], dim=1)  # which does not broadcast
        result: torch.Tensor = self.out(self.conv(x) * joined[:, 4:, None, None] * scale + step.view(-1, 1, 1, 1))
        return result


@pytest.fixture(scope="module")
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Guided().eval()


GIVEN: dict[str, Any] = {
    "named": {"latents": LATENTS, "step": STEPS},
    "positional": (LATENTS, STEPS, 1),
    "one for all": {"latents": LATENTS[:1], "step": torch.tensor([30])},
    "without axes": {"latents": LATENTS, "step": torch.tensor(30), "scale": torch.tensor(2.0)},
}


def expected(model: nn.Module, inputs: Any) -> torch.Tensor:
    """Return the maps of all images, in one pass over everything."""
    latents, step, *scale = inputs.values() if isinstance(inputs, dict) else inputs
    with torch.no_grad():
        result: torch.Tensor = model(BATCH, latents.expand(COUNT, 4), step.expand(COUNT), *scale)
    return result


def maps_in(folder: Path) -> torch.Tensor:
    files = sorted(folder.rglob("*.safetensors"))
    assert len(files) == COUNT
    return torch.stack([load_file(file)["out"] for file in files])


@pytest.mark.parametrize(("given", "batch"), in_turns(GIVEN, [1, 2, 3, COUNT]))
def test_run_gives_each_image_its_rows_in_batches_of_any_size(
    given: str, batch: int, model: nn.Module, tmp_path: Path
) -> None:
    cf.run(model, BATCH, "out", tmp_path, inputs=GIVEN[given], save="maps", batch=batch, readers=0, progress="none")
    assert_close(maps_in(tmp_path), expected(model, GIVEN[given]), FLOAT32_SUMS)


@pytest.mark.parametrize("given", GIVEN)
def test_visualize_draws_each_image_with_its_rows(given: str, model: nn.Module) -> None:
    sheets = cf.visualize(model, BATCH, "out", inputs=GIVEN[given], **FIXED)
    for sheet, maps in zip(sheets, expected(model, GIVEN[given]), strict=True):
        assert_equal_planes(sheet.index, cf.render(maps, **FIXED).index)


def test_several_processes_and_a_run_that_is_taken_up_take_the_rows_of_their_images(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how: dict[str, Any] = {"inputs": GIVEN["named"], "save": "maps", "batch": 2, "readers": 0, "progress": "none"}
    for rank in (1, 0):
        for name, value in (("RANK", rank), ("WORLD_SIZE", 2), ("LOCAL_RANK", 0)):
            monkeypatch.setenv(name, str(value))
        cf.run(model, BATCH, "out", tmp_path, **how)
    assert_close(maps_in(tmp_path), expected(model, how["inputs"]), FLOAT32_SUMS)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name)
    sorted(tmp_path.rglob("*.safetensors"))[3].unlink()
    assert cf.run(model, BATCH, "out", tmp_path, **how).finished == 1
    assert_close(maps_in(tmp_path), expected(model, how["inputs"]), FLOAT32_SUMS)


def test_an_image_that_cannot_be_read_shifts_no_rows(model: nn.Module, tmp_path: Path) -> None:
    class Holes(TensorDataset):
        def __getitem__(self, position: int) -> Any:
            if position == 1:
                raise OSError("gone")
            return super().__getitem__(position)

    summary = cf.run(
        model, Holes(BATCH), "out", tmp_path,
        inputs=GIVEN["named"], save="maps", batch=3, readers=0, progress="none",
    )  # fmt: skip
    assert summary.failed == 1
    found = torch.stack([load_file(file)["out"] for file in sorted(tmp_path.rglob("*.safetensors"))])
    assert_close(found, expected(model, GIVEN["named"])[[0, 2, 3, 4]], FLOAT32_SUMS)


def test_arrays_and_nested_arguments_have_rows_too(tmp_path: Path) -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor, cond: dict[str, Any], names: list[str]) -> torch.Tensor:
            assert len(cond["pair"][0]) == len(cond["pair"][1]) == len(x)
            assert names == ["a", "b"]
            result: torch.Tensor = self.out(x + torch.as_tensor(cond["pair"][0])[:, None, None, None])
            return result

    pair = (np.arange(COUNT, dtype=np.float32), torch.ones(1, 2))
    inputs = {"cond": {"pair": pair}, "names": ["a", "b"]}
    cf.run(Nested(), BATCH, "out", tmp_path, inputs=inputs, save="maps", batch=2, readers=0, progress="none")
    assert len(maps_in(tmp_path)) == COUNT
    assert len(pair[0]) == COUNT


@pytest.mark.parametrize("call", ["run", "visualize"])
def test_other_rows_are_refused_before_the_first_pass(call: str, model: nn.Module, tmp_path: Path) -> None:
    out = tmp_path / "out"
    calls: list[int] = []
    handle = model.register_forward_pre_hook(lambda *_: calls.append(1))
    message = (
        r"^inputs must have one row for every image, or one for each, got shape \(2, 4\) of 'latents' for 5 images\. "
        r"Pass a function of the batch, inputs=lambda batch: \(batch, \.\.\.\), for anything else\.$"
    )
    try:
        with pytest.raises(InputError, match=message):
            getattr(cf, call)(model, BATCH, "out", out, inputs={"latents": LATENTS[:2], "step": STEPS})
    finally:
        handle.remove()
    assert not calls
    assert not out.exists() or not any(out.iterdir())


def test_rows_of_a_loader_are_refused_and_a_function_works(model: nn.Module, tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(BATCH), batch_size=2)
    how: dict[str, Any] = {"save": "maps", "readers": 0, "progress": "none"}
    with pytest.raises(
        InputError, match=r"got shape \(5, 4\) of '0' and the number of images is not known\. Pass a fun"
    ):
        cf.run(model, loader, "out", tmp_path, inputs=(LATENTS, STEPS), **how)

    def beside(batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return batch, batch.new_ones(len(batch), 4), batch.new_zeros(len(batch))

    cf.run(model, loader, "out", tmp_path / "a", inputs=beside, **how)
    cf.run(model, loader, "out", tmp_path / "b", inputs=(torch.ones(1, 4), torch.tensor(0)), **how)
    assert_close(maps_in(tmp_path / "a"), maps_in(tmp_path / "b"), FLOAT32_SUMS)
