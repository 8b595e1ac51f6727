"""Pickles read without running anything: every class and function in one is a name, and every call a record of it.

A pickle is a program for a small machine with a stack. This is that machine with nothing to call: `pickletools` of the
standard library splits the program into its operations, which build plain values and records. What a record stands for
(a tensor, an array) is decided later, by those who know its name.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import IO, Any

_PLAIN = (str, bytes, int, float, type(None))  # keys; others may take a recursion without end to hash


class Name:
    """A class or function that a pickle names. Nothing is imported.

    Attributes:
        path: module and name, with a dot between them.
    """

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path


class Stored:
    """What a pickle says about data outside of it, such as the storage of a tensor.

    Attributes:
        described: what stands in the pickle.
    """

    __slots__ = ("described",)

    def __init__(self, described: Any) -> None:
        self.described = described


class Record(dict[Any, Any]):
    """A dict, or an object that was not made: what would be called, with what, and what would be put into it.

    Attributes:
        name: of the class or function, `builtins.dict` for a dict.
        arguments: of the call.
        state: what the object would be given.
        elements: what would be appended.
        pairs: items of a dict whose keys are neither text nor numbers.
    """

    __slots__ = ("arguments", "elements", "name", "pairs", "state")

    def __init__(self, name: str, arguments: tuple[Any, ...] = ()) -> None:
        super().__init__()
        self.name = name
        self.arguments = arguments
        self.state: Any = None
        self.elements: list[Any] = []
        self.pairs: list[tuple[Any, Any]] = []

    def put(self, key: Any, value: Any) -> None:
        """Add an item."""
        if isinstance(key, _PLAIN):
            self[key] = value
        else:
            self.pairs.append((key, value))


def unpickled(file: IO[bytes]) -> Any:
    """Read one pickle of any protocol from where a file stands to its end.

    Args:
        file: open for reading.

    Returns:
        Text, bytes, numbers, None, tuples and lists as they are; sets as lists; dicts and objects as `Record`, classes
        and functions as `Name`, what lies outside of the pickle as `Stored`.

    Raises:
        ValueError: it is no pickle, or it ends too early.
    """
    machine = _Machine()
    try:
        for operation, argument, _ in pickletools.genops(file):
            machine.do(operation.name, argument)
    except ValueError:
        raise
    except Exception as error:  # operations on values that they cannot be applied to
        raise ValueError(f"not a sound pickle: {type(error).__name__}") from error
    return machine.result


class _Machine:
    """The stack, the marks and the memo of a pickle that is read."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.result: Any = None

    def do(self, name: str, argument: Any) -> None:
        """Carry out one operation."""
        if name in _IGNORED:
            return
        if name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _LITERALS:
            self.stack.append(argument)
        elif name in _STACK:
            _STACK[name](self, argument)
        else:  # of an extension registry, or of out-of-band buffers
            raise ValueError(f"not a pickle of weights: it uses {name}")

    def since_mark(self) -> list[Any]:
        """Take what was put on the stack since the last mark."""
        start = self.marks.pop()
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def call(self, made_by: Any, arguments: Any) -> None:
        """Put what a call would make on the stack."""
        name = made_by.path if isinstance(made_by, Name) else type(made_by).__name__
        self.stack.append(_called(name, arguments if isinstance(arguments, tuple) else (arguments,)))

    def build(self, state: Any) -> None:
        """Note what an object would be given."""
        if isinstance(self.stack[-1], Record):
            self.stack[-1].state = state

    def append(self, items: list[Any]) -> None:
        """Append to a list, or note what would be appended."""
        target = self.stack[-1]
        (target.elements if isinstance(target, Record) else target).extend(items)

    def put(self, items: list[Any]) -> None:
        """Add keys and values to a dict."""
        target = self.stack[-1]
        if isinstance(target, Record):
            for key, value in zip(items[::2], items[1::2], strict=True):
                target.put(key, value)

    def remember(self, index: int | None = None) -> None:
        """Keep what is on top of the stack for later."""
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]


def _called(name: str, arguments: tuple[Any, ...]) -> Any:
    """Return the value of the calls by which pickles of older protocols write bytes; of all others the record."""
    first = arguments[0] if arguments else None
    if name == "_codecs.encode" and isinstance(first, str) and arguments[1:] in (("latin1",), ("latin-1",)):
        return first.encode("latin-1")
    if name in ("builtins.bytearray", "builtins.bytes", "__builtin__.bytearray", "__builtin__.bytes"):
        return first if isinstance(first, bytes) else b""
    record = Record(name, arguments)
    if name == "collections.OrderedDict" and isinstance(first, list):  # of Python 2: its items are arguments
        for pair in first:
            record.put(*pair)
    return record


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def make(machine: _Machine, _: Any) -> None:
        taken = tuple(machine.stack[-count:])
        del machine.stack[-count:]
        machine.stack.append(taken)

    return make


def _global(machine: _Machine, argument: str) -> None:
    machine.stack.append(Name(argument.replace(" ", ".", 1)))


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(Name(f"{module}.{name}"))


def _reduce(machine: _Machine, _: Any) -> None:
    arguments, made_by = machine.stack.pop(), machine.stack.pop()
    machine.call(made_by, arguments)


def _new_with_names(machine: _Machine, _: Any) -> None:
    machine.stack.pop()
    _reduce(machine, None)


def _inst(machine: _Machine, argument: str) -> None:
    arguments = tuple(machine.since_mark())
    machine.call(Name(argument.replace(" ", ".", 1)), arguments)


def _object(machine: _Machine, _: Any) -> None:
    made_by, *arguments = machine.since_mark()
    machine.call(made_by, tuple(arguments))


def _dict(machine: _Machine, _: Any) -> None:
    items = machine.since_mark()
    machine.stack.append(Record("builtins.dict"))
    machine.put(items)


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.put([key, value])


def _pop(machine: _Machine, _: Any) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.stack.pop()


def _pop_mark(machine: _Machine, _: Any) -> None:
    machine.since_mark()


def _stop(machine: _Machine, _: Any) -> None:
    machine.result = machine.stack.pop()


_IGNORED = ("PROTO", "FRAME", "READONLY_BUFFER")

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
    "EMPTY_DICT": lambda: Record("builtins.dict"),
}

_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip

_STACK: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "STOP": _stop,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.since_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "LIST": lambda machine, _: machine.stack.append(machine.since_mark()),
    "FROZENSET": lambda machine, _: machine.stack.append(machine.since_mark()),
    "DICT": _dict,
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.since_mark()),
    "SETITEM": _set_item,
    "SETITEMS": lambda machine, _: machine.put(machine.since_mark()),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_with_names,
    "INST": _inst,
    "OBJ": _object,
    "BUILD": lambda machine, _: machine.build(machine.stack.pop()),
    "PERSID": lambda machine, argument: machine.stack.append(Stored(argument)),
    "BINPERSID": lambda machine, _: machine.stack.append(Stored(machine.stack.pop())),
    "MEMOIZE": lambda machine, _: machine.remember(),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), lambda machine, index: machine.remember(index)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, index: machine.stack.append(machine.memo[index])),
}
