"""Files of raw maps: those of all layers for one image, in one safetensors file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..provenance import package_version
from ..runtime.files import whole_file
from .safetensors import tensor_bytes

if TYPE_CHECKING:
    import torch

    from ..provenance import Provenance


def write_maps(maps: Mapping[str, tuple[torch.Tensor, Provenance]], path: str | os.PathLike[str]) -> Path:
    """Write maps unchanged, to the last bit, for other programs to read.

    Args:
        maps: layer -> its maps and where they came from; see maps_bytes.
        path: the file.

    Returns:
        The path.

    Raises:
        WriteError: the file cannot be written. Nothing of it is left, and an older file of that name stays.
    """
    path = Path(path)
    raw = maps_bytes(maps)
    with whole_file(path) as file:
        file.write(raw)
    return path


def maps_bytes(maps: Mapping[str, tuple[torch.Tensor, Provenance]]) -> bytes:
    """Make the bytes of a safetensors file of maps.

    Args:
        maps: layer -> its maps, or what they were reduced to, and where they came from. Any shape, real dtype, strides
            and device. Not modified.

    Returns:
        The bytes: a tensor for each layer, in its own dtype. The metadata hold, under "cnnviz_fast", a JSON record:
        format "maps", package (the version that wrote it) and layers (layer -> the fields of its `Provenance`).
    """
    import torch

    # Copied, since safetensors refuses tensors that share memory, as the samples of a batch do.
    order = torch.contiguous_format
    tensors = {layer: values.detach().clone(memory_format=order) for layer, (values, _) in maps.items()}
    facts = {layer: provenance.facts() for layer, (_, provenance) in maps.items()}
    return tensor_bytes(tensors, {"format": "maps", "package": package_version(), "layers": facts})
