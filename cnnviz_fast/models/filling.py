"""What of a checkpoint would be loaded into a module: found out in full before the module changes."""

from __future__ import annotations

import collections
import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, reason_of, shown
from .layers import meta_copy
from .matching import Fit, shape_differs
from .stored_tensors import StoredTensor

if TYPE_CHECKING:
    from torch import nn


@dataclass
class Plan:
    """What would be loaded into a module.

    Attributes:
        fit: where it lies in the checkpoint.
        state: name -> tensor.
        missing: names of the module that are not there.
        left: names in the checkpoint that the module does not have.
        unusable: what is wrong with tensors that belong to the module: kind -> one text for each.
        most_are_missing: whether less than most of the module's names fit.
    """

    fit: Fit
    state: dict[str, Any]
    missing: list[str]
    left: list[str]
    unusable: dict[str, list[str]]
    most_are_missing: bool


def plan_for(module: nn.Module, fit: Fit, label: str) -> Plan:
    """Find out what would be loaded into a module, with the values; nothing is changed.

    Args:
        module: the module.
        fit: where in the checkpoint its weights lie.
        label: what to call the checkpoint in messages.

    Returns:
        What is there, what is missing and what is left over.

    Raises:
        ModelError: values cannot be read, or the module refuses them.
    """
    expected = module.state_dict(keep_vars=True)
    unusable: dict[str, list[str]] = collections.defaultdict(list)
    wanted, left = {}, [name for name in fit.outside if isinstance(fit.state.values[name], StoredTensor)]
    for name, value in fit.values.items():
        fault = _fault(name, value, expected)
        if fault is not None and name in expected:
            unusable[fault[0]].append(f"{shown(name)} is {fault[1]}")
        elif isinstance(value, StoredTensor) and fault is not None:
            left.append(name)
        elif isinstance(value, StoredTensor) or name in expected:
            wanted[name] = value
    state = values_of(wanted, fit.versions(module), label)
    for name in [name for name in state if name in expected]:
        if loses := _loss(state[name], expected[name]):
            unusable["that cannot be used"].append(f"{shown(name)} is {loses}")
            del state[name]
    found_missing, unexpected = _compare(module, state, expected, label)
    missing = [name for name in _without_tied(found_missing, expected) if name not in fit.values]
    most_are_missing = bool(expected) and 2 * fit.count <= len(expected)
    return Plan(fit, state, missing, [*unexpected, *left], unusable, most_are_missing)


def shapes_of(module: nn.Module) -> dict[str, Any]:
    """Map the names of a module to shapes.

    Args:
        module: any module.

    Returns:
        Name -> shape; None where any shape will do, as for lazy parameters.
    """
    from torch.nn.parameter import is_lazy

    held = module.state_dict(keep_vars=True)
    return {name: None if is_lazy(one) else getattr(one, "shape", None) for name, one in held.items()}


def _fault(name: str, value: Any, expected: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the kind of what makes a value unusable, and what it is; None if nothing is known yet."""
    from torch.nn.parameter import is_lazy

    ours: Any = expected.get(name)
    wanted = None if is_lazy(ours) else getattr(ours, "shape", None)
    if isinstance(value, StoredTensor) and value.fault is not None:
        return "that cannot be used", value.fault
    if wanted is not None and shape_differs(value, wanted):
        found = value.shape if isinstance(value, StoredTensor) else type(value).__name__
        return "of another shape", f"{found}, must be {tuple(wanted)}"
    if name in expected and not isinstance(value, StoredTensor | str | int | float | type(None)):
        return "that cannot be used", type(value).__name__
    return None


def values_of(wanted: Mapping[str, Any], versions: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Read the values of a state dict.

    Args:
        wanted: name -> tensor of a file, or another value.
        versions: module -> what torch keeps for it.
        label: what to call the checkpoint in messages.

    Returns:
        Name -> tensor.

    Raises:
        ModelError: the file is damaged.
    """
    state = collections.OrderedDict[str, Any]()
    for name, value in wanted.items():
        try:
            state[name] = value.read() if isinstance(value, StoredTensor) else value
        except Exception as error:  # a damaged file may hold anything
            raise ModelError(f"{label} is damaged: {shown(name)}: {shown(reason_of(error))}.") from error
    if versions:
        state._metadata = versions  # type: ignore[attr-defined]  # where torch keeps them
    return state


def _loss(value: Any, ours: Any) -> str | None:
    """Return what would be lost of a tensor if its values were copied into another one."""
    import torch

    if not isinstance(value, torch.Tensor) or not isinstance(ours, torch.Tensor):
        return None
    if value.is_complex() and not ours.is_complex():
        return "complex, must be real"
    if isinstance(ours, torch.nn.Parameter) and ours.is_floating_point() and not value.is_floating_point():
        return f"{str(value.dtype).removeprefix('torch.')}, must be floating point"
    whole = not (ours.is_floating_point() or ours.is_complex())
    if value.is_floating_point() and whole and not torch.equal(value, value.to(ours.dtype).to(value.dtype)):
        return f"of {str(value.dtype).removeprefix('torch.')} with fractions, must be whole numbers"
    return None


def _compare(
    module: nn.Module, state: dict[str, Any], expected: Mapping[str, Any], label: str
) -> tuple[list[str], list[str]]:
    """List missing and unexpected names by loading into a copy, so that its rules for older versions apply."""
    try:
        twin = meta_copy(module)
    except Exception:  # it holds a lock or a file; then only the names are compared
        return [name for name in expected if name not in state], [name for name in state if name not in expected]
    try:
        found = twin.load_state_dict(_duplicate(state), strict=False, assign=True)
    except Exception as error:
        raise ModelError(f"{label} does not fit {type(module).__name__}: {shown(reason_of(error))}.") from error
    return found.missing_keys, found.unexpected_keys


def _duplicate(state: dict[str, Any]) -> dict[str, Any]:
    """Copy a state dict with the versions that torch keeps on it, but without copying tensors.

    The versions must not be shared: torch 2.15 records in them that it assigned tensors, and assigns again next time.
    """
    duplicate = copy.copy(state)
    if hasattr(state, "_metadata"):
        duplicate._metadata = copy.deepcopy(state._metadata)  # type: ignore[attr-defined]
    return duplicate


def _without_tied(missing: list[str], expected: Mapping[str, Any]) -> list[str]:
    """Leave out names of tensors that have another name too, under which they are there; files keep one of them."""
    absent = set(missing)
    given = {id(one) for name, one in expected.items() if name not in absent}
    return [name for name in missing if id(expected.get(name)) not in given]
