"""Layer patterns: what a user may write to name layers, and the targets that a capture finds for it.

What a pattern may be, in the order in which the meanings are tried, so that a real name always comes first:

    layer1.0.conv2      a dotted path; any name of a module that has several
    type:Conv2d         every module of a class of this name, or of a subclass of one
    re:layer[12]\\.\\d+   every module whose whole name this regular expression matches; no endings follow it
    stage:2, stage:-1   the entry of the model's own list of stages, from 0: `feature_info` (timm), else the first list
                        of modules called `stages` (timm, Hugging Face)
    12, -1              the index in the list of layers, negative from the end; also as text, for the command line,
                        unless a layer has this name, as in a Sequential: where that is another one, a warning says so
    layer1.*.conv2      `*` stands for any text, dots included: `layer1.*` is everything below layer1
    layer4.2.add        an operation: a function or operator that the forward of a module calls, by the name that
                        torch.fx gives it; see passes/operations.py
    output              what the model itself puts out, or the function that `forward` names
    input:PATTERN       what goes into each module that a pattern finds, as its forward gets it: input:layer4
    PATTERN#0,6,-1      only these of the layers that a pattern finds, counted from 0, negative from the end; 2-5 is
                        a range
    PATTERN:2           only the third call of each module in one pass
    PATTERN[path]       a part of an output that holds several: index of a tuple, key of a mapping, name of an
                        attribute, one for each level: `encoder[0]`, `backbone:1[out]`, `body[hidden_states][3]`,
                        `output[logits]`; of an input the position or the name of an argument: `input:layer4[0]`

and a module object. Within one pattern a module counts once, under the first of its names that matches. Several endings
are written in this order: `type:Conv2d#0:2[path]`.
"""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import LayerNotFoundError, OptionError, advice, closest, repr_of
from ..models.layers import layer_names, once_each, uncompiled
from ..runtime.caller import warn_caller

if TYPE_CHECKING:
    from torch import nn

    Layers = str | int | nn.Module | Sequence[str | int | nn.Module]

MOST_PATTERNS = 2**16
"""Of one call: more than any model has layers. An iterable without an end would never be read to it."""

OUTPUT = "output"
"""The name of what the model itself puts out, unless a layer has it."""

_INPUT = "input:"
_TYPE = "type:"
_REGULAR = "re:"
_STAGE = re.compile(r"stage:(-?\d{1,9})")  # Python refuses to read numbers of thousands of digits
_CALL = re.compile(r"(.+):(\d{1,9})", re.DOTALL)
_PICK = re.compile(r"(.+)#((?:-?\d{1,9}|\d{1,9}-\d{1,9})(?:,(?:-?\d{1,9}|\d{1,9}-\d{1,9}))*)", re.DOTALL)
_PART = re.compile(r"(.+)\[([^\[\]]+)\]", re.DOTALL)
_INTEGER = re.compile(r"-?\d{1,9}")


@dataclasses.dataclass(frozen=True)
class Target:
    """A module or an operation to capture.

    Attributes:
        name: the dotted name that was asked for, or the first name of a module that a pattern found; "output" for what
            the model itself puts out.
        module: the module, or None for an operation; the model itself for its output.
        call: number of the call in one pass, from 0; None for all calls.
        patterns: the patterns that found it.
        path: the part of its output, an index, key or attribute for each level; () for the output itself.
        side: what is captured of it: its "output" or its "input"; "operation" for an operation, "result" for what the
            model itself puts out.
    """

    name: str
    module: nn.Module | None
    call: int | None
    patterns: tuple[str, ...]
    path: tuple[str, ...] = ()
    side: str = "output"

    def key(self, call: int | None) -> str:
        """Return the name of what one call puts out: `name:k[path]`, without `:k` if `call` is None."""
        return (
            (_INPUT if self.side == "input" else "")
            + self.name
            + ("" if call is None else f":{call}")
            + "".join(f"[{step}]" for step in self.path)
        )


def resolve(
    model: nn.Module,
    patterns: Layers,
    operations: Callable[[], Iterable[str]] = tuple,
) -> list[Target]:
    """Find the modules that patterns name.

    Args:
        model: any module.
        patterns: one pattern or several; the head of this file says what a pattern may be.
        operations: lists the operations of the model. Called if no module matches.

    Returns:
        The targets in the order asked for. A target that several patterns find has the place of the first.

    Raises:
        LayerNotFoundError: a pattern matches nothing, or an index is out of range.
        OptionError: `patterns` is empty, or holds something that cannot be a pattern.
    """
    names = layer_names(model)
    found: dict[tuple[Any, ...], Target] = {}
    for pattern in _as_list(patterns):
        for target in _match(model, names, pattern, operations):
            key = (target.name, target.call, target.path, target.side)
            earlier = found[key].patterns if key in found else ()
            found[key] = dataclasses.replace(target, patterns=(*earlier, *target.patterns))
    return list(found.values())


def _as_list(patterns: Any) -> list[str | int | nn.Module]:
    """Return one pattern or several as a list of text, integers and modules."""
    from torch import nn

    several = isinstance(patterns, Iterable) and not isinstance(patterns, (str, nn.Module))
    asked = [_checked(pattern) for pattern in islice(patterns if several else [patterns], MOST_PATTERNS + 1)]
    if not asked:
        raise OptionError(f"layers must name at least one layer, got none. {_list_them()}")
    if len(asked) > MOST_PATTERNS:
        raise OptionError(f"layers must be at most {MOST_PATTERNS:,} patterns, got more. {_list_them()}")
    return asked


def _checked(pattern: Any) -> str | int | nn.Module:
    """Return a pattern that is text, an integer of any kind, or a module."""
    from torch import nn

    if isinstance(pattern, (str, nn.Module)):
        return pattern
    try:
        return operator.index(pattern)
    except TypeError:
        kind = type(pattern).__name__
        raise OptionError(
            f"layers must be names, patterns, indices or modules, got an object of type {kind}. {_list_them()}"
        ) from None


def _match(
    model: nn.Module,
    names: Mapping[str, nn.Module],
    pattern: str | int | nn.Module,
    operations: Callable[[], Iterable[str]],
) -> list[Target]:
    """Return what a pattern matches, with the call and the part of the output that it asks for."""
    if isinstance(pattern, int):
        name, module = _at_index(names, pattern)
        if names.get(str(pattern), module) is not module:
            warn_caller(f"layer {pattern} is taken as a number, that of {name!r}; the name has to be text: '{pattern}'")
        return [Target(name, module, None, (str(pattern),))]
    if not isinstance(pattern, str):
        name, module = _named(names, pattern)
        return [Target(name, module, None, (name,))]
    asked = _split(pattern, names)
    side = "output"
    if pattern.startswith(_INPUT) and asked.base not in names:
        asked, side = _split(pattern.removeprefix(_INPUT), names), "input"
    matches: list[tuple[str, nn.Module | None]] = _match_base(model, names, asked.base)
    if not matches and side == "input":
        raise _not_found(pattern, asked.base, names, ())
    if not matches and asked.base == OUTPUT:
        matches, side = [(OUTPUT, uncompiled(model))], "result"
    if not matches:
        known = dict.fromkeys(operations())
        matches = [(name, None) for name in known if name == asked.base or _matcher(asked.base)(name)]
        side = "operation"
        if not matches:
            raise _not_found(pattern, asked.base, names, known)
    if asked.picks is not None:
        matches = [matches[index] for index in _picked(pattern, asked.picks, len(matches))]
    return [Target(name, module, asked.call, (pattern,), asked.path, side) for name, module in matches]


class _Asked(NamedTuple):
    """The parts of a pattern: what it names, which of those by number, which call, which part of the output."""

    base: str
    picks: str | None = None
    call: int | None = None
    path: tuple[str, ...] = ()


def _split(pattern: str, names: Mapping[str, nn.Module]) -> _Asked:
    """Split a pattern into its parts; a real name and a regular expression stay whole."""
    base = pattern
    picks, call = None, None
    path: tuple[str, ...] = ()
    if pattern.startswith(_REGULAR):
        return _Asked(base)
    while base not in names and (parts := _PART.fullmatch(base)):
        base, path = parts[1], (parts[2], *path)
    if base not in names and not _STAGE.fullmatch(base) and (called := _CALL.fullmatch(base)):
        base, call = called[1], int(called[2])
    if base not in names and (picked := _PICK.fullmatch(base)):
        base, picks = picked[1], picked[2]
    return _Asked(base, picks, call, path)


def _picked(pattern: str, picks: str, count: int) -> list[int]:
    """Return the positions, among `count` layers, that the numbers behind a # name."""
    positions: list[int] = []
    for part in picks.split(","):
        first, _, last = part[1:].partition("-")  # a minus at the beginning is a sign
        ends = int(part[0] + first), int(last or part[0] + first)
        if min(ends) < -count or max(ends) >= count or ends[0] > ends[1]:
            raise LayerNotFoundError(
                f"the numbers behind # must be {-count} to {count - 1} for {pattern!r}, got {part}. {_list_them()}"
            )
        positions.extend(position % count for position in range(ends[0], ends[1] + 1))
    return positions


def _match_base(model: nn.Module, names: Mapping[str, nn.Module], base: str) -> list[tuple[str, nn.Module | None]]:
    """Return the modules that a pattern names; a real name is tried before all other meanings."""
    if base in names:
        _say_that_names_win(names, base)
        return [(base, names[base])]
    if base.startswith(_TYPE):
        kind = base.removeprefix(_TYPE)
        return list(once_each((name, module) for name, module in names.items() if kind in _class_names(module)))
    if stage := _STAGE.fullmatch(base):
        return [_at_stage(model, names, int(stage[1]))]
    if _INTEGER.fullmatch(base):
        return [_at_index(names, int(base))]
    matches = _matcher(base)
    return list(once_each((name, module) for name, module in names.items() if matches(name)))


def _say_that_names_win(names: Mapping[str, nn.Module], base: str) -> None:
    """Warn where a name, as in a Sequential, is a number that counts another layer."""
    layers = once_each(names.items()) if _INTEGER.fullmatch(base) else []
    number = int(base) if layers else 0
    if number < len(layers) and layers[number][1] is not names[base]:
        other = layers[number][0]
        warn_caller(f"layer {base!r} is taken as a name; number {base} of the list is {other!r}, which has to be named")


def _list_them() -> str:
    """Return what to do about a layer that is not there."""
    return advice("List them with: cnnviz_fast.list_layers(model)", "List them with: cnnviz layers MODEL")


def _matcher(base: str) -> Callable[[str], object]:
    """Return the test that a regular expression or a text with wildcards makes of names."""
    if not base.startswith(_REGULAR):
        # Not fnmatch, which gives brackets a meaning: names may hold some.
        return re.compile(".*".join(re.escape(part) for part in base.split("*")), re.DOTALL).fullmatch
    try:
        return re.compile(base.removeprefix(_REGULAR)).fullmatch
    except (re.error, OverflowError, RecursionError) as error:
        raise OptionError(f"layers must hold regular expressions after 're:', got {base!r}: {error}.") from None


def _not_found(
    pattern: str, base: str, names: Mapping[str, nn.Module], operations: Iterable[str]
) -> LayerNotFoundError:
    """Return the error for a pattern that matches nothing, with the names nearest to it."""
    known: Iterable[str] = (*names, *operations)
    if base.startswith(_TYPE):
        known = {_TYPE + kind for module in names.values() for kind in _class_names(module)}
    near = closest(base, known, count=2)
    return LayerNotFoundError(f"no layer {pattern!r} in the model.{near} {_list_them()}")


def _named(names: Mapping[str, nn.Module], wanted: nn.Module) -> tuple[str, nn.Module]:
    """Return the first name of a module object."""
    wanted = uncompiled(wanted)
    for name, module in names.items():
        if module is wanted:
            return name, module
    kind = type(wanted).__name__
    raise LayerNotFoundError(f"no layer of the model is the {kind} object that was given. {_list_them()}")


def _at_stage(model: nn.Module, names: Mapping[str, nn.Module], stage: int) -> tuple[str, nn.Module]:
    """Return a stage of a model that lists its stages."""
    stages = stages_of(model, names)
    if not stages:
        raise LayerNotFoundError(
            f"no layer 'stage:{stage}' in the model: it has neither feature_info nor a list of stages. {_list_them()}"
        )
    if not -len(stages) <= stage < len(stages):
        raise LayerNotFoundError(
            f"stage must be {-len(stages)} to {len(stages) - 1} for this model, got {stage}. {_list_them()}"
        )
    return stages[stage], names[stages[stage]]


def stages_of(model: nn.Module, names: Mapping[str, nn.Module]) -> list[str]:
    """List the names of the stages that a model declares."""
    from torch import nn

    for prefix, module in [("", uncompiled(model)), *((f"{name}.", module) for name, module in names.items())]:
        info = getattr(module, "feature_info", None)
        entries = info if isinstance(info, list) else getattr(info, "info", None)
        if isinstance(entries, list) and all(isinstance(entry, dict) and entry.get("module") for entry in entries):
            # A feature model of timm keeps its modules flat, under names without dots.
            paths = [prefix + entry["module"] for entry in entries]
            flat = [prefix + entry["module"].replace(".", "_") for entry in entries]
            for found in (paths, flat):
                if found and all(name in names for name in found):
                    return found
    for name, module in names.items():
        if name.rpartition(".")[2] == "stages" and isinstance(module, (nn.ModuleList, nn.Sequential)):
            return [f"{name}.{child}" for child, _ in module.named_children()]
    return []


def _at_index(names: Mapping[str, nn.Module], index: int) -> tuple[str, nn.Module]:
    """Return the layer at an index of the list, negative from the end."""
    layers = once_each(names.items())
    if not layers:
        raise LayerNotFoundError(f"no layer {repr_of(index)} in the model: it is a single module without children.")
    if not -len(layers) <= index < len(layers):
        ends = f"{-len(layers)} to {len(layers) - 1}"
        raise LayerNotFoundError(f"layer index must be {ends} for this model, got {repr_of(index)}. {_list_them()}")
    return layers[index]


def _class_names(module: nn.Module) -> list[str]:
    """Return the names of the class of a module and of its base classes."""
    return [kind.__name__ for kind in type(module).__mro__]
