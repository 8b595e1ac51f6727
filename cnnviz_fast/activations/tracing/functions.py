"""What is followed above single operations: recurrent layers, and tensors that share another's memory.

Below torch's functions a recurrent layer is a loop, in which sight of its steps is lost, so these functions are
followed themselves: a sequence keeps its images and its steps, and gets new channels. `x.data` is no operation at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .moves import roles_of, set_roles
from .roles import CHANNELS, whole

if TYPE_CHECKING:
    import torch
    from torch.overrides import TorchFunctionMode

_RECURRENT = {"lstm", "gru", "rnn_tanh", "rnn_relu"}


def following_functions() -> TorchFunctionMode:
    """Note the roles of what these functions put out in the block; without values no step of a sequence is run."""
    from torch.overrides import TorchFunctionMode

    class FollowFunctions(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = getattr(function, "__name__", "")
            # Those of packed sequences take the lengths of their steps second, and are not followed.
            if name in _RECURRENT and len(args) == 9 and isinstance(args[3], bool):
                return _recurrent(function, args)
            output = function(*args, **(kwargs or {}))
            if name == "__get__" and getattr(output, "shape", None) == args[0].shape and roles_of(output) is None:
                set_roles(output, roles_of(args[0]))
            return output

    return FollowFunctions()


def _recurrent(function: Any, args: Sequence[Any]) -> tuple[torch.Tensor, ...]:
    """Run a recurrent function and note what its sequence holds."""
    outputs: tuple[torch.Tensor, ...] = _without_values(args) if args[0].is_meta else function(*args)
    roles = roles_of(args[0])
    if roles is not None:
        set_roles(outputs[0], (*roles[:-1], whole(CHANNELS, outputs[0].shape[-1])))
    return outputs


def _without_values(args: Sequence[Any]) -> tuple[torch.Tensor, ...]:
    """Return what a recurrent function puts out of tensors without values."""
    sequence, states, is_bidirectional = args[0], args[1], args[7]
    states = states if isinstance(states, (list, tuple)) else (states,)
    width = states[0].shape[-1] * (1 + is_bidirectional)
    return (sequence.new_empty((*sequence.shape[:-1], width)), *(state.new_empty(state.shape) for state in states))
