"""What a run has of its own in its folder: its settings, and files of what it collects over all images."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from ..errors import InputError
from .untrusted import read_json

RUN = "run.json"
"""File of a run's fingerprint: everything that the outputs in its folder depend on."""


def collected_name(kind: str) -> str:
    """Return the name of the file that a run keeps one kind in; `kind` is what its option `save` calls it."""
    return f"{kind}.safetensors"


def collected_file(path: Path, kind: str, noun: str) -> Path:
    """Return the file of one kind.

    Args:
        path: the file, or the folder of a run.
        kind: "statistics" or "top", as in the option `save` of a run.
        noun: what messages call it.

    Returns:
        The path of the file, which a folder holds.

    Raises:
        InputError: the folder holds none. The message names the command that makes one.
    """
    if not path.is_dir():
        return path
    file = path / collected_name(kind)
    if not file.exists():
        raise InputError(f"{os.fspath(path)!r} {_without(kind, noun, run_of(path))}")
    return file


def run_of(folder: Path) -> dict[str, Any]:
    """Return what a run has written of its settings, unchecked; nothing where the folder is not that of a run."""
    try:
        return dict(read_json(folder / RUN)["fingerprint"])
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _without(kind: str, noun: str, run: Mapping[str, Any]) -> str:
    """Return what is said of a folder without such a file, whose run has these settings."""
    command = f"cnnviz run {{}} SOURCE --layer {{}} --save {kind} --out {{}}"
    if not run:
        return f"is not the folder of a run. Make one: {command.format('MODEL', 'L', 'FOLDER')}"
    if kind in run.get("save", ()):
        return "is of a run that has not ended. The call that began it goes on with it."
    model, layers = quote(str(run.get("model"))), " ".join(quote(str(layer)) for layer in run.get("layers", ()))
    return (
        f"is of a run that did not keep {noun}. Keep them in a folder of their own: "
        f"{command.format(model, layers, 'ANOTHER_FOLDER')}"
    )
