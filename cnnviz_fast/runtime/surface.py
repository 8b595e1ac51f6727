"""The one place where errors of others become this package's own: around its public functions.

Arguments are checked where they are parsed; this is the net beneath. Whatever else a function raises becomes a
CallError in one line, with its cause. What passes unchanged: errors of this package, warnings that are errors, a
memory that is full, and every error that comes from the caller's own code (a model, a data set, a callback).
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from types import GeneratorType, TracebackType
from typing import Any

from ..errors import CallError, CnnvizError, reason_of
from .misspelt import unknown_option

_OURS = __name__.partition(".")[0]

LIBRARIES = {
    _OURS, "torch", "torchvision", "numpy", "numba", "PIL", "cmap", "safetensors", "orjson", "tqdm", "tifffile",
    "triton", "torchcodec", "timm", "transformers", "huggingface_hub", "pyarrow", "ray", "h5py",
    *sys.stdlib_module_names,
}  # fmt: skip
"""What runs on this package's behalf. A frame of any other module is the caller's own code."""


def public(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a public function that raises errors of this package only.

    Args:
        function: to be called. Its signature and its docstring stay; calls inside the package go to it directly.

    Returns:
        The function that users see.
    """
    shown = inspect.signature(function).parameters
    known = {*shown, *getattr(function, "also_takes", ())}

    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        for name in named:
            if name not in known:
                raise unknown_option(function.__name__, name, shown)
        try:
            made = function(*arguments, **named)
        except Exception as error:
            if not _is_foreign(error) or (isinstance(error, TypeError) and not _fits(function, arguments, named)):
                raise
            raise _call_error(function, arguments, named, error) from error
        # torch.compile of torch 2.6 does not trace inspect.isgenerator.
        return _guarded(made, function) if isinstance(made, GeneratorType) else made

    call.__module__ = _OURS  # where pickle finds it
    return call


def _guarded(made: Iterator[Any], function: Callable[..., Any]) -> Iterator[Any]:
    """Yield what a generator yields; what it raises later goes the same way as what a function raises."""
    try:
        yield from made
    except Exception as error:
        if not _is_foreign(error):
            raise
        raise _call_error(function, (), {}, error) from error


def _is_foreign(error: Exception) -> bool:
    """Check whether an error is neither this package's own, nor one that its caller has to see as it is."""
    passes = isinstance(error, (CnnvizError, Warning, MemoryError)) or type(error).__name__ == "OutOfMemoryError"
    return not passes and not _is_of_caller(error.__traceback__)


def _fits(function: Callable[..., Any], arguments: Any, named: Any) -> bool:
    """Check whether a function takes arguments of this number and these names; if not, Python says it best."""
    signature = inspect.signature(function)
    try:
        signature.bind(*arguments, **{name: value for name, value in named.items() if name in signature.parameters})
    except TypeError:
        return False
    return True


def _is_of_caller(traceback: TracebackType | None) -> bool:
    """Check whether an error passed through code that is neither this package's nor a library's."""
    while traceback is not None:
        module = str(traceback.tb_frame.f_globals.get("__name__", "__main__"))
        if module.partition(".")[0] not in LIBRARIES:
            return True
        traceback = traceback.tb_next
    return False


def _call_error(function: Callable[..., Any], arguments: Any, named: Any, error: Exception) -> CallError:
    """Return the error that says what failed, on arguments of which kinds."""
    names = [*inspect.signature(function).parameters][: len(arguments)]
    kinds = {name: type(value).__name__ for name, value in (*zip(names, arguments, strict=False), *named.items())}
    given = ", ".join(f"{name}: {kind}" for name, kind in kinds.items())
    return CallError(
        f"{function.__name__} failed{f' on ({given})' if given else ''}: {reason_of(error, named=True)}. "
        f"Compare with help(cnnviz_fast.{function.__name__})."
    )
