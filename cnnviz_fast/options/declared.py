"""How options are declared: fields that carry their parser and their sentence, in records that check themselves."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from ..errors import OptionError
from ..runtime.misspelt import unknown_option
from .parsers import Parser

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")
R = TypeVar("R", bound="SelfChecking")


def option(
    default: Any, parse: Parser, description: str, metavar: str | None = None, group: str = "", older: str | None = None
) -> Any:
    """Declare an option as a dataclass field.

    Args:
        default: its value when left out. None means "not given"; any other default is parsed like a given value.
        parse: checks a value and brings it into the form that the field holds.
        description: its sentence, for docstrings and the help of the command line: one line there, or a few.
        metavar: how the help shows its value.
        group: which part of the help it belongs to: a key of `cli.parser.GROUPS`.
        older: a name that it had before and that still works; it is not shown.

    Returns:
        The field.
    """
    facts = {"parse": parse, "description": description, "metavar": metavar, "group": group, "older": older}
    return dataclasses.field(default=default, metadata=facts)


class SelfChecking:
    """Base of the option records: every field goes through its parser, so a record that exists is valid."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses
            value = getattr(self, field.name)
            if value is not None or field.default is not None:
                object.__setattr__(self, field.name, field.metadata["parse"](field.name, value))

    @staticmethod
    def implied(given: Mapping[str, object]) -> dict[str, object]:
        """Return the modes without which options that are given would mean nothing; those given as None are left out.

        Args:
            given: name -> value, as given.

        Returns:
            Name -> value. What is given itself is not replaced by it.
        """
        return {}

    @classmethod
    def of(cls, options: Mapping[str, object]) -> Self:
        """Return a record of the options that are given by name, such as those of a function's **options.

        Args:
            options: name -> value; a name may be one that the option had before.

        Returns:
            The record.

        Raises:
            OptionError: an option cannot be used, or is given by both its names.
        """
        given = dict(options)
        for name, older in older_names(cls).items():
            if older in given:
                if name in given:
                    raise OptionError(f"{name} and {older} are one option, got both. Give {name}.")
                given[name] = given.pop(older)
        if all(map(_is_simple, given.values())):
            record: Any = cls  # of which mypy does not know that it can be hashed
            made: Self = _checked(record, tuple((name, type(value), value) for name, value in given.items()))
            return made
        return cls(**given)


def _is_simple(value: object) -> bool:
    """Check whether a value is known by its type and itself, and becomes nothing large, as "0-1000000" does."""
    return value is None or type(value) in (bool, int) or (type(value) is str and value.isidentifier())


@functools.lru_cache(maxsize=64)
def _checked(record: Callable[..., Any], given: tuple[tuple[str, type, Any], ...]) -> Any:
    """Make a record, which nobody can change, once for the same options: a loop over sheets gives them anew for each.

    Args:
        record: its class.
        given: name, type and value of each option: 1 and True are equal, but not the same option.
    """
    return record(**{name: value for name, _, value in given})


def older_names(record: type) -> dict[str, str]:
    """Return the options of a record that had another name before: name -> that one."""
    return {f.name: older for f in dataclasses.fields(record) if (older := f.metadata["older"]) is not None}


def takes_keywords(keywords: type) -> Callable[[type[R]], type[R]]:
    """Show the arguments of an option record with the types that it takes, and name the right one for a misspelt one.

    Its fields have the types of checked values. Those that are left out get what the others imply.

    Args:
        keywords: TypedDict of what each field takes.

    Returns:
        The decorator.
    """

    def decorate(record: type[R]) -> type[R]:
        made: Callable[..., None] = vars(record)["__init__"]
        made.__annotations__ = {**get_type_hints(keywords), "return": None}
        known = tuple(inspect.signature(made).parameters)[1:]

        @functools.wraps(made)
        def init(self: object, **options: object) -> None:
            for name in options:
                if name not in known:
                    raise unknown_option(record.__name__, name, known)
            given = {name: value for name, value in options.items() if value is not None}
            made(self, **{**record.implied(given), **options})

        record.__init__ = init  # type: ignore[method-assign]  # dataclasses wrote the one that it calls
        return record

    return decorate


def takes(
    *records: type,
    without: Sequence[str] = (),
    defaults: Mapping[str, object] | None = None,
    types: Mapping[str, object] | None = None,
    texts: Mapping[str, str] | None = None,
) -> Callable[[T], T]:
    """Show the fields of option records in the signature and docstring of a function that takes them as **options.

    So `help(render)` and editors see every option, and each is written down once, in its record.

    Args:
        records: whose fields.
        without: names of fields that the function refuses, and says why.
        defaults: name -> what it is where the function's default is not the record's.
        types: name -> what the function takes where it refuses some of what the record does.
        texts: name -> its sentence where it is not the record's, for the same reasons.

    Returns:
        The decorator. Names that the function knows without showing them stand in its attribute `also_takes`.
    """

    def decorate(function: T) -> T:
        own = inspect.signature(function)  # type: ignore[arg-type]
        kept = {p.name: p for p in own.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD}
        fields = [f for record in records for f in dataclasses.fields(record) if f.name not in without]
        shown = {name: p for record in records for name, p in inspect.signature(record).parameters.items()}
        options = {
            f.name: shown[f.name].replace(
                default=(defaults or {}).get(f.name, f.default),
                annotation=(types or {}).get(f.name, shown[f.name].annotation),
            )
            for f in fields
        }
        function.__signature__ = own.replace(parameters=[*kept.values(), *options.values()])  # type: ignore[attr-defined]
        function.__annotations__ = {
            name: annotation for name, annotation in function.__annotations__.items() if name in (*kept, "return")
        } | {name: parameter.annotation for name, parameter in options.items()}
        function.also_takes = (*without, *(older for record in records for older in older_names(record).values()))  # type: ignore[attr-defined]
        sentences = {f.name: f.metadata["description"] for f in fields} | dict(texts or {})
        lines = "".join(f"        {name}: {sentence}.\n" for name, sentence in sentences.items())
        function.__doc__ = (function.__doc__ or "").replace("        **options: see below.\n", lines)
        return function

    return decorate
