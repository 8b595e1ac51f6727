"""Factories: import the user's code for `package.module:factory` or `file.py:factory`, and call it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ..errors import ModelError, closest, reason_of

if TYPE_CHECKING:
    from torch import nn

_loads = itertools.count()

FILE_MODULE = "cnnviz_model_"
"""How the names of modules begin that were made from a model file. No other process can import them."""


def find_factory(source: str, name: str) -> Callable[[], nn.Module]:
    """Import the user's code and find the function or class in it that makes the model.

    While it runs, the folder of the file (of a package: the current folder) is first on `sys.path`, as in a script.

    Args:
        source: a `.py` file, or the dotted name of a Python module.
        name: of the function or class, which takes no arguments.

    Returns:
        A function that calls it. It raises ModelError if the call fails or does not return a torch.nn.Module.

    Raises:
        ModelError: the file or module is missing or fails, or has no function of this name.
    """
    is_file = source.lower().endswith(".py")
    folder = os.path.dirname(os.path.abspath(source)) if is_file else os.getcwd()
    with _importable_from(folder):
        module = _load_file(source) if is_file else _import(source)
    spec = f"{source}:{name}"
    make = getattr(module, name, None)
    if make is None:
        there = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ModelError(f"no factory {name!r} in {source!r}.{closest(name, there)}")

    def build() -> nn.Module:
        from torch import nn

        if isinstance(make, nn.Module) or not callable(make):
            kind = type(make).__name__
            raise ModelError(f"{spec!r} must be a function or class that makes the model, got a ready-made {kind}.")
        with _importable_from(folder):
            try:
                made = make()
            except (Exception, SystemExit) as error:  # user code may raise anything
                raise ModelError(f"factory {spec!r} failed: {reason_of(error, named=True)}.") from error
        if not isinstance(made, nn.Module):
            raise ModelError(f"factory {spec!r} must return a torch.nn.Module, got {type(made).__name__}.")
        return made

    return build


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
                f"A model is NAME, torchvision:NAME, timm:NAME, hf:NAME, package.module:factory or file.py:factory."
            ) from error
        raise ModelError(f"module {source!r} cannot be imported: {reason_of(error, named=True)}.") from error


def _load_file(path: str) -> ModuleType:
    """Run a model file as a module with a name of its own, which pickling and dataclasses inside it can look up.

    It is compiled here. The import system would write bytecode beside the user's file, and would not notice a change
    within the same second.
    """
    if not os.path.isfile(path):
        raise ModelError(f"no model file {path!r}.")
    path = os.path.abspath(path)
    name = f"{FILE_MODULE}{next(_loads)}_{re.sub(r'[^0-9A-Za-z]', '_', Path(path).stem)}"
    loader = importlib.machinery.SourceFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None  # it is None only without a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        exec(loader.source_to_code(loader.get_data(path), path), vars(module))
    except (Exception, SystemExit) as error:  # user code may raise anything
        del sys.modules[name]
        raise ModelError(f"model file {path!r} failed: {reason_of(error, named=True)}.") from error
    return module
