"""The model in a run: images on which it fails, and batches that do not fit into memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.runs import (
    COUNT,
    QUICK,
    Picky,
    Small,
    make_images,
    rows,
)

import cnnviz_fast as cf
from cnnviz_fast.errors import CaptureError
from cnnviz_fast.runtime import freed_memory


def test_an_image_on_which_the_model_fails_costs_only_itself(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 10)
    Image.new("RGB", (32, 32), "white").save(tmp_path / "in" / "p0005.png")
    summary = cf.run(Picky(), tmp_path / "in", ["conv"], tmp_path / "out", **QUICK)
    (failed,) = rows(tmp_path / "out", "failed")
    assert failed["image"].endswith("p0005.png")
    assert "too bright" in failed["reason"]
    assert summary.finished == 9


def test_a_batch_that_does_not_fit_is_halved_and_stays_so(images: Path, tmp_path: Path) -> None:
    model = Picky(most=3)
    summary = cf.run(model, images, ["conv"], tmp_path, **{**QUICK, "batch": 8})
    assert summary.finished == COUNT
    assert model.sizes[:4] == [8, 4, 2, 2]
    assert set(model.sizes[3:]) == {2}


@pytest.mark.parametrize("left", [1, 3])
def test_a_batch_that_is_filled_up_is_halved_where_that_is_too_much(left: int, images: Path, tmp_path: Path) -> None:
    some = sorted(images.iterdir())[: 8 + left]
    first, second = Picky(), Picky(most=4)
    second.load_state_dict(first.state_dict())
    cf.run(first, some[:8], ["conv"], tmp_path, **{**QUICK, "batch": 8})
    summary = cf.run(second, some, ["conv"], tmp_path, **{**QUICK, "batch": 8})
    assert summary.finished == left
    assert second.sizes == [8, 4]


def test_memory_that_a_pass_frees_is_kept_for_the_next_one(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    @contextlib.contextmanager
    def kept() -> Iterator[None]:
        steps.append("kept")
        yield
        steps.append("given back")

    monkeypatch.setattr(freed_memory, "kept", kept)
    model = Picky()
    model.register_forward_hook(lambda *_: steps.append("pass"))
    cf.run(model, images, ["conv"], tmp_path, **QUICK)
    assert steps[:3] == ["kept", "pass", "pass"]
    assert steps.count("kept") == steps.count("given back") == 1
    assert steps[-1] == "given back"


def test_one_image_that_does_not_fit_ends_the_run(images: Path, tmp_path: Path) -> None:
    with pytest.raises(MemoryError, match="too little memory"):
        cf.run(Picky(most=0), images, ["conv"], tmp_path, **QUICK)


def test_memory_that_runs_out_one_by_one_is_no_failure_of_an_image(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 8)
    Image.new("RGB", (32, 32), "white").save(tmp_path / "in" / "p0001.png")
    model = Picky()
    forward, calls = model.forward, [0]

    def scarce(batch: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(batch)

    model.forward = scarce  # type: ignore[method-assign]
    summary = cf.run(model, tmp_path / "in", ["conv"], tmp_path / "out", **QUICK)
    assert (summary.finished, summary.failed) == (7, 1)


def test_images_that_are_left_and_all_fail_are_failures_where_others_were_finished(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 4)
    model = Picky()
    cf.run(model, tmp_path / "in", ["conv"], tmp_path / "out", **QUICK)
    for name in ("x1.png", "x2.png"):
        Image.new("RGB", (32, 32), "white").save(tmp_path / "in" / name)
    summary = cf.run(model, tmp_path / "in", ["conv"], tmp_path / "out", **QUICK)
    assert (summary.skipped, summary.failed) == (4, 2)


@pytest.mark.parametrize("small", [1, 2, 3])
def test_images_at_the_front_that_fail_do_not_stop_the_others(small: int, tmp_path: Path) -> None:
    summary = cf.run(Picky(), Small(small), ["conv"], tmp_path, **QUICK)
    assert (summary.finished, summary.failed) == (12 - small, small)
    again = cf.run(Picky(), Small(small), ["conv"], tmp_path / "again", save="statistics", **QUICK)
    assert (again.finished, again.failed) == (12 - small, small)


def test_a_model_that_fails_on_a_whole_batch_before_any_other_is_said_once(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="the model failed"):
        cf.run(Picky(), Small(9), ["conv"], tmp_path, **QUICK)


def test_a_layer_that_never_runs_is_said_once(images: Path, tmp_path: Path) -> None:
    class Idle(Picky):
        def __init__(self) -> None:
            super().__init__()
            self.idle = torch.nn.ReLU()

    model = Idle()
    with pytest.raises(CaptureError, match="never ran"):
        cf.run(model, images, ["idle"], tmp_path, **QUICK)
    assert len(model.sizes) == 5
