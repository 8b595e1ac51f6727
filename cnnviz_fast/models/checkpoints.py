"""Checkpoints: what of a file fits a module is loaded into it, what does not is said, or nothing is changed."""

from __future__ import annotations

import collections
import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, OptionError, reason_of, shown
from .checkpoint_files import StateDict, read_states
from .layers import meta_copy
from .matching import Fit, fits, plain, shape_differs
from .missing import remember_missing
from .notes import note
from .stored_tensors import StoredTensor, in_memory

if TYPE_CHECKING:
    from torch import nn

_LISTED = 5  # names of each kind that a message lists; it gives the number of the others


@dataclass(frozen=True)
class Checkpoint:
    """What a file or a folder of weights holds.

    Attributes:
        label: what to call it in messages.
        states: the state dicts in it.
        key: where in it the weights lie, None for where most names fit.
        strict: whether every name must fit, in both directions.
    """

    label: str
    states: list[StateDict]
    key: str | None = None
    strict: bool = False


def read_checkpoint(
    path: str | os.PathLike[str], key: str | None = None, *, strict: bool = False, trusted: bool = False
) -> Checkpoint:
    """Read a file or a folder of weights without ever running code from it.

    Args:
        path: see `read_states`.
        key: where in it the weights lie, such as "state_dict_ema" or "state_dict.teacher".
        strict: whether names that are missing or left over are an error.
        trusted: whether to read a file of torch's own format with a torch that has a hole there; see torch_floor.

    Returns:
        The state dicts in it.

    Raises:
        ModelError: it is missing, damaged or not a checkpoint, or a pickled module or a program.
    """
    label = f"checkpoint {os.fspath(path)!r}"
    return Checkpoint(label, read_states(path, label, trusted), key, strict)


def load_checkpoint(module: nn.Module, checkpoint: Checkpoint) -> None:
    """Load what of a checkpoint fits a module, or leave the module as it was.

    A note names what was left over, the state dict chosen where several fit, and the weights that were missing. The
    module remembers these: a pass that uses one of them gives no activations from there on.

    Args:
        module: the module, whose dtypes and devices do not change.
        checkpoint: from `read_checkpoint`.

    Raises:
        ModelError: less than most names of the module fit, or a shape differs, or a tensor is not dense and real, or
            the checkpoint is strict and names are missing or left over; one line lists them.
        OptionError: the checkpoint holds nothing under its key.
    """
    plan = _plan(module, checkpoint)
    if plan.unusable or plan.most_are_missing or (checkpoint.strict and (plan.missing or plan.left)):
        raise _misfit(module, checkpoint, plan)
    module.load_state_dict(plan.state, strict=False)
    remember_missing(module, plan.missing, checkpoint.label)
    _say(checkpoint, plan)


def classes_of(module: nn.Module, checkpoint: Checkpoint) -> int | None:
    """Return for how many classes a checkpoint was trained, if that is the only reason why it does not fit.

    Args:
        module: built for its usual number of classes.
        checkpoint: from `read_checkpoint`.

    Returns:
        The number of outputs of the last layer, if all tensors that do not fit differ by this number alone; None if
        all shapes fit, or other shapes differ.
    """
    shapes = _shapes(module)
    found = {name: value for name, value in best_fit(module, checkpoint).values.items() if name in shapes}
    wrong = [name for name, value in found.items() if shape_differs(value, shapes[name])]
    last = next(reversed(shapes), None)
    if last not in wrong:
        return None
    pairs = [(tuple(shapes[name]), getattr(found[name], "shape", None) or ()) for name in wrong]
    counts = {(wanted[:1], theirs[:1]) for wanted, theirs in pairs}
    if len(counts) > 1 or any(not theirs or wanted[1:] != theirs[1:] for wanted, theirs in pairs):
        return None
    return int(found[last].shape[0])


def renamed_by(
    rename: Callable[[dict[str, Any]], dict[str, Any]], module: nn.Module, checkpoint: Checkpoint
) -> Checkpoint:
    """Rename the weights of a checkpoint as the library does that its model comes from, if more of them fit then.

    Args:
        rename: name -> tensor of a file to name -> tensor of the module; it may raise ModelError.
        module: the module.
        checkpoint: from `read_checkpoint`.

    Returns:
        The checkpoint with the names under which more fit.
    """
    fit = best_fit(module, checkpoint)
    if fit.count == len(_shapes(module)):
        return checkpoint
    states = []
    for state in checkpoint.states:
        usable = {n: v for n, v in state.values.items() if isinstance(v, StoredTensor) and v.fault is None}
        try:
            values = rename({plain(name): tensor for name, tensor in _values(usable, {}, checkpoint.label).items()})
        except ModelError:
            continue
        states.append(StateDict(state.key, {name: in_memory(tensor) for name, tensor in values.items()}))
    renamed = replace(checkpoint, states=states)
    found = fits(states, _shapes(module), checkpoint.key)
    return renamed if found and found[0].count > fit.count else checkpoint


def best_fit(module: nn.Module, checkpoint: Checkpoint) -> Fit:
    """Return where in a checkpoint most names of a module are found.

    Args:
        module: the module.
        checkpoint: from `read_checkpoint`.

    Returns:
        The state dict and the prefix.

    Raises:
        OptionError: the checkpoint holds nothing under its key.
    """
    return _fits(module, checkpoint)[0]


@dataclass
class _Plan:
    """What would be loaded into a module.

    Attributes:
        fit: where it lies in the checkpoint.
        others: elsewhere, where most names fit too.
        state: name -> tensor.
        missing: names of the module that are not there.
        left: names in the checkpoint that the module does not have.
        unusable: what is wrong with tensors that belong to the module: kind -> one text for each.
        most_are_missing: whether less than most of the module's names fit.
    """

    fit: Fit
    others: list[Fit]
    state: dict[str, Any]
    missing: list[str]
    left: list[str]
    unusable: dict[str, list[str]]
    most_are_missing: bool


def _plan(module: nn.Module, checkpoint: Checkpoint) -> _Plan:
    """Find out what would be loaded into a module, with the values; nothing is changed."""
    expected = module.state_dict(keep_vars=True)
    fit, *others = _fits(module, checkpoint)
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
    state = _values(wanted, fit.versions(module), checkpoint.label)
    for name in [name for name in state if name in expected]:
        if loses := _loss(state[name], expected[name]):
            unusable["that cannot be used"].append(f"{shown(name)} is {loses}")
            del state[name]
    found_missing, unexpected = _compare(module, state, expected, checkpoint.label)
    missing = [name for name in _without_tied(found_missing, expected) if name not in fit.values]
    most_are_missing = bool(expected) and 2 * fit.count <= len(expected)
    return _Plan(fit, others, state, missing, [*unexpected, *left], unusable, most_are_missing)


def _fits(module: nn.Module, checkpoint: Checkpoint) -> list[Fit]:
    found = fits(checkpoint.states, _shapes(module), checkpoint.key)
    if not found:
        keys = ", ".join(f"'{shown(state.key)}'" for state in checkpoint.states[:_LISTED] if state.key) or "none"
        raise OptionError(
            f"weights_key must be where weights lie in {checkpoint.label}, got '{shown(str(checkpoint.key))}'. "
            f"State dicts in it: {keys}; prefixes of names count too."
        )
    return found


def _shapes(module: nn.Module) -> dict[str, Any]:
    """Map the names of a module to shapes; None where any shape will do, as for lazy parameters."""
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


def _values(wanted: Mapping[str, Any], versions: Mapping[str, Any], label: str) -> dict[str, Any]:
    """Read the values of a state dict."""
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


def _misfit(module: nn.Module, checkpoint: Checkpoint, plan: _Plan) -> ModelError:
    """Return the error that lists all that does not fit."""
    faults = [
        _counted("missing", [shown(name) for name in plan.missing]),
        _counted("unexpected", [shown(name) for name in plan.left]),
        *(_counted(kind, texts) for kind, texts in plan.unusable.items()),
    ]
    return ModelError(
        f"{checkpoint.label} does not fit {type(module).__name__}: {'; '.join(filter(None, faults)) or 'no names'}."
    )


def _say(checkpoint: Checkpoint, plan: _Plan) -> None:
    """Note what the user should know: which weights were chosen, what was left over and what was missing."""
    said = []
    if plan.others:
        others = _first([_quoted(fit) for fit in plan.others])
        said.append(f"{_quoted(plan.fit)} is used and not {others} (weights_key chooses)")
    if plan.left:
        said.append(f"left over: {_first(_grouped(plan.left))}")
    if plan.missing:
        said.append(f"missing, so that what uses them cannot be drawn: {_first([shown(n) for n in plan.missing])}")
    if said:
        note(f"{checkpoint.label}: {'; '.join(said)}.")


def _grouped(names: list[str]) -> list[str]:
    """Put names that begin with the same part together: "3 of 'criterion.'"."""
    groups: dict[str, list[str]] = {}
    for name in names:
        head, dot, _ = name.partition(".")
        groups.setdefault(f"{head}{dot}", []).append(name)
    return [
        f"{len(inside)} of '{shown(head)}'" if len(inside) > 1 else f"'{shown(inside[0])}'"
        for head, inside in groups.items()
    ]


def _quoted(fit: Fit) -> str:
    return f"'{shown(fit.path)}'" if fit.path else "the file itself"


def _counted(kind: str, texts: list[str]) -> str:
    return f"{len(texts)} {kind} ({_first(texts)})" if texts else ""


def _first(texts: list[str]) -> str:
    """List the first few, and how many more there are."""
    more = f" and {len(texts) - _LISTED} more" if len(texts) > _LISTED else ""
    return f"{', '.join(texts[:_LISTED])}{more}"
