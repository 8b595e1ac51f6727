"""The command line: argv -> a command -> an exit code. Each command is a module beside this one.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some inputs failed and the rest are done, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import AtlasError, CnnvizError, ImageError, InputError, advising_flags, reason_of
from . import (
    atlas,
    attribute,
    bench,
    compare,
    demo,
    doctor,
    invert,
    layers,
    maximize,
    page,
    patches,
    render,
    run,
    view,
    weights,
)
from .completion import complete
from .parser import CommandParser, ProgramParser
from .streams import fill_closed_descriptors, lasting_streams
from .terminal import DONE as DONE
from .terminal import FAILED, INTERRUPTED, USAGE, be_quiet, complain, drop_kept, notes_as_lines, say_kept
from .terminal import PARTLY as PARTLY

COMMANDS = (
    render, run, atlas, page, view, patches, compare, attribute, invert, maximize, layers, weights, demo, doctor, bench,
)  # fmt: skip
"""The modules of the commands, the most used first."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; None for the process's own, which then ends with the command.

    Returns:
        The exit code.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        fill_closed_descriptors()
    with lasting_streams() as stdout:
        code = _run(given, for_good=argv is None)
        stdout.flush()
        if stdout.lost is None:
            return code
        if not isinstance(stdout.lost, BrokenPipeError):  # then whoever reads it has seen enough
            complain(f"cannot write to stdout: {reason_of(stdout.lost)}.")
        return code or FAILED


def _run(given: list[str], for_good: bool) -> int:
    """Run the command that arguments ask for; return its exit code."""
    parser = _parser()
    complete(parser)
    arguments = parser.parse_args(given, argparse.Namespace(argv=given))
    if arguments.quiet:
        be_quiet()
    try:
        with _collector_paused(for_good), advising_flags(), notes_as_lines():
            drop_kept()
            code: int = arguments.run(arguments)
            if code in (DONE, PARTLY):
                say_kept()
        return code
    except CnnvizError as error:
        if arguments.debug:
            raise
        complain(error)
        return USAGE if isinstance(error, InputError) and not isinstance(error, (ImageError, AtlasError)) else FAILED
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except Exception as error:
        if arguments.debug:
            raise
        complain(_lack_behind(error) or f"{type(error).__name__}: {error}. Run again with --debug to see where.")
        return FAILED


def _lack_behind(error: Exception) -> str:
    """Return what the system lacks where that is behind an error; torch, for one, needs temporary files to be loaded.

    Args:
        error: that nothing foresaw.

    Returns:
        A line, or "".
    """
    try:
        if isinstance(error, FileNotFoundError):
            tempfile.gettempdir()
    except FileNotFoundError:
        return "no folder for temporary files can be written. Set TMPDIR to one that can."
    return ""


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
    parser = ProgramParser(
        prog="cnnviz",
        description="Draw every channel of any layer of a vision network.",
        epilog="Begin with: cnnviz demo, or: cnnviz render cnnviz:small photo.jpg",
        allow_abbrev=False,
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
