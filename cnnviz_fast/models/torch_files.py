"""What a file of torch holds, told without running anything of it: weights, a pickled module, or a program."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass

from ..errors import shown
from .checkpoint_files import pickled_module, states_in
from .torch_archives import TorchScriptError, opener_of, read_archive

_NAME_MODEL = "Name the model that they belong to, and the file with "


@dataclass(frozen=True)
class TorchFile:
    """What a file holds.

    Attributes:
        what: it is, for the middle of a sentence.
        advice: what to do with it, with a place for its path.
        flags: the same on the command line; "" where it is the same.
        holds_weights: whether it is weights alone.
    """

    what: str
    advice: str
    flags: str = ""
    holds_weights: bool = False


_WEIGHTS = TorchFile(
    "a checkpoint: weights without the model",
    f"{_NAME_MODEL}weights={{path!r}}.",
    f"{_NAME_MODEL}--weights {{path}}.",
    holds_weights=True,
)
_TORCHSCRIPT = TorchFile(
    "a TorchScript archive, which runs no hooks inside",
    "Pass the module that it was made of; its weights are torch.jit.load({path!r}).state_dict().",
)
_EXPORTED = TorchFile(
    "a program of torch.export",
    "Load it in Python and pass it: load_model(torch.export.load({path!r})).",
)
_UNKNOWN = TorchFile("a file that is no checkpoint of torch", "Name a model: resnet50, timm:NAME or file.py:FUNCTION.")


def kind_of_torch_file(path: str | os.PathLike[str]) -> TorchFile:
    """Find out what a file of torch, or of safetensors, holds. Nothing of it is run.

    Args:
        path: the file.

    Returns:
        What it is, and what to do with it.
    """
    if os.fspath(path).lower().endswith(".safetensors"):
        return _WEIGHTS
    try:
        if _holds_exported(path):
            return _EXPORTED
        archive = read_archive(opener_of(path))
    except TorchScriptError:
        return _TORCHSCRIPT
    except Exception:  # a damaged file may hold anything
        return _UNKNOWN
    if next(states_in(archive), None) is not None:
        return _WEIGHTS
    name = pickled_module(archive.content)
    return _UNKNOWN if name is None else TorchFile(
        f"pickled objects ({shown(name)}), which hold code and are never loaded",
        "If you trust the file, save its weights in Python, torch.save(model.state_dict(), other), and name the model.",
    )  # fmt: skip


def _holds_exported(path: str | os.PathLike[str]) -> bool:
    """Check whether a file is a program of torch.export."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return os.fspath(path).lower().endswith(".pt2") or any("serialized_exported_program" in name for name in names)
