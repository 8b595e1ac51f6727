"""Weights that a checkpoint lacks: what lies before them is captured, what uses them is refused."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cnnviz_fast as cf
from cnnviz_fast.errors import CaptureError, ModelError, OptionError
from cnnviz_fast.models.loaded import LoadedModel
from cnnviz_fast.models.notes import ModelNote

SOURCE = """
from torch import nn

class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.tail = nn.Linear(8, 3)
        self.norm = nn.BatchNorm1d(3)
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        x = self.conv(x).flatten(2).transpose(1, 2)
        assert self.unused.weight.shape == (3, 3) and self.unused.weight.size(0) == 3
        return self.norm(self.tail(self.attention(x, x, x, need_weights=False)[0]).transpose(1, 2))
"""
BATCH = torch.ones(1, 3, 6, 6)


@pytest.fixture
def spec(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(SOURCE)
    return f"{tmp_path / 'net.py'}:Attention"


def without(spec: str, tmp_path: Path, *prefixes: str) -> LoadedModel:
    """The model, filled by a checkpoint that lacks names."""
    state = cf.load_model(spec, seed=3, device="cpu").module.state_dict()
    torch.save({name: value for name, value in state.items() if not name.startswith(prefixes)}, tmp_path / "w.pt")
    with pytest.warns(ModelNote, match=rf"missing, .*: {prefixes[0]}"):
        return cf.load_model(spec, weights=tmp_path / "w.pt", device="cpu")


@pytest.mark.parametrize("lacks", ["attention.out_proj", "attention.in_proj", "tail", "norm.running_mean"])
def test_capture_before_missing_weights_is_that_of_the_whole_checkpoint(spec: str, tmp_path: Path, lacks: str) -> None:
    model = without(spec, tmp_path, lacks)
    whole = cf.load_model(spec, seed=3, device="cpu")
    layers = ["conv", "input:norm"] if lacks.startswith("norm") else ["conv"]
    found, wanted = cf.capture(model, BATCH, layers), cf.capture(whole, BATCH, layers)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    for layer in ("norm", "output", "*"):
        with pytest.raises(CaptureError, match=rf"uses {lacks}\S* of checkpoint '.*w\.pt' first"):
            cf.capture(model, BATCH, layer)


def test_capture_weights_that_no_pass_uses_may_be_missing(spec: str, tmp_path: Path) -> None:
    model, whole = without(spec, tmp_path, "unused"), cf.load_model(spec, seed=3, device="cpu")
    assert torch.equal(cf.capture(model, BATCH, "output")["output"], cf.capture(whole, BATCH, "output")["output"])


@pytest.mark.parametrize("made", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module)), nn.Sequential])
def test_capture_copies_and_wrappers_remember_what_is_missing(spec: str, tmp_path: Path, made: Any) -> None:
    module = made(without(spec, tmp_path, "tail").module)
    with pytest.raises(CaptureError, match="uses tail"):
        cf.capture(module.double().float(), BATCH, "output")


def test_capture_weights_given_since_are_no_longer_missing(spec: str, tmp_path: Path) -> None:
    model, whole = without(spec, tmp_path, "tail", "norm"), cf.load_model(spec, seed=3, device="cpu")
    model.module.load_state_dict(whole.module.state_dict())
    assert torch.equal(cf.capture(model, BATCH, "norm")["norm"], cf.capture(whole, BATCH, "norm")["norm"])
    replaced = without(spec, tmp_path, "tail")
    replaced.module.tail = nn.Linear(8, 3)
    assert "tail" in cf.capture(replaced, BATCH, "tail")


def test_load_model_strict_weights_refuses_what_is_missing_or_left_over(spec: str, tmp_path: Path) -> None:
    state = cf.load_model(spec, device="cpu").module.state_dict()
    torch.save(state, tmp_path / "whole.pt")
    cf.load_model(spec, weights=tmp_path / "whole.pt", strict_weights=True, device="cpu")
    torch.save({**state, "queue": torch.ones(2)}, tmp_path / "more.pt")
    with pytest.raises(ModelError, match=r"1 unexpected \(queue\)"):
        cf.load_model(spec, weights=tmp_path / "more.pt", strict_weights=True, device="cpu")
    with pytest.warns(ModelNote, match=r"left over: 'queue'\.$"):
        cf.load_model(spec, weights=tmp_path / "more.pt", device="cpu")
    del state["tail.bias"]
    torch.save(state, tmp_path / "less.pt")
    with pytest.raises(ModelError, match=r"1 missing \(tail\.bias\)"):
        cf.load_model(spec, weights=tmp_path / "less.pt", strict_weights=True, device="cpu")


def test_load_model_weights_key_chooses_and_is_checked(spec: str, tmp_path: Path) -> None:
    first, second = (cf.load_model(spec, seed=seed, device="cpu").module.state_dict() for seed in (1, 2))
    torch.save({"state_dict": first, "state_dict_ema": second}, tmp_path / "w.pt")
    with pytest.warns(ModelNote, match=r"'state_dict_ema' is used and not 'state_dict' \(weights_key chooses\)"):
        chosen = cf.load_model(spec, weights=tmp_path / "w.pt", device="cpu")
    assert torch.equal(chosen.module.state_dict()["tail.weight"], second["tail.weight"])
    chosen = cf.load_model(spec, weights=tmp_path / "w.pt", weights_key="state_dict", device="cpu")
    assert torch.equal(chosen.module.state_dict()["tail.weight"], first["tail.weight"])
    with pytest.raises(OptionError, match=r"got 'other'\. State dicts in it: 'state_dict', 'state_dict_ema'"):
        cf.load_model(spec, weights=tmp_path / "w.pt", weights_key="other", device="cpu")
    with pytest.raises(OptionError, match="weights_key must be given with a checkpoint, got weights None"):
        cf.load_model(spec, weights_key="other", device="cpu")
    with pytest.raises(OptionError, match="strict_weights must be given with a checkpoint, got weights 'none'"):
        cf.load_model(spec, weights="none", strict_weights=True, device="cpu")
