"""Folders of torch.distributed.checkpoint: tensors put together from the pieces that each process wrote.

torch's own reader unpickles their `.metadata` freely, which would run code. Here it is read as records.
"""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from .stored_tensors import StoredTensor, sizes
from .torch_archives import read_archive
from .unpickling import Record, unpickled

if TYPE_CHECKING:
    import torch

METADATA = ".metadata"
"""The file that tells what is where in such a folder."""


def read_dcp(folder: Path) -> dict[str, StoredTensor]:
    """Read such a folder.

    Args:
        folder: that holds `.metadata` and the files of the processes.

    Returns:
        Name -> tensor.

    Raises:
        ValueError: it is damaged, or written in another way than torch's usual one.
    """
    with open(folder / METADATA, "rb") as file:
        about = unpickled(file).state
    pieces: dict[str, list[tuple[tuple[int, ...], Record]]] = {}
    for index, where in about["storage_data"].pairs:
        name, offset = index.state["fqn"], index.state.get("offset")
        pieces.setdefault(name, []).append((() if offset is None else sizes(offset), where.state))
    return {
        name: _tensor(folder, sizes(described.state["size"]), pieces.get(name, []))
        for name, described in about["state_dict_metadata"].items()
        if isinstance(described.state, Record) and "size" in described.state
    }


def _tensor(folder: Path, shape: tuple[int, ...], pieces: list[tuple[tuple[int, ...], Record]]) -> StoredTensor:
    """Describe a tensor; its pieces are read with its values."""
    stored_bytes = sum(where["length"] for _, where in pieces)
    fault = None if pieces else "without values (its pieces are not there)"
    if pieces and math.prod(shape) > stored_bytes:  # no value takes less than a byte
        fault = f"larger than its {stored_bytes} stored bytes"
    return StoredTensor(
        shape, None, fault, lambda: _whole(shape, [(at, _piece(folder, where)) for at, where in pieces])
    )


def _piece(folder: Path, where: Record) -> torch.Tensor:
    """Read a piece, which is a file of torch.save within a file."""
    name, start, length = where["relative_path"], where["offset"], where["length"]
    if os.path.basename(name) != name or where.get("transform_descriptors"):
        raise ValueError("its pieces are not in the folder, or compressed")
    if not 0 <= start <= start + length <= os.path.getsize(folder / name):
        raise ValueError("a piece lies beyond the end of its file")
    with open(folder / name, "rb") as file:
        file.seek(start)
        content = file.read(length)
    archive = read_archive(lambda: io.BytesIO(content))
    found = archive.tensor(archive.content)
    if found is None or found.fault:
        raise ValueError("a piece of it is no dense tensor")
    return found.read()


def _whole(shape: tuple[int, ...], pieces: list[tuple[tuple[int, ...], torch.Tensor]]) -> torch.Tensor:
    """Put the pieces together, which must leave no hole."""
    import torch

    whole = torch.empty(shape, dtype=pieces[0][1].dtype)
    filled = torch.zeros(shape, dtype=torch.bool)
    for offset, piece in pieces:
        place = tuple(slice(start, start + length) for start, length in zip(offset, piece.shape, strict=True))
        if whole[place].shape != piece.shape or whole.dtype != piece.dtype:
            raise ValueError("a piece of it has another shape or dtype")
        whole[place] = piece
        filled[place] = True
    if not filled.all():
        raise ValueError("a piece of it is not there")
    return whole
