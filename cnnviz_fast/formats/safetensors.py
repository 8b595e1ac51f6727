"""Named tensors and a record as the bytes of one safetensors file, plain or deflated, and back.

The record is JSON under a single key of the metadata, RECORD. Safetensors writes several keys in varying order, but
the same tensors must give the same bytes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import AtlasError, EncodeError
from ..runtime.native import native as native
from ..runtime.untrusted import parse_json

if TYPE_CHECKING:
    import torch

RECORD = "cnnviz_fast"

MOST_BYTES = 2**30
"""Most bytes that are packed or unpacked: 64 channels in 4K take half. A small file can claim to hold more."""

_DTYPES = {"|u1": "U8", "<f2": "F16", "<i4": "I32", "<f4": "F32"}
"""numpy's codes and safetensors' names of what is packed; a name takes numpy longer than all else in the header."""

MOST_HEADER_BYTES = 2**22
"""Most bytes of the names of tensors and the record; the names of 21,841 classes take a tenth."""


def tensor_bytes(tensors: Mapping[str, torch.Tensor], record: Mapping[str, Any]) -> bytes:
    """Make the bytes of a safetensors file.

    Args:
        tensors: name -> dense tensor of any dtype, on any device. Not modified.
        record: what the file says about them, in types that JSON has.

    Returns:
        The file's bytes: the same for the same tensors and the same record.
    """
    from safetensors.torch import save

    return save({name: tensor.cpu() for name, tensor in tensors.items()}, {RECORD: json.dumps(record)})


def pack(tensors: Mapping[str, torch.Tensor], record: Mapping[str, Any]) -> bytes:
    """Make the bytes of a safetensors file, and deflate them into one zlib stream.

    Matches are sought only at a distance of one byte: index planes are noise except for runs of zeros. The native
    module takes a fifth of zlib's time (Z_RLE, its fastest way), for files between 1 % smaller and 3 % larger.

    Args:
        tensors: name -> dense uint8, float16, int32 or float32 tensor, on any device; at least one. Not modified.
        record: what the file says about them; see tensor_bytes.

    Returns:
        The file's bytes.

    Raises:
        EncodeError: the tensors or the record are larger than `unpack` takes.
    """
    head, body = _parts(tensors, record)
    size = len(head) + body.nbytes
    if size > MOST_BYTES or _header_end(head) > MOST_HEADER_BYTES:
        raise EncodeError(f"an atlas holds at most {MOST_BYTES:,} bytes, got {size:,}. Choose fewer channels.")
    module, _ = native()
    if module is not None:
        return bytes(module.zlib_compress((head, body)))
    deflater = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return deflater.compress(head) + deflater.compress(body) + deflater.flush()


def _parts(tensors: Mapping[str, torch.Tensor], record: Mapping[str, Any]) -> tuple[bytes, memoryview]:
    """Return the bytes of a safetensors file, those of `tensor_bytes`: all but the last tensor, and that one.

    The last one, of the smallest items, is by far the largest of an atlas, and is not copied.
    """
    arrays = {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in tensors.items()}
    header: dict[str, Any] = {"__metadata__": {RECORD: json.dumps(record)}}
    contents, at = [], 0
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0])):
        header[name] = {
            "dtype": _DTYPES[array.dtype.str],
            "shape": array.shape,
            "data_offsets": (at, at + array.nbytes),
        }
        contents.append(array.reshape(-1).view(np.uint8).data)
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *contents[:-1]]), contents[-1]


def unpack(packed: bytes, label: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read what `pack` made. No code in it is run, and no more is inflated than its header announces.

    Args:
        packed: bytes of a file; they need not be trusted.
        label: what to call them in messages.

    Returns:
        The tensors, on the CPU, and the record.

    Raises:
        AtlasError: the bytes are damaged or not an atlas.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not packed:
        raise AtlasError(f"{label} is empty (0 bytes).")
    inflater = zlib.decompressobj()
    try:
        start = inflater.decompress(packed, MOST_HEADER_BYTES)
    except zlib.error as error:
        raise AtlasError(f"{label} is not an atlas, or damaged: it does not inflate.") from error
    try:
        header = parse_json(start[8 : _header_end(start)])
        record = parse_json(header.pop("__metadata__")[RECORD].encode())
        size = _header_end(start) + max(entry["data_offsets"][1] for entry in header.values())
        if size > MOST_BYTES:
            raise AtlasError(f"{label} must hold at most {MOST_BYTES:,} bytes, got {size:,}.")
        plain = start + inflater.decompress(inflater.unconsumed_tail, max(1, size - len(start) + 1))
        if len(plain) != size or not inflater.eof or inflater.unused_data:
            raise AtlasError(f"{label} is damaged: it is cut off, or something follows it.")
        return load(plain), dict(record)
    except AtlasError:
        raise
    # A header of other bytes may cause any of these in the lines above.
    except (
        zlib.error,
        SafetensorError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:  # from a header of other bytes
        raise AtlasError(f"{label} is not an atlas, or damaged: {type(error).__name__} in its header.") from error


def read_header(packed: bytes, label: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read only the header of what `pack` made, in a small part of the time that `unpack` takes.

    Args:
        packed: bytes of a file, or the first ones; they need not be trusted.
        label: what to call them in messages.

    Returns:
        What it says of each tensor, and the record.

    Raises:
        AtlasError: the header is damaged or not that of an atlas.
    """
    inflater = zlib.decompressobj()
    try:
        start = inflater.decompress(packed, 8)
        rest = min(max(1, _header_end(start) - 8), MOST_HEADER_BYTES)
        header = dict(parse_json(inflater.decompress(inflater.unconsumed_tail, rest)))
        return header, dict(parse_json(header.pop("__metadata__")[RECORD].encode()))
    # A header of other bytes may cause any of these in the lines above.
    except (zlib.error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise AtlasError(f"{label} is not an atlas, or damaged: {type(error).__name__} in its header.") from error


def _header_end(plain: bytes) -> int:
    """Return where the header of a safetensors file ends and its tensors begin."""
    return 8 + int.from_bytes(plain[:8], "little")
