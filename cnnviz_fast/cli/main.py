"""The command line: argv -> a command -> an exit code. Each command is a module beside this one.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some inputs failed and the rest are done, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import AtlasError, CnnvizError, ImageError, InputError
from . import atlas, bench, compare, demo, doctor, layers, render, run, weights
from .parser import CommandParser
from .terminal import DONE as DONE
from .terminal import FAILED, INTERRUPTED, USAGE, complain, drop_kept, notes_as_lines, say_kept
from .terminal import PARTLY as PARTLY

COMMANDS = (render, run, atlas, compare, layers, weights, demo, doctor, bench)
"""The modules of the commands, the most used first."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; None for the process's own, which then ends with the command.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(given, argparse.Namespace(argv=given))
    try:
        with _collector_paused(for_good=argv is None), notes_as_lines():
            drop_kept()
            code: int = arguments.run(arguments)
            if code in (DONE, PARTLY):
                say_kept()
        sys.stdout.flush()
        return code
    except CnnvizError as error:
        if arguments.debug:
            raise
        complain(error)
        return USAGE if isinstance(error, InputError) and not isinstance(error, (ImageError, AtlasError)) else FAILED
    except BrokenPipeError:
        # Whoever reads stdout has seen enough. Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except Exception as error:
        if arguments.debug:
            raise
        complain(f"{type(error).__name__}: {error}. Run again with --debug to see where.")
        return FAILED


@contextlib.contextmanager
def _collector_paused(for_good: bool) -> Iterator[None]:
    """Keep Python's garbage collector from walking through torch, torchvision and numba while they are loaded.

    They bring a million objects, and every full collection over them takes 0.15 s; loading used to cause two. A command
    that goes on for long calls `everything_is_loaded`.

    Args:
        for_good: whether the process ends after this. Python would walk through all of it once more, for 3 s.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if for_good:
            gc.freeze()
        else:
            gc.unfreeze()
            (gc.enable if enabled else gc.disable)()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cnnviz", description="Draw every channel of any layer of a convolutional network.", allow_abbrev=False
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(
        title="commands, each with a --help", required=True, metavar="COMMAND", parser_class=CommandParser
    )
    for command in COMMANDS:
        command.add(commands)
    return parser


class _Version(argparse.Action):
    """The option --version, which looks the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from ..provenance import package_version

        print(f"cnnviz {package_version()}")
        parser.exit()
