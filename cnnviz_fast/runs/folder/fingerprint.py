"""The fingerprint of a run: everything that its outputs depend on, as JSON that can be compared."""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import json
import os
import pickle
import re
import types
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ...activations.digests import bytes_of, weights_digest
from ...provenance import package_version

if TYPE_CHECKING:
    from ...models.loaded import LoadedModel

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # address of an object, which differs from process to process
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def fingerprint_of(model: LoadedModel, layers: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Describe everything that the outputs of a run depend on, the same in every process.

    Args:
        model: of the run.
        layers: layer patterns.
        settings: name -> value of everything else that changes pixels; records, paths and functions too.

    Returns:
        Versions, model, digests of its weights and its structure, preprocessing, layers and settings, as JSON.

    Raises:
        ModelError: the model has no values.
    """
    structure = _ADDRESS.sub("", repr(model.module))
    return {
        "package": package_version(),
        "torch": torch.__version__.partition("+")[0],  # machines with and without a GPU may share a run
        "model": model.spec,
        "structure": hashlib.sha256(structure.encode("utf-8", "surrogatepass")).hexdigest(),
        "weights": weights_digest(model.module),
        "preprocess": described(model.preprocess),
        "layers": list(layers),
    } | {name: described(value) for name, value in settings.items()}


def described(value: Any) -> Any:
    """Describe a value by what it does: two that do the same thing give the same JSON, in any process.

    Args:
        value: numbers, text, containers, records, presets, functions and objects of a user's classes. A function is
            described by where it is defined, its code, defaults and closure; an object by its class and its
            attributes, or its pickle where it has no attributes.

    Returns:
        JSON.
    """
    return _described(value, ())


def _described(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, enum.Enum):  # first: its values may be numbers or text
        return f"{type(value).__name__}.{value.name}"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if id(value) in above:
        return "itself"
    inner = functools.partial(_described, above=(*above, id(value)))
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, Mapping):
        return {str(name): inner(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [inner(entry) for entry in value]
    if isinstance(value, set | frozenset):
        return sorted((inner(entry) for entry in value), key=json.dumps)
    if isinstance(value, np.ndarray | np.generic | torch.Tensor):
        return _array_described(value)
    if isinstance(value, types.CodeType):
        return _digest([value.co_code.hex(), value.co_names, [inner(constant) for constant in value.co_consts]])
    parts = _parts(value)
    return {"is": _name(value)} | {name: inner(part) for name, part in parts.items()}


def _parts(value: Any) -> dict[str, Any]:
    """Return the parts of an object that decide what it does."""
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return {"code": value.__code__, "defaults": [value.__defaults__, value.__kwdefaults__], "closed over": cells}
    if isinstance(value, types.MethodType):
        return {"of": value.__self__, "function": value.__func__}
    if isinstance(value, functools.partial):
        return {"function": value.func, "arguments": value.args, "named": value.keywords}
    if isinstance(value, type | types.BuiltinFunctionType | types.ModuleType):
        return {}
    if isinstance(value, nn.Module):
        own = {name: part for name, part in vars(value).items() if name not in _OF_EVERY_MODULE}
        return own | {"weights": weights_digest(value)} | dict(value.named_children())
    if type(value).__module__.startswith("transformers.") and hasattr(value, "to_dict"):  # an image processor
        return {"fields": value.to_dict()}
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "__dict__"):
        return dict(vars(value))
    try:
        return {"pickle": hashlib.sha256(pickle.dumps(value, protocol=4)).hexdigest()}
    except Exception:  # where it does not pickle, only the name of its class is the same in another process
        return {}


def _name(value: Any) -> str:
    """Return where a function or a class is defined; of an object, where its class is."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{getattr(named, '__module__', None)}.{named.__qualname__}"


def _array_described(value: Any) -> Any:
    tensor = torch.as_tensor(value)
    return {
        "dtype": str(tensor.dtype),
        "shape": list(tensor.shape),
        "sha256": hashlib.sha256(bytes_of(tensor)).hexdigest(),
    }


def _digest(description: Any) -> str:
    return hashlib.sha256(json.dumps(description).encode()).hexdigest()
