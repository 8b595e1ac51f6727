"""cnnviz layers: the table of a model's layers."""

from __future__ import annotations

import json

import pytest
from support.command_line import error_of, run

from cnnviz_fast.cli import main as cli


def test_layers_prints_a_table_of_shapes_and_calls(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("layers", "resnet50") == cli.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "type", "calls", "output", "parameters"]
    rows = {line.split()[1]: line.split() for line in lines[1:]}
    assert rows["layer4"][2:] == ["Sequential", "1", "1x2048x7x7", "14,964,736"]
    assert rows["layer4.0.relu"][2:5] == ["ReLU", "3", "1x512x14x14"]
    assert rows["fc"][2:5] == ["Linear", "1", "1x1000"]
    assert [int(line.split()[0]) for line in lines[1:]] == list(range(len(lines) - 1))


def test_layers_match_keeps_the_index(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("layers", "resnet18", "--json") == cli.DONE
    everything = json.loads(capsys.readouterr().out)
    assert run("layers", "resnet18", "--match", "type:Conv2d", "--json") == cli.DONE
    chosen = json.loads(capsys.readouterr().out)
    assert len(chosen) == 20
    assert all(everything[layer["index"]] == layer for layer in chosen)


def test_layers_size_changes_the_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("layers", "resnet18", "--match", "layer4", "--size", "64x96", "--json") == cli.DONE
    assert json.loads(capsys.readouterr().out)[0]["shape"] == [1, 512, 2, 3]


def test_layers_of_own_file(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("layers", model, "--json") == cli.DONE
    assert [layer["name"] for layer in json.loads(capsys.readouterr().out)] == ["conv", "mean", "head"]


def test_layers_no_match_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("layers", "resnet18", "--match", "layer9") == cli.USAGE
    assert "Closest: 'layer" in error_of(capsys)


def test_layers_receptive_field_shows_columns_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("layers", "mobilenet_v3_small", "--receptive-field", "--match", "features.1.*") == cli.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "type", "output", "stride", "offset", "field"]
    assert lines[2].split()[1:] == ["features.1.block.0", "Conv2dNormActivation", "1x16x56x56", "4", "0", "7", "px"]
    assert lines[1].endswith("-       -       whole image (mean over rows and columns)")


def test_layers_receptive_field_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("layers", "resnet18", "--receptive-field", "--size", "64x96", "--json") == cli.DONE
    found = {layer["name"]: layer["receptive_field"] for layer in json.loads(capsys.readouterr().out)}
    assert found["layer1"] == {
        "size": [43, 43], "stride": [4.0, 4.0], "offset": [0.0, 0.0], "whole": False, "reasons": [], "uneven": False,
        "input_size": [64, 96], "effective": None,
    }  # fmt: skip
    assert found["layer1.0.relu"]["size"] == [19, 19]  # that of its first call
    assert found["fc"]["whole"] is True


def test_layers_receptive_field_cuts_lines_to_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "72")
    assert run("layers", "squeezenet1_1", "--receptive-field") == cli.DONE
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) == 72
    assert any(line.endswith("…") for line in lines)
