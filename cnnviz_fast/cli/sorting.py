"""Arguments sorted into options and the rest, before argparse reads them: an option takes only values that are its own.

argparse gives an option that may have several values everything up to the next option, and one whose value may be left
out whatever follows: `--layer layer4 cat.jpg` would have two layers and no image, `--overlay cat.jpg` no image either.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..errors import OptionError

_FILE = re.compile(
    r"\.(png|apng|jpe?g|jfif|webp|avif|bmp|dib|gif|tiff?|p[bgnp]m|pfm|npy|npz|txt|lst|tar|tgz|gz|parquet|pq|"
    r"atlas|heic|heif|jxl|jp2|exr|dcm|svg|pdf|zip)$",
    re.IGNORECASE,
)
"""Endings of what is drawn, or is refused by name. No layer ends so, since the last part of its name is a module's."""

_ROOT = re.compile(r"(\.{0,2}|[A-Za-z]:)[/\\]|~")
"""How paths begin that are told by that alone, also those of Windows."""


class UnknownFlagError(OptionError):
    """An option that the command does not have; `option` is its name."""

    def __init__(self, option: str) -> None:
        super().__init__(option)
        self.option = option


@dataclass
class _Sorted:
    """What has been sorted so far.

    most: how many arguments there can be that belong to no option.
    options: each with its value behind "=".
    rest: model and images, in their order.
    layers: first and last of the options that hold layers given at once, of which the last may be none; and how many
        of the rest stand before them.
    overlays: what follows each option whose value may be left out: its value, or one of the rest; and how many of these
        stand before it.
    """

    most: float
    options: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    layers: tuple[int, int, int] | None = None
    overlays: list[tuple[str, str, int]] = field(default_factory=list)


def sorted_out(argv: Iterable[str], actions: Sequence[argparse.Action]) -> list[str]:
    """Sort arguments: every option has its values behind "=", and what belongs to none comes last, behind "--".

    Args:
        argv: the arguments of a command.
        actions: its options and positional arguments.

    Returns:
        The same arguments, which argparse can read in one way only.

    Raises:
        UnknownFlagError: an option that the command does not have.
        OptionError: an argument that could be the value of an option or an image.
    """
    options = {name: action for action in actions for name in action.option_strings}
    positional = [action for action in actions if not action.option_strings]
    needed = len(positional)
    found = _Sorted(math.inf if any(action.nargs == "+" for action in positional) else needed)
    left = list(argv)
    while left:
        argument = left.pop(0)
        if argument == "--":
            found.rest += left
            break
        if not _is_option(argument):
            found.rest.append(argument)
            continue
        name, value = _split(argument, options)
        name = next((long for long in options[name].option_strings if long.startswith("--")), name)
        if value is not None or options[name].nargs == 0:
            found.options.append(name if value is None else f"{name}={value}")
        else:
            _take(found, options[name], name, left)
    _settle(found, needed)
    return [*found.options, "--", *found.rest] if found.rest else found.options


def is_path(argument: str) -> bool:
    """Check whether an argument is a file or a folder rather than a layer, by how it looks; `-` is standard input."""
    if argument.startswith("re:"):
        return False
    if argument == "-" or _FILE.search(argument) or argument.endswith(("/", "\\")) or _ROOT.match(argument):
        return True
    return (os.sep in argument or "/" in argument) and os.path.exists(argument)  # a module may be called a/b


def _is_option(argument: str) -> bool:
    """Check whether an argument is an option and no negative number or text; a value behind "=" may hold anything."""
    name = argument.partition("=")[0]
    return re.match(r"-[^\d.]", name) is not None and not re.search(r"\s", name)


def _split(argument: str, options: Iterable[str]) -> tuple[str, str | None]:
    """Return the option that an argument names, and the value that it holds: --tile=9, -oDIR."""
    name, equals, value = argument.partition("=")
    if name in options:
        return name, value if equals else None
    if not argument.startswith("--") and argument[:2] in options:
        return argument[:2], argument[2:]
    raise UnknownFlagError(name)


def _take(found: _Sorted, action: argparse.Action, name: str, left: list[str]) -> None:
    """Take the values of an option off what follows it."""
    if not left or _is_option(left[0]):
        found.options.append(name)  # which argparse refuses unless the value may be left out
        return
    if action.nargs == "?":
        if action.metavar == "MODEL" or is_path(left[0]) or os.path.exists(left[0]):
            found.overlays.append((name, left.pop(0), len(found.rest)))
        else:
            found.options.append(name)
        return
    taken = [left.pop(0)]
    if action.nargs in ("+", "*"):
        full = len(found.rest) >= found.most
        while left and not _is_option(left[0]) and (full or _belongs(left[0], action)):
            taken.append(left.pop(0))
    found.options += [f"{name}={value}" for value in taken]
    if len(taken) > 1 and action.metavar == "L":
        found.layers = len(found.options) - len(taken), len(found.options) - 1, len(found.rest)


def _belongs(argument: str, action: argparse.Action) -> bool:
    """Check whether an argument is a further value of an option that may have several, by how it looks."""
    return "=" in argument if action.metavar == "N=V" else not is_path(argument)


def _settle(found: _Sorted, needed: int) -> None:
    """Decide on what only the number of the other arguments can tell."""
    rest = found.rest
    for name, value, before in found.overlays:
        if len(rest) < needed:
            found.options.append(name)
            rest.insert(before, value)
        elif before in (0, len(rest)) or before >= needed:
            found.options.append(f"{name}={value}")
        else:
            raise OptionError(
                f"{value!r} behind {name} could be its image or one to draw. Write {name}={value}, or name all images "
                f"before {name}."
            )
    if found.layers is not None:
        first, last, before = found.layers
        is_image = bool(rest) and is_path(rest[0]) and ":" not in rest[0][2:]  # file.py:factory, but not C:\cat.jpg
        if before == 0 and (len(rest) == needed - 1 or is_image):
            rest.insert(0, found.options.pop(last).partition("=")[2])  # --layer layer4 resnet50 cat.jpg
            return
        while len(rest) < needed and last > first and os.path.exists(value := found.options[last].partition("=")[2]):
            rest.insert(before, value)  # --layer layer4 photos
            del found.options[last]
            last -= 1
