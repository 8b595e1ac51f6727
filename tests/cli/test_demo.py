"""cnnviz demo: a model drawn without a network connection."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command_line import run

from cnnviz_fast.cli import main as cli


def test_demo_draws_all_channels_offline(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whether or not there is a network: a proxy that nobody serves.
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(out.parent))
    assert run("demo", "--out", out, "--tile", "16", "--layer", "conv1", "layer4") == cli.DONE
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [str(out / "conv1" / "chart.png"), str(out / "layer4" / "chart.png")]
    assert captured.err.splitlines() == ["cnnviz: resnet50 with weights: random, seed 0"]
    assert len(json.loads((out / "layer4" / "chart.json").read_text())["tiles"]) == 2048
