"""Tensors as they were before a pass: where they lay, and the values of those that a pass may write.

Observers of quantisation, queues and key encoders of contrastive learning and codebooks are written in eval mode too.
That a tensor was written cannot be seen from outside: its version counter does not notice what is written through
`.data`. So values are copied and compared. All of it is done for many tensors at a time: each pass pays for it.
"""

from __future__ import annotations

import collections
import operator
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from .buffers import LEAST_BYTES, pool

if TYPE_CHECKING:
    import torch

MOST_SAVED_BYTES = 2**28
"""Most bytes of values that are saved: the key encoder of MoCo on ResNet-50 and its queue take 150 MB. What is left
out is only checked, as trained parameters are."""


# Not written in Python, so that they take half the time.
_ADDRESS = operator.methodcaller("data_ptr")
_DATA, _SHAPE, _VERSION = map(operator.attrgetter, ("data", "shape", "_version"))
_LAYOUT, _IS_QUANTIZED, _IS_META = map(operator.attrgetter, ("layout", "is_quantized", "is_meta"))


class SavedTensors:
    """Tensors, where they lay and what their version counters said.

    Args:
        tensors: any. Each is taken once, and only if it is an ordinary one with memory of its own.
    """

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        once = list({id(tensor): tensor for tensor in tensors}.values())
        self.tensors = once if _all_ordinary(once) else [one for one in once if _all_ordinary([one])]
        # The same memory under the same shape, with version counters of their own.
        self.before = list(map(_DATA, self.tensors))
        self._places = _places(self.tensors)
        self._versions = _versions(self.tensors)

    def move_back(self) -> list[torch.Tensor]:
        """Move tensors back to their own memory and shape, where the pass gave them others.

        Returns:
            Tensors that took another nature, so that they cannot have it back.
        """
        refused: list[torch.Tensor] = []
        if _places(self.tensors) == self._places:
            return refused
        for tensor, before, place in zip(self.tensors, self.before, self._places, strict=True):
            if _places([tensor]) != [place]:
                try:
                    tensor.data = before
                except RuntimeError:
                    refused.append(tensor)
        return refused

    def written(self) -> list[torch.Tensor]:
        """Return the tensors whose version counters have moved."""
        versions = _versions(self.tensors)
        if versions == self._versions:
            return []
        return [t for t, now, then in zip(self.tensors, versions, self._versions, strict=True) if now != then]

    def reset_versions(self, tensors: Iterable[torch.Tensor]) -> None:
        """Set the version counters of tensors back: their values are the old ones, so graphs that hold them are valid.

        Args:
            tensors: (any shape) real dtype. Some of the saved ones.
        """
        import torch

        known = {id(tensor): version for tensor, version in zip(self.tensors, self._versions, strict=True)}
        for tensor in tensors:
            torch._C._autograd._unsafe_set_version_counter((tensor,), (known[id(tensor)],))


class SavedValues:
    """Copies of the values of tensors.

    Args:
        tensors: each (any shape) any dtype, strided, in memory of its own.
        most_bytes: of all copies. A tensor for which too little is left is left out.
    """

    def __init__(self, tensors: Iterable[torch.Tensor], most_bytes: int = MOST_SAVED_BYTES) -> None:
        small: collections.defaultdict[Any, list[torch.Tensor]] = collections.defaultdict(list)
        self.left_out: list[torch.Tensor] = []
        self._large: list[tuple[torch.Tensor, torch.Tensor]] = []
        for tensor in tensors:
            size_bytes = tensor.nbytes
            if size_bytes > most_bytes or (size_bytes and 0 in tensor.stride()):
                self.left_out.append(tensor)  # cells that share memory cannot be written one by one
                continue
            most_bytes -= size_bytes
            if size_bytes >= LEAST_BYTES and tensor.device.type == "cpu":
                self._large.append((tensor, pool.copy(tensor)))
            else:
                small[tensor.device, tensor.dtype].append(tensor)
        # In one piece: copying each by itself would take several times as long. That of a single tensor is no copy.
        self._small = [
            (group, _joined(group) if len(group) > 1 else _joined(group).clone()) for group in small.values()
        ]

    def put_back(self) -> None:
        """Write the saved values into the tensors whose values have changed."""
        import torch

        for group, flat in self._small:
            if not _are_same_bits(group, flat):
                _write(zip(group, torch.split(flat, [one.numel() for one in group]), strict=True))
        _write(self._large)


def _all_ordinary(tensors: Sequence[torch.Tensor]) -> bool:
    """Check whether tensors are of torch's own classes, with a memory of their own that holds their values."""
    import torch

    classes = {torch.Tensor, torch.nn.Parameter}
    return (
        classes.issuperset(map(type, tensors))
        and {torch.strided}.issuperset(map(_LAYOUT, tensors))
        and not any(map(_IS_QUANTIZED, tensors))
        and not any(map(_IS_META, tensors))
    )


def _places(tensors: Sequence[torch.Tensor]) -> list[tuple[int, Any]]:
    return list(zip(map(_ADDRESS, tensors), map(_SHAPE, tensors), strict=True))


def _versions(tensors: Sequence[torch.Tensor]) -> list[int]:
    try:
        return list(map(_VERSION, tensors))
    except RuntimeError:  # tensors that were made in inference mode have none
        return [0 if tensor.is_inference() else tensor._version for tensor in tensors]


def _joined(group: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the values of tensors of one dtype and device one behind the other."""
    import torch

    joined: torch.Tensor = torch._C._nn.flatten_dense_tensors(list(group))
    return joined


def _write(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Copy the second tensor of each pair into the first one, unless they are known to be the same."""
    import torch

    for tensor, values in pairs:
        # To compare values on another device, the host would have to wait for it.
        if tensor.device.type != "cpu" or not torch.equal(_bits(tensor), _bits(values)):
            with torch.inference_mode(tensor.is_inference()):  # tensors that were made in this mode are written in it
                tensor.copy_(values.view(tensor.shape))


def _are_same_bits(group: Sequence[torch.Tensor], flat: torch.Tensor) -> bool:
    """Check whether tensors are known to still hold these values."""
    if flat.device.type != "cpu" or len(group) == 1:
        return False
    # By numpy, since torch would wake its threads, and only of a copy: numpy makes memory that it has seen unfit for
    # `resize_`, which observers call.
    return bool((_bits(_joined(group)).numpy() == _bits(flat).numpy()).all())


def _bits(values: torch.Tensor) -> torch.Tensor:
    """Return values as integers of the same memory: as those NaN equals NaN, and -0 differs from 0."""
    import torch

    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return values.reshape(-1).view(integers.get(values.element_size(), torch.uint8))
