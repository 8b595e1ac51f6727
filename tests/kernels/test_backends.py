"""Which backend draws: only 'auto' chooses, and a named one is used or refused with its reason."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numba
import pytest
import torch

from cnnviz_fast import kernels
from cnnviz_fast.diagnostics import installation as doctor
from cnnviz_fast.errors import BackendUnavailableError
from cnnviz_fast.kernels import backends
from cnnviz_fast.options.drawing import BACKENDS
from cnnviz_fast.runtime.native import native


@pytest.fixture
def without_numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make numba fail as it is loaded."""
    _forget()
    for module in ("numba_cpu", "numba_values", "numba_sketch"):
        monkeypatch.delitem(sys.modules, f"cnnviz_fast.kernels.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    yield
    _forget()


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the native module fail as it is loaded."""
    _forget()
    monkeypatch.setitem(sys.modules, "cnnviz_fast._native", None)
    monkeypatch.delattr("cnnviz_fast._native", raising=False)
    yield
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    """Forget the backends that are loaded."""
    native.cache_clear()
    backends._fails_on.cache_clear()
    backends.cannot_load.cache_clear()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (TypeError("cannot compile: LLVM of another version\nand more"), "TypeError: cannot compile: LLVM of another"),
    ],
)
def test_cannot_load_says_why_whatever_numba_raises(
    error: BaseException, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(backends.importlib, "import_module", fail)
    assert backends.cannot_load.__wrapped__("numba_cpu").startswith(said)


def test_backends_are_those_of_the_option() -> None:
    assert sorted(["auto", *backends.BACKENDS]) == sorted(BACKENDS)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return what makes this a machine with a CUDA device, on which Triton's trial goes as said."""
    kernels = types.SimpleNamespace(trial=lambda device: None)

    def becomes(trial: Callable[[str], None]) -> None:
        kernels.trial = trial
        monkeypatch.setattr(backends, "_sees_cuda", lambda: True)
        monkeypatch.setitem(sys.modules, "cnnviz_fast.kernels.triton_gpu", kernels)
        backends._fails_on.cache_clear()
        backends._log_fallback.cache_clear()

    yield becomes
    backends._fails_on.cache_clear()
    backends._log_fallback.cache_clear()


def no_compiler(device: str) -> None:
    """Fail as Triton does where it finds no C compiler."""
    raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nMore.")


@pytest.mark.parametrize(("device", "expected"), [("cpu", "native"), ("cuda", "triton"), ("mps", "torch")])
def test_choose_auto_takes_what_fits_the_device(device: str, expected: str, machine: Callable[..., None]) -> None:
    machine(trial=lambda device: None)
    assert backends.choose("auto", device).name == expected


def test_choose_auto_tries_triton_once(machine: Callable[..., None]) -> None:
    trials: list[str] = []
    machine(trial=trials.append)
    for name in ("auto", "triton", "auto"):
        assert backends.choose(name, "cuda").name == "triton"
    assert trials == ["cuda"]


def test_choose_tries_triton_on_the_device_of_the_maps(machine: Callable[..., None]) -> None:
    trials: list[str] = []

    def old_card(device: str) -> None:
        trials.append(device)
        if device == "cuda:1":
            raise RuntimeError("too old")

    machine(trial=old_card)
    chosen = [backends.choose("auto", device).name for device in ("cuda:0", "cuda:1", "cuda:2", "cuda:1")]
    assert chosen == ["triton", "torch", "triton", "torch"]
    assert trials == ["cuda:0", "cuda:1", "cuda:2"]
    assert backends.choose("triton", "cuda:0").name == "triton"
    with pytest.raises(BackendUnavailableError, match="too old"):
        backends.choose("triton", "cuda:1")


def test_choose_tries_triton_again_where_memory_was_short(machine: Callable[..., None]) -> None:
    trials: list[str] = []

    def full_at_first(device: str) -> None:
        trials.append(device)
        if len(trials) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB.")

    machine(trial=full_at_first)
    assert [backends.choose("auto", "cuda").name for _ in range(3)] == ["torch", "triton", "triton"]
    assert trials == ["cuda"] * 2


def test_choose_auto_where_triton_fails_takes_torch_and_says_so_once(
    machine: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    machine(trial=no_compiler)
    for _ in range(2):
        assert backends.choose("auto", "cuda").name == "torch"
    reason = "RuntimeError: Failed to find C compiler. Please specify via CC environment variable"
    message = f"backend 'torch' draws maps on CUDA, since 'triton' does not work here: {reason}"
    assert caplog.record_tuples == [("cnnviz_fast.kernels", logging.WARNING, message)]
    with pytest.raises(BackendUnavailableError) as caught:
        backends.choose("triton", "cuda")
    assert str(caught.value) == f"backend 'triton' does not work here: {reason}"


def test_doctor_says_what_auto_takes_on_cuda_and_why_not_triton(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    machine(trial=no_compiler)
    found = {f["subject"]: f for f in doctor._backends()}
    assert found["backend torch"]["detail"] == "chosen by auto for maps on CUDA"
    assert found["backend native"]["detail"] == "chosen by auto for maps on the CPU"
    assert found["backend triton"]["state"] == "missing"
    assert found["backend triton"]["detail"].startswith("RuntimeError: Failed to find C compiler. Please")


def test_missing_triton_without_cuda_is_not_even_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for module in ("triton", "cnnviz_fast.kernels.triton_gpu"):
        monkeypatch.setitem(sys.modules, module, None)  # to load it fails
    monkeypatch.setattr(kernels, "backends", backends)  # the one that comes back
    monkeypatch.delitem(sys.modules, backends.__name__)
    assert importlib.import_module(backends.__name__).missing("triton") == "torch sees no CUDA device"


def test_choose_triton_for_maps_on_the_cpu_is_refused() -> None:
    with pytest.raises(BackendUnavailableError) as caught:
        backends.choose("triton", "cpu")
    assert str(caught.value) == (
        "backend 'triton' needs maps on a CUDA device, got cpu. Pass maps.cuda(), or take backend 'torch'."
    )


@pytest.mark.parametrize("name", [name for name, backend in backends.BACKENDS.items() if backend.takes("cpu")])
def test_choose_named_backend_is_used(name: str) -> None:
    assert backends.choose(name, "cpu").name == name
    assert backends.missing(name) == ""


@pytest.mark.parametrize(
    ("name", "kept"),
    [(name, {"float32"}) for name in ("reference", "torch", "numba")]
    + [("triton", {"float32", "float16", "bfloat16"}), ("native", {"float32", "float16", "bfloat16", "uint8"})],
)
def test_readable_widens_what_the_kernels_do_not_read(name: str, kept: set[str]) -> None:
    for dtype in ("float32", "float16", "bfloat16", "float64", "int64", "uint8", "bool"):
        maps = torch.tensor([[[0.0, 1.0], [2.5, 300.0]]]).to(getattr(torch, dtype))
        result = backends.BACKENDS[name].readable(maps)
        if dtype in kept:
            assert result is maps
        else:
            assert (result.dtype, result.tolist()) == (torch.float32, maps.float().tolist())


@pytest.mark.parametrize("name", ["reference", "numba", "native"])
def test_choose_named_backend_on_a_device_it_cannot_use_is_refused(name: str) -> None:
    with pytest.raises(BackendUnavailableError) as caught:
        backends.choose(name, "cuda")
    assert str(caught.value) == (
        f"backend '{name}' needs maps on the CPU, got cuda. Pass maps.cpu(), or take backend 'torch'."
    )


@pytest.mark.usefixtures("without_numba")
def test_choose_without_numba_auto_takes_native_and_numba_is_refused() -> None:
    assert backends.choose("auto", "cpu").name == "native"
    with pytest.raises(BackendUnavailableError, match=r"^backend 'numba' does not work here: .*numba"):
        backends.choose("numba", "cpu")


@pytest.mark.usefixtures("without_native")
def test_choose_without_native_auto_takes_numba_and_native_is_refused() -> None:
    assert backends.choose("auto", "cpu").name == "numba"
    with pytest.raises(
        BackendUnavailableError,
        match=r"^backend 'native' does not work here: .*_native.* at install where there is a C\+\+ compiler\.",
    ):
        backends.choose("native", "cpu")
    assert backends.cpu_kernels("values") is not None
    assert backends.cpu_kernels("values").__name__.endswith("numba_values")


@pytest.mark.usefixtures("without_native", "without_numba")
def test_choose_without_native_and_numba_auto_takes_torch() -> None:
    assert backends.choose("auto", "cpu").name == "torch"
    assert backends.cpu_kernels("values") is backends.cpu_kernels("sketch") is None


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Return the commands that would be started, with numba's cache in an empty folder."""
    commands: list[list[str]] = []
    monkeypatch.setattr(backends.subprocess, "Popen", lambda command, **_: commands.append(command))
    monkeypatch.setattr(backends, "_compiling", {})
    for module in ("numba_cpu", "numba_values"):
        monkeypatch.delitem(sys.modules, f"cnnviz_fast.kernels.{module}", raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return commands


def test_compile_ahead_where_there_is_the_native_module_compiles_nothing(started: list[list[str]]) -> None:
    backends.compile_ahead("auto")
    backends.compile_ahead("auto", "numba_values")
    assert started == []


@pytest.mark.usefixtures("without_native")
@pytest.mark.parametrize("name", ["auto", "numba"])
def test_compile_ahead_empty_cache_compiles_once(name: str, started: list[list[str]]) -> None:
    backends.compile_ahead(name)
    backends.compile_ahead(name)
    backends.compile_ahead(name, "numba_values")
    imported = ["import cnnviz_fast.kernels.numba_cpu", "import cnnviz_fast.kernels.numba_values"]
    assert started == [[sys.executable, "-c", code] for code in imported]


@pytest.mark.parametrize("name", ["torch", "reference"])
def test_compile_ahead_other_backends_compile_nothing(name: str, started: list[list[str]]) -> None:
    backends.compile_ahead(name)
    assert started == []


def test_compile_ahead_filled_cache_compiles_nothing(started: list[list[str]], tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "numba_cpu._render_strip-1.py311.nbi").write_bytes(b"")
    backends.compile_ahead("numba")
    assert started == []


def test_compile_ahead_loaded_kernels_compile_nothing(
    started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cnnviz_fast.kernels.numba_cpu", None)
    backends.compile_ahead("numba")
    assert started == []


@pytest.mark.long
def test_compile_ahead_fills_the_cache_that_the_kernels_load_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.delitem(sys.modules, "cnnviz_fast.kernels.numba_cpu", raising=False)
    backends.compile_ahead("numba")
    (process,) = backends._compiling.values()
    _forget()
    assert backends.missing("numba") == ""
    assert process.returncode == 0
    assert list(tmp_path.rglob("numba_cpu._render_strip-*.nbc"))


# All are compiled in one way, so by default one module of two shows it: to compile every kernel takes 7 s.
@pytest.mark.parametrize(
    ("module", "kernel"),
    [("numba_sketch", "_count"), pytest.param("numba_cpu", "_render_strip", marks=pytest.mark.long)],
)
def test_numba_without_a_writable_cache_folder_compiles_in_memory(
    module: str, kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A copy of the module that numba can cache nowhere: a file lies where each of the folders would be made.
    blocked = tmp_path / "__pycache__"
    blocked.touch()
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(blocked))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    copy = Path(shutil.copy(Path(backends.__file__).with_name(f"{module}.py"), tmp_path))
    spec = importlib.util.spec_from_file_location(f"cnnviz_fast.kernels.{module}", copy)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(made := importlib.util.module_from_spec(spec))
    assert getattr(made, kernel)._cache.cache_path is None


def test_cache_folder_where_nothing_is_cached_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    from numba.core.caching import NullCache

    from cnnviz_fast.kernels import numba_cpu

    monkeypatch.setattr(numba_cpu._render_strip, "_cache", NullCache())
    assert numba_cpu.cache_folder() == ""
