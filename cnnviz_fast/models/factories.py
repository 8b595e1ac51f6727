"""Factories: import the user's code for `package.module:factory` or `file.py:factory`, and call it.

What is named may also be a module that the code has made already.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.machinery
import importlib.util
import inspect
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from ..errors import ModelError, advice, closest, reason_of
from ..options.parsers import refuse
from .specs import spec_with

if TYPE_CHECKING:
    from torch import nn

_loads = itertools.count()

FILE_MODULE = "cnnviz_model_"
"""How the names of modules begin that were made from a model file. No other process can import them."""


def find_factory(source: str, name: str, arguments: Mapping[str, Any] | None = None) -> Callable[[], nn.Module]:
    """Import the user's code and find in it what makes the model.

    While it runs, the folder of the file (of a package: the folder that holds the package, or the current one) is first
    on `sys.path`, as in a script.

    Args:
        source: a `.py` file, or the dotted name of a Python module.
        name: of a function, a class or a ready module; Class.method and the like work too.
        arguments: for the function or the class, by name.

    Returns:
        A function that calls it, or copies the ready module. It raises ModelError if the call fails or does not return
        a torch.nn.Module.

    Raises:
        ModelError: the file or module is missing or fails, or has nothing of this name that could be a model.
    """
    found, folder = _find(source, name, "factory")
    return _Factory(f"{source}:{name}", found, dict(arguments or {}), folder)


def find_function(option: str, spec: str) -> Callable[..., Any]:
    """Import the user's code and find a function in it that an option names.

    Args:
        option: which option, for messages.
        spec: `file.py:function` or `package.module:function`; any object that can be called.

    Returns:
        The function.

    Raises:
        OptionError: `spec` names none.
        ModelError: the file or module is missing or fails, or has nothing of this name.
    """
    source, colon, name = spec.rpartition(":")
    if not colon or not source or not name or name.lower().endswith(".py"):
        raise refuse(option, "file.py:function or package.module:function", spec)
    found, _ = _find(source, name, "function")
    if not callable(found):
        raise refuse(option, "a function", spec, f"It is of type {type(found).__name__}.")
    return cast("Callable[..., Any]", found)


def _find(source: str, name: str, kind: str) -> tuple[Any, str]:
    """Return what the user's code has under a dotted name, and the folder that it imports from."""
    is_file = source.lower().endswith(".py")
    folder, package = _package_of(source) if is_file else (os.getcwd(), "")
    with _importable_from(folder):
        module = _load_file(source, package) if is_file else _import(source)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            there = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise ModelError(f"no {kind} {name!r} in {source!r}.{closest(name, there)}")
        found = getattr(found, part)
    return found, folder


@dataclass(frozen=True)
class _Factory:
    """Makes the model of a spec.

    Attributes:
        spec: for messages.
        made_by: a function, a class or a ready module.
        arguments: for the call.
        folder: first on `sys.path` meanwhile.
    """

    spec: str
    made_by: Any
    arguments: dict[str, Any]
    folder: str

    def __call__(self) -> nn.Module:
        """Make the model."""
        from torch import nn

        if isinstance(self.made_by, nn.Module):
            return self._copied(self.made_by)
        if not callable(self.made_by):
            kind = type(self.made_by).__name__
            raise ModelError(
                f"{self.spec!r} must be a torch.nn.Module, or a function or class that makes one, got {kind}."
            )
        with _importable_from(self.folder):
            try:
                made = self.made_by(**self.arguments)
            except (Exception, SystemExit) as error:  # user code may raise anything
                reason = reason_of(error, named=True)
                raise ModelError(f"factory {self._shown} failed: {reason}.{self._advice(error)}") from error
        if not isinstance(made, nn.Module):
            raise ModelError(f"factory {self._shown} must return a torch.nn.Module, got {type(made).__name__}.")
        return made

    @property
    def _shown(self) -> str:
        return repr(spec_with(self.spec, self.arguments))

    def _copied(self, module: nn.Module) -> nn.Module:
        """Copy a ready module: the one in the user's code is not to lose its weights to a checkpoint or a device."""
        if self.arguments:
            raise ModelError(
                f"arguments must not be given for {self.spec!r}, which is a ready {type(module).__name__}."
            )
        try:
            return copy.deepcopy(module)
        except Exception:  # it holds a lock or a file
            return module

    def _advice(self, error: BaseException) -> str:
        """Return which arguments lack, where the call failed for lack of them."""
        if not isinstance(error, TypeError):
            return ""
        try:
            parameters = inspect.signature(self.made_by).parameters.values()
        except (TypeError, ValueError):
            return ""
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        lack = [p.name for p in parameters if p.default is p.empty and p.kind in kinds and p.name not in self.arguments]
        python = f"arguments={{{', '.join(f'{name!r}: VALUE' for name in lack)}}}"
        flags = f"--model-args {' '.join(f'{name}=VALUE' for name in lack)}"
        return f" Give them with {advice(python, flags)}." if lack else ""


def _package_of(path: str) -> tuple[str, str]:
    """Return the folder to import from for a model file, and the dotted name of the package that it belongs to."""
    folder = Path(path).absolute().parent
    parts: list[str] = []
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        parts.insert(0, folder.name)
        folder = folder.parent
    return str(folder), ".".join(parts)


@contextlib.contextmanager
def _importable_from(folder: str) -> Iterator[None]:
    """Put a folder first on `sys.path` for the time of the block."""
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the user's code may have removed it
            sys.path.remove(folder)


def _import(source: str) -> ModuleType:
    """Import a Python module of the user."""
    importlib.invalidate_caches()  # the module may have been written a moment ago
    try:
        return importlib.import_module(source)
    except (Exception, SystemExit) as error:  # user code may raise anything
        lacking = error.name if isinstance(error, ModuleNotFoundError) else None
        if lacking and f"{source}.".startswith(f"{lacking}."):
            raise ModelError(
                f"no model source or Python module {source!r}. "
                f"A model is NAME, torchvision:NAME, timm:NAME, hf:NAME, cnnviz:small, package.module:factory "
                f"or file.py:factory."
            ) from error
        raise ModelError(f"module {source!r} cannot be imported: {reason_of(error, named=True)}.") from error


def _load_file(path: str, package: str) -> ModuleType:
    """Run a model file as a module with a name of its own, which pickling and dataclasses inside it can look up.

    It is compiled here. The import system would write bytecode beside the user's file, and would not notice a change
    within the same second. Its relative imports are those of its package.
    """
    if not os.path.isfile(path):
        raise ModelError(f"no model file {path!r}.")
    path = os.path.abspath(path)
    name = f"{FILE_MODULE}{next(_loads)}_{re.sub(r'[^0-9A-Za-z]', '_', Path(path).stem)}"
    loader = importlib.machinery.SourceFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None  # it is None only without a loader
    module = importlib.util.module_from_spec(spec)
    if package:
        _import_package(package, path)
        spec.name = f"{package}.{name}"  # its parent is where relative imports begin
        module.__package__ = package
    sys.modules[name] = module
    try:
        exec(loader.source_to_code(loader.get_data(path), path), vars(module))
    except (Exception, SystemExit) as error:  # user code may raise anything
        del sys.modules[name]
        raise ModelError(
            f"model file {path!r} failed: {reason_of(error, named=True)}.{_relative_advice(error, path)}"
        ) from error
    return module


def _import_package(package: str, path: str) -> None:
    """Import the package of a model file, and check that it is the one of this folder."""
    found = _import(package)
    folders = [os.path.realpath(folder) for folder in getattr(found, "__path__", [])]
    if os.path.realpath(os.path.dirname(path)) not in folders:
        raise ModelError(
            f"model file {path!r} belongs to a package {package!r}, but Python has loaded another of that name, from "
            f"{folders[0] if folders else found.__name__!r}. Run from the folder that holds the right one."
        )


def _relative_advice(error: BaseException, path: str) -> str:
    """Return how to name a model whose file imports its neighbours by dots, though its folder is no package."""
    if not isinstance(error, ImportError) or "no known parent package" not in str(error):
        return ""
    module = f"{Path(path).parent.name}.{Path(path).stem}"
    return f" Name it {module}:FACTORY from the folder above, or add an __init__.py beside it."
