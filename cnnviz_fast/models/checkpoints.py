"""Checkpoints: what of a file fits a module is loaded into it, what does not is said, or nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, OptionError, shown
from .array_states import state_for
from .checkpoint_files import StateDict, read_states
from .filling import Plan, plan_for, shapes_of, values_of
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
    fit, *others = _fits(module, checkpoint)
    plan = plan_for(module, fit, checkpoint.label)
    if plan.unusable or plan.most_are_missing or (checkpoint.strict and (plan.missing or plan.left)):
        raise _misfit(module, checkpoint, plan)
    module.load_state_dict(plan.state, strict=False)
    remember_missing(module, plan.missing, checkpoint.label)
    _say(checkpoint, plan, others)


def classes_of(module: nn.Module, checkpoint: Checkpoint) -> int | None:
    """Return for how many classes a checkpoint was trained, if that is the only reason why it does not fit.

    Args:
        module: built for its usual number of classes.
        checkpoint: from `read_checkpoint`.

    Returns:
        The number of outputs of the last layer, if all tensors that do not fit differ by this number alone; None if
        all shapes fit, or other shapes differ.
    """
    shapes = shapes_of(module)
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
    if fit.count == len(shapes_of(module)) or fit.state.mapped:
        return checkpoint
    states = []
    for state in checkpoint.states:
        usable = {n: v for n, v in state.values.items() if isinstance(v, StoredTensor) and v.fault is None}
        try:
            values = rename({plain(name): tensor for name, tensor in values_of(usable, {}, checkpoint.label).items()})
        except ModelError:
            continue
        states.append(StateDict(state.key, {name: in_memory(tensor) for name, tensor in values.items()}))
    renamed = replace(checkpoint, states=states)
    found = fits(states, shapes_of(module), checkpoint.key)
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


def _fits(module: nn.Module, checkpoint: Checkpoint) -> list[Fit]:
    found = fits(*_states_for(module, checkpoint))
    if not found:
        keys = ", ".join(f"'{shown(state.key)}'" for state in checkpoint.states[:_LISTED] if state.key) or "none"
        raise OptionError(
            f"weights_key must be where weights lie in {checkpoint.label}, got '{shown(str(checkpoint.key))}'. "
            f"State dicts in it: {keys}; prefixes of names count too."
        )
    return found


def _states_for(module: nn.Module, checkpoint: Checkpoint) -> tuple[list[StateDict], dict[str, Any], str | None]:
    """Return state dicts with torch's names, the shapes of the module, and the key under which to look."""
    shapes, key = shapes_of(module), checkpoint.key
    if not any(state.order for state in checkpoint.states):
        return checkpoint.states, shapes, key
    mapped = (state_for(module, state, checkpoint.label, key) for state in checkpoint.states)
    return [state for state in mapped if state is not None], shapes, None


def _misfit(module: nn.Module, checkpoint: Checkpoint, plan: Plan) -> ModelError:
    """Return the error that lists all that does not fit."""
    faults = [
        _counted("missing", [shown(name) for name in plan.missing]),
        _counted("unexpected", [shown(name) for name in plan.left]),
        *(_counted(kind, texts) for kind, texts in plan.unusable.items()),
    ]
    return ModelError(
        f"{checkpoint.label} does not fit {type(module).__name__}: {'; '.join(filter(None, faults)) or 'no names'}."
    )


def _say(checkpoint: Checkpoint, plan: Plan, others: list[Fit]) -> None:
    """Note what the user should know: which weights were chosen, what was left over and what was missing."""
    said = [plan.fit.state.mapped] if plan.fit.state.mapped else []
    if others:
        listed = _first([_quoted(fit) for fit in others])
        said.append(f"{_quoted(plan.fit)} is used and not {listed} (weights_key chooses)")
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
