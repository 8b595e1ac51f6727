"""Which backend draws: only 'auto' chooses, and a named one is used or refused with its reason."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnnviz_fast import backends, options
from cnnviz_fast.errors import BackendUnavailableError


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let numba fail as it is loaded."""
    backends.missing.cache_clear()
    monkeypatch.delitem(sys.modules, "cnnviz_fast.kernels.numba_cpu", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    yield
    backends.missing.cache_clear()


def test_backends_are_those_of_the_option() -> None:
    assert sorted(["auto", *backends.BACKENDS]) == sorted(options.BACKENDS)


@pytest.mark.parametrize(("device", "expected"), [("cpu", "numba"), ("cuda", "torch"), ("mps", "torch")])
def test_choose_auto_takes_what_fits_the_device(device: str, expected: str) -> None:
    assert backends.choose("auto", device).name == expected


@pytest.mark.parametrize("name", backends.BACKENDS)
def test_choose_named_backend_is_used(name: str) -> None:
    assert backends.choose(name, "cpu").name == name
    assert backends.missing(name) == ""


@pytest.mark.parametrize("name", ["reference", "numba"])
def test_choose_named_backend_on_a_device_it_cannot_use_is_refused(name: str) -> None:
    with pytest.raises(BackendUnavailableError) as caught:
        backends.choose(name, "cuda")
    assert str(caught.value) == (
        f"backend '{name}' needs maps on the CPU, got cuda. Pass maps.cpu(), or take backend 'torch'."
    )


@pytest.mark.usefixtures("without_numba")
def test_choose_without_numba_auto_takes_torch_and_numba_is_refused() -> None:
    assert backends.choose("auto", "cpu").name == "torch"
    with pytest.raises(BackendUnavailableError, match=r"^backend 'numba' does not work here: .*numba"):
        backends.choose("numba", "cpu")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Return the commands that would be started, with numba's cache in an empty folder."""
    commands: list[list[str]] = []
    monkeypatch.setattr(backends.subprocess, "Popen", lambda command, **_: commands.append(command))
    monkeypatch.setattr(backends, "_compiling", [])
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return commands


@pytest.mark.parametrize("name", ["auto", "numba"])
def test_compile_ahead_empty_cache_compiles_once(name: str, started: list[list[str]]) -> None:
    backends.compile_ahead(name)
    backends.compile_ahead(name)
    assert started == [[sys.executable, "-c", "import cnnviz_fast.kernels.numba_cpu"]]


@pytest.mark.parametrize("name", ["torch", "reference"])
def test_compile_ahead_other_backends_compile_nothing(name: str, started: list[list[str]]) -> None:
    backends.compile_ahead(name)
    assert started == []


def test_compile_ahead_filled_cache_compiles_nothing(started: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "numba_cpu._render_strip-1.py311.nbi").write_bytes(b"")
    backends.compile_ahead("auto")
    assert started == []
