"""The oldest torch that reads its own format safely: older ones need the user's word for a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.command_line import TINY, error_of, run
from support.runs import make_images

from cnnviz_fast.cli import main as cli
from cnnviz_fast.errors import ModelError
from cnnviz_fast.models import torch_floor
from cnnviz_fast.models.load import load_model
from cnnviz_fast.models.torch_floor import check_torch_reads_safely

SAFE, UNSAFE = ("2.10.0", "2.10.1+cu128", "2.11.0a0+git1", "3.0"), ("2.6.0+cu124", "2.9.1", "1.13", "unknown")


@pytest.fixture(autouse=True)
def _no_file_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what tests/conftest.py takes as given with a torch that asks for trust."""
    monkeypatch.setattr(torch_floor, "SAFE", (2, 10))


@pytest.mark.parametrize("version", SAFE)
def test_check_torch_reads_safely_new_torch_is_taken(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    check_torch_reads_safely("checkpoint 'a.pth'", trusted=False)


@pytest.mark.parametrize("version", UNSAFE)
def test_check_torch_reads_safely_old_torch_needs_trust(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(ModelError, match=rf"checkpoint 'a.pth' must be read by torch 2\.10 or later.*{version[:4]}"):
        check_torch_reads_safely("checkpoint 'a.pth'", trusted=False)
    check_torch_reads_safely("checkpoint 'a.pth'", trusted=True)


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Return the spec of a model of one's own."""
    (tmp_path / "tiny.py").write_text(TINY)
    return f"{tmp_path / 'tiny.py'}:make"


@pytest.fixture
def checkpoints(model: str, tmp_path: Path) -> tuple[Path, Path]:
    """Return the same weights in torch's own format and as safetensors."""
    state = load_model(model).module.state_dict()
    torch.save(state, tmp_path / "net.pth")
    save_file(state, tmp_path / "net.safetensors")
    return tmp_path / "net.pth", tmp_path / "net.safetensors"


def test_load_model_old_torch_reads_safetensors_and_what_is_trusted(
    model: str, checkpoints: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, safe = checkpoints
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    with pytest.raises(ModelError, match="pass trust_checkpoint=True"):
        load_model(model, weights=own)
    for loaded in (load_model(model, weights=safe), load_model(model, weights=own, trust_checkpoint=True)):
        assert torch.equal(loaded.module.conv.weight, load_model(model).module.conv.weight)


def test_render_old_torch_asks_for_trust(
    model: str,
    checkpoints: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch, "__version__", "2.6.0")
    (image,) = make_images(tmp_path / "in", 1)
    given = ["render", model, image, "--layer", "conv", "--out", tmp_path / "out", "--tile", 9]
    assert run(*given, "--weights", checkpoints[0]) == cli.FAILED
    assert "--trust-checkpoint" in error_of(capsys)
    assert run(*given, "--weights", checkpoints[0], "--trust-checkpoint") == cli.DONE
