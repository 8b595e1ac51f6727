"""Backends: the implementations of the kernels, and the choice among them."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import BackendUnavailableError, reason_of
from ..runtime.native import native

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Backend:
    """One implementation of the kernel contract (see `kernels`).

    name: name in the option `backend`.
    module: the module with the kernels.
    devices: types of torch device on which it takes maps; empty for all.
    strip_px: pixels of a strip: enough to keep the cost of starting one small (launches, or source rows that the
        strip above has enlarged too), and few enough for the working memory.
    to_array: turns a tensor of one of `dtypes` into what the kernels take.
    dtypes: dtypes of maps that the kernels read; all others must be widened to float32.
    batches: whether render_strip and channel_range take the maps of several samples at once, (N, C, H, W). Such a
        render_strip needs no working memory, and draws whole sheets.
    shares_work: whether its kernels have native threads: render_strip_by is render_strip by several at once, and
        channel_measures is channel_range and channel_moments in one call, by several.
    """

    name: str
    module: str
    devices: tuple[str, ...]
    strip_px: int
    to_array: Callable[[torch.Tensor], Any]
    dtypes: tuple[str, ...] = ("float32",)
    batches: bool = False
    shares_work: bool = False

    @property
    def kernels(self) -> ModuleType:
        """Return the kernels, loaded (and for numba compiled) on first use."""
        return importlib.import_module(f".{self.module}", __package__)

    def measure(self, array: Any, threads: int = 1) -> tuple[Any, ...]:
        """Measure every channel.

        Args:
            array: (C, H, W), what `to_array` returns.
            threads: at most as many work at once, where the backend shares work; the others use one.

        Returns:
            What channel_range returns, followed by what channel_moments returns.
        """
        kernels = self.kernels
        if self.shares_work:
            measures: tuple[Any, ...] = kernels.channel_measures(array, threads)
            return measures
        return *kernels.channel_range(array), *kernels.channel_moments(array)

    def takes(self, device: str) -> bool:
        """Check whether maps on this type of device can be drawn."""
        return not self.devices or device in self.devices

    def readable(self, maps: torch.Tensor) -> torch.Tensor:
        """Widen maps to float32, unless the kernels read them as they are.

        Args:
            maps: (...) real dtype. Not modified.

        Returns:
            (...) of one of `dtypes`. `maps` itself if nothing had to change.
        """
        return maps if str(maps.dtype).removeprefix("torch.") in self.dtypes else maps.float()


def _to_numpy(tensor: torch.Tensor) -> Any:
    """Return a tensor on the CPU as a C-contiguous array."""
    return tensor.contiguous().numpy()


def _to_native(tensor: torch.Tensor) -> Any:
    """Return a tensor on the CPU as an array of the same strides where numpy has its dtype, else the tensor itself."""
    return tensor if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("reference", "reference", ("cpu",), 1 << 16, _to_numpy),
        Backend("torch", "torch_ops", (), 1 << 19, lambda tensor: tensor),
        Backend("numba", "numba_cpu", ("cpu",), 1 << 22, _to_numpy),
        Backend(
            "native",
            "native_cpu",
            ("cpu",),
            1 << 22,
            _to_native,
            dtypes=("float32", "float16", "bfloat16", "uint8"),
            shares_work=True,
        ),
        Backend(
            "triton",
            "triton_gpu",
            ("cuda",),
            1 << 24,
            lambda tensor: tensor,
            dtypes=("float32", "float16", "bfloat16"),
            batches=True,
        ),
    )
}


_LOG = logging.getLogger(__package__)

_PLACES = {"cpu": "the CPU", "cuda": "a CUDA device"}


def missing(name: str, device: str = "cuda") -> str:
    """Return why a backend does not work on this machine, or "" if it does. Loads it to find out, and tries Triton.

    Args:
        name: name of the backend.
        device: where Triton is tried: 'cuda' for the current device, 'cuda:1' for a certain one.

    Returns:
        The reason. It is found once, unless memory was short, which is tried again the next time.
    """
    if name == "native" and (reason := native()[1]):
        return reason
    if name != "triton":
        return cannot_load(BACKENDS[name].module)
    try:
        return _fails_on(device)
    except Exception as error:
        return reason_of(error, named=True)


@cache
def _fails_on(device: str) -> str:
    """Return why Triton does not work on a device, or "" if it does; raise the error if memory was short."""
    triton = BACKENDS["triton"]
    if not _sees_cuda():
        return "torch sees no CUDA device"
    if reason := cannot_load(triton.module):
        return reason
    try:
        triton.kernels.trial(device)
    except Exception as error:  # a missing C compiler, an old driver, or anything else
        if _is_full(device, error):
            raise
        return reason_of(error, named=True)
    return ""


def _is_full(device: str, error: Exception) -> bool:
    import torch

    from ..runtime.device import device_at

    return device_at(torch.device(device)).is_full(error)


def _sees_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@cache
def cannot_load(module: str) -> str:
    """Load a module of `kernels`, and return why that fails on this machine, or "" if it does not.

    Called before workers start: otherwise each of them would wait for the same module, or compile it.
    """
    if module in _compiling:
        _compiling.pop(module).wait()
    try:
        importlib.import_module(f".{module}", __package__)
    except (Exception, SystemExit) as error:  # a foreign package may raise anything while it loads
        return reason_of(error, named=True)
    return ""


_compiling: dict[str, subprocess.Popen[bytes]] = {}


CPU_FAMILIES = ("native", "numba")
"""Those who have kernels for the values of parameters and for distributions on the CPU, the fastest first."""


def cpu_kernels(subject: str) -> ModuleType | None:
    """Load the fastest kernels for the CPU of a subject that work here.

    Called before workers start: otherwise each of them would wait for the same module, or compile it.

    Args:
        subject: 'values' or 'sketch'.

    Returns:
        The module native_... or numba_..., or None if neither works: the torch module serves then.
    """
    for family in CPU_FAMILIES:
        module = f"{family}_{subject}"
        if not (family == "native" and native()[1]) and not cannot_load(module):
            return importlib.import_module(f".{module}", __package__)
    return None


def load(name: str) -> None:
    """Load the kernels that draw maps on the CPU, before workers ask for them.

    Args:
        name: 'auto' or the name of a backend.
    """
    missing(_automatic("cpu") if name == "auto" else name)


def compile_ahead(name: str, module: str = BACKENDS["numba"].module) -> None:
    """Start to compile numba's kernels in the background, so that a first run does not wait for them.

    Nothing is compiled where the native module does their work.

    This is done only if numba's cache holds nothing newer than the kernels, and in a process of its own: a thread would
    compete with the loading model for the interpreter's lock, and both would change Python's warning filters.

    Args:
        name: 'auto' or the name of the backend that will draw.
        module: module of the kernels that will be needed.
    """
    source = Path(__file__).with_name(f"{module}.py")
    kernels = f"{__package__}.{module}"
    needed = name == "numba" or (name == "auto" and native()[0] is None)
    if not needed or kernels in sys.modules or module in _compiling:
        return
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or source.parent / "__pycache__")
    newest = max((index.stat().st_mtime for index in folder.rglob(f"{source.stem}.*.nbi")), default=0.0)
    if newest < source.stat().st_mtime:
        # `-c` looks for packages in the working folder first, so it must find this very package there.
        command, silent = [sys.executable, "-c", f"import {kernels}"], subprocess.DEVNULL
        _compiling[module] = subprocess.Popen(command, cwd=source.parents[2], stdout=silent, stderr=silent)


def choose(name: str, device: str) -> Backend:
    """Choose the backend for maps on a device.

    Args:
        name: 'auto', or the name of a backend, which is used or refused. Only 'auto' chooses.
        device: where the maps lie, such as 'cpu', 'cuda' or 'cuda:1'.

    Returns:
        The backend. 'auto' is native on the CPU, or numba where that is missing, and triton on CUDA; torch where they
        do not work.

    Raises:
        BackendUnavailableError: the named backend does not work on this machine or on this device.
    """
    if name == "auto":
        return BACKENDS[_automatic(device)]
    backend, kind = BACKENDS[name], _kind(device)
    if not backend.takes(kind):
        needed = backend.devices[0]
        raise BackendUnavailableError(
            f"backend {name!r} needs maps on {_PLACES[needed]}, got {kind}. "
            f"Pass maps.{needed}(), or take backend 'torch'."
        )
    if reason := missing(name, device):
        raise BackendUnavailableError(f"backend {name!r} does not work here: {reason}")
    return backend


def _kind(device: str) -> str:
    return device.partition(":")[0]


def _automatic(device: str) -> str:
    kind = _kind(device)
    for name in CPU_FAMILIES if kind == "cpu" else ():
        if not missing(name):
            return name
    if kind == "cuda":
        reason = missing("triton", device)
        if not reason:
            return "triton"
        _log_fallback(reason)
    return "torch"


@cache
def _log_fallback(reason: str) -> None:
    """Log once that maps on CUDA are drawn by the slower backend."""
    _LOG.warning("backend 'torch' draws maps on CUDA, since 'triton' does not work here: %s", reason)
