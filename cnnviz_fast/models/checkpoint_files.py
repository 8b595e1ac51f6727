"""Files and folders of weights: what the usual trainers and hubs write, read as the state dicts that are in it.

Nothing of a file is run. Of torch's own files only those values are read that are asked for later.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ModelError, reason_of, shown
from ..runtime.untrusted import open_regular
from .dcp_folders import METADATA, read_dcp
from .foreign_files import HEAD_BYTES, is_safetensors, is_torch_file, is_zip, what_it_is
from .hdf5_files import IN_KERAS, is_hdf5, read_hdf5
from .notes import note
from .npz_files import holds_arrays, read_npz
from .stored_tensors import StoredTensor, in_memory
from .torch_archives import Archive, ForeignFileError, TorchScriptError, opener_of, read_archive
from .torch_floor import check_torch_reads_safely
from .unpickling import Record

_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar", ".h5", ".hdf5", ".keras", ".npz")
_BESIDE = (
    "optim", "sched", "random_states", "rng_state", "scaler", "sampler", "dl_state", "training_args", "trainer_state",
)  # fmt: skip
_DEEPEST = 6  # levels in which state dicts are looked for
_LISTED = 5  # names that an error lists

_IN_FOLDERS = (
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors.index.json",
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
"""Files of weights in folders of Hugging Face's libraries; accelerate's have the same names. The first is read."""


@dataclass
class StateDict:
    """Names and what belongs to them.

    Attributes:
        key: where it lies in the file: keys with dots between them, "" for the file itself.
        values: name -> tensor, or whatever else has a name.
        versions: module -> what torch keeps for it beside the tensors, such as {"version": 2}.
        order: for arrays of other libraries by their paths, whose names and axes are not torch's yet: what says in
            which order they are; "" for torch's own.
        mapped: what has been done to give them torch's names and axes.
    """

    key: str
    values: dict[str, Any]
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)
    order: str = ""
    mapped: str = ""


def read_states(path: str | os.PathLike[str], label: str, trusted: bool = False) -> list[StateDict]:
    """List the state dicts of a file or a folder, in order.

    Args:
        path: a file of torch, of safetensors, of HDF5 or Keras, or of several arrays of NumPy (.npz), an index of
            Hugging Face, or a folder with one of these, of accelerate, or of torch.distributed.checkpoint.
        label: what to call it in messages.
        trusted: whether files of torch's own format are read with any torch; see torch_floor.

    Returns:
        Every dict in it that holds tensors; at least one.

    Raises:
        ModelError: it is missing, damaged, a program or a pickled module, or no checkpoint at all.
    """
    if not os.path.exists(path):
        raise ModelError(f"no checkpoint file {os.fspath(path)!r}.")
    if os.path.isdir(path):
        return _read_folder(Path(path), label, trusted)
    head = _head_of(path, label)
    if not head:
        raise ModelError(f"{label} is empty (0 bytes).")
    name = os.fspath(path).lower()
    if name.endswith(".index.json"):
        return _read_shards(Path(path), label, trusted)
    if is_safetensors(head, os.path.getsize(path)) or (name.endswith(".safetensors") and not is_torch_file(head)):
        return _read_safetensors(path, label, head)
    if is_hdf5(head) or (name.endswith((".h5", ".hdf5")) and not is_torch_file(head)):
        return _read_hdf5(path, label, head)
    if is_zip(head):
        inside = _entries(path)
        if IN_KERAS in inside:
            return _read_hdf5(path, label, head, in_archive=True)
        if holds_arrays(inside):
            return [StateDict("", _reading(label, lambda: read_npz(path)), order="names")]
    check_torch_reads_safely(label, trusted)
    return _read_torch(path, label)


def _entries(path: str | os.PathLike[str]) -> list[str]:
    """List the entries of a zip archive; none of one that is damaged, which its reader says."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return []


def _read_hdf5(path: str | os.PathLike[str], label: str, head: bytes, *, in_archive: bool = False) -> list[StateDict]:
    if found := "" if is_hdf5(head) or in_archive else what_it_is(head):
        raise ModelError(f"{label} cannot be read: it is {found}")
    values, order = _reading(label, lambda: read_hdf5(path, in_archive))
    if not values:
        raise ModelError(f"{label} must hold arrays, got none.")
    return [StateDict("", values, order=order)]


def _head_of(path: str | os.PathLike[str], label: str) -> bytes:
    """Return the first bytes of a file; raise ModelError for a pipe, a device, or what cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(HEAD_BYTES)
    except OSError as error:
        raise ModelError(f"{label} cannot be read: {reason_of(error)}.") from error


def _read_folder(folder: Path, label: str, trusted: bool) -> list[StateDict]:
    if (folder / METADATA).is_file():
        check_torch_reads_safely(label, trusted)
        return [StateDict("", dict(_reading(label, lambda: read_dcp(folder))))]
    inside = sorted(each for each in folder.iterdir() if _may_hold_weights(each))
    known = next((folder / name for name in _IN_FOLDERS if (folder / name).is_file()), None)
    if known is not None:
        shards = _places(known, label).values() if known.suffix == ".json" else ()
        _say_chosen(known.name, [each.name for each in inside if each.name not in {known.name, *shards}], label)
        return read_states(known, label, trusted)
    if len(inside) == 1:
        return read_states(inside[0], label, trusted)
    names = ", ".join(f"'{shown(each.name)}'" for each in inside[:_LISTED]) or "none"
    raise ModelError(f"{label} is a folder. Name one file or folder of weights in it; there are: {names}.")


def _say_chosen(chosen: str, others: list[str], label: str) -> None:
    """Note which file of a folder is read where others in it may hold weights too, as those of a second model."""
    if others:
        names = ", ".join(f"'{shown(name)}'" for name in others[:_LISTED])
        more = f" and {len(others) - _LISTED} more" if len(others) > _LISTED else ""
        note(f"{label}: '{chosen}' is used and not {names}{more}. Name another file as weights to choose it.")


def _may_hold_weights(path: Path) -> bool:
    """Check by its name whether something in a folder is weights, and not the state of an optimizer and the like."""
    if path.is_dir():
        return (path / METADATA).is_file() and "optim" not in path.name.lower()
    return path.suffix.lower() in _SUFFIXES and not path.name.lower().startswith(_BESIDE)


def _read_shards(index: Path, label: str, trusted: bool) -> list[StateDict]:
    """Read the files that an index of Hugging Face names, which lie beside it."""
    places = _places(index, label)
    values: dict[str, Any] = {}
    for shard in sorted(set(places.values())):
        is_here = os.path.basename(shard) == shard and "\\" not in shard and (index.parent / shard).is_file()
        if not is_here or shard.lower().endswith(".index.json"):
            raise ModelError(f"{label} lacks the shard '{shown(shard)}', which {index.name} names.")
        held = read_states(index.parent / shard, f"{label}, shard '{shown(shard)}'", trusted)[0].values
        values |= {name: value for name, value in held.items() if places.get(name, shard) == shard}
    return [StateDict("", values)]


def _places(index: Path, label: str) -> dict[str, str]:
    """Read an index of Hugging Face: name of a tensor -> file that it is in."""
    try:
        return {str(name): str(shard) for name, shard in json.loads(index.read_bytes())["weight_map"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{label} cannot be read: {index.name} is no index of shards.") from error


def _read_safetensors(path: str | os.PathLike[str], label: str, head: bytes) -> list[StateDict]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        values = {name: in_memory(tensor) for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        found = what_it_is(head)
        reason = f"it is {found}" if found else f"{shown(reason_of(error))}."
        raise ModelError(f"{label} cannot be read: {reason}") from error
    if not values:
        raise ModelError(f"{label} must hold a state dict (names of tensors), got nothing.")
    return [StateDict("", values)]


def _read_torch(path: str | os.PathLike[str], label: str) -> list[StateDict]:
    archive = _reading(label, lambda: read_archive(opener_of(path)))
    found = [state for state in states_in(archive) if "optim" not in state.key.lower()]
    if found:
        return found
    if isinstance(archive.content, Record) and (module := pickled_module(archive.content)):
        raise ModelError(
            f"{label} holds code or objects ({shown(module)}), which are never loaded, and no state dict. If you trust "
            f"it, make one in Python, where its code is: import torch; model = torch.load(path, weights_only=False); "
            f"torch.save(model.state_dict(), other_path). In a dict, name the module: model = model['model']."
        )
    raise ModelError(f"{label} must hold a state dict (names of tensors), got {_described(archive)}.")


def _reading(label: str, read: Callable[[], Any]) -> Any:
    """Read what may be damaged in any way."""
    try:
        return read()
    except TorchScriptError as error:
        raise ModelError(
            f"{label} is a TorchScript archive, which holds code. Save its state dict: "
            f"torch.save(torch.jit.load(path).state_dict(), other_path)."
        ) from error
    except ModelError:  # a package is not installed
        raise
    except ForeignFileError as error:
        raise ModelError(f"{label} is damaged or not a checkpoint: {error}") from error
    except OSError as error:
        raise ModelError(f"{label} cannot be read: {reason_of(error)}.") from error
    except Exception as error:  # a damaged file may hold anything
        raise ModelError(f"{label} is damaged or not a checkpoint: {shown(reason_of(error))}.") from error


def states_in(archive: Archive) -> Iterator[StateDict]:
    """List the dicts of a file that hold tensors, from the outside in.

    Args:
        archive: from `read_archive`.
    """
    waiting: list[tuple[str, Any, int]] = [("", archive.content, 0)]
    seen: set[int] = set()
    for key, value, depth in waiting:
        if id(value) in seen or depth > _DEEPEST:
            continue
        seen.add(id(value))
        if isinstance(value, Record):
            named = {name: each for name, each in value.items() if isinstance(name, str)}
            values = {name: archive.tensor(each) or each for name, each in named.items()}
            if any(isinstance(each, StoredTensor) for each in values.values()):
                yield StateDict(key, values, _versions(value))
            inside = {name: each for name, each in named.items() if not isinstance(values[name], StoredTensor)}
        elif isinstance(value, list | tuple):
            inside = {str(index): each for index, each in enumerate(value)}
        else:
            continue
        waiting += [(f"{key}.{name}".lstrip("."), each, depth + 1) for name, each in inside.items()]


def _versions(record: Record) -> dict[str, dict[str, Any]]:
    """Return what torch keeps on a state dict for each module, so far as it is plain."""
    kept = record.state.get("_metadata") if isinstance(record.state, Record) else None
    if not isinstance(kept, Record):
        return {}
    return {
        module: {name: each for name, each in held.items() if isinstance(name, str) and isinstance(each, int | str)}
        for module, held in kept.items()
        if isinstance(module, str) and isinstance(held, Record)
    }


def pickled_module(content: Any) -> str | None:
    """Return the class of the first pickled module in what a file holds, or of the first other object; None if none.

    Args:
        content: from `unpickled`.
    """
    waiting, seen = [content], set[int]()
    objects: list[str] = []
    for value in waiting:
        if id(value) in seen or len(seen) > 10_000:
            continue
        seen.add(id(value))
        if isinstance(value, Record):
            if isinstance(value.state, Record) and "_modules" in value.state:
                return value.name
            if value.name != "builtins.dict" and not value.name.startswith(("collections.", "torch._utils.")):
                objects.append(value.name)
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
    return objects[0] if objects else None


def _described(archive: Archive) -> str:
    """Describe what a file holds in place of a state dict."""
    content = archive.content
    if archive.tensor(content) is not None:
        return "Tensor"
    if not isinstance(content, Record):
        return type(content).__name__
    for _ in range(_DEEPEST):  # bounded, since a dict may hold itself
        inner = next(iter(content.values()), None)
        if len(content) == 1 and isinstance(inner, Record) and inner:
            content = inner
    return ", ".join(f"'{shown(str(name))}'" for name in list(content)[:_LISTED]) or "nothing"
