"""Files of several arrays of NumPy, .npz: every array by its name. Objects, which could be code, are never read."""

from __future__ import annotations

import functools
import math
import os
import zipfile
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .array_values import array_fault, as_tensor, dtype_of, in_natural_order
from .stored_tensors import StoredTensor

if TYPE_CHECKING:
    import numpy as np
    import torch

_ENDING = ".npy"
_MOST_ARRAYS = 100_000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what np.savez and np.savez_compressed write


def holds_arrays(names: Iterable[str]) -> bool:
    """Check whether a zip archive of entries of these names is a .npz."""
    files = [name for name in names if not name.endswith("/")]
    return bool(files) and all(name.endswith(_ENDING) for name in files)


def read_npz(path: str | os.PathLike[str]) -> dict[str, StoredTensor]:
    """Read a file of several arrays of NumPy.

    Args:
        path: of the file.

    Returns:
        Name -> array, in natural order. Their values are read later.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename.removesuffix(_ENDING): entry for entry in archive.infolist() if not entry.is_dir()}
        if len(entries) > _MOST_ARRAYS:
            raise ValueError(f"it holds more than {_MOST_ARRAYS:,} arrays")
        return {name: _array(archive, entries[name], path) for name in in_natural_order(entries)}


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: str | os.PathLike[str]) -> StoredTensor:
    if entry.compress_type not in _METHODS:
        raise ValueError("its entries are compressed as numpy never does")
    with archive.open(entry) as file:
        shape, dtype = _header(file)
        stored_bytes = entry.file_size - file.tell()
    fault = array_fault(dtype)
    if fault is None and math.prod(shape) * dtype.itemsize != stored_bytes:
        fault = f"not as large as its {stored_bytes} stored bytes"
    like = dtype_of(dtype) if fault is None else None
    return StoredTensor(shape if fault is None else None, like, fault, functools.partial(_values, path, entry.filename))


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read what stands before the values: shape and dtype."""
    import numpy as np

    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _values(path: str | os.PathLike[str], name: str) -> torch.Tensor:
    import numpy as np

    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        return as_tensor(np.lib.format.read_array(file, allow_pickle=False))
