"""`cnnviz run`: any number of images; prints the path of each file, and at the end a summary on stderr."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from ..errors import ImagesFailedError, OptionError
from ..kernels import backends
from ..options.attribution import METHOD_NAMES
from ..options.drawing import RenderOptions
from ..options.reading import AxesOptions, ImageOptions, PreprocessOptions
from ..options.runs import RunOptions
from .arguments import (
    OUT,
    add_attribution,
    add_input,
    add_layers,
    add_max_pixels,
    add_options,
    add_output,
    add_overlay,
    add_weights,
    attribution_options,
    check_colours,
    given_options,
    options_of,
    overlay_of,
)
from .loading import add_calling, add_model, layers_of, load
from .outputs import format_name, output_folder
from .parser import CommandParser, add_command
from .terminal import DONE, FAILED, PARTLY, complain, everything_is_loaded, print_json, print_lines, print_path
from .viewer import open_path

if TYPE_CHECKING:
    from ..runs.spec import RunSummary

_STAGES = ("decode", "forward", "render", "encode", "write")
_SINGLE_FILES = "Here single files are: --save tiles"


def add(commands: Any) -> None:
    """Add the command."""
    add_command(
        commands, "run", run, "draw layers for any number of images; called again, it goes on where it stopped",
        declare=_declare,
        usage="MODEL SOURCE... [options]",
        examples=[
            "cnnviz run resnet50 photos/ --layer layer4 --out photos_layer4/",
            "cnnviz run resnet50 a.tar --layer layer3 layer4 --save atlases,top --out run/",
            "cnnviz run resnet50 list.txt --layer layer4 --engine ray --out on_ray/",
        ],
        instead=dict.fromkeys(("--each", "--name", "--suffix"), _SINGLE_FILES),
    )  # fmt: skip


def _declare(parser: CommandParser) -> None:
    add_model(parser)
    parser.add(
        "job", "images", metavar="SOURCE", nargs="+",
        text="folders (with those in them), globs, lists (.txt, .lst, - for stdin), .tar, .parquet, image files",
    )  # fmt: skip
    add_layers(parser)
    add_output(parser, "DIR/LAYER/IMAGE.png", f"{OUT}/run")
    add_weights(parser, "seed of random weights and smoothgrad")
    add_options(parser, RunOptions)
    add_attribution(
        parser,
        f"with --save attribution: {METHOD_NAMES[0]} (default), ...",
        "top (default), top5, class or LAYER@C; see attribute",
    )
    add_options(parser, RenderOptions)
    add_overlay(parser)
    add_input(parser)
    add_options(parser, PreprocessOptions)
    add_calling(parser)
    add_options(parser, AxesOptions)
    add_max_pixels(parser)
    add_options(parser, ImageOptions)


def run(arguments: argparse.Namespace) -> int:
    """Do the run, or what is left of it."""
    wanted = given_options(arguments, RunOptions)
    on_ray = wanted.get("engine") == "ray"
    if on_ray and arguments.device != "auto":
        raise OptionError("device goes with engine 'local': Ray gives its actors the GPUs that the cluster has.")
    run_options = options_of(arguments, RunOptions)
    save = run_options.save
    options = options_of(arguments, RenderOptions)
    check_colours(options)
    backdrop = overlay_of(arguments, arguments.max_pixels)
    folder = output_folder(arguments, of_run=True).path
    backends.compile_ahead(options.backend)

    from ..attribution.api import method_of
    from ..runs.api import run as run_over
    from ..runs.ranks import ranks_in

    method_options = attribution_options(arguments, method_of(arguments.method or METHOD_NAMES[0]).options)
    ranks = ranks_in(array=run_options.array)
    model = load(
        arguments,
        weights=arguments.weights,
        seed=arguments.seed,
        device="cpu" if on_ray else ranks.device(arguments.device),
        preprocess=options_of(arguments, PreprocessOptions),
    )
    everything_is_loaded()
    try:
        summary = run_over(
            model,
            arguments.images,
            arguments.layer if save == ("attribution",) else layers_of(arguments, model),
            folder,
            format=format_name(arguments),
            max_pixels=arguments.max_pixels,
            **given_options(arguments, ImageOptions),
            **vars(options_of(arguments, AxesOptions)),
            overlay=backdrop,
            method=arguments.method,
            target=arguments.target,
            **method_options,
            on_file=None if arguments.json else print_path,
            **wanted,
            **given_options(arguments, RenderOptions),
        )
    except ImagesFailedError as error:
        complain(error)
        return PARTLY
    if arguments.json:
        print_json({name: _plain(value) for name, value in dataclasses.asdict(summary).items()})
    if arguments.open:
        open_path(folder)
    print_lines(_lines(summary, ranks.file("failed", ".jsonl")))
    # torchrun ends all processes as soon as one returns anything but DONE.
    if not summary.failed or "TORCHELASTIC_RUN_ID" in os.environ:
        return DONE
    return PARTLY if summary.finished or summary.skipped else FAILED


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _lines(summary: RunSummary, failed: str) -> list[str]:
    """Return what a run has done, where its time went, and which file says what failed."""
    parts = [f"{summary.finished} images in {summary.seconds:.1f} s, {summary.rate:.1f} a second"]
    if summary.skipped:
        parts.append(f"{summary.skipped} were done before")
    if summary.failed:
        parts.append(f"{summary.failed} failed: see {summary.folder / failed}")
    spent = ", ".join(f"{name} {summary.stages[name]:.1f} s" for name in _STAGES if name in summary.stages)
    lines = ["; ".join(parts), *([f"time of all readers and workers: {spent}"] if spent else [])]
    if summary.top is not None:
        lines.append(
            f"{summary.top} has the images of each channel; draw them: cnnviz patches {quote(str(summary.folder))}"
        )
    return lines
