"""What commands do before they load a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.command_line import run

from cnnviz_fast.runtime import workers


@pytest.fixture(autouse=True)
def threads_of_torch() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("variable", "threads"), [(None, 1), ("2", 2)])
def test_commands_start_no_more_threads_of_torch_than_a_container_allows(
    variable: str | None, threads: int, model: str, cat: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_allowed_cores", lambda: 0.5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    torch.set_num_threads(2)
    assert run("render", model, cat, "--layer", "conv", "--out", out, "--tile", "9") == 0
    assert torch.get_num_threads() == threads
