"""Objects of one's own, as a model may count and remember in: what is in them, and how it is put back.

An object of a class that its user wrote holds its attributes; a class, those that all its objects share; a function,
the variables around it that it writes (`nonlocal`), and attributes of its own. Nothing of torch, numpy or the standard
library is looked into, since files, locks and threads have a state outside of Python.
"""

from __future__ import annotations

import ast
import functools
import itertools
import operator
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType, MethodType
from typing import Any, NamedTuple, TypeVar

_FOREIGN = frozenset({*sys.stdlib_module_names, "torch", "numpy"})
_HARMLESS = ("ABC", "Generic", "Protocol", "SimpleNamespace", "object")
"""Bases of the standard library that keep nothing beside attributes."""


Answer = TypeVar("Answer")


def by_class(function: Callable[[type[Any]], Answer]) -> Callable[[type[Any]], Answer]:
    """Remember what a function returns for each class, as long as the class is there.

    Args:
        function: of a class.

    Returns:
        The same function, quicker: a pass asks of the same few classes each time.
    """
    known: weakref.WeakKeyDictionary[type[Any], Answer] = weakref.WeakKeyDictionary()

    @functools.wraps(function)
    def answered(kind: type[Any]) -> Answer:
        if kind not in known:
            known[kind] = function(kind)
        return known[kind]

    return answered


class Holder(NamedTuple):
    """How the values in objects of a kind are listed, written and removed; each has a key."""

    items: Callable[[Any], dict[Any, Any]]
    write: Callable[[Any, Any, Any], None]
    remove: Callable[[Any, Any], None]


def holder_of(value: Any) -> Holder | None:
    """Return how an object of one's own is looked into, or a class, or a function that holds values.

    Args:
        value: anything.

    Returns:
        None for everything else.
    """
    if isinstance(value, type):
        return None if _is_foreign(value) else _CLASS
    if isinstance(value, FunctionType):
        return _FUNCTION if value.__closure__ or value.__dict__ else None
    return _OBJECT if is_own(type(value)) else None


@by_class
def is_own(kind: type[Any]) -> bool:
    """Check whether a class is written in Python by a user, with all that it inherits from.

    Args:
        kind: any class.

    Returns:
        True for SimpleNamespace too.
    """
    if kind is object:
        return False
    return all(base.__name__ in _HARMLESS or not _is_foreign(base) for base in kind.__mro__)


def _is_foreign(kind: type[Any]) -> bool:
    """Check whether a class is one of torch, numpy or the standard library."""
    return package_of(kind) in _FOREIGN


def package_of(kind: type[Any]) -> str:
    """Return the name of the package that a class is written in."""
    return kind.__module__.partition(".")[0]


@functools.cache
def is_installed(package: str) -> bool:
    """Check whether a package was installed, so that its user has not written it."""
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def _attributes(value: Any) -> dict[str, Any]:
    """Return the attributes of an object, those in slots too, without running any code of its class."""
    found = dict(getattr(value, "__dict__", {}))
    for name in _slots(type(value)):
        try:
            found[name] = object.__getattribute__(value, name)
        except AttributeError:  # empty
            continue
    return found


@by_class
def _slots(kind: type[Any]) -> tuple[str, ...]:
    """Return the names of the slots of a class, as objects have them."""
    names = []
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            hidden = name.startswith("__") and not name.endswith("__")
            names.append(f"_{base.__name__.lstrip('_')}{name}" if hidden else name)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def _of_class(kind: type[Any]) -> dict[str, Any]:
    """Return the values that a class holds itself: neither methods nor what Python adds."""
    held = dict(vars(kind))  # at once: other threads may add to it
    return {name: value for name, value in held.items() if not name.startswith("__") and not hasattr(value, "__get__")}


def _of_function(function: FunctionType) -> dict[Any, Any]:
    """Return the variables around a function, by their position, and its own attributes, by their name."""
    found: dict[Any, Any] = dict(function.__dict__)
    for position, cell in enumerate(function.__closure__ or ()):
        try:
            found[position] = cell.cell_contents
        except ValueError:  # empty
            continue
    return found


def _write_in_function(function: Any, key: Any, value: Any) -> None:
    if isinstance(key, int):
        function.__closure__[key].cell_contents = value
    else:
        function.__dict__[key] = value


def _remove_from_function(function: Any, key: Any) -> None:
    if isinstance(key, int):
        del function.__closure__[key].cell_contents
    else:
        del function.__dict__[key]


# Not by the class's own methods: a frozen dataclass refuses, and others may do more.
_OBJECT = Holder(_attributes, object.__setattr__, object.__delattr__)
_CLASS = Holder(_of_class, type.__setattr__, type.__delattr__)
_FUNCTION = Holder(_of_function, _write_in_function, _remove_from_function)
_LIST = Holder(lambda entries: dict(enumerate(entries)), operator.setitem, operator.delitem)
_DICT = Holder(dict, operator.setitem, operator.delitem)


def numbers_in(value: Any) -> Holder | None:
    """Return how the numbers in a list, a dict or an object are looked into: a counter beside a function, say.

    Args:
        value: that a function finds around it.

    Returns:
        None for everything else. What is added to it stays: it may be there to collect things.
    """
    kind: type[Any] = type(value)
    holder = _LIST if kind is list else _DICT if kind is dict else holder_of(value)
    if holder is None or isinstance(value, (type, FunctionType)):
        return None
    items = holder.items
    return Holder(
        lambda owner: {key: entry for key, entry in items(owner).items() if type(entry) in (bool, int, float)},
        holder.write,
        lambda owner, key: None,
    )


def around(modules: Iterable[Any]) -> Iterator[Any]:
    """List the classes of modules, and the functions with variables around them that these run.

    Args:
        modules: of a model, those that are not torch's own.

    Yields:
        Each class and each function once or more often.
    """
    for kind in {base for own in set(map(type, modules)) for base in own.__mro__}:
        if _is_foreign(kind):
            continue
        yield kind
        for value in list(vars(kind).values()):
            function = getattr(value, "__func__", value)  # of static methods and those of the class
            if isinstance(function, FunctionType) and (function.__closure__ or function.__dict__):
                yield function


def inside(value: Any) -> Iterable[Any]:
    """Return what is called or held by a bound method or by a partial function; nothing of other values."""
    if isinstance(value, MethodType):
        return value.__func__, value.__self__
    if isinstance(value, functools.partial):
        return value.func, *value.args, *value.keywords.values()
    return ()


def next_of(counter: itertools.count[Any]) -> str:
    """Return where a counter is, without counting."""
    return repr(counter)


def counter_at(text: str) -> itertools.count[Any] | None:
    """Make a counter that is where `next_of` said; None where it counts in other than Python's own numbers."""
    try:
        start, *step = ast.literal_eval(f"[{text.removeprefix('count(').removesuffix(')')}]")
    except (ValueError, SyntaxError):
        return None
    return itertools.count(start, *step)
