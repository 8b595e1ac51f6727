"""Parsers of options: each takes a value as Python or the command line gives it and returns it checked, or refuses."""

from __future__ import annotations

import math
import numbers
import operator
import os
import re
import string
import struct
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..errors import OptionError, closest, repr_of

LARGEST_CHANNEL = 2**20 - 1
"""No layer has so many; a range that ends beyond is a typing error, refused before it is spelled out in memory."""

LARGEST_WHOLE = 10**12
"""No size and no count of anything comes near. What is larger overflows, or is thousands of digits long."""

MOST_PARTS = 2**20
"""Of a list that an option takes: a number for each channel that a layer can have."""

_DIGITS = 13  # of LARGEST_WHOLE

Parser = Callable[[str, Any], Any]


def refuse(name: str, expected: str, got: object, advice: str = "") -> OptionError:
    """Return the error for an option that has the wrong value.

    Args:
        name: of the option.
        expected: what it takes.
        got: what it was given.
        advice: a sentence on what to do, if that is not plain.

    Returns:
        The error, to be raised.
    """
    return OptionError(f"{name} must be {expected}, got {repr_of(got)}.{' ' + advice if advice else ''}")


def _whole(name: str, value: Any, least: int) -> int:
    expected = f"a whole number of at least {least}"
    number = value
    if isinstance(value, str) and (digits := re.fullmatch(r"([+-]?)(\d+)", value.strip())):
        number = int(digits[1] + _shortened(digits[2]))
    try:
        number = operator.index(number)
    except Exception:  # of an array, a tensor or an object of the caller's, in which there is no such number
        raise refuse(name, expected, value) from None
    if isinstance(value, bool):
        raise refuse(name, expected, value)
    if number < least:
        raise refuse(name, expected, number)
    if number > LARGEST_WHOLE:
        raise refuse(name, f"{expected} and at most {LARGEST_WHOLE:,}", value)
    return int(number)


def _shortened(digits: str) -> str:
    """Return as many digits as tell that a number is too large: Python refuses to read thousands of them."""
    return digits.lstrip("0")[: _DIGITS + 1] or "0"


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | numbers.Real):
        raise refuse(name, "a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    except ValueError:
        raise refuse(name, "a number", value) from None
    if not math.isfinite(number):
        raise refuse(name, "a finite number", number)
    return number


def float32(name: str, value: Any) -> float:
    """Take numbers that float32, in which maps are drawn, can hold."""
    number = _number(name, value)
    try:
        as_float32(number)
    except OverflowError:
        raise refuse(name, "a number that float32 can hold", number) from None
    return number


def as_float32(number: float) -> float:
    """Round a number to the nearest that float32 has; OverflowError where there is none."""
    rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]  # the native "f" would overflow to infinity
    return rounded


def _sequence(name: str, value: Any, expected: str) -> list[Any]:
    """Split '1,2' and take any sequence, so that both worlds may write lists."""
    if isinstance(value, str):
        parts = value.split(",", MOST_PARTS)
    else:
        try:
            parts = list(islice(value, MOST_PARTS + 1))
        except Exception:  # not iterable, or not all the way
            raise refuse(name, expected, value) from None
    if len(parts) > MOST_PARTS:
        raise refuse(name, f"{expected}, at most {MOST_PARTS:,} of them", value)
    return [part.strip() if isinstance(part, str) else part for part in parts]


def whole(least: int) -> Parser:
    """Take whole numbers from `least` on."""
    return lambda name, value: _whole(name, value, least)


def whole_within(least: int, most: int) -> Parser:
    """Take whole numbers from `least` to `most`."""

    def parse(name: str, value: Any) -> int:
        number = _whole(name, value, least)
        if number > most:
            raise refuse(name, f"a whole number from {least} to {most}", number)
        return number

    return parse


def positive(name: str, value: Any) -> float:
    """Take numbers above 0."""
    number = _number(name, value)
    if number <= 0:
        raise refuse(name, "a number above 0", value)
    return number


def share(name: str, value: Any) -> float:
    """Take numbers from 0 to 1."""
    number = _number(name, value)
    if not 0 <= number <= 1:
        raise refuse(name, "a number from 0 to 1", value)
    return number


def choice(*choices: str) -> Parser:
    """Take one of `choices`, and name the nearest for a typing error."""

    def parse(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in choices:
            hint = closest(value, choices).strip() if isinstance(value, str) else ""
            raise refuse(name, "one of " + ", ".join(choices), value, hint)
        return str(value)

    return parse


def choices(*known: str) -> Parser:
    """Take one or several of `known`, each once, also as 'a,b'."""

    def parse(name: str, value: Any) -> tuple[str, ...]:
        chosen = tuple(choice(*known)(name, part) for part in _sequence(name, value, "one of " + ", ".join(known)))
        if not chosen or len(set(chosen)) < len(chosen):
            raise refuse(name, "different ones of " + ", ".join(known), value)
        return chosen

    return parse


def flag(name: str, value: Any) -> bool:
    """Take True or False."""
    if not isinstance(value, bool):
        raise refuse(name, "True or False", value)
    return value


def text(name: str, value: Any) -> str:
    """Take a string that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise refuse(name, "a name", value)
    return value.strip()


def path(name: str, value: Any) -> Path:
    """Take a path as text or as an object."""
    if not isinstance(value, str | os.PathLike):
        raise refuse(name, "a path", value)
    try:
        return Path(value)
    except TypeError:
        raise refuse(name, "a path as text", value) from None


LONGEST_LINE = 1000
"""Characters of a line on a sheet: at the usual size of text it is 8,000 px wide."""


def template(*fields: str) -> Parser:
    """Take a line of text that may hold {field} for each of `fields`, and nothing else in braces; or none, ""."""
    taken = " and ".join(", ".join(f"{{{field}}}" for field in fields).rsplit(", ", 1))

    def parse(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise refuse(name, "a line of text", value)
        if len(value) > LONGEST_LINE:
            raise OptionError(f"{name} must have at most {LONGEST_LINE:,} characters, got {len(value):,}.")
        try:
            parts = [part[1:] for part in string.Formatter().parse(value) if part[1] is not None]
        except ValueError:
            parts = [("", "", None)]
        if not set(parts) <= {(field, "", None) for field in fields}:
            raise OptionError(f"{name} may hold {taken} and nothing else in braces, got {repr_of(value)}.")
        return value.strip()

    return parse


def pixels(name: str, value: Any) -> int | tuple[int, int]:
    """Take N, 'HxW' or (H, W), each at least 1."""
    given = value
    if isinstance(value, str) and "x" in value:
        value = value.split("x")
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != 2 or "" in value:
            raise refuse(name, "pixels: N, HEIGHTxWIDTH or (height, width)", given)
        return _whole(name, value[0], 1), _whole(name, value[1], 1)
    return _whole(name, value, 1)


def grid(name: str, value: Any) -> tuple[int, int]:
    """Take 'auto', 'ROWSxCOLS', 'ROWSx', 'xCOLS' or (rows, cols); 0 stands for "as many as needed"."""
    expected = "'auto', 'ROWSxCOLS', 'ROWSx', 'xCOLS' or (rows, cols)"
    if value is None or (isinstance(value, str) and value.strip() == "auto"):
        return (0, 0)
    if isinstance(value, str):
        found = re.fullmatch(r"(\d*)x(\d*)", value.strip())
        if not found or value.strip() == "x":
            raise refuse(name, expected, value)
        if any(side and not side.strip("0") for side in found.groups()):
            raise refuse(name, expected + " with numbers from 1 on", value)
        rows, cols = (_whole(name, side or 0, 0) for side in found.groups())
        return rows, cols
    if not isinstance(value, Sequence) or len(value) != 2:
        raise refuse(name, expected, value)
    rows, cols = (0 if side is None else _whole(name, side, 0) for side in value)
    return rows, cols


def channel_list(name: str, value: Any) -> tuple[int, ...]:
    """Take '0-63,128' or whole numbers; a range includes both ends."""
    chosen: list[int] = []
    parts = _sequence(name, [value] if isinstance(value, int) else value, "channels such as '0-63,128'")
    for part in parts:
        ends = re.fullmatch(r"(\d+)-(\d+)", part) if isinstance(part, str) else None
        read = [int(_shortened(end)) for end in ends.groups()] if ends else [_whole(name, part, 0)]
        first, last = read[0], read[-1]
        if last < first:
            raise refuse(name, "ranges that go upwards", part)
        if last > LARGEST_CHANNEL:
            raise refuse(name, f"channel numbers of at most {LARGEST_CHANNEL}", part)
        if len(chosen) + last - first >= MOST_PARTS:
            raise refuse(name, f"at most {MOST_PARTS:,} channels", value)
        chosen.extend(range(first, last + 1))
    if not chosen:
        raise refuse(name, "at least one channel", value)
    return tuple(chosen)


def percentiles(name: str, value: Any) -> tuple[float, float]:
    """Take (low, high) with 0 <= low < high <= 100."""
    expected = "two percentages LOW,HIGH with 0 <= LOW < HIGH <= 100"
    ends = [_number(name, end) for end in _sequence(name, value, expected)]
    if len(ends) != 2 or not 0 <= ends[0] < ends[1] <= 100:
        raise refuse(name, expected, value)
    return ends[0], ends[1]


def value_range(name: str, value: Any) -> tuple[float, float]:
    """Take (low, high) with low < high, or 'LOW:HIGH'."""
    expected = "two numbers LOW:HIGH with LOW < HIGH"
    ends = [
        _number(name, end)
        for end in _sequence(name, value.replace(":", ",") if isinstance(value, str) else value, expected)
    ]
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise refuse(name, expected, value)
    return ends[0], ends[1]


def numbers_of(name: str, value: Any) -> tuple[float, ...]:
    """Take one number for each channel of a model's input."""
    given = [value] if isinstance(value, numbers.Real) else _sequence(name, value, "a number for each channel")
    found = tuple(_number(name, part) for part in given)
    if not found:
        raise refuse(name, "a number for each channel", value)
    return found


def positive_numbers(name: str, value: Any) -> tuple[float, ...]:
    """Take one number above 0 for each channel of a model's input."""
    found = numbers_of(name, value)
    if min(found) <= 0:
        raise refuse(name, "numbers above 0", value)
    return found


def lengths(name: str, value: Any) -> int | tuple[int, ...]:
    """Take N, or the length of each axis as 'AxB', 'A,B,C' or a sequence, each at least 1."""
    parts = value
    if isinstance(value, str) and ("x" in value or "," in value):
        parts = value.replace(",", "x").split("x")
    if not isinstance(parts, Sequence) or isinstance(parts, str):
        return _whole(name, value, 1)
    refused = refuse(name, "N, or a length for each axis such as HEIGHTxWIDTH, each at least 1", value)
    if not 1 <= len(parts) <= 4:
        raise refused
    try:
        return tuple(_whole(name, length, 1) for length in parts)
    except OptionError:
        raise refused from None
