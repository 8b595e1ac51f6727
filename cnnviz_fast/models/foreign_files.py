"""What a file given as weights is, by its first bytes: one that is read, or one of another tool, which is named."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

HEAD_BYTES = 1024
"""How much of a file is looked at."""


class Kind(NamedTuple):
    """A kind of file that is not read: what it is, its first bytes as a regular expression, and what to do."""

    name: str
    signature: bytes
    advice: str


_CONVERT = "Load it there, and save a dict of tensors with torch.save or safetensors"
_UNPACK = "Unpack it first"
_FETCH = "Its download has failed: fetch it again"
_LARGEST_HEADER_BYTES = 100_000_000  # of safetensors 0.6, which refuses longer ones

_KINDS = (
    Kind("a graph of TensorFlow Lite", rb".{4}TFL3", _CONVERT),
    Kind("a program of ExecuTorch", rb".{4}ET\d\d", _CONVERT),
    Kind("a file of llama.cpp (GGUF)", rb"GGUF", _CONVERT),
    Kind("an array of NumPy", rb"\x93NUMPY", "Save a dict of arrays, each under its name"),
    Kind("a graph of ONNX", rb"\x08[\x03-\x20][\x12\x1a\x22:B]", _CONVERT),
    Kind("a graph of TensorFlow", rb"\x08\x01\x12", _CONVERT),
    Kind("msgpack, as Flax saves", rb"([\x81-\x8f]|\xde..|\xdf.{4})[\xa1-\xbf\xd9]", _CONVERT),
    Kind("a gzip archive", rb"\x1f\x8b", _UNPACK),
    Kind("a bzip2 archive", rb"BZh", _UNPACK),
    Kind("an xz archive", rb"\xfd7zXZ\0", _UNPACK),
    Kind("a zstd archive", rb"\x28\xb5\x2f\xfd", _UNPACK),
    Kind("a 7z archive", rb"7z\xbc\xaf\x27\x1c", _UNPACK),
    Kind("a RAR archive", rb"Rar!", _UNPACK),
    Kind("a tar archive", rb".{257}ustar", _UNPACK),
    Kind("a PNG image", rb"\x89PNG\r\n", "Name the file of the weights"),
    Kind("a JPEG image", rb"\xff\xd8\xff", "Name the file of the weights"),
    Kind("a pointer of Git LFS", rb"version https://git-lfs", "Fetch the file itself: git lfs pull"),
    Kind("a web page (HTML)", rb"\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body)\b", _FETCH),
    Kind("XML", rb"\s*<\?xml", _FETCH),
    Kind("JSON", rb"\s*[{\[]\s*[\"{\[\d\]}tfn-]", "Name the file of the weights"),
    Kind("nothing but zeros", rb"\0+\Z", _FETCH),
    Kind("text", rb"[^\0-\x08\x0e-\x1a\x1c-\x1f\x7f-\xff]+\Z", "Name the file of the weights"),
)


def is_zip(head: bytes) -> bool:
    """Check whether a file is a zip archive, as torch.save writes today."""
    return head.startswith(b"PK")


def is_pickle(head: bytes) -> bool:
    """Check whether a file is a pickle of protocol 2 or later, as torch.save wrote before 2020."""
    return re.match(rb"\x80[\x02-\x05]", head) is not None


def is_torch_file(head: bytes) -> bool:
    """Check whether a file may be one of torch.save, whatever its name."""
    return is_zip(head) or is_pickle(head)


def is_safetensors(head: bytes, size_bytes: int) -> bool:
    """Check whether a file is one of safetensors, whatever its name: a length, and JSON of it.

    Args:
        head: its first bytes.
        size_bytes: of the whole file.
    """
    length = int.from_bytes(head[:8], "little")
    return head[8:10] in (b'{"', b"{}") and 2 <= length <= min(size_bytes - 8, _LARGEST_HEADER_BYTES)


def what_it_is(head: bytes) -> str:
    """Return what a file is that is neither torch's nor safetensors', and what to do with it.

    Args:
        head: its first bytes.

    Returns:
        Such as "a gzip archive. Unpack it first."; "" where it is not known.
    """
    found = next((kind for kind in _KINDS if re.match(kind.signature, head, re.DOTALL | re.IGNORECASE)), None)
    return "" if found is None else f"{found.name}. {found.advice}."


def what_zip_is(names: Collection[str]) -> str:
    """Return what a zip archive is that torch.save has not written, as `what_it_is` does.

    Args:
        names: of its entries.
    """
    files = [name for name in names if not name.endswith("/")]
    if any(name.rpartition("/")[2].startswith(("serialized_exported_program", "archive_format")) for name in files):
        return "a program of torch.export. Save the state dict of torch.export.load(path) with torch.save."
    return f"an archive of other files. {_UNPACK}." if files else ""
