"""What `cnnviz doctor` reports: which backends and encoders are active on this machine, and why another is not."""

from __future__ import annotations

import os
import platform
import sys

from ..formats import device_jpeg, png
from ..kernels import backends
from ..provenance import package_version
from ..runtime.workers import default_threads

PACKAGES = ("torch", "torchvision", "numpy", "numba", "pillow", "cmap", "safetensors")


def examine() -> list[dict[str, str]]:
    """Look at the machine and the installation.

    Returns:
        Findings, each with a `subject`, a `state` ("ok", "missing" or "info") and a `detail`.
    """
    return [
        _finding("cnnviz_fast", "info", package_version()),
        _finding("python", "info", f"{platform.python_version()} on {sys.platform} {platform.machine()}"),
        *_packages(),
        _finding("threads", "info", f"{default_threads()} of {os.cpu_count()} cores"),
        _device(),
        *_backends(),
        _encoder(),
        _jpeg_encoder(),
        _finding("kernel cache", *_kernel_cache()),
    ]


def _finding(subject: str, state: str, detail: str) -> dict[str, str]:
    return {"subject": subject, "state": state, "detail": detail}


def _packages() -> list[dict[str, str]]:
    from importlib.metadata import PackageNotFoundError, version

    findings = []
    for name in PACKAGES:
        try:
            findings.append(_finding(name, "info", version(name)))
        except PackageNotFoundError:
            findings.append(_finding(name, "missing", f"install it with: pip install {name}"))
    return findings


def _device() -> dict[str, str]:
    import torch

    if torch.cuda.is_available():
        return _finding("device cuda", "ok", torch.cuda.get_device_name())
    return _finding("device cuda", "missing", "torch sees no CUDA device; models run on the CPU")


def _backends() -> list[dict[str, str]]:
    import torch

    devices = {"cpu": "the CPU", **({"cuda": "CUDA"} if torch.cuda.is_available() else {})}
    automatic = {device: backends.choose("auto", device).name for device in devices}
    findings = []
    for name in backends.BACKENDS:
        reason = backends.missing(name)
        places = " and ".join(place for device, place in devices.items() if automatic[device] == name)
        chosen = f"chosen by auto for maps on {places}" if places else ""
        findings.append(_finding(f"backend {name}", "missing" if reason else "ok", reason or chosen))
    return findings


def _encoder() -> dict[str, str]:
    module, reason = png.native()
    if module is None:
        return _finding("encoder native", "missing", f"{reason} PNGs are deflated by zlib meanwhile")
    return _finding("encoder native", "ok", f"vector instructions: {module.vector_level()}")


def _jpeg_encoder() -> dict[str, str]:
    if reason := device_jpeg.missing():
        return _finding("encoder jpeg cuda", "missing", f"{reason}; Pillow encodes JPEGs")
    return _finding("encoder jpeg cuda", "ok", "torchcodec encodes JPEGs on CUDA")


def _kernel_cache() -> tuple[str, str]:
    reason = backends.missing("numba")
    if reason:
        return "missing", reason
    from ..kernels import numba_cpu

    folder = numba_cpu.cache_folder()
    if folder:
        return "ok", folder
    return "missing", "no folder is writable: kernels are compiled in every process; NUMBA_CACHE_DIR names another"
