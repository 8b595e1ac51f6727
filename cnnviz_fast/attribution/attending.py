"""Attention matrices, seen while a model runs, in whichever of three forms it computes attention.

A mode that torch calls with each function in Python sees them, with A = softmax(q k^T scale + mask):

    scaled_dot_product_attention   fused, so that A never exists: it is computed once more, from the same arguments
    multi_head_attention_forward   of nn.MultiheadAttention, which returns A if it is asked to
    softmax                        over the last of three axes or more, where a model writes attention out: A itself

Nothing is computed for matrices that are not asked for. Attention without a softmax (linear attention) has no A, and
kernels of other packages show none.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_SOFTMAXES = (functional.softmax, torch.softmax, torch.Tensor.softmax, torch.special.softmax)
_SIGNATURE = inspect.signature(functional.multi_head_attention_forward)


class Matrix(NamedTuple):
    """An attention matrix.

    Attributes:
        values: (..., heads, T, S) float. How much each of T queries takes from each of S keys.
        at: where autograd has it; None where no gradients are recorded.
        function: name of what was called. A softmax may be of anything, not attention.
    """

    values: torch.Tensor
    at: GradientEdge | None
    function: str


class Attending(TorchFunctionMode):
    """Sees the attention matrices of a pass, numbered in their order.

    Args:
        is_wanted: says of a number whether its matrix is asked for.
        see: called with the number and the matrix, before the model goes on.
        linked: whether gradients are recorded, from the first matrix that is asked for until the pass ends.
    """

    def __init__(
        self, is_wanted: Callable[[int], bool], see: Callable[[int, Matrix], object], linked: bool = False
    ) -> None:
        super().__init__()
        self._is_wanted, self._see, self._linked = is_wanted, see, linked
        self._count = 0
        self._records = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function; see its matrix where it has one."""
        kwargs = kwargs or {}
        form = _form_of(function, args, kwargs)
        if form is None:
            return function(*args, **kwargs)
        number = self._count
        self._count += 1
        if not self._is_wanted(number):
            return function(*args, **kwargs)
        if self._linked and not self._records:
            self._records = True
            torch.set_grad_enabled(True)
            args, kwargs = _as_leaves(args, kwargs)
        output, matrix = form(function, args, kwargs)
        self._see(number, matrix)
        return output


def _form_of(function: Any, args: Any, kwargs: Any) -> Callable[..., tuple[Any, Matrix]] | None:
    """Return what runs a function and finds its matrix; None for functions without one."""
    if function is functional.scaled_dot_product_attention:
        return _fused
    if function is functional.multi_head_attention_forward:
        return _projected
    if function in _SOFTMAXES:
        given = args[0] if args else kwargs.get("input")
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        if given is not None and given.ndim >= 3 and dim in (-1, given.ndim - 1):
            return _written_out
    return None


def _as_leaves(args: Any, kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments with a leaf in place of each tensor, so that everything that comes of them has gradients."""
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
    leaves = {id(tensor): tensor.detach().requires_grad_() for tensor in tensors if tensor.is_floating_point()}
    named = {name: leaves.get(id(value), value) for name, value in kwargs.items()}
    return tuple(leaves.get(id(value), value) for value in args), named


def _written_out(function: Any, args: Any, kwargs: Any) -> tuple[Any, Matrix]:
    """Run a softmax, which puts out its matrix."""
    output = function(*args, **kwargs)
    return output, Matrix(output, _edge(output), "softmax")


def _projected(function: Any, args: Any, kwargs: Any) -> tuple[Any, Matrix]:
    """Run the function of nn.MultiheadAttention, and have it return its weights."""
    given = _SIGNATURE.bind(*args, **kwargs)
    given.apply_defaults()
    needed, averaged = given.arguments["need_weights"], given.arguments["average_attn_weights"]
    given.arguments.update(need_weights=True, average_attn_weights=False)
    output, weights = function(*given.args, **given.kwargs)
    matrix = Matrix(weights, _softmax_behind(weights) if weights.requires_grad else None, function.__name__)
    # The heads are the axis before the last two, with a batch or without.
    return (output, (weights.mean(-3) if averaged else weights) if needed else None), matrix


def _edge(weights: torch.Tensor) -> GradientEdge | None:
    return get_gradient_edge(weights) if weights.requires_grad else None


def _softmax_behind(weights: torch.Tensor) -> GradientEdge:
    """Return where autograd has what weights are a view of: the output is computed from that, not from the view."""
    node: Any = weights.grad_fn
    while "Softmax" not in node.name():
        node = node.next_functions[0][0]
    return GradientEdge(node, 0)


def _fused(function: Any, args: Any, kwargs: Any) -> tuple[Any, Matrix]:
    """Run fused attention, and compute its matrix beside it; where gradients are wanted, the output from the matrix."""
    weights, value = weights_of(*args, **kwargs)
    if not torch.is_grad_enabled():
        return function(*args, **kwargs), Matrix(weights, None, function.__name__)
    with torch.autocast(value.device.type, enabled=False):
        output = (weights @ value.to(weights.dtype)).to(value.dtype)
    return output, Matrix(weights, _edge(weights), function.__name__)


def weights_of(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the weights of `torch.nn.functional.scaled_dot_product_attention`, whose arguments these are.

    Args:
        query: (..., heads, T, E) float.
        key: (..., heads, S, E) float; with enable_gqa of fewer heads, each for several of the queries'.
        value: (..., heads, S, V) float, likewise.
        attn_mask: (..., T, S) bool or float; True where a key takes part, or what is added to its score.
        dropout_p: not used: models run in eval mode.
        is_causal: whether keys behind the position of a query take no part.
        scale: of the scores; None for 1 / sqrt(E).
        enable_gqa: see key.

    Returns:
        The weights, (..., heads, T, S), float32 or wider, even under autocast; and the values with all heads.
    """
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    wide = torch.promote_types(query.dtype, torch.float32)
    with torch.autocast(query.device.type, enabled=False):
        scores = query.to(wide) @ key.to(wide).mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -math.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        return scores.softmax(-1), value
