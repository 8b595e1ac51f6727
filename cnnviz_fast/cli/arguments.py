"""Arguments that several commands take, each declared once, and what they stand for."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..options.drawing import DEFAULT_ALPHA, WITHOUT_STATISTICS, RenderOptions
from ..options.reading import MAX_PIXELS
from .parser import CommandParser
from .terminal import complain


def add_layers(parser: CommandParser, default: Sequence[str] = ()) -> None:
    """Add the layers to draw; without a default they have to be given."""
    shown = f" (default {' '.join(default)})" if default else ""
    parser.add(
        "job", "--layer", metavar="L", nargs="+", required=not default,
        text=f"names, wildcards, numbers, type:Conv2d#0,6 or name:2{shown}",
        **({"default": list(default)} if default else {"action": "extend"}),
    )  # fmt: skip


def add_weights(parser: CommandParser) -> None:
    """Add what decides which weights a model gets."""
    parser.add(
        "job", "--weights", "--checkpoint", metavar="W",
        text="DEFAULT, none, a name or a file (or --checkpoint W)",
    )  # fmt: skip
    parser.add("job", "--weights-key", metavar="K", text="where in a file they are: state_dict_ema, model.teacher")
    parser.add("job", "--strict-weights", action="store_true", text="names left over or missing in a file are errors")
    parser.add("job", "--seed", type=int, default=0, metavar="N", text="of the random weights of none (default 0)")


def add_output(parser: CommandParser, shape: str, out: str | None = None) -> None:
    """Add where files go, in which format, and what is printed of them.

    Args:
        parser: of the command.
        shape: how the paths of the files are made, such as DIR/LAYER/IMAGE.png.
        out: default of --out; without one it has to be given.
    """
    default = f" (default {out})" if out else ""
    parser.add("job", "--out", metavar="DIR", required=out is None, default=out, text=f"files are {shape}{default}")
    parser.add("job", "--format", default="png", metavar="F", text="png (default), jpg, webp or npy, the index plane")
    add_device(parser)
    add_json(parser)


def add_device(parser: CommandParser) -> None:
    """Add where it runs."""
    parser.add("running", "--device", default="auto", metavar="NAME", text="auto (default), cpu, cuda or cuda:1")


def add_json(parser: CommandParser) -> None:
    """Add the switch to JSON."""
    parser.add("running", "--json", action="store_true", text="print one JSON document instead")


def add_max_pixels(parser: CommandParser) -> None:
    """Add the limit of the images that are read."""
    parser.add(
        "reading", "--max-pixels", type=int, default=MAX_PIXELS, metavar="N",
        text=f"refuse larger images (default {MAX_PIXELS})",
    )  # fmt: skip


def add_overlay(parser: CommandParser, text: str = "lay maps over IMAGE, or over what the model saw") -> None:
    """Add the image that maps are drawn over."""
    parser.add("text", "--overlay", metavar="IMAGE", nargs="?", const=True, text=text)
    parser.add("text", "--alpha", metavar="A", text=f"weight of the maps over it, 0 to 1 (default {DEFAULT_ALPHA})")


def add_tiles(parser: CommandParser) -> None:
    """Add single files."""
    parser.add("tiles", "--each", action="store_true", text="files are DIR/LAYER/tiles/IMAGE/CHANNEL.png")
    parser.add("tiles", "--name", metavar="PATTERN", text="with {channel}, {suffix} (default {channel}.png)")
    parser.add("tiles", "--suffix", metavar="TEXT", default="", text="what stands for {suffix} in it")


def add_drawing(parser: CommandParser, without: Sequence[str] = ()) -> None:
    """Add how a few images are drawn, which `drawing_options` reads: without statistics of a data set."""
    add_options(parser, RenderOptions, without, WITHOUT_STATISTICS)


def add_options(
    parser: CommandParser, record: type, without: Sequence[str] = (), texts: Mapping[str, str] | None = None
) -> None:
    """Add an argument for each field of an option record, which checks the values and holds the defaults.

    Args:
        parser: of the command.
        record: whose fields.
        without: names of fields that the command does not take.
        texts: field -> its sentence, where it is not the record's.
    """
    for field in dataclasses.fields(record):
        if field.name in without:
            continue
        is_flag, text = field.default is False, (texts or {}).get(field.name, field.metadata["description"])
        parser.add(
            field.metadata["group"],
            *(f"--{name}" for name in (field.name, field.metadata["older"]) if name),
            default=argparse.SUPPRESS,
            text=text if field.default is None or is_flag or "default" in text else f"{text} (default {field.default})",
            **({"action": "store_true"} if is_flag else {"metavar": field.metadata["metavar"]}),
        )


def options_of(arguments: argparse.Namespace, record: Any) -> Any:
    """Make an option record of the arguments that were given."""
    return record(**given_options(arguments, record))


def given_options(arguments: argparse.Namespace, record: Any) -> dict[str, Any]:
    """Return the options of a record that were given, as they were given."""
    given = vars(arguments)
    return {f.name: given[f.name] for f in dataclasses.fields(record) if f.name in given}


def drawing_options(arguments: argparse.Namespace) -> RenderOptions:
    """Make the record of how a few images are drawn.

    Raises:
        OptionError: an option cannot be used, or asks for statistics of a data set.
    """
    options: RenderOptions = options_of(arguments, RenderOptions)
    if options.normalize == "dataset":
        raise OptionError(
            "normalize 'dataset' belongs to 'cnnviz run' and 'cnnviz atlas', which have statistics of a data set."
        )
    return options


def overlay_of(arguments: argparse.Namespace, max_pixels: int) -> Any:
    """Read the image that maps are drawn over, if there is one; print a line where it has to be stretched."""
    from ..sheets.overlay import read_overlay

    return read_overlay(arguments.overlay, arguments.alpha, max_pixels=max_pixels, say=complain)


def output_folder(arguments: argparse.Namespace, *, of_run: bool = False) -> Path:
    """Check format and folder of the output before anything slow starts, and make the folder; see `formats`."""
    from ..formats import output_folders

    return output_folders.output_folder(arguments.out, arguments.format, of_run=of_run)
