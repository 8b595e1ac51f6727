"""What a file of torch holds, told without running anything of it: weights, a pickled module, or a program."""

from __future__ import annotations

import os
import pickletools
import zipfile
from dataclasses import dataclass

_NAME_WEIGHTS = "Name the model that they belong to, and the file with --weights {path}."
_LARGEST_PICKLE = 2**26  # bytes that are looked at: in archives, tensors lie beside the pickle

# Modules whose objects a state dict is made of.
_OF_TENSORS = (
    "torch",
    "torch._utils",
    "torch._tensor",
    "torch.storage",
    "torch.serialization",
    "torch.nn.parameter",
    "collections",
)


@dataclass(frozen=True)
class TorchFile:
    """What a file holds.

    Attributes:
        what: it is, for the middle of a sentence.
        advice: what to do with it, with a place for its path.
        holds_weights: whether it is weights alone.
    """

    what: str
    advice: str
    holds_weights: bool = False


_WEIGHTS = TorchFile("a checkpoint: weights without the model", _NAME_WEIGHTS, holds_weights=True)
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
        if zipfile.is_zipfile(path):
            return _archive(path)
        with open(path, "rb") as file:
            if file.read(2) not in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
                return _UNKNOWN
            file.seek(0)
            return _pickled(file.read(_LARGEST_PICKLE))
    except (OSError, ValueError, zipfile.BadZipFile):
        return _UNKNOWN


def _archive(path: str | os.PathLike[str]) -> TorchFile:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if os.fspath(path).lower().endswith(".pt2") or any("serialized_exported_program" in name for name in names):
            return _EXPORTED
        if any(name.endswith(("/constants.pkl", "/bytecode.pkl")) or "/code/" in name for name in names):
            return _TORCHSCRIPT
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if not pickles:
            return _UNKNOWN
        with archive.open(pickles[0]) as file:
            return _pickled(file.read(_LARGEST_PICKLE))


def _pickled(content: bytes) -> TorchFile:
    """Return what a pickle holds, by the names of the classes in it."""
    foreign = [name for name in _classes_in(content) if name.rpartition(".")[0] not in _OF_TENSORS]
    if not foreign:
        return _WEIGHTS
    return TorchFile(
        f"pickled objects ({foreign[0]}), which hold code and are never loaded",
        "If you trust the file, save its weights in Python, torch.save(model.state_dict(), other), and name the model.",
    )


def _classes_in(content: bytes) -> list[str]:
    """Return the dotted names of what a pickle imports, in order; of a file with several pickles, of all of them."""
    found: list[str] = []
    start = 0
    while start < len(content):
        strings: list[str] = []
        end = start
        try:
            for operation, argument, position in pickletools.genops(content[start:]):
                end = start + (position or 0) + 1
                if operation.name == "GLOBAL":
                    found.append(str(argument).replace(" ", "."))
                elif operation.name == "STACK_GLOBAL":
                    found.append(".".join(strings[-2:]))
                elif isinstance(argument, str):
                    strings.append(argument)
        except Exception:  # what follows the pickles of older files are raw tensors
            break
        start = end
    return found
