"""The native module as the package finds it: switched to scalar code, beside a numba that does not load, refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.command_line import error_of, run
from support.native_module import load_native
from support.processes import Python

import cnnviz_fast as cf
from cnnviz_fast.cli import main as cli
from cnnviz_fast.errors import OptionError
from cnnviz_fast.runtime.native import SIMD_VARIABLE, native

load_native()

PROGRAM = """
import sys
assert not {"numba", "cnnviz_fast._native"} & set(sys.modules)
sys.path.insert(0, sys.argv[2])
import torch
import cnnviz_fast as cf
from cnnviz_fast.kernels import backends
from cnnviz_fast.runtime.native import native

cf.save_sheet(torch.arange(1188.0).reshape(12, 9, 11).sin(), sys.argv[1], tile=33)
print(native()[0].vector_level(), backends.choose("auto", "cpu").name, backends.missing("numba"))
"""
"""Draws a sheet, and says by what."""


def test_broken_numba_and_no_vector_instructions_leave_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numba.py").write_text("raise RuntimeError('no such version of llvmlite')")
    monkeypatch.setenv(SIMD_VARIABLE, "1")
    with Python("-c", PROGRAM, str(tmp_path / "there.png"), str(tmp_path)) as drawing:
        assert drawing.end() == 0, drawing.said
    assert drawing.said == ""
    assert drawing.printed == "scalar native RuntimeError: no such version of llvmlite\n"
    here = cf.save_sheet(torch.arange(1188.0).reshape(12, 9, 11).sin(), tmp_path / "here.png", tile=33)
    assert here.read_bytes() == (tmp_path / "there.png").read_bytes()


@pytest.mark.parametrize("value", ["2", "yes", "avx2", " "])
def test_nonsense_in_the_variable_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(SIMD_VARIABLE, value)
    native.cache_clear()
    with pytest.raises(OptionError, match=f"CNNVIZ_NO_SIMD must be 0 or 1, got '{value}'"):
        native()
    assert run("doctor") == cli.USAGE
    assert "CNNVIZ_NO_SIMD" in error_of(capsys)
    monkeypatch.undo()
    assert native()[0] is not None
