"""Digests of a model's weights: of all values, for a run, and of a sample of them, for the manifest of a sheet."""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import ModelError
from ..models.loaded import LoadedModel
from ..runtime.plain import is_fake
from .tensors import gathered, tensors_in

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

_SAMPLE = 1 << 14
"""Values of each tensor that a sheet's digest takes, evenly spaced: 20 ms for ResNet-50, whose full digest takes
120 ms, and 40 ms for ViT-L, whose full digest takes a second or more."""

_of_models: weakref.WeakKeyDictionary[LoadedModel, str] = weakref.WeakKeyDictionary()


def weights_digest(module: nn.Module) -> str:
    """Hash the weights of a model; their device and the order of their dimensions in memory do not count.

    Args:
        module: any. Shared parameters count under each of their names.

    Returns:
        SHA-256 of the names, dtypes, shapes and values of all parameters and buffers, and of packed weights of
        quantised layers; 64 hexadecimal digits.

    Raises:
        ModelError: some have no values yet.
    """
    digest = hashlib.sha256()
    for name, path, tensor in _tensors_of(module):
        if _has_no_values(tensor):
            raise ModelError(f"weights must have values, but {name!r} has none yet. Load the model with weights.")
        digest.update(_heading(name, path, tensor))
        digest.update(bytes_of(tensor))
    return digest.hexdigest()


def sample_digest(model: LoadedModel) -> str:
    """Hash a sample of the weights of a model, to tell it from others of its name. It is kept with the record.

    Args:
        model: the record of the model, after a pass, by which lazy layers have their values.

    Returns:
        The first 16 hexadecimal digits of the SHA-256 of the names, dtypes, shapes and up to 16,384 evenly spaced
        values of each tensor that `weights_digest` takes; of one without values, its name alone.
    """
    if model not in _of_models:
        digest = hashlib.sha256()
        for name, path, tensor in _tensors_of(model.module):
            if _has_no_values(tensor):
                digest.update(name.encode("utf-8", "surrogatepass"))
            else:
                digest.update(_heading(name, path, tensor))
                flat = _dense(tensor).flatten()
                digest.update(bytes_of(flat[:: -(-len(flat) // _SAMPLE) or 1]))
        _of_models[model] = digest.hexdigest()[:16]
    return _of_models[model]


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """Return the values of a tensor in order.

    Args:
        tensor: (any shape) real dtype or complex, on any device. A sparse or quantised one is made dense first.

    Returns:
        Its values, on the CPU.
    """
    import torch

    flat = _dense(tensor).cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    raw: NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return raw.data


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    dense = gathered(tensor.detach())
    if dense.is_quantized:
        return dense.dequantize()
    return dense if dense.layout is torch.strided else dense.to_dense()


def _tensors_of(module: nn.Module) -> Iterator[tuple[str, str, torch.Tensor]]:
    """List the tensors that a module holds, sorted by name: name, path inside of packed weights, tensor."""
    held: dict[str, Any] = dict(module.named_buffers(remove_duplicate=False)) | module.state_dict()
    for name in sorted(held):
        for path, tensor in tensors_in(held[name]).items():
            yield name, path, tensor


def _has_no_values(tensor: torch.Tensor) -> bool:
    from torch.nn.parameter import is_lazy

    return tensor.is_meta or is_fake(tensor) or bool(is_lazy(tensor))


def _heading(name: str, path: str, tensor: torch.Tensor) -> bytes:
    return json.dumps([name, path, str(tensor.dtype), list(tensor.shape)]).encode()
