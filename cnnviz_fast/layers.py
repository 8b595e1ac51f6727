"""Stage 3 of the main path, first half: the layers of a model, and layer patterns -> capture targets.

The layers of a model are everything that `named_modules()` lists except the model itself, in that order, each module
once under its first name; the wrappers that `torch.compile` puts around modules are looked through, so that names never
hold `_orig_mod`. `cnnviz layers` prints this list, and an integer is an index into it. What a pattern may be, in the
order in which the meanings are tried, so that a real name always wins:

    layer1.0.conv2      a dotted path; any name of a module that has several
    type:Conv2d         every module of a class of this name, or of a subclass of one
    re:layer[12]\\.\\d+   every module whose whole name this regular expression matches; it takes all of the text
    stage:2, stage:-1   the entry of the model's own list of stages, from 0: `feature_info` (timm), else the first list
                        of modules called `stages` (timm, Hugging Face)
    12, -1              the index in the list, negative from the end; also as text, for the command line
    layer1.*.conv2      `*` stands for any text, dots included: `layer1.*` is everything below layer1
    layer4.2.add        an operation: a function or operator that the forward of a module calls, by the name that
                        torch.fx gives it; see operations.py
    PATTERN:2           only the third call of each module in one pass
    PATTERN[path]       a part of an output that holds several: index of a tuple, key of a mapping, name of an
                        attribute, one for each level: `encoder[0]`, `backbone:1[out]`, `body[hidden_states][3]`

and a module object. Within one pattern a module counts once, under the first of its names that matches.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import operator
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import LayerNotFoundError, OptionError, closest

if TYPE_CHECKING:
    from torch import nn

_LIST_THEM = "List them with: cnnviz layers MODEL"
_TYPE = "type:"
_REGULAR = "re:"
_STAGE = re.compile(r"stage:(-?\d+)")
_CALL = re.compile(r"(.+):(\d+)", re.DOTALL)
_PART = re.compile(r"(.+)\[([^\[\]]+)\]", re.DOTALL)
_INTEGER = re.compile(r"-?\d+")


@dataclasses.dataclass(frozen=True)
class LayerInfo:
    """What one line of `cnnviz layers` says; every field is a JSON type.

    Attributes:
        index: place in the list.
        name: first dotted name in `named_modules()`.
        type: class name.
        shape: output shape of the first call, or None where it never ran or its output is not one tensor.
        calls: how often one pass runs it.
        parameters: number of parameters, those of its children included.
    """

    index: int
    name: str
    type: str
    shape: tuple[int, ...] | None
    calls: int
    parameters: int


@dataclasses.dataclass(frozen=True)
class Target:
    """A module to be captured, or an operation.

    Attributes:
        name: the dotted name it was asked for by, or its first name where a pattern found it.
        module: the module, or None for an operation.
        call: which of its calls in one pass, from 0, or None for all of them.
        patterns: the patterns that found it.
        path: the part of its output, an index, key or attribute for each level; () for the output itself.
    """

    name: str
    module: nn.Module | None
    call: int | None
    patterns: tuple[str, ...]
    path: tuple[str, ...] = ()

    def key(self, call: int | None) -> str:
        """Name what comes of one call: `name:k[path]`, with the `:k` left out for None."""
        return self.name + ("" if call is None else f":{call}") + "".join(f"[{step}]" for step in self.path)


def layer_list(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """List the layers of a model: what integers index and what `cnnviz layers` prints.

    Args:
        model: any module.

    Returns:
        First name and module of everything in `named_modules()` but the model itself.
    """
    return _once_each(_names(model).items())


def every_module(model: nn.Module) -> dict[str, nn.Module]:
    """Do what `named_modules(remove_duplicate=False)` does, in half the time: each capture asks twice.

    Args:
        model: any module.

    Returns:
        Every name of every module in it, itself as "" included -> the module.
    """
    found: dict[str, nn.Module] = {}

    def walk(module: nn.Module, name: str) -> None:
        found[name] = module
        for child, part in module._modules.items():
            if part is not None:
                walk(part, f"{name}.{child}" if name else child)

    walk(model, "")
    return found


def uncompiled(model: nn.Module) -> nn.Module:
    """Take a module out of the wrapper that `torch.compile` puts around it.

    Args:
        model: any module.

    Returns:
        What was compiled, or the module itself.
    """
    while isinstance(model, _compiled_class()):
        model = model._orig_mod
    return model


def takes_hooks(module: nn.Module) -> bool:
    """Say whether hooks can be hung on a module; a TorchScript program runs past them and refuses them."""
    import torch

    return not isinstance(module, torch.jit.ScriptModule)


def resolve(
    model: nn.Module,
    patterns: str | int | nn.Module | Sequence[str | int | nn.Module],
    operations: Callable[[], Iterable[str]] = tuple,
) -> list[Target]:
    """Find the modules that patterns name.

    Args:
        model: any module.
        patterns: one pattern or several; the head of this file says what a pattern may be.
        operations: lists the operations of the model. Called where no module matches.

    Returns:
        The targets in the order asked for. What an earlier pattern has found already keeps its place.

    Raises:
        LayerNotFoundError: a pattern matches nothing, or an index is out of range.
        OptionError: `patterns` holds no pattern, or something that cannot be one.
    """
    names = _names(model)
    found: dict[tuple[str, int | None, tuple[str, ...]], Target] = {}
    for pattern in _as_list(patterns):
        for target in _match(model, names, pattern, operations):
            key = (target.name, target.call, target.path)
            earlier = found[key].patterns if key in found else ()
            found[key] = dataclasses.replace(target, patterns=(*earlier, *target.patterns))
    return list(found.values())


def meta_copy(model: nn.Module) -> nn.Module:
    """Copy a model to the meta device: its structure and code, without its values and without anybody's hooks.

    Args:
        model: any module whose other attributes can be copied. Hooks that act on a pass are left out unseen, so that
            what they hold is not copied either.

    Returns:
        The copy. It takes no memory for parameters, buffers and tensors kept as plain attributes.
    """
    import torch

    hook_tables = [name for name in vars(torch.nn.Module()) if name.endswith("_hooks") and "ward_" in name]
    # deepcopy takes what its memo holds for an id instead of copying the object.
    memo: dict[int, Any] = {}
    for module in model.modules():
        memo.update((id(getattr(module, name)), collections.OrderedDict()) for name in hook_tables)
        for tensor in (*vars(module).values(), *module.buffers(recurse=False)):
            if isinstance(tensor, torch.Tensor):
                memo[id(tensor)] = torch.empty_like(tensor, device="meta")
        for parameter in module.parameters(recurse=False):
            twin = torch.empty_like(parameter, device="meta")
            memo[id(parameter)] = torch.nn.Parameter(twin, requires_grad=parameter.requires_grad)
    return copy.deepcopy(model, memo)


def _compiled_class() -> type[Any] | tuple[()]:
    """Return the class of torch.compile's wrappers, without loading torch._dynamo, which may take seconds."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return () if dynamo is None else dynamo.OptimizedModule


def _names(model: nn.Module) -> dict[str, nn.Module]:
    """Map every name of every layer to its module, in the order of `named_modules()`."""
    root, compiled = uncompiled(model), _compiled_class()
    named = every_module(root)
    wrappers = [name for name, module in named.items() if isinstance(module, compiled)]
    for wrapper in reversed(wrappers):  # the innermost first, so that the outer names still begin names
        inside = f"{wrapper}._orig_mod"
        named = {
            wrapper + name.removeprefix(inside) if name == inside or name.startswith(f"{inside}.") else name: module
            for name, module in named.items()
            if name != wrapper
        }
    return {name: module for name, module in named.items() if module is not root}


def _as_list(patterns: Any) -> list[str | int | nn.Module]:
    """Take one pattern or several as a list of text, integers and modules."""
    from torch import nn

    several = isinstance(patterns, Iterable) and not isinstance(patterns, (str, nn.Module))
    asked = [_checked(pattern) for pattern in (patterns if several else [patterns])]
    if not asked:
        raise OptionError(f"layers must name at least one layer, got none. {_LIST_THEM}")
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
            f"layers must be names, patterns, indices or modules, got an object of type {kind}. {_LIST_THEM}"
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
        return [Target(name, module, None, (str(pattern),))]
    if not isinstance(pattern, str):
        name, module = _named(names, pattern)
        return [Target(name, module, None, (name,))]
    base, call, path = _split(pattern, names)
    matches: Iterable[tuple[str, nn.Module | None]] = _match_base(model, names, base)
    if not matches:
        known = dict.fromkeys(operations())
        matches = [(name, None) for name in known if name == base or _matcher(base)(name)]
        if not matches:
            raise _not_found(pattern, base, names, known)
    return [Target(name, module, call, (pattern,), path) for name, module in matches]


def _split(pattern: str, names: Mapping[str, nn.Module]) -> tuple[str, int | None, tuple[str, ...]]:
    """Split a pattern into what it names, the call and the part; what is a real name or an expression stays whole."""
    base = pattern
    path: tuple[str, ...] = ()
    if pattern.startswith(_REGULAR):
        return base, None, path
    while base not in names and (parts := _PART.fullmatch(base)):
        base, path = parts[1], (parts[2], *path)
    if base not in names and not _STAGE.fullmatch(base) and (called := _CALL.fullmatch(base)):
        return called[1], int(called[2]), path
    return base, None, path


def _match_base(model: nn.Module, names: Mapping[str, nn.Module], base: str) -> list[tuple[str, nn.Module | None]]:
    """Match what names modules; a real name is tried before the meanings it could have otherwise."""
    if base in names:
        return [(base, names[base])]
    if base.startswith(_TYPE):
        kind = base.removeprefix(_TYPE)
        return list(_once_each((name, module) for name, module in names.items() if kind in _class_names(module)))
    if stage := _STAGE.fullmatch(base):
        return [_at_stage(model, names, int(stage[1]))]
    if _INTEGER.fullmatch(base):
        return [_at_index(names, int(base))]
    matches = _matcher(base)
    return list(_once_each((name, module) for name, module in names.items() if matches(name)))


def _matcher(base: str) -> Callable[[str], object]:
    """Return the test of names that a regular expression or a text with wildcards stands for."""
    if not base.startswith(_REGULAR):
        # Not fnmatch: its brackets would be in the way of names that hold some.
        return re.compile(".*".join(re.escape(part) for part in base.split("*")), re.DOTALL).fullmatch
    try:
        return re.compile(base.removeprefix(_REGULAR)).fullmatch
    except re.error as error:
        raise OptionError(f"layers must hold regular expressions after 're:', got {base!r}: {error}.") from None


def _not_found(
    pattern: str, base: str, names: Mapping[str, nn.Module], operations: Iterable[str]
) -> LayerNotFoundError:
    """Word the error for a pattern that matches nothing, with what is near it."""
    known: Iterable[str] = (*names, *operations)
    if base.startswith(_TYPE):
        known = {_TYPE + kind for module in names.values() for kind in _class_names(module)}
    near = closest(base, known, count=2)
    return LayerNotFoundError(f"no layer {pattern!r} in the model.{near} {_LIST_THEM}")


def _named(names: Mapping[str, nn.Module], wanted: nn.Module) -> tuple[str, nn.Module]:
    """Return the first name of a module object."""
    wanted = uncompiled(wanted)
    for name, module in names.items():
        if module is wanted:
            return name, module
    kind = type(wanted).__name__
    raise LayerNotFoundError(f"no layer of the model is the {kind} object that was given. {_LIST_THEM}")


def _at_stage(model: nn.Module, names: Mapping[str, nn.Module], stage: int) -> tuple[str, nn.Module]:
    """Return a stage of a model that lists its stages."""
    stages = _stages(model, names)
    if not stages:
        raise LayerNotFoundError(
            f"no layer 'stage:{stage}' in the model: it has neither feature_info nor a list of stages. {_LIST_THEM}"
        )
    if not -len(stages) <= stage < len(stages):
        raise LayerNotFoundError(
            f"stage must be {-len(stages)} to {len(stages) - 1} for this model, got {stage}. {_LIST_THEM}"
        )
    return stages[stage], names[stages[stage]]


def _stages(model: nn.Module, names: Mapping[str, nn.Module]) -> list[str]:
    """List the names of the stages that a model says it has."""
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
    layers = _once_each(names.items())
    if not layers:
        raise LayerNotFoundError(f"no layer {index} in the model: it is a single module without children.")
    if not -len(layers) <= index < len(layers):
        raise LayerNotFoundError(
            f"layer index must be {-len(layers)} to {len(layers) - 1} for this model, got {index}. {_LIST_THEM}"
        )
    return layers[index]


def _once_each(named: Iterable[tuple[str, nn.Module]]) -> list[tuple[str, nn.Module]]:
    """Keep the first name of each module."""
    first: dict[nn.Module, str] = {}
    for name, module in named:
        first.setdefault(module, name)
    return [(name, module) for module, name in first.items()]


def _class_names(module: nn.Module) -> list[str]:
    """Name the class of a module and the classes that it is derived from."""
    return [kind.__name__ for kind in type(module).__mro__]
