"""What `cnnviz bench` measures: what users wait for, on their own machine; bench_cases.py has the rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..errors import OptionError
from ..kernels import backends
from ..models.load import resolve_device
from ..options.drawing import RenderOptions
from ..runtime.workers import default_threads
from . import installation as doctor
from .bench_cases import BenchSetup
from .bench_cases import cases as cases
from .stopwatch import Row

HEAD = ("cnnviz_fast", "python", "torch", "numba", "encoder native")
"""What of doctor's findings stands above the table."""


def setup_of(device: str, threads: Any, folder: Path, began_s: float | None = None) -> BenchSetup:
    """Find where to measure.

    Args:
        device: auto, cpu, cuda, mps, or another that torch knows.
        threads: number of workers on the CPU, also as text; None for one a core.
        folder: for files.
        began_s: when the command began, by time.monotonic(); None for now.

    Returns:
        The setup.

    Raises:
        OptionError: the device is not there, or the number cannot be used.
    """
    workers = RenderOptions(threads=threads).threads or default_threads()
    found = resolve_device(device)
    if found.type == "meta":
        raise OptionError("device must be one that computes, got 'meta'. Leave it out, or pass cpu.")
    return BenchSetup(found, workers, folder, time.monotonic() if began_s is None else began_s)


def machine(setup: BenchSetup) -> dict[str, str]:
    """Return what times depend on: the device, the backend that draws there, threads and versions."""
    kind = setup.device.type
    name = torch.cuda.get_device_name(setup.device) if kind == "cuda" else str(setup.device)
    findings = {finding["subject"]: finding["detail"] for finding in doctor.examine()}
    return {
        "device": name,
        "backend": backends.choose("auto", kind).name,
        "threads": str(setup.threads),
        **{subject: findings[subject] for subject in HEAD},
    }


def measure(setup: BenchSetup, case: Callable[[BenchSetup], Row | None]) -> Row | None:
    """Measure one of the CASES.

    Args:
        setup: where.
        case: which.

    Returns:
        Its row; None where there is no time left for it.

    Raises:
        KernelError: a result is wrong.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(setup.threads)
    try:
        return case(setup)
    finally:
        torch.set_num_threads(before)
