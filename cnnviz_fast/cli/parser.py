"""The parser of a command: its help in groups, and errors that name the command which has an option."""

from __future__ import annotations

import argparse
import difflib
import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .terminal import USAGE

GROUPS = {
    "job": "What goes in, and where it comes out:",
    "run": "What comes out, and how the run goes on:",
    "second": "The second model; what is not given is as for the first:",
    "kernels": "Weights as sheets:",
    "channels": "Which channels are drawn, and in which order:",
    "size": "Size and grid; each channel is one tile:",
    "range": "Range and colour; which value gets which colour:",
    "text": "Text around the tiles, and an image under them:",
    "tiles": "A file for each channel instead of one sheet:",
    "reading": "How images and activations are read (default: as the model's weights say):",
    "running": "Where and how it runs:",
}
"""The groups of a help text in their order: the most used first."""

GONE = {"--from-atlas": "atlases are drawn with: cnnviz atlas ATLAS... --out DIR"}
"""Options of 0.1 that are gone, and what to use instead."""

RENAMED = {"--layout": "--axes"}
"""Options of 0.1, and what they are called now."""

WIDEST, INDENT = 100, 24
"""Columns of a help text at most, and where its sentences begin."""


class CommandParser(argparse.ArgumentParser):
    """A parser that declares its arguments when they are first needed: a command starts without those of the others.

    Args:
        prog: the name, such as "cnnviz render".
        siblings: the parsers of all commands by name, filled as they are added.
        declare: adds the arguments.
        usage: what follows the name in the line of usage.
        examples: command lines for the end of the help.
        instead: option of another command -> what this one has for it.
        more: for argparse.
    """

    def __init__(
        self,
        *,
        prog: str,
        siblings: Mapping[str, CommandParser],
        declare: Callable[[CommandParser], None],
        usage: str,
        examples: Sequence[str] = (),
        instead: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(prog=prog, usage=f"{prog} {usage}", add_help=False, allow_abbrev=False, **more)
        self._siblings, self._examples, self._instead = siblings, examples, instead or {}
        self._undeclared: Callable[[CommandParser], None] | None = declare
        self._entries: dict[str, list[tuple[argparse.Action, str]]] = {}

    def add(self, group: str, *names: str, text: str, **settings: Any) -> None:
        """Add an argument.

        Args:
            group: of the help, a key of GROUPS.
            names: as for `add_argument`.
            text: its sentence in the help.
            settings: as for `add_argument`.
        """
        self._entries.setdefault(group, []).append((self.add_argument(*names, **settings), text))

    def options(self) -> list[str]:
        """Return the names of all options."""
        self._complete()
        return [name for entries in self._entries.values() for action, _ in entries for name in action.option_strings]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments as argparse does, but refuse unknown options first: one line says where they belong."""
        known = self.options()
        for argument in args or ():
            option = argument.partition("=")[0]
            if argument == "--":
                break
            if option.startswith("--") and option not in known:
                self.exit(USAGE, f"{self.prog} has no option {option}{self._advice(option)}\n")
        return super().parse_known_args(args, namespace)

    def format_help(self) -> str:
        """Return the help: usage, what the command does, its groups and its examples."""
        self._complete()
        width = min(shutil.get_terminal_size().columns, WIDEST)
        lines = [self.format_usage(), *textwrap.wrap(self.description or "", width)]
        for group, heading in GROUPS.items():
            if group in self._entries:
                lines += ["", heading]
                for action, text in self._entries[group]:
                    lines += _entry(action, text, width)
        if self._examples:
            lines += ["", "Examples:", *(f"  {example}" for example in self._examples)]
        return "\n".join(lines) + "\n"

    def _complete(self) -> None:
        declare, self._undeclared = self._undeclared, None
        if declare is not None:
            declare(self)
            self.add("running", "--debug", action="store_true", text="show tracebacks")
            self.add("running", "-h", "--help", action="help", text="show this help")

    def _advice(self, option: str) -> str:
        """Return the rest of the line on an option that this command does not have."""
        if option in GONE:
            return f": {GONE[option]}"
        name = RENAMED.get(option, option)
        called = f"it is called {name}" if name != option else ""
        if name in self.options():
            return f": {called}."
        if owners := self._owners_of(name):
            instead = f" {self._instead[name]}" if name in self._instead else ""
            return f": {', and '.join(filter(None, (called, f'it belongs to {owners}')))}.{instead}"
        everywhere = dict.fromkeys(name for parser in self._siblings.values() for name in parser.options())
        near = _closest(option, everywhere)
        if not near:
            return f". See: {self.prog} --help"
        if near[0] not in self.options():
            return f". Closest: {near[0]}, which belongs to {self._owners_of(near[0])}."
        return f". Closest: {', '.join(name for name in near if name in self.options())}."

    def _owners_of(self, option: str) -> str:
        """Return the commands that have an option, in words."""
        owners = [f"{parser.prog!r}" for parser in self._siblings.values() if option in parser.options()]
        return " and ".join(filter(None, (", ".join(owners[:-1]), *owners[-1:])))


def _closest(option: str, options: Iterable[str]) -> list[str]:
    """Return the options that are spelt much like one."""
    names = [name.removeprefix("--") for name in options]
    return [f"--{name}" for name in difflib.get_close_matches(option.removeprefix("--"), names)]


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    description: str,
    **settings: Any,
) -> None:
    """Add a command.

    Args:
        commands: of the program's parser.
        name: of the command.
        run: does it; returns the exit code.
        description: what it does, in one sentence without a capital and a full stop.
        settings: as for `CommandParser`.
    """
    sentence = f"{description[0].upper()}{description[1:]}."
    parser = commands.add_parser(name, help=description, description=sentence, siblings=commands.choices, **settings)
    parser.set_defaults(run=run)


def _entry(action: argparse.Action, text: str, width: int) -> list[str]:
    """Return the lines of the help on one argument."""
    value = action.metavar if isinstance(action.metavar, str) else ""
    value = {"+": f"{value}...", "?": f"[{value}]"}.get(str(action.nargs), value)
    names = action.option_strings[:1] if value else action.option_strings
    shown = f"  {' '.join(filter(None, (', '.join(names), value)))}"
    first, *rest = textwrap.wrap(text, width - INDENT, break_on_hyphens=False)
    head = [f"{shown:<{INDENT}}{first}"] if len(shown) < INDENT else [shown, f"{'':<{INDENT}}{first}"]
    return [*head, *(f"{'':<{INDENT}}{line}" for line in rest)]
