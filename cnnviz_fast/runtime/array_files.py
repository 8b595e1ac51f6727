"""Files of named arrays and a record about them, in the format safetensors, with a digest of both.

The record is JSON under one entry of the file's header. What is read is what was written, or is refused in one line.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, reason_of
from .files import whole_file
from .untrusted import open_regular, parse_json

Array = NDArray[Any]
Built = TypeVar("Built")

DIGEST = "sha256"
"""The entry of a record that holds the digest."""


@dataclass(frozen=True)
class ArrayFile:
    """A kind of file.

    entry: name of the entry of the header that holds the record.
    noun: what messages call such a file.
    maker: the function that writes it.
    covered: returns the part of a record that the digest covers, besides all arrays.
    """

    entry: str
    noun: str
    maker: str
    covered: Callable[[Mapping[str, Any]], Any]

    def write(self, path: str | os.PathLike[str], arrays: Mapping[str, Array], record: Mapping[str, Any]) -> Path:
        """Write a file, which appears whole or not at all.

        Args:
            path: the file.
            arrays: name -> array. Not modified.
            record: what the file says about them, in types that JSON has.

        Returns:
            The path.

        Raises:
            WriteError: the file cannot be written.
        """
        from safetensors.numpy import save

        content = {**record, DIGEST: self._digest(record, arrays)}
        path = Path(path)
        with whole_file(path) as file:
            file.write(save(dict(arrays), {self.entry: json.dumps(content)}))
        return path

    def read(self, path: Path, build: Callable[[dict[str, Any], dict[str, Array]], Built]) -> Built:
        """Read what `write` wrote.

        Args:
            path: the file.
            build: makes the result of the record and the arrays. A ValueError, LookupError or TypeError that it raises
                is a damage of the file.

        Returns:
            What `build` returns.

        Raises:
            InputError: the file is missing, damaged, or of another kind.
        """
        from safetensors import SafetensorError, safe_open

        label = f"{self.noun} {os.fspath(path)!r}"
        try:
            open_regular(path).close()  # safe_open would wait for a pipe
            with safe_open(path, framework="numpy") as file:
                names = file.keys()
                header = (file.metadata() or {}).get(self.entry)
                arrays = {name: file.get_tensor(name) for name in names} if header else {}
        # The last two are what it raises for dtypes that numpy lacks, bfloat16 and float8.
        except (SafetensorError, OSError, TypeError, AttributeError) as error:
            raise InputError(f"{label} cannot be read: {reason_of(error)}.") from error
        if header is None:
            raise InputError(f"{label} must be a file of {self.maker}, got one of another kind.")
        try:
            content = parse_json(header.encode())
            if content[DIGEST] != self._digest(content, arrays):
                raise InputError("its content is not what was written")
            return build(content, arrays)
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(f"{label} is damaged: {str(error).rstrip('.')}.") from error

    def record_of(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """Return the record of a file.

        Args:
            path: the file.

        Returns:
            The record, unchecked; empty if the file is missing or of another kind.
        """
        from safetensors import SafetensorError, safe_open

        try:
            open_regular(path).close()
            with safe_open(path, framework="numpy") as file:
                return dict(parse_json((file.metadata() or {}).get(self.entry, "{}").encode()))
        except (SafetensorError, OSError, ValueError, TypeError):
            return {}

    def _digest(self, record: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
        """Return a hash of everything that counts in a file."""
        digest = hashlib.sha256(json.dumps(self.covered(record)).encode())
        for name in sorted(arrays):
            digest.update(name.encode() + arrays[name].tobytes())
        return digest.hexdigest()


def part_of(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return the arrays whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def prefixed(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """Return arrays by their names behind a prefix."""
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def texts_to_arrays(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return texts as arrays.

    Args:
        texts: any, lone surrogates included.

    Returns:
        (n,) int64. Bytes of each text.
        (m,) uint8. The texts in UTF-8, one behind the other.
    """
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return np.array([len(each) for each in encoded], np.int64), np.frombuffer(b"".join(encoded), np.uint8)


def texts_from_arrays(lengths: NDArray[np.int64], content: NDArray[np.uint8]) -> list[str]:
    """Return the texts of which `texts_to_arrays` made arrays.

    Args:
        lengths: (n,) int64. Bytes of each text.
        content: (m,) uint8. The texts in UTF-8, one behind the other.

    Returns:
        The texts.

    Raises:
        InputError: the lengths do not add up, or the content is not UTF-8.
    """
    if (lengths < 0).any() or (lengths > len(content)).any() or lengths.sum() != len(content):
        raise InputError("arrays must hold texts and their lengths, got lengths that do not add up.")
    ends, raw = np.cumsum(lengths).tolist(), content.tobytes()
    pieces = (raw[end - length : end] for end, length in zip(ends, lengths.tolist(), strict=True))
    try:
        return [piece.decode("utf-8", "surrogatepass") for piece in pieces]
    except UnicodeDecodeError as error:
        raise InputError("arrays must hold texts in UTF-8, got other bytes.") from error


def check_arrays(arrays: Any, wanted: Mapping[str, tuple[str, int]]) -> None:
    """Refuse arrays of other names, dtypes or numbers of dimensions.

    Args:
        arrays: name -> array, or anything else.
        wanted: name -> dtype and number of dimensions.

    Raises:
        InputError: one is missing or another.
    """
    for name, (dtype, ndim) in wanted.items():
        array = arrays.get(name) if isinstance(arrays, Mapping) else None
        if not isinstance(array, np.ndarray) or array.dtype != np.dtype(dtype) or array.ndim != ndim:
            raise InputError(f"arrays must hold {name!r} of {ndim} dimensions and {dtype}, as to_arrays returns it.")
