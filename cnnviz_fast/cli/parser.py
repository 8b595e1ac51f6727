"""The parser of a command: its help in groups, and errors that name the option which was meant."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from ..errors import OptionError, closest
from ..runtime.misspelt import known_as, nearest, plain
from .completion import add_completer, is_completing
from .sorting import UnknownFlagError, sorted_out
from .terminal import USAGE

GROUPS = {
    "job": "What goes in, and where it comes out:",
    "tiles": None,
    "run": "What comes out, and how the run goes on:",
    "top": "The images that excite each channel most (--save top):",
    "attribution": "Which scores are attributed, and how:",
    "search": "How images are found:",
    "sheet": "How the sheet looks:",
    "second": "The second model; what is not given is as for the first:",
    "kernels": "Weights as sheets:",
    "channels": "Which channels are drawn, in which order, and how large; each is one tile:",
    "size": None,
    "range": "Range and colour; which value gets which colour:",
    "text": "Text around the tiles, and an image under them:",
    "reading": "How images and activations are read (default: as the model's weights say):",
    "running": "Where and how it runs:",
}
"""The groups of a help text in their order, the most used first; without a heading one stands under the one before."""

GONE = {"--from-atlas": "atlases are drawn with: cnnviz atlas ATLAS... --out DIR"}
"""Options of drafts before version 0.1, and what to use instead."""

NARROWEST, WIDEST, INDENT = 40, 100, 24
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
        self._entries: dict[str, list[tuple[list[argparse.Action], str]]] = {}

    def add(self, group: str, *names: str, text: str | None, **settings: Any) -> None:
        """Add an argument.

        Args:
            group: of the help, a key of GROUPS.
            names: as for `add_argument`.
            text: its sentence in the help; None where that of the argument before says it too.
            settings: as for `add_argument`.
        """
        action = self.add_argument(*names, **settings)
        add_completer(action)
        entries = self._entries.setdefault(group, [])
        if text is None:
            entries[-1][0].append(action)
        else:
            entries.append(([action], text))

    def options(self) -> list[str]:
        """Return the names of all options."""
        self._complete()
        return [name for action in self._actions for name in action.option_strings]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments as argparse does, once it is plain what is an option, a value of one, or neither."""
        self._complete()
        if is_completing():
            return super().parse_known_args(args, namespace)
        try:
            found, left = super().parse_known_args(sorted_out(args or (), self._actions), namespace)
            if unknown := [argument for argument in left if argument != "--"]:
                self.refuse(f"has no place for {' '.join(map(repr, unknown))}. See: {self.prog} --help")
            return found, left
        except UnknownFlagError as error:
            self.refuse(f"has no option {error.option}{self._advice(error.option)}")
        except OptionError as error:
            self.refuse(f"cannot read its arguments: {error}")

    def error(self, message: str) -> NoReturn:
        """Refuse arguments with the reason that argparse found."""
        self.refuse(f"cannot read its arguments: {message}.")

    def refuse(self, reason: str) -> NoReturn:
        """End the program: one line on what is wrong, and one of usage. The whole page is for --help."""
        self.exit(USAGE, f"{self.prog} {reason}\n{self.format_usage()}")

    def format_help(self) -> str:
        """Return the help: usage, what the command does, its groups and its examples."""
        self._complete()
        width = max(NARROWEST, min(shutil.get_terminal_size().columns, WIDEST))
        lines = [self.format_usage().rstrip(), *textwrap.wrap(self.description or "", width)]
        for group, heading in GROUPS.items():
            if group in self._entries:
                lines += ["", *textwrap.wrap(heading, width)] if heading else []
                for actions, text in self._entries[group]:
                    lines += _entry(actions, text, width)
        if self._examples:
            lines += ["", "Examples:", *(f"  {example}" for example in self._examples)]
        return "\n".join(lines) + "\n"

    def _complete(self) -> None:
        declare, self._undeclared = self._undeclared, None
        if declare is not None:
            declare(self)
            self.add("running", "-q", "--quiet", action="store_true", text="print errors alone; tables and JSON stay")
            self.add("running", "--debug", action="store_true", text="show tracebacks of errors; show this help")
            self.add("running", "-h", "--help", action="help", text=None)

    def _advice(self, option: str) -> str:
        """Return the rest of the line on an option that this command does not have."""
        if option in GONE:
            return f": {GONE[option]}"
        everywhere = dict.fromkeys(name for parser in self._siblings.values() for name in parser.options())
        # Such as --topk for --top-k, which another command has.
        own = next((name for name in self.options() if plain(name) == plain(option)), None)
        name = own or (option if option in everywhere else known_as(option, everywhere) or option)
        called = f"it is called {name}" if name != option else ""
        if name in self.options():
            return f": {called}."
        if owners := self._owners_of(name):
            instead = f" {self._instead[name]}" if name in self._instead else ""
            return f": {', and '.join(filter(None, (called, f'it belongs to {owners}')))}.{instead}"
        near = nearest(option, everywhere)
        if not near:
            return f". See: {self.prog} --help"
        if near[0] not in self.options():
            return f". Closest: {near[0]}, which belongs to {self._owners_of(near[0])}."
        return f". Closest: {', '.join(name for name in near if name in self.options())}."

    def _owners_of(self, option: str) -> str:
        """Return the commands that have an option, in words."""
        owners = [f"{parser.prog!r}" for parser in self._siblings.values() if option in parser.options()]
        return " and ".join(filter(None, (", ".join(owners[:-1]), *owners[-1:])))


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


def _entry(actions: Sequence[argparse.Action], text: str, width: int) -> list[str]:
    """Return the lines of the help on arguments that share a sentence, with the value of the last."""
    shown = f"  {', '.join(name for action in actions for name in _names(action))}"
    metavar = actions[-1].metavar
    if isinstance(metavar, str):
        value = {"+": f"{metavar}...", "?": f"[{metavar}]"}.get(str(actions[-1].nargs), metavar)
        shown = f"{shown} {value}" if actions[-1].option_strings else f"  {value}"
    first, *rest = textwrap.wrap(text, width - INDENT, break_on_hyphens=False)
    head = [f"{shown:<{INDENT}}{first}"] if len(shown) < INDENT else [shown, f"{'':<{INDENT}}{first}"]
    return [*head, *(f"{'':<{INDENT}}{line}" for line in rest)]


def _names(action: argparse.Action) -> list[str]:
    """Return the names of an option that the help shows: the short ones, and of the long ones the first."""
    short = [name for name in action.option_strings if not name.startswith("--")]
    return short + [name for name in action.option_strings if name.startswith("--")][:1]


class ProgramParser(argparse.ArgumentParser):
    """The parser of the program, which names the command that was meant."""

    def error(self, message: str) -> NoReturn:
        """Refuse arguments; where no command has the name that was given, say which are near."""
        found = re.search(r"invalid choice: '([^']*)'", message)
        if message.endswith(": COMMAND"):
            message = "no command given. Begin with: cnnviz demo. All commands: cnnviz --help"
        (commands,) = (action.choices for action in self._actions if isinstance(action.choices, dict))
        if found:
            message = f"no command {found[1]!r}.{closest(found[1], commands)} There are {', '.join(commands)}."
        self.exit(USAGE, f"{self.prog}: {message}\n{self.format_usage()}")
