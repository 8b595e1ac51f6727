"""Where contenders write: in memory where the system offers a folder there, since a disk's speed is not the subject."""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

_MEMORY = Path("/dev/shm")  # on Linux a file system in memory
_NEEDED_BYTES = 4 << 30  # the largest file is 0.4 GB, and some stand beside others


def place() -> str:
    """Return where files go: "memory", or "disk" where there is no such folder or too little room in it."""
    roomy = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _NEEDED_BYTES
    return "memory" if roomy else "disk"


@cache
def _folder(on: str) -> tempfile.TemporaryDirectory[str]:
    """Make a folder that is gone when the process ends."""
    return tempfile.TemporaryDirectory(prefix="cnnviz-benchmarks-", dir=_MEMORY if on == "memory" else None)


def path(name: str, on: str | None = None) -> Path:
    """Return the path of an output; `on` is "memory" or "disk", by default whatever `place` says."""
    return Path(_folder(on or place()).name) / name


def remove(output: Path) -> None:
    """Remove a file, or empty a folder: writing over old files costs a disk more than making new ones."""
    if output.suffix:
        output.unlink(missing_ok=True)
    else:
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir()


def size(output: Path) -> int:
    """Return the bytes of a file, or of the sheets and tiles in a folder."""
    files = [output] if output.suffix else [file for file in output.iterdir() if file.suffix != ".json"]
    return sum(file.stat().st_size for file in files)
