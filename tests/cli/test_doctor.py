"""cnnviz doctor: what works on this machine, and why the rest does not."""

from __future__ import annotations

import json

import pytest
from support.command_line import run

from cnnviz_fast.cli import main as cli


def test_doctor_names_backends_and_encoder(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor") == cli.DONE
    text = capsys.readouterr().out
    for subject in (
        "backend reference",
        "backend torch",
        "backend numba",
        "backend triton",
        "encoder native",
        "device cuda",
    ):
        assert subject in text


def test_doctor_says_why_the_encoder_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cnnviz_fast.formats import png

    monkeypatch.setattr(png, "native", lambda: (None, "No module named 'cnnviz_fast._native'."))
    assert run("doctor", "--json") == cli.DONE
    encoder = next(f for f in json.loads(capsys.readouterr().out) if f["subject"] == "encoder native")
    assert encoder["state"] == "missing"
    assert "No module named" in encoder["detail"]
