"""Tensors as files describe them: shape and dtype first, and values only where they are asked for.

Only dense tensors whose stored bytes hold all their values can be read. What is sparse, quantised, nested or without
values keeps its place among the names of a checkpoint, with the reason why it cannot be read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from .unpickling import Name, Record

if TYPE_CHECKING:
    import torch

    Storages = Callable[[object], "Storage | None"]

_STORAGE_DTYPES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
    "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128", "Untyped": "uint8",
}  # fmt: skip

_DENSE = {
    "torch._utils._rebuild_tensor": 4,
    "torch._utils._rebuild_tensor_v2": 6,
    "torch._utils._rebuild_tensor_v3": 7,
}
"""What makes a dense tensor of storage, offset, size, stride and more -> how many arguments it has at least."""

_AROUND = {
    "torch._utils._rebuild_parameter": 0,
    "torch._utils._rebuild_parameter_with_state": 0,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": 0,
    "torch._utils._rebuild_device_tensor_from_numpy": 0,
    "torch.nn.parameter.Parameter": 0,
    "torch.nn.parameter.Buffer": 0,
    "torch.distributed.tensor.DTensor": 0,
}
"""What makes a tensor of another tensor -> the place of that one among its arguments."""

_REFUSED = {
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_sparse_csr_tensor": "sparse",
    "torch._utils._rebuild_qtensor": "quantised",
    "torch._utils._rebuild_nested_tensor": "nested",
    "torch.nested._internal.nested_tensor._rebuild_njt": "nested",
    "torch._utils._rebuild_meta_tensor_no_storage": "without values (on the meta device)",
    "torch._utils._rebuild_wrapper_subclass": "a tensor of a class of its own",
}
"""What makes tensors that are not dense -> what they are."""

_ARRAYS = ("numpy.core.multiarray.", "numpy._core.multiarray.", "numpy.core.numeric.", "numpy._core.numeric.")


@dataclass(frozen=True)
class Storage:
    """Bytes in a file.

    Attributes:
        dtype: of its elements, bytes where the tensors in it name theirs.
        count: of the elements that are there.
        read: returns them, (count,) of a dtype.
    """

    dtype: torch.dtype
    count: int
    read: Callable[[torch.dtype], torch.Tensor]


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        shape: of the tensor.
        dtype: of its values, None where it is not known.
        fault: why it cannot be read, for the end of "is ..."; None if it can.
        read: returns it.
    """

    shape: tuple[int, ...] | None
    dtype: torch.dtype | None
    fault: str | None
    read: Callable[[], torch.Tensor]


def in_memory(tensor: torch.Tensor) -> StoredTensor:
    """Describe a tensor that has been read already.

    Args:
        tensor: (...) real dtype or complex.

    Returns:
        Its description, with a fault where it is not dense or has no values.
    """
    import torch

    fault = None
    if tensor.is_nested:
        return _refused("nested")
    if tensor.layout != torch.strided:
        fault = "sparse"
    elif tensor.is_meta:
        fault = "without values (on the meta device)"
    elif tensor.is_quantized:
        fault = "quantised"
    return StoredTensor(tuple(tensor.shape), tensor.dtype, fault, lambda: tensor)


def tensor_of(value: Any, storages: Storages) -> StoredTensor | None:
    """Return the tensor that a value of an unpickled file stands for.

    Args:
        value: from `unpickled`.
        storages: returns the storage that a value of the file stands for, None if there is none.

    Returns:
        The tensor; None if the value stands for something else.
    """
    if not isinstance(value, Record):
        return None
    try:
        return _tensor_of(value, storages)
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        return _refused(f"damaged ({type(error).__name__})")


def _tensor_of(value: Record, storages: Storages) -> StoredTensor | None:
    for _ in range(4):  # a parameter around a tensor of a subclass, and the like
        if value.name == "torch._tensor._rebuild_from_type_v2":
            made_by, _, arguments = value.arguments[:3]
            value = Record(made_by.path, arguments)
        elif value.name in _AROUND and isinstance(value.arguments[_AROUND[value.name]], Record):
            value = value.arguments[_AROUND[value.name]]
        else:
            break
    if value.name in _REFUSED:
        return _refused(_REFUSED[value.name])
    if value.name in _DENSE:
        return _dense(value.arguments, _DENSE[value.name], storages)
    if value.name.startswith(_ARRAYS):
        return _array(value)
    return None


def _refused(fault: str) -> StoredTensor:
    def read() -> torch.Tensor:
        raise ValueError(f"a tensor that is {fault} cannot be read")

    return StoredTensor(None, None, fault, read)


def _dense(arguments: tuple[Any, ...], least: int, storages: Storages) -> StoredTensor:
    """Return a tensor of a storage, whose size and strides must lie inside of it."""
    import torch

    if len(arguments) < min(least, 4):
        return _refused("damaged (too few arguments)")
    stored, offset, size, strides = arguments[:4]
    storage = storages(stored)
    shape, strides = sizes(size), sizes(strides)
    if storage is None or len(shape) != len(strides) or type(offset) is not int or offset < 0:
        return _refused("damaged (its storage is not there)")
    typed = least == 7  # the third version names its dtype
    dtype = _dtype(arguments[6].path) if typed else storage.dtype
    if dtype is None:
        return _refused("of a dtype that this torch does not have")
    count = storage.count // dtype.itemsize if typed else storage.count
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    values = math.prod(shape)
    flags = next((a for a in arguments[4:] if isinstance(a, Record) and a.keys() & {"conj", "neg"}), Record(""))

    def read() -> torch.Tensor:
        held = storage.read(dtype)
        tensor = torch.as_strided(held, shape, strides, offset) if values else held.new_empty(shape)
        tensor = tensor.conj() if flags.get("conj") else tensor
        return -tensor if flags.get("neg") else tensor

    fault = None
    if values and (last >= count or values > count):
        fault = f"larger than its {count} stored values"
    return StoredTensor(shape, dtype, fault, read)


def sizes(given: Any) -> tuple[int, ...]:
    """Read a size or strides: whole numbers from zero."""
    if isinstance(given, Record) and given.name == "torch.Size":
        (given,) = given.arguments
    sizes = tuple(given)
    if any(type(length) is not int or not 0 <= length < 2**62 for length in sizes):
        raise ValueError("sizes must be whole numbers")
    return cast("tuple[int, ...]", sizes)


def storage_dtype(kind: Any) -> torch.dtype | None:
    """Return the dtype of the elements of a storage, by the class of it that a pickle names."""
    name = kind.path.rpartition(".")[2].removesuffix("Storage") if isinstance(kind, Name) else ""
    return _dtype(f"torch.{_STORAGE_DTYPES.get(name)}")


def _dtype(path: str) -> torch.dtype | None:
    """Return the dtype of this name."""
    import torch

    found = getattr(torch, path.removeprefix("torch."), None) if path.isascii() else None
    return found if isinstance(found, torch.dtype) else None


def _array(value: Record) -> StoredTensor | None:
    """Return an array or a scalar of numpy as a tensor."""
    kind = value.name.rpartition(".")[2]
    if kind == "_reconstruct" and isinstance(value.state, tuple):
        _, shape, dtype, by_columns, content = value.state
        order = "F" if by_columns else "C"
    elif kind == "_frombuffer":
        content, dtype, shape, order = value.arguments
    elif kind == "scalar":
        dtype, content = value.arguments
        shape, order = (), "C"
    else:
        return None
    return _array_of(content, dtype, sizes(shape), order)


def _array_of(content: Any, described: Any, shape: tuple[int, ...], order: str) -> StoredTensor:
    import numpy as np
    import torch

    letter = described.arguments[0] if isinstance(described, Record) and described.name == "numpy.dtype" else None
    if not isinstance(letter, str) or letter[:1] not in "fiubc" or not isinstance(content, bytes | bytearray):
        return _refused("an array that holds no numbers")
    dtype = np.dtype(letter)
    if isinstance(described.state, tuple) and described.state[1:2] == (">",):
        dtype = dtype.newbyteorder(">")
    if math.prod(shape) * dtype.itemsize != len(content):
        return _refused(f"larger than its {len(content)} stored bytes")

    def read() -> torch.Tensor:
        values = np.frombuffer(content, dtype).astype(dtype.newbyteorder("="))
        return torch.from_numpy(values.reshape(shape, order="F" if order == "F" else "C"))

    try:
        like = torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype
    except TypeError:
        return _refused(f"an array of {dtype.name}, which tensors have none of")
    return StoredTensor(shape, like, None, read)
