"""Follow the reach of every tensor of a pass: which rows and columns of the input it depends on.

The pass is watched operation by operation, below autograd. So what a model does without gradients, in place or in
functions of its own is seen too, and no value is needed: a copy of the model without values runs as well.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..tensors import tensors_in
from ..tracing.trace import run_operation
from .calls import Call, elementwise, tensors
from .lines import Line, shifted
from .reach import Digit, Reach, Whole, combined, plain
from .rules import RULES

if TYPE_CHECKING:
    import torch

_ATTRIBUTE = "_cnnviz_reach"
_SHAPES_ALONE = ("new_", "empty", "zeros", "ones", "full", "arange", "scalar_tensor", "rand")
"""What operations are called that make new tensors: of others they take the shape, if anything."""
_READS_VALUES = {"nms"}
"""Operations whose outputs have as many entries as values say and that torch does not mark as such."""
_READS_NOTHING = {"is_same_size", "_assert_async", "_assert_tensor_metadata", "record_stream"}
_TO_PYTHON = {"numpy", "tolist", "__array__", "__dlpack__", "__deepcopy__"}
_FROM_VALUES = {"tensor", "as_tensor", "asarray", "new_tensor"}
"""Functions that may read values of tensors below where operations are seen."""


class Follower:
    """What a pass has shown so far: the reach of each tensor, until the tensor is gone."""

    def __init__(self) -> None:
        self._by_memory: dict[int, list[weakref.ref[torch.Tensor]]] = {}
        self._read = ""  # why all that comes from now on may depend on the whole input

    def begin(self, batch: torch.Tensor) -> None:
        """Note that a tensor is the input, (N, ..., H, W) or (N, ..., L) float: its last axes are rows and columns."""
        places = min(2, max(batch.ndim - 2, 1))
        axes = [plain(size) for size in batch.shape[:-places]]
        axes += [
            (Digit(size, kind, Line()),) for kind, size in zip((0, 1)[-places:], batch.shape[-places:], strict=True)
        ]
        self._set(batch, Reach(tuple(axes)))

    def reach_of(self, tensor: Any) -> Reach | None:
        """Return the reach of a tensor; None for one that came from no input, as far as the pass could be followed."""
        found: tuple[Follower, Reach] | None = getattr(tensor, _ATTRIBUTE, None)
        return found[1] if found is not None and found[0] is self else None

    def reach_now(self, tensor: torch.Tensor) -> Reach | None:
        """Return the reach of a tensor that a layer puts out now: the model may have chosen it by values it read."""
        found = self.reach_of(tensor)
        if self._read and (found is None or not found.reasons):
            return Reach((), (self._read,))
        return found

    def see(self, function: Any, args: Sequence[Any], kwargs: dict[str, Any], output: Any) -> None:
        """Note the reach of what an operation put out.

        Args:
            function: the operation, an overload of torch's.
            args: its positional arguments.
            kwargs: its named arguments.
            output: what it put out.
        """
        name = function._schema.name.rpartition("::")[2]
        outputs = list(tensors_in(output).values())
        given = _by_name(function, args, kwargs)
        taken = tensors(given.values())
        for tensor in (*taken, *outputs):
            self._remember(tensor)
        known = [reach for reach in map(self.reach_of, taken) if reach is not None]
        if not known or name.startswith(_SHAPES_ALONE) or name.endswith("_like"):
            if self._read:
                self._set_whole(outputs, (self._read,))
            return
        if _reads_values(function, name, given) or (not outputs and name not in _READS_NOTHING):
            self.lose(name)
        written = {id(tensor) for tensor in taken if any(tensor is one for one in outputs)}
        before = {id(tensor): self.reach_of(tensor) for tensor in outputs if id(tensor) in written}
        reasons = tuple(dict.fromkeys(reason for reach in known for reason in reach.reasons))
        if self._read:
            reasons = reasons or (self._read,)
        if reasons:
            self._set_whole(outputs, reasons)
        else:
            self._apply(Call(name if name in RULES else name.rstrip("_"), given, outputs, self.reach_of), function)
        for tensor in outputs:
            if id(tensor) in written and self.reach_of(tensor) != before[id(tensor)]:
                self._write_back(tensor)

    def lose(self, name: str) -> None:
        """Note that values of a tensor are read into Python: what comes of that cannot be followed."""
        self._read = self._read or f"values of a tensor that the model reads ({name.strip('_')})"

    def share(self, tensor: torch.Tensor, same: torch.Tensor) -> None:
        """Note that a tensor is another one under another name, as `x.data` is."""
        reach = self.reach_of(tensor)
        if reach is not None and self.reach_of(same) is None:
            self._set(same, reach if same.shape == tensor.shape else Reach((), ("an attribute of a tensor",)))

    def _apply(self, call: Call, function: Any) -> None:
        """Note what a rule says of the outputs of an operation."""
        rule = RULES.get(call.name) or (elementwise if _is_pointwise(function, call.name) else None)
        try:
            if rule is None:
                raise Whole(f"an operation that is not followed ({call.name.strip('_')})")
            found = rule(call)
        except Whole as error:
            self._set_whole(call.outputs, (str(error),))
            return
        several = found if isinstance(found, list) else [found] * len(call.outputs)
        for output, reach in zip(call.outputs, several, strict=True):
            self._set(output, reach)

    def _set(self, tensor: torch.Tensor, reach: Reach) -> None:
        setattr(tensor, _ATTRIBUTE, (self, reach))

    def _set_whole(self, outputs: Sequence[torch.Tensor], reasons: tuple[str, ...]) -> None:
        for output in outputs:
            self._set(output, Reach((), reasons))

    def _remember(self, tensor: torch.Tensor) -> None:
        """Note which memory a tensor lies in, so that writing into a view of it is seen."""
        sharing = self._by_memory.setdefault(_memory_of(tensor), [])
        if not any(one() is tensor for one in sharing):
            sharing[:] = [one for one in sharing if one() is not None]
            sharing.append(weakref.ref(tensor))

    def _write_back(self, tensor: torch.Tensor) -> None:
        """Note in all tensors that share memory with one what has been written into that."""
        written, memory = self.reach_of(tensor), _memory_of(tensor)
        assert written is not None  # it was set just now
        for sharing in self._by_memory[memory]:
            other = sharing()
            if other is None or other is tensor or _memory_of(other) != memory:
                continue
            if written.reasons:
                self._set_whole([other], written.reasons)
                continue
            try:
                found = _written_into(tensor, written, other, self.reach_of(other))
            except Whole as error:
                found = Reach((), (str(error),))
            if found is not None:
                self._set(other, found)


def _written_into(tensor: torch.Tensor, written: Reach, other: torch.Tensor, before: Reach | None) -> Reach | None:
    """Return the reach of a tensor, of which another one is a view that was written into: its channels, or some rows.

    Raises:
        Whole: positions that were written in part lie otherwise than those that were there.
    """
    starts = _starts(tensor, other)
    if starts is None:
        raise Whole("maps that are written in parts")
    if any(at >= m or at + n <= 0 for at, n, m in zip(starts, tensor.shape, other.shape, strict=True)):
        return before  # two parts that have no entry in common
    parts = [
        dim for dim, at in enumerate(starts) if written.kinds(dim) and (at or tensor.shape[dim] != other.shape[dim])
    ]
    found = Reach(
        tuple(axis if written.kinds(dim) else plain(other.shape[dim]) for dim, axis in enumerate(written.axes))
    )
    for dim in parts:
        found = found.reading(dim, shifted(-starts[dim]), other.shape[dim], "maps that are written in parts")
    both = combined([found, *([] if before is None else [before])], other.shape)
    if any(both.axes[dim] != found.axes[dim] for dim in parts):
        raise Whole("maps that are written in parts")
    return both


def _starts(tensor: torch.Tensor, other: torch.Tensor) -> tuple[int, ...] | None:
    """Return where a tensor begins along each axis of another one in the same memory; None where axes are others."""
    strides = [int(stride) for stride in other.stride()]
    if tensor.ndim != other.ndim or any(
        n > 1 and (a != b or b == 0) for n, a, b in zip(other.shape, tensor.stride(), strides, strict=True)
    ):
        return None
    starts = [0] * other.ndim
    left = [int(one.storage_offset()) for one in (tensor, other)]
    for dim in sorted((dim for dim in range(other.ndim) if other.shape[dim] > 1), key=lambda dim: -strides[dim]):
        places = [offset // strides[dim] for offset in left]
        left = [offset % strides[dim] for offset in left]
        starts[dim] = places[0] - places[1]
    return tuple(starts) if left[0] == left[1] else None


def _reads_values(function: Any, name: str, given: dict[str, Any]) -> bool:
    """Check whether an operation puts out as many entries as values say."""
    import torch

    if name == "index":  # only masks do; lists of indices say by their shape how many
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in given["indices"])
    return name in _READS_VALUES or torch.Tag.dynamic_output_shape in function.tags


def _memory_of(tensor: torch.Tensor) -> int:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse tensors have none
        return -1


def _by_name(function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an operation by name, with defaults."""
    found = {}
    for at, argument in enumerate(function._schema.arguments):
        given = args[at] if at < len(args) else kwargs.get(argument.name, argument.default_value)
        found[argument.name] = given
    return found


@functools.cache
def _is_pointwise(function: Any, name: str) -> bool:
    """Check whether torch marks an operation, or the one that it does in place, as one that works entry by entry."""
    import torch

    plain_one = getattr(torch.ops.aten, name, None)
    overloads = [] if plain_one is None else [getattr(plain_one, overload) for overload in plain_one.overloads()]
    return any(torch.Tag.pointwise in one.tags for one in (function, *overloads))


@contextlib.contextmanager
def following(follower: Follower) -> Iterator[None]:
    """Follow every operation of the block."""
    from torch.overrides import TorchFunctionMode
    from torch.utils._python_dispatch import TorchDispatchMode

    class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = run_operation(function, args, kwargs or {})
            follower.see(function, args, kwargs or {}, output)
            return output

    class Functions(TorchFunctionMode):
        """Sees what is no operation: `x.data`, and values that go to Python."""

        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = function(*args, **(kwargs or {}))
            name = getattr(function, "__name__", "")
            if name in _TO_PYTHON | _FROM_VALUES and any(
                map(follower.reach_of, tensors([args, [*(kwargs or {}).values()]]))
            ):
                follower.lose(name)
            if name == "__get__" and hasattr(output, "untyped_storage"):
                follower.share(args[0], output)
            return output

    with Functions(), Operations():  # type: ignore[no-untyped-call]
        yield
