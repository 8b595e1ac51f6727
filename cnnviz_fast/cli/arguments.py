"""Arguments that several commands take, each declared once."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..options.drawing import DEFAULT_ALPHA
from ..options.reading import MAX_PIXELS
from .terminal import complain

MODEL_HELP = "such as resnet50, timm:NAME, hf:NAME, hf:FOLDER, package.module:factory or file.py:factory"


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], description: str
) -> argparse.ArgumentParser:
    """Add a command.

    Args:
        commands: of the program's parser.
        name: of the command.
        run: does it; returns the exit code.
        description: what it does, in one sentence without a capital and a full stop.

    Returns:
        Its parser.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=description, description=f"{description[0].upper()}{description[1:]}.", allow_abbrev=False
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run)
    return parser


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add what says which weights a model gets."""
    parser.add_argument(
        "--weights", "--checkpoint", metavar="W", help="DEFAULT, none, a name such as IMAGENET1K_V1, or a file"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random weights of --weights none")


def add_output(parser: argparse.ArgumentParser, out: str | None = None) -> None:
    """Add what says where pictures go, in which format, and what is printed of them.

    Args:
        parser: of the command.
        out: default of --out; without one it has to be given.
    """
    default = f" (default {out})" if out else ""
    parser.add_argument("--out", metavar="DIR", required=out is None, default=out, help=f"folder to write to{default}")
    parser.add_argument(
        "--format", default="png", metavar="png|jpg|webp|npy", help="of the sheets (default png); npy: the index plane"
    )
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda", help="where the model runs and draws")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of paths")


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Add the limit of the pictures that are read."""
    parser.add_argument(
        "--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help=f"of a picture to read (default {MAX_PIXELS})"
    )


def add_overlay(parser: argparse.ArgumentParser) -> None:
    """Add what says over which picture maps are drawn."""
    parser.add_argument(
        "--overlay", metavar="PICTURE", nargs="?", const=True,
        help="lay the maps over this picture; without a value over the picture itself, as the model saw it",
    )  # fmt: skip
    parser.add_argument(
        "--alpha", metavar="A", help=f"weight of the maps' colours over it, 0 to 1 (default {DEFAULT_ALPHA})"
    )


def overlay_of(arguments: argparse.Namespace, max_pixels: int) -> Any:
    """Read the picture that maps are drawn over, if there is one; that it has to be stretched is said on stderr."""
    from ..sheets.overlay import read_overlay

    return read_overlay(arguments.overlay, arguments.alpha, max_pixels=max_pixels, say=complain)


def add_options(parser: argparse.ArgumentParser, title: str, record: type, without: Sequence[str] = ()) -> None:
    """Add an argument for each field of an option record; the record checks the values and holds the defaults.

    Args:
        parser: of the command.
        title: of the group in the help.
        record: whose fields.
        without: names of fields that the command does not take.
    """
    group = parser.add_argument_group(title)
    for field in dataclasses.fields(record):
        if field.name in without:
            continue
        is_flag = field.default is False
        shown = "" if field.default is None or is_flag else f" (default {field.default})"
        group.add_argument(
            f"--{field.name}",
            default=argparse.SUPPRESS,
            help=(field.metadata["description"] + shown).replace("%", "%%"),
            **({"action": "store_true"} if is_flag else {"metavar": field.metadata["metavar"]}),
        )


def options_of(arguments: argparse.Namespace, record: Any) -> Any:
    """Make an option record of the arguments that were given."""
    return record(**given_options(arguments, record))


def given_options(arguments: argparse.Namespace, record: Any) -> dict[str, Any]:
    """Return the options of a record that were given, as they were given."""
    given = vars(arguments)
    return {f.name: given[f.name] for f in dataclasses.fields(record) if f.name in given}


def output_folder(arguments: argparse.Namespace) -> Path:
    """Check where pictures go before anything slow starts, and make the folder."""
    from ..formats.picture import format_of
    from ..runtime.files import make_folder

    format_of(Path(f"sheet.{arguments.format}"))
    folder = Path(arguments.out)
    make_folder(folder)
    return folder
