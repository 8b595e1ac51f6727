"""Files of HDF5, as Keras saves weights: every array in them by its path, in the order of their layers.

A file may be anybody's. Only what lies in it is read: links are refused, and so are arrays whose values lie elsewhere
or need a plug-in. Values are read where a module has a place of their shape, so that a file of a few kB that declares
terabytes costs nothing.
"""

from __future__ import annotations

import functools
import io
import itertools
import math
import os
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import shown
from ..runtime.extras import import_extra
from .array_values import array_fault, as_tensor, dtype_of, in_natural_order
from .stored_tensors import StoredTensor

if TYPE_CHECKING:
    import torch

IN_KERAS = "model.weights.h5"
"""The file of weights in an archive that Keras 3 saves as .keras."""

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MOST_OBJECTS = 100_000  # groups and arrays; the largest networks have some thousand
_DEEPEST = 50  # groups in one another; a model of models of Keras has some ten
_FILTERS = {1, 2, 3, 32000}  # deflate, shuffle, fletcher32 and h5py's own lzf: those that need no plug-in
_LEAST_CHUNK_BYTES = 2**20  # that may be read for less: h5py makes chunks of up to 1 MiB for arrays that may grow
_MOST_DEFLATED = 1100  # times as large as its bytes in the file; deflate reaches 1032


def is_hdf5(head: bytes) -> bool:
    """Check by its first bytes whether a file is one of HDF5."""
    return head.startswith(_SIGNATURE)


def read_hdf5(path: str | os.PathLike[str], in_archive: bool = False) -> tuple[dict[str, StoredTensor], str]:
    """Read a file of HDF5, or the one in a .keras archive.

    Args:
        path: of the file.
        in_archive: whether it is such an archive.

    Returns:
        Path in the file -> array, and what their order is that of: "layer_names", as Keras writes, or "names".

    Raises:
        ModelError: h5py is not installed.
        OSError: it is damaged.
        ValueError: it holds what is not read.
    """
    h5py: Any = import_extra("h5py", "h5", "weights in files of HDF5")

    def opened() -> Any:
        return h5py.File(_in_archive(path) if in_archive else path, "r")

    with opened() as file:
        walk = _Walk(h5py, opened)
        found = walk.arrays_in(file, "", 0)
    return dict(found), "layer_names" if walk.is_ordered else "names"


def _in_archive(path: str | os.PathLike[str]) -> io.BytesIO:
    """Return the weights in an archive of Keras, which stores them as they are."""
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(IN_KERAS)
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > os.path.getsize(path):
            raise ValueError(f"{IN_KERAS} in it is compressed, which Keras never does")
        return io.BytesIO(archive.read(entry))


class _Walk:
    """The way through the groups of a file.

    Attributes:
        is_ordered: whether a group said in which order its layers are.
    """

    def __init__(self, h5py: Any, opened: Callable[[], Any]) -> None:
        self.is_ordered = False
        self._h5py, self._opened = h5py, opened
        self._groups: set[int] = set()
        self._objects = 0

    def arrays_in(self, group: Any, path: str, depth: int) -> list[tuple[str, StoredTensor]]:
        """List the arrays below a group."""
        address = self._h5py.h5o.get_info(group.id).addr
        if address in self._groups:
            raise ValueError(f"its group '{shown(path)}' is in itself, or in two places")
        self._groups.add(address)
        self._objects += len(group)
        if depth > _DEEPEST or self._objects > _MOST_OBJECTS:
            raise ValueError(f"it holds more than {_MOST_OBJECTS:,} arrays and groups, or they are {_DEEPEST} deep")
        found: list[tuple[str, StoredTensor]] = []
        for name in in_natural_order(group):
            inner = f"{path}/{name}".lstrip("/")
            if not isinstance(group.get(name, getlink=True), self._h5py.HardLink):
                raise ValueError(f"'{shown(inner)}' in it is a link, which is never followed")
            held = group[name]
            if isinstance(held, self._h5py.Group):
                found += self.arrays_in(held, inner, depth + 1)
            elif isinstance(held, self._h5py.Dataset):
                found.append((inner, self._array(held, inner)))
        return self._ordered(found, group, path)

    def _ordered(self, found: list[tuple[str, StoredTensor]], group: Any, path: str) -> list[tuple[str, StoredTensor]]:
        """Sort arrays as Keras says: by the layers of a file, or by the weights of a layer; else leave them."""
        names = _texts(group, "layer_names") or _texts(group, "weight_names")
        if not names:
            return found
        self.is_ordered = True
        ranks = {name: rank for rank, name in enumerate(names)}

        def rank(item: tuple[str, StoredTensor]) -> int:
            inside = item[0].removeprefix(path).lstrip("/")
            return ranks.get(inside, ranks.get(inside.partition("/")[0], len(ranks)))

        return sorted(found, key=rank)

    def _array(self, held: Any, path: str) -> StoredTensor:
        fault = _fault(held)
        shape = tuple(held.shape or ()) if fault is None else None
        return StoredTensor(shape, dtype_of(held.dtype), fault, functools.partial(_values, self._opened, path))


def _values(opened: Callable[[], Any], path: str) -> torch.Tensor:
    with opened() as file:
        return as_tensor(file[path][()])


def _fault(held: Any) -> str | None:
    """Return why an array cannot be read, for the end of "is ..."; None if it can."""
    if (fault := array_fault(held.dtype)) is not None:
        return fault
    if held.shape is None:
        return "without values"
    if held.is_virtual or held.external:
        return "an array whose values lie in other files, which are never read"
    made = held.id.get_create_plist()
    unknown = {made.get_filter(index)[0] for index in range(made.get_nfilters())} - _FILTERS
    if unknown:
        return f"compressed by a plug-in (filter {min(unknown)}), which is never loaded"
    size_bytes, stored_bytes = math.prod(held.shape) * held.dtype.itemsize, held.id.get_storage_size()
    if size_bytes > stored_bytes * (_MOST_DEFLATED if held.chunks else 1):
        return f"larger than its {stored_bytes} stored bytes"
    if held.chunks and math.prod(held.chunks) * held.dtype.itemsize > max(size_bytes, _LEAST_CHUNK_BYTES):
        return "stored in chunks larger than itself"
    return None


def _texts(group: Any, name: str) -> list[str]:
    """Read an attribute that lists names, or those that Keras splits a long one into: name0, name1, ..."""
    parts = [name] if name in group.attrs else (f"{name}{index}" for index in itertools.count())
    texts: list[str] = []
    for part in itertools.takewhile(group.attrs.__contains__, parts):
        kept = group.attrs.get_id(part)
        if kept.dtype.kind not in "SO" or len(kept.shape or ()) != 1 or kept.shape[0] > _MOST_OBJECTS:
            return []
        texts += [each.decode(errors="replace") if isinstance(each, bytes) else str(each) for each in group.attrs[part]]
    return texts
