"""Files of torch.save, of today and of before 2020, and bare pickles: read without running anything of them.

A file is a pickle that describes tensors, and the bytes of their storages beside it. Both are taken only where they lie
as torch writes them: an archive whose entries are compressed, overlap or are longer than the file is refused.
"""

from __future__ import annotations

import functools
import io
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from .foreign_files import HEAD_BYTES, is_pickle, is_zip, what_it_is, what_zip_is
from .stored_tensors import Storage, StoredTensor, storage_dtype, tensor_of
from .unpickling import Record, Stored, unpickled

if TYPE_CHECKING:
    import torch

_MAGIC = 0x1950A86A20F9469CFC6C  # torch.serialization.MAGIC_NUMBER, the first pickle of a file of before 2020
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # of an entry of a zip archive; its last numbers are lengths that follow

Opener = Callable[[], IO[bytes]]


class ForeignFileError(ValueError):
    """The file is not one of torch."""

    def __init__(self, reason: str, found: str) -> None:
        """Join why the file is not such an archive, and what it is where that is known, with what to do."""
        super().__init__(f"{reason}, but {found}" if found else f"{reason}.")


class TorchScriptError(ValueError):
    """The file is an archive of TorchScript, which holds code."""


@dataclass(frozen=True)
class Archive:
    """What a file holds.

    Attributes:
        content: from `unpickled`.
        storages: returns the storage that a value of it stands for; None if there is none.
    """

    content: Any
    storages: Callable[[object], Storage | None]

    def tensor(self, value: Any) -> StoredTensor | None:
        """Return the tensor that a value stands for; None if it stands for something else."""
        return tensor_of(value, self.storages)


def opener_of(path: str | os.PathLike[str]) -> Opener:
    """Return what opens a file, for `read_archive`."""

    def opened() -> IO[bytes]:
        return open(path, "rb")

    return opened


def read_archive(opened: Opener) -> Archive:
    """Read a file of torch.save, or a pickle.

    Args:
        opened: opens the file. It is called again whenever values are read.

    Returns:
        What it holds.

    Raises:
        TorchScriptError: it holds a program.
        ValueError: it is damaged, or its entries are not what torch writes.
    """
    with opened() as file:
        head = file.read(HEAD_BYTES)
        file.seek(0)
        if is_zip(head):
            return _zipped(file, opened)
        if is_pickle(head):
            return _pickled(file, opened)
    raise ForeignFileError("its content is neither a zip archive nor a pickle", what_it_is(head))


def _zipped(file: IO[bytes], opened: Opener) -> Archive:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if not any(name.endswith("/data.pkl") for name in names):
                raise ForeignFileError("it holds no data.pkl, which torch writes", what_zip_is(names))
            entries = _checked_entries(archive, _length(file))
    except (zipfile.BadZipFile, NotImplementedError, struct.error) as error:
        raise ValueError(str(error)) from error
    root = next(name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl"))
    swapped = f"{root}byteorder" in entries and _entry(file, entries[f"{root}byteorder"]) == b"big"
    content = unpickled(io.BytesIO(_entry(file, entries[f"{root}data.pkl"])))

    @functools.cache
    def read(name: str) -> bytes:
        with opened() as again:
            return _entry(again, entries[name])

    def storages(value: object) -> Storage | None:
        kind, key, count, _ = _described(value)
        name, dtype = f"{root}data/{key}", storage_dtype(kind)
        if name not in entries or dtype is None:
            return None
        if not 0 <= count * dtype.itemsize <= entries[name].file_size:
            raise ValueError("a storage is shorter than its pickle says")
        return Storage(dtype, count, lambda dtype: _values(read(name), dtype, swapped))

    return Archive(content, storages)


def _checked_entries(archive: zipfile.ZipFile, length: int) -> dict[str, zipfile.ZipInfo]:
    """Return the entries of an archive by name; refuse those that torch.save does not write."""
    if any(name.endswith(("/constants.pkl", "/bytecode.pkl")) or "/code/" in name for name in archive.namelist()):
        raise TorchScriptError("it holds a program")
    entries: dict[str, zipfile.ZipInfo] = {}
    end = 0
    for entry in sorted(archive.infolist(), key=lambda entry: entry.header_offset):
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise ValueError("its entries are compressed, which torch never does")
        if entry.flag_bits & 0x1 or entry.filename in entries:
            raise ValueError("its entries are encrypted, or there are two of one name")
        if entry.header_offset < end or entry.header_offset + entry.file_size > length:
            raise ValueError("its entries overlap, or are longer than the file")
        end = entry.header_offset + _LOCAL_HEADER.size + entry.file_size
        entries[entry.filename] = entry
    return entries


def _entry(file: IO[bytes], entry: zipfile.ZipInfo) -> bytes:
    """Read an entry that is stored as it is."""
    file.seek(entry.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\3\4":
        raise ValueError("an entry of it does not begin where it should")
    name_length, extra_length = _LOCAL_HEADER.unpack(header)[-2:]
    file.seek(name_length + extra_length, os.SEEK_CUR)
    content = file.read(entry.file_size)
    if len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
        raise ValueError("an entry of it is damaged")
    return content


def _values(content: bytes, dtype: torch.dtype, swapped: bool) -> torch.Tensor:
    """Return bytes as values of a dtype; what is left of an element at the end is left out."""
    import numpy as np
    import torch

    width = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
    held = np.frombuffer(content, np.uint8, len(content) // dtype.itemsize * dtype.itemsize)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the bytes cannot be written to, and nobody does
        return torch.from_numpy(held.view(f"u{width}").byteswap().view(np.uint8) if swapped else held).view(dtype)


def _pickled(file: IO[bytes], opened: Opener) -> Archive:
    """Read a file that begins with a pickle: with four of torch, and storages behind them, or just this one."""
    content = unpickled(file)
    if content != _MAGIC:
        return Archive(content, _storage_in_bytes)
    _, system = unpickled(file), unpickled(file)
    content, keys = unpickled(file), unpickled(file)
    swapped = isinstance(system, Record) and system.get("little_endian") is False
    held = _storages_behind(file, content, keys)

    @functools.cache
    def read(key: str) -> bytes:
        start, _, length = held[key]
        with opened() as again:
            again.seek(start)
            return again.read(length)

    def storages(value: object) -> Storage | None:
        kind, key, count, view = _described(value)
        dtype = storage_dtype(kind)
        if key not in held or dtype is None or view is not None:
            return None
        if held[key][1] != count:
            raise ValueError("a storage is shorter than its pickle says")
        return Storage(dtype, count, lambda dtype: _values(read(key), dtype, swapped))

    return Archive(content, storages)


def _storages_behind(file: IO[bytes], content: Any, keys: Any) -> dict[Any, tuple[int, int, int]]:
    """Find the storages behind the pickles: where each begins, the number of its elements and of its bytes."""
    named = [_described(stored) for stored in _stored_in(content)]
    dtypes = {key: storage_dtype(kind) for kind, key, _, _ in named}
    length, held = _length(file), {}
    for key in keys if isinstance(keys, list) else []:
        header = file.read(8)
        dtype = dtypes.get(key) if type(key) is str else None
        if len(header) < 8 or dtype is None:
            raise ValueError("its storages are not all there")
        (count,) = struct.unpack("<q", header)
        size, start = count * dtype.itemsize, file.tell()
        if not 0 <= size <= length - start:
            raise ValueError("its storages are not all there")
        held[key] = (start, count, size)
        file.seek(start + size)
    return held


def _described(stored: object) -> tuple[Any, str, int, Any]:
    """Read how a pickle describes a storage: the class of it, its key, the number of elements, and a view or None."""
    if isinstance(stored, Stored) and isinstance(stored.described, tuple) and len(stored.described) in (5, 6):
        _, kind, key, _, count, *view = stored.described
        if isinstance(key, str) and type(count) is int:
            return kind, key, count, view[0] if view else None
    raise ValueError("a storage is not described as torch does it")


def _storage_in_bytes(value: object) -> Storage | None:
    """Return the storage in a bare pickle, which holds it as the bytes of a file of its own."""
    if not isinstance(value, Record) or value.name != "torch.storage._load_from_bytes":
        return None
    (content,) = value.arguments
    inner = read_archive(functools.partial(io.BytesIO, content))
    return inner.storages(inner.content) if isinstance(inner.content, Stored) else None


def _stored_in(content: Any) -> list[Stored]:
    """List what a value says of data outside of its pickle."""
    found, waiting, seen = [], [content], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Stored):
            found.append(value)
        elif isinstance(value, Record):
            waiting += [value.arguments, value.state, value.elements, value.pairs, *value.values()]
        elif isinstance(value, list | tuple):
            waiting += value
    return found


def _length(file: IO[bytes]) -> int:
    here = file.tell()
    length = file.seek(0, os.SEEK_END)
    file.seek(here)
    return length
