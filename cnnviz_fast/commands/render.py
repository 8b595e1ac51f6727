"""`cnnviz render`: the main job; prints the path of each file it wrote."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import backends
from ..errors import CaptureError, ImageError
from ..options import LayoutOptions, PreprocessOptions, RenderOptions
from . import DONE, FAILED, PARTLY
from .arguments import (
    MODEL_HELP,
    add_command,
    add_max_pixels,
    add_options,
    add_output,
    add_overlay,
    add_weights,
    options_of,
    output_folder,
    overlay_of,
)
from .terminal import complain, everything_is_loaded, print_json


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(commands, "render", run, "draw sheets of layers for pictures; prints the path of each file")
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="files, folders or globs")
    parser.add_argument(
        "--layer", metavar="L", nargs="+", action="extend", required=True,
        help="names, wildcards, type:Conv2d, numbers from `cnnviz layers`, or name:2 for the third call",
    )  # fmt: skip
    add_weights(parser)
    add_output(parser)
    add_max_pixels(parser)
    add_overlay(parser)
    add_options(parser, "preprocessing (default: what the weights say)", PreprocessOptions)
    add_options(parser, "reading", LayoutOptions)
    add_options(parser, "drawing", RenderOptions)


def run(arguments: argparse.Namespace) -> int:
    """Draw the layers of the pictures."""
    options = options_of(arguments, RenderOptions)
    layout = options_of(arguments, LayoutOptions)
    preprocess = options_of(arguments, PreprocessOptions)
    backdrop = overlay_of(arguments, arguments.max_pixels)
    folder = output_folder(arguments)

    backends.compile_ahead(options.backend)

    from ..models import load_model
    from ..visualize import list_pictures

    pictures = list_pictures(arguments.images)
    model = load_model(
        arguments.model, weights=arguments.weights, seed=arguments.seed, device=arguments.device, preprocess=preprocess
    )
    return write_sheets(arguments, model, pictures, folder, options, layout, arguments.max_pixels, backdrop)


def write_sheets(
    arguments: argparse.Namespace,
    model: Any,
    pictures: Sequence[Any],
    folder: Path,
    options: RenderOptions,
    layout: LayoutOptions,
    max_pixels: int,
    backdrop: Any = None,
) -> int:
    """Draw every picture; one that cannot be read or run does not stop the others.

    Args:
        arguments: of the command: layer, format, json, debug.
        model: the record of load_model.
        pictures: of list_pictures.
        folder: where sheets go.
        options: how to draw.
        layout: how to read what the layers put out.
        max_pixels: largest picture to read, in px.
        backdrop: of read_overlay.

    Returns:
        The exit code.
    """
    from tqdm import tqdm

    from ..render import write_sheet
    from ..visualize import plan_picture, sheet_path

    if options.backend in ("auto", "numba"):
        backends.missing("numba")  # loads it
    everything_is_loaded()
    files: list[dict[str, str]] = []
    failed: list[dict[str, str]] = []
    for picture in tqdm(pictures, unit="picture", disable=None, file=sys.stderr, leave=False):
        try:
            plans = plan_picture(model, picture, arguments.layer, max_pixels, options, layout, backdrop)
        except (ImageError, CaptureError) as error:
            if arguments.debug:
                raise
            failed.append({"image": picture.name, "reason": str(error)})
            continue
        for layer, plan in plans.items():
            path = write_sheet(plan, sheet_path(folder, picture, layer, arguments.format))
            files.append({"image": picture.name, "layer": layer, "path": str(path)})
            if not arguments.json:
                print(path, flush=True)
    if arguments.json:
        print_json({"files": files, "failed": failed})
    for failure in failed:
        complain(failure["reason"])
    if failed and files:
        complain(f"{len(failed)} of {len(pictures)} pictures failed.")
    return DONE if not failed else PARTLY if files else FAILED
