"""Layers in a file of arrays: which arrays are the kernel and the bias of one, and which those of a normalisation.

Names say it where they can, in the words of Keras, TensorFlow, Caffe and torch: conv1/kernel:0, conv1_1_W, bn/gamma.
Where arrays are only numbered, as in Keras 3 (conv2d_1/vars/0) or arr_0, the number of their axes says it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .stored_tensors import StoredTensor

_ROLES = {
    "weight": "kernel weights weight filters filter depthwise_kernel pointwise_kernel W w gamma scale",
    "bias": "biases bias b beta offset",
    "running_mean": "moving_mean running_mean mean",
    "running_var": "moving_variance running_variance running_var variance var",
}
"""Name in torch -> names in files."""

_ROLE_OF = {word: role for role, words in _ROLES.items() for word in words.split()}
_WORDS = "|".join(sorted(_ROLE_OF, key=len, reverse=True))
_LEAF = re.compile(rf"(?:(?P<layer>.*?)[._-])??(?P<word>{_WORDS})(?:_\d+)?")
_NUMBERED = re.compile(r"(?:(?:param|arr|var)_)?\d+")
_NORM = ("weight", "bias", "running_mean", "running_var")
"""What a normalisation of Keras holds, in its order."""


@dataclass
class FileLayer:
    """What belongs together: a kernel with its bias, or the vectors of a normalisation.

    Attributes:
        path: of its first array.
        parts: torch's name of a part -> path of an array.
    """

    path: str
    parts: dict[str, str] = field(default_factory=dict)


@dataclass
class FileLayers:
    """The layers in a file, each kind in the order of the file."""

    convolutions: list[FileLayer] = field(default_factory=list)
    dense: list[FileLayer] = field(default_factory=list)
    norms: list[FileLayer] = field(default_factory=list)

    @property
    def with_kernels(self) -> list[FileLayer]:
        """Convolutions and dense layers."""
        return [*self.convolutions, *self.dense]


def named(path: str) -> tuple[str, str | None]:
    """Split a path into the layer that an array belongs to and torch's name of it there; None where none says it.

    Args:
        path: in a file, with "/" between its parts.

    Returns:
        Such as ("block1_conv1/block1_conv1", "weight") for block1_conv1/block1_conv1/kernel:0.
    """
    above, _, leaf = re.sub(r":\d+$", "", path).rpartition("/")
    if (match := _LEAF.fullmatch(leaf)) is not None:
        return "/".join(filter(None, (above, match["layer"]))), _ROLE_OF[match["word"]]
    return (above if _NUMBERED.fullmatch(leaf) else path), None


def layers_in(arrays: Mapping[str, StoredTensor]) -> FileLayers:
    """Find the layers in a file.

    Args:
        arrays: path -> array, in the order of the file.
    """
    grouped: dict[str, list[tuple[str, str | None]]] = {}
    for path, array in arrays.items():
        if array.shape:
            layer, role = named(path)
            grouped.setdefault(layer, []).append((path, role))
    found = FileLayers()
    for members in grouped.values():
        _sort_into(found, members, arrays)
    return found


def _sort_into(found: FileLayers, members: list[tuple[str, str | None]], arrays: Mapping[str, StoredTensor]) -> None:
    """Add what the arrays of one layer are; a bias follows its kernel, whichever name comes first."""
    last: FileLayer | None = None
    vectors: list[tuple[str, str | None]] = []
    for path, role in sorted(members, key=lambda member: member[1] not in (None, "weight")):
        rank = len(arrays[path].shape or ())
        if rank > 1:
            last = FileLayer(path, {"weight": path})
            (found.dense if rank == 2 else found.convolutions).append(last)
        elif last is not None and role in (None, "bias") and "bias" not in last.parts:
            last.parts["bias"] = path
        else:
            vectors.append((path, role))
    roles = [role for _, role in vectors]
    if not any(roles):
        if len({arrays[path].shape for path, _ in vectors}) != 1 or len(vectors) != len(_NORM):
            return
        roles = list(_NORM)
    found.norms.append(
        FileLayer(vectors[0][0], {role: path for role, (path, _) in zip(roles, vectors, strict=True) if role})
    )
