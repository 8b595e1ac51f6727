"""Arguments that several commands take, each declared once, and what they stand for."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import OptionError
from ..options.attribution import AttributionOptions
from ..options.drawing import DEFAULT_ALPHA, RGB_OPTIONS, WITHOUT_STATISTICS, RenderOptions
from ..options.parsers import flag
from ..options.reading import MAX_PIXELS
from .parser import CommandParser
from .terminal import note

OUT = "cnnviz_out"
"""Folder of the files where --out is not given."""

FORMATS = "png (default), jpg, webp, or npy: entries of the palette"
RGB_FORMATS = "png (default), jpg or webp"

ON_ONE_LINE = {"vmin": "vmax", "gap": "margin", "mean": "std", "sort": "rank"}
"""Options that share a line of the help -> the one behind them."""

_SHARED = {
    "vmin": "both ends of the range (normalize fixed)",
    "gap": "px between tiles, and around the grid (default 4 and 8)",
    "marks": "no cross on dead and flat channels, no frame",
    "sort": "sort by mean, abs-mean, max, variance, nonzero or norm",
    "mean": "subtracted from channels in [0, 1], and the divisor then",
}


def add_layers(parser: CommandParser, default: str = "the stages") -> None:
    """Add the layers to draw, and what is drawn without any."""
    parser.add(
        "job", "-l", "--layer", metavar="L", nargs="+", action="extend",
        text=f"name, *, number, type:Conv2d#0,6 (default: {default})",
    )  # fmt: skip


def add_weights(parser: CommandParser, seeds: str = "seed of random weights") -> None:
    """Add what decides which weights a model gets, and what else the seed is of."""
    parser.add(
        "job", "--weights", "--checkpoint", metavar="W",
        text="DEFAULT, none: random, name or file (or --checkpoint W)",
    )  # fmt: skip
    parser.add("job", "--weights-key", metavar="K", text="where in a file the weights lie, as state_dict_ema")
    parser.add("job", "--strict-weights", action="store_true", text="refuse a file with unknown or missing parameters")
    parser.add("job", "--trust-checkpoint", action="store_true", text="read torch's own format before torch 2.10 too")
    parser.add("job", "--seed", type=int, default=0, metavar="N", text=f"{seeds} (default 0)")


def add_output(parser: CommandParser, shape: str, out: str = OUT, formats: str = FORMATS) -> None:
    """Add where files go, in which format, and what is printed of them.

    Args:
        parser: of the command.
        shape: how the paths of the files are made, such as DIR/LAYER/IMAGE.png.
        out: default of --out.
        formats: of the files.
    """
    parser.add("job", "-o", "--out", metavar="DIR", default=out, text=f"files are {shape} (default {out})")
    parser.add("job", "--format", metavar="F", text=formats)
    parser.add("job", "--open", action="store_true", text="show what was drawn in the desktop's viewer")
    add_device(parser)
    add_json(parser)


def add_device(parser: CommandParser) -> None:
    """Add where it runs."""
    parser.add("running", "--device", default="auto", metavar="NAME", text="auto (default), cpu, cuda, cuda:1 or mps")


def add_json(parser: CommandParser) -> None:
    """Add the switch to JSON."""
    parser.add("running", "--json", action="store_true", text="print one JSON document instead of lines")


def add_max_pixels(parser: CommandParser) -> None:
    """Add the limit of the images that are read."""
    parser.add(
        "reading", "--max-pixels", type=int, default=MAX_PIXELS, metavar="N",
        text=f"refuse larger images (default {MAX_PIXELS})",
    )  # fmt: skip


def add_overlay(parser: CommandParser, text: str = "lay maps over IMAGE, or over what the model saw") -> None:
    """Add the image that maps are drawn over."""
    parser.add("text", "--overlay", metavar="IMAGE", nargs="?", const=True, text=text)
    parser.add("text", "--alpha", metavar="A", text=f"weight of maps over the image, 0 to 1 (default {DEFAULT_ALPHA})")


def add_input(parser: CommandParser) -> None:
    """Add the image above the grid."""
    parser.add(
        "text", "--input", dest="show_input", action="store_true", default=None,
        text="show the image as the model saw it above the grid",
    )  # fmt: skip


def add_attribution(parser: CommandParser, methods: str, targets: str) -> None:
    """Add which scores are attributed to what, and how; the seed of the noise is that of the weights.

    Args:
        parser: of the command.
        methods: sentence of --method.
        targets: sentence of --target.
    """
    parser.add("attribution", "-m", "--method", metavar="NAME", text=methods)
    parser.add("attribution", "-t", "--target", metavar="T", nargs="+", action="extend", text=targets)
    add_options(parser, AttributionOptions, without=("seed",))


def attribution_options(arguments: argparse.Namespace, known: Sequence[str]) -> dict[str, Any]:
    """Return the options of a method that were given.

    Args:
        arguments: of the command.
        known: options that the method takes; the seed is among them where it draws noise.

    Returns:
        Name -> value.
    """
    options = given_options(arguments, AttributionOptions)
    if "seed" not in known:
        del options["seed"]  # that of the weights
    return options


def add_tiles(parser: CommandParser) -> None:
    """Add single files."""
    parser.add("tiles", "--each", action="store_true", text="a file a channel: DIR/LAYER/tiles/IMAGE/CHANNEL.png")
    parser.add("tiles", "--name", metavar="PATTERN", text="names of these files: {channel}_{suffix}.png, and TEXT")
    parser.add("tiles", "--suffix", metavar="TEXT", default="", text=None)


def add_drawing(parser: CommandParser, without: Sequence[str] = ()) -> None:
    """Add how a few images are drawn, which `drawing_options` reads: without statistics of a data set."""
    add_options(parser, RenderOptions, without, WITHOUT_STATISTICS)


def add_rgb_drawing(parser: CommandParser) -> None:
    """Add how sheets of images are drawn, which have their colours already, and what images are to look like."""
    fields = [field.name for field in dataclasses.fields(RenderOptions)]
    add_options(parser, RenderOptions, [name for name in fields if name not in RGB_OPTIONS], group="sheet")
    parser.add(
        "search", "--like", metavar="IMAGE", nargs="+", text="photos whose colours and spectrum the images are to have"
    )


def rgb_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of add_rgb_drawing that were given, once they are checked."""
    given = {name: value for name, value in vars(arguments).items() if name in RGB_OPTIONS}
    RenderOptions(**given)
    return given


def add_options(
    parser: CommandParser,
    record: type,
    without: Sequence[str] = (),
    texts: Mapping[str, str] | None = None,
    group: str | None = None,
) -> None:
    """Add an argument for each field of an option record, which checks the values and holds the defaults.

    Args:
        parser: of the command.
        record: whose fields.
        without: names of fields that the command does not take.
        texts: field -> its sentence, where it is not the record's.
        group: of the help; None for those of the fields.
    """
    for field in dataclasses.fields(record):
        if field.name in without:
            continue
        is_flag = field.metadata["parse"] is flag
        text = {**_SHARED, **(texts or {})}.get(field.name, field.metadata["description"])
        if field.default is not None and not is_flag and field.name not in _SHARED and "default" not in text:
            text = f"{text} (default {field.default})"
        place = group or field.metadata["group"]
        shown: dict[str, Any] = {"default": argparse.SUPPRESS}
        shown["text"] = None if field.name in ON_ONE_LINE.values() else text
        names = [f"--{name.replace('_', '-')}" for name in (field.name, field.metadata["older"]) if name]
        if not is_flag:
            parser.add(place, *names, metavar=field.metadata["metavar"], **shown)
            continue
        if field.default is not True:
            parser.add(place, *names, action="store_true", **shown)
            shown["text"] = None
        if field.default is not False:
            parser.add(place, f"--no-{field.name}", dest=field.name, action="store_false", **shown)


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
    check_colours(options)
    return options


def check_colours(options: RenderOptions) -> None:
    """Refuse names of colours that there are not, before a model is loaded."""
    from ..palette import make_palette

    make_palette(
        options.colormap, background=options.background, bad=options.bad, shows_background=True, shows_bad=True
    )


def overlay_of(arguments: argparse.Namespace, max_pixels: int) -> Any:
    """Read the image that maps are drawn over, if there is one; print a line where it has to be stretched."""
    from ..sheets.overlay import read_overlay

    shown = getattr(arguments, "show_input", None)
    return read_overlay(arguments.overlay, arguments.alpha, shown, max_pixels=max_pixels, say=note)


def add_overwrite(parser: CommandParser) -> None:
    """Add the switch that lets sheets of other models be replaced."""
    parser.add("job", "--overwrite", action="store_true", text="replace what another model made in DIR")
