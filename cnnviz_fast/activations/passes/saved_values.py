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

from ..buffers import LEAST_BYTES, pool

if TYPE_CHECKING:
    import torch

MOST_SAVED_BYTES = 2**28
"""Most bytes of values that are saved: the key encoder of MoCo on ResNet-50 and its queue take 150 MB. What is left
out is only checked, as trained parameters are."""


# Not written in Python, so that they take half the time.
_ADDRESS = operator.methodcaller("data_ptr")
_DATA, _SHAPE, _VERSION = map(operator.attrgetter, ("data", "shape", "_version"))
_LAYOUT, _IS_META = map(operator.attrgetter, ("layout", "is_meta"))


class SavedTensors:
    """Tensors, where they lay and what their version counters said.

    Args:
        state: tensors whose values and shapes may change. Each is taken once, and only if it is an ordinary one with
            memory of its own.
        trained: tensors of which only the memory may be replaced, taken alike.
        checked: tensors of which only the version counters are looked at.
    """

    def __init__(
        self,
        state: Iterable[torch.Tensor],
        trained: Iterable[torch.Tensor] = (),
        checked: Iterable[torch.Tensor] = (),
    ) -> None:
        self.state = _ordinary({id(tensor): tensor for tensor in state})
        known = set(map(id, self.state))
        self.trained = _ordinary({id(tensor): tensor for tensor in trained if id(tensor) not in known})
        self._all = [*self.state, *self.trained]
        # The same memory under the same shape, with version counters of their own.
        self.before = list(map(_DATA, self._all))
        self._addresses = list(map(_ADDRESS, self.before))
        self._shapes = list(map(_SHAPE, self.state))
        self._counted = [*self._all, *_ordinary({id(tensor): tensor for tensor in checked})]
        self._versions = _versions(self._counted)

    def move_back(self) -> list[torch.Tensor]:
        """Move tensors back to their own memory and shape, where the pass gave them others.

        Returns:
            Tensors that took another nature, so that they cannot have it back.
        """
        refused: list[torch.Tensor] = []
        if list(map(_ADDRESS, self._all)) == self._addresses and list(map(_SHAPE, self.state)) == self._shapes:
            return refused
        for tensor, before in zip(self._all, self.before, strict=True):
            if tensor.data_ptr() != before.data_ptr() or tensor.shape != before.shape:
                try:
                    tensor.data = before
                except RuntimeError:
                    refused.append(tensor)
        return refused

    def written(self) -> list[torch.Tensor]:
        """Return the tensors whose version counters have moved."""
        versions = _versions(self._counted)
        if versions == self._versions:
            return []
        return [t for t, now, then in zip(self._counted, versions, self._versions, strict=True) if now != then]

    def reset_versions(self, tensors: Iterable[torch.Tensor]) -> None:
        """Set the version counters of tensors back: their values are the old ones, so graphs that hold them are valid.

        Args:
            tensors: (any shape) real dtype. Some of the saved ones.
        """
        known = {id(tensor): version for tensor, version in zip(self._counted, self._versions, strict=True)}
        for tensor in tensors:
            _set_version(tensor, known[id(tensor)])


def _set_version(tensor: torch.Tensor, version: int) -> None:
    """Set how often a tensor has been written."""
    import torch

    setter = torch._C._autograd._unsafe_set_version_counter
    try:
        setter((tensor,), (version,))
    except TypeError:  # torch 2.6 takes one tensor
        setter(tensor, version)  # type: ignore[arg-type]


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
            if size_bytes > most_bytes or (size_bytes and 0 in tensor.stride()) or tensor.is_quantized:
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


def _ordinary(tensors: dict[int, torch.Tensor]) -> list[torch.Tensor]:
    """Return those of the tensors that are of torch's own classes, with a memory of their own that holds values."""
    import torch

    classes = {torch.Tensor, torch.nn.Parameter}
    found = [one for one in tensors.values() if type(one) in classes]
    # Asked of all at once: most models have nothing else.
    if {torch.strided}.issuperset(map(_LAYOUT, found)) and not any(map(_IS_META, found)):
        return found
    return [one for one in found if one.layout is torch.strided and not one.is_meta]


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

    # To compare values on another device, the host would have to wait for it.
    changed = [
        (tensor, values.view(tensor.shape))
        for tensor, values in pairs
        if tensor.device.type != "cpu" or not torch.equal(_bits(tensor), _bits(values))
    ]
    for is_inference in (False, True):  # tensors that were made in inference mode are written in it
        group = [(tensor, values) for tensor, values in changed if tensor.is_inference() is is_inference]
        if group:
            with torch.inference_mode(is_inference):
                # In few launches on a GPU.
                torch._foreach_copy_([tensor for tensor, _ in group], [values for _, values in group])


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
