"""Checkpoints: read a file of weights as a state dict, and load it into a module whole or not at all."""

from __future__ import annotations

import copy
import os
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, reason_of
from .layers import meta_copy
from .torch_floor import check_torch_reads_safely

if TYPE_CHECKING:
    from torch import nn

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_PREFIXES = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile, Lightning

_LISTED = 5  # names of each kind that an error lists; it gives the number of the others


def read_checkpoint(path: str | os.PathLike[str], trusted: bool = False) -> dict[str, Any]:
    """Read a state dict without ever running code from the file.

    `.safetensors` is read by safetensors, everything else by `torch.load(weights_only=True)`. A state dict may lie
    inside `state_dict`, `model_state_dict`, `model` or `net`, also nested.

    Args:
        path: the file.
        trusted: whether to read a file of torch's own format with a torch that has a hole there; see torch_floor.

    Returns:
        Name -> tensor on the CPU, with the metadata that torch keeps for it.

    Raises:
        ModelError: the file is missing, damaged or not a checkpoint, or it holds objects or code beside tensors.
    """
    label = f"checkpoint {os.fspath(path)!r}"
    if os.path.isdir(path):
        raise ModelError(f"{label} is a folder. Name a file in it.")
    if not os.path.exists(path):
        raise ModelError(f"no checkpoint file {os.fspath(path)!r}.")
    if os.path.getsize(path) == 0:
        raise ModelError(f"{label} is empty (0 bytes).")
    if os.fspath(path).lower().endswith(".safetensors"):
        return _unwrapped(_read_safetensors(path, label), label)
    return _unwrapped(_read_torch(path, label, trusted), label)


def load_state(module: nn.Module, state: dict[str, Any], label: str) -> None:
    """Load a state dict into a module strictly, or leave the module as it was.

    The prefixes `module.`, `_orig_mod.` and `model.` are removed if all names have them and the module's do not.

    Args:
        module: the module, whose dtypes and devices do not change.
        state: name -> tensor, as from `read_checkpoint`. Not modified.
        label: what to call the state dict in messages.

    Raises:
        ModelError: names are missing or unexpected, or shapes differ; one line lists them.
    """
    expected = module.state_dict()
    state = _without_prefixes(state, expected)
    wrong = {name: fault for name, value in state.items() if (fault := _shape_fault(name, value, expected))}
    rest = _duplicate(state)
    for name in wrong:
        del rest[name]
    missing, unexpected = _compare(module, rest, expected, label)
    faults = [
        _listed("missing", [name for name in missing if name not in wrong]),
        _listed("unexpected", unexpected),
        _listed("of another shape", list(wrong.values())),
    ]
    if any(faults):
        raise ModelError(f"{label} does not fit {type(module).__name__}: {'; '.join(filter(None, faults))}.")
    module.load_state_dict(state)


def classes_of(module: nn.Module, state: dict[str, Any]) -> int | None:
    """Return for how many classes a checkpoint was trained, if that is the only reason why it does not fit.

    Args:
        module: built for its usual number of classes.
        state: name -> tensor, as from `read_checkpoint`. Not modified.

    Returns:
        The number of outputs of the last layer, if all tensors that do not fit differ by this number alone; None if
        all shapes fit, or other shapes differ.
    """
    expected = module.state_dict()
    state = _without_prefixes(state, expected)
    wrong = {name for name, value in state.items() if _shape_fault(name, value, expected)}
    last = next(reversed(expected), None)
    if last not in wrong:
        return None
    pairs = [(tuple(expected[name].shape), tuple(getattr(state[name], "shape", ()))) for name in wrong]
    counts = {(wanted[:1], found[:1]) for wanted, found in pairs}
    if len(counts) > 1 or any(not found or wanted[1:] != found[1:] for wanted, found in pairs):
        return None
    return int(state[last].shape[0])


def _read_safetensors(path: str | os.PathLike[str], label: str) -> Any:
    """Read a safetensors file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{label} cannot be read: {reason_of(error)}.") from error


def _read_torch(path: str | os.PathLike[str], label: str, trusted: bool) -> Any:
    """Read a file of torch.save; on other files torch.load may raise any exception."""
    import torch

    if not _is_pickle(path):
        raise ModelError(f"{label} is not a checkpoint: its content is neither a zip archive nor a pickle.")
    check_torch_reads_safely(label, trusted)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol and TorchScript: both end in an error below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"code or objects ({found[1]})" if found else "code or objects"
        raise ModelError(
            f"{label} holds {what} beside tensors, which are never loaded. "
            f"If you trust it, save its state dict alone: torch.save(model.state_dict(), path)."
        ) from error
    except Exception as error:
        if "TorchScript" in str(error):
            raise ModelError(
                f"{label} is a TorchScript archive, which holds code. Save its state dict: "
                f"torch.save(torch.jit.load(path).state_dict(), other_path)."
            ) from error
        raise ModelError(f"{label} is damaged or not a checkpoint: {reason_of(error)}.") from error


def _is_pickle(path: str | os.PathLike[str]) -> bool:
    """Check by its first bytes whether a file is a zip archive of torch, or a pickle of protocol 2 or later."""
    with open(path, "rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _unwrapped(content: Any, label: str) -> dict[str, Any]:
    """Return the state dict in what a training script saved."""
    import torch

    for _ in range(len(_WRAPPERS)):  # bounded, since a dict may hold itself
        if isinstance(content, dict):
            content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict):
        raise ModelError(f"{label} must hold a state dict, got {type(content).__name__}.")
    if not all(isinstance(name, str) for name in content) or not any(
        isinstance(value, torch.Tensor) for value in content.values()
    ):
        names = ", ".join(repr(name) for name in list(content)[:_LISTED]) or "nothing"
        raise ModelError(f"{label} must hold a state dict (names of tensors), got {names}.")
    return content


def _duplicate(state: dict[str, Any]) -> dict[str, Any]:
    """Copy a state dict with the versions that torch keeps on it, but without copying tensors.

    The versions must not be shared: torch 2.15 records in them that it assigned tensors, and assigns again next time.
    """
    duplicate = copy.copy(state)
    if hasattr(state, "_metadata"):
        duplicate._metadata = copy.deepcopy(state._metadata)  # type: ignore[attr-defined]
    return duplicate


def _without_prefixes(state: dict[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """Remove what wrappers put before every name, also in the versions that torch keeps on a state dict."""
    from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

    state = _duplicate(state)
    while prefix := _common_prefix(state, expected):
        consume_prefix_in_state_dict_if_present(state, prefix)
    return state


def _common_prefix(state: Iterable[str], expected: Iterable[str]) -> str | None:
    """Return a prefix that all names have and those expected do not."""
    for prefix in _PREFIXES:
        ours = any(name.startswith(prefix) for name in expected)
        if state and not ours and all(name.startswith(prefix) for name in state):
            return prefix
    return None


def _shape_fault(name: str, value: Any, expected: Mapping[str, Any]) -> str | None:
    """Describe a difference in shape; return None if there is none, or no tensor of this name is expected."""
    from torch.nn.parameter import is_lazy

    # A lazy parameter takes any shape.
    ours: Any = expected.get(name)
    wanted = None if is_lazy(ours) else getattr(ours, "shape", None)
    found = getattr(value, "shape", None)
    if wanted is None or wanted == found:
        return None
    return f"{name} is {type(value).__name__ if found is None else tuple(found)}, must be {tuple(wanted)}"


def _compare(
    module: nn.Module, state: dict[str, Any], expected: Mapping[str, Any], label: str
) -> tuple[list[str], list[str]]:
    """List missing and unexpected names by loading into a copy, so that its rules for older versions apply."""
    try:
        twin = meta_copy(module)
    except Exception:  # it holds a lock or a file; then only the names are compared
        return [name for name in expected if name not in state], [name for name in state if name not in expected]
    try:
        found = twin.load_state_dict(state, strict=False, assign=True)
    except Exception as error:
        raise ModelError(f"{label} does not fit {type(module).__name__}: {reason_of(error)}.") from error
    return found.missing_keys, found.unexpected_keys


def _listed(kind: str, names: list[str]) -> str:
    """Format one kind of fault: the number of names, and the first few."""
    if not names:
        return ""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{len(names)} {kind} ({', '.join(names[:_LISTED])}{more})"
