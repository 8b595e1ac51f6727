"""`cnnviz render` over any number of pictures: prints the path of each file, and at the end a summary on stderr."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ImagesFailedError, OptionError
from ..kernels import backends
from ..options.drawing import RenderOptions
from ..options.reading import AxesOptions, PreprocessOptions
from ..options.runs import RunOptions
from .arguments import given_options, options_of, output_folder, overlay_of
from .exit_codes import DONE, FAILED, PARTLY
from .terminal import complain, everything_is_loaded, print_json, print_path, tell

if TYPE_CHECKING:
    from ..runs.spec import RunSummary

_STAGES = ("decode", "forward", "render", "encode", "write")


def is_run(arguments: argparse.Namespace) -> bool:
    """Tell whether the arguments ask for a run: one of its options, or anything but files that are named one by one."""
    return bool(given_options(arguments, RunOptions)) or any(map(_is_set, arguments.images))


def run_over(arguments: argparse.Namespace) -> int:
    """Do the run.

    Args:
        arguments: of `cnnviz render`.

    Returns:
        The exit code.
    """
    if arguments.name or arguments.suffix:
        raise OptionError("name and suffix go with pictures that are named one by one. Leave them out.")
    wanted = given_options(arguments, RunOptions)
    if wanted.get("engine") == "ray" and arguments.device != "auto":
        raise OptionError("device goes with engine 'local': Ray gives its actors the GPUs that the cluster has.")
    checked = RunOptions(**wanted)
    if arguments.each:
        wanted["save"] = [*checked.save, "tiles"] if "save" in wanted else "tiles"
    options_of(arguments, RenderOptions)
    backdrop = overlay_of(arguments, arguments.max_pixels)
    folder = output_folder(arguments)
    backends.compile_ahead(vars(arguments).get("backend", "auto"))

    from ..models.load import load_model
    from ..runs.api import run
    from ..runs.ranks import ranks_in

    place = ranks_in()
    device = "cpu" if wanted.get("engine") == "ray" else place.device(arguments.device)
    model = load_model(
        arguments.model,
        weights=arguments.weights,
        seed=arguments.seed,
        device=device,
        preprocess=options_of(arguments, PreprocessOptions),
    )
    everything_is_loaded()
    try:
        summary = run(
            model,
            arguments.images,
            arguments.layer,
            folder,
            format=arguments.format,
            max_pixels=arguments.max_pixels,
            axes=options_of(arguments, AxesOptions).axes,
            overlay=backdrop,
            on_file=None if arguments.json else print_path,
            **wanted,
            **given_options(arguments, RenderOptions),
        )
    except ImagesFailedError as error:
        complain(error)
        return PARTLY
    if arguments.json:
        print_json({name: _plain(value) for name, value in dataclasses.asdict(summary).items()})
    tell(_lines(summary, place.file("failed", ".jsonl")))
    # torchrun ends all processes as soon as one returns anything but DONE.
    if not summary.failed or "TORCHELASTIC_RUN_ID" in os.environ:
        return DONE
    return PARTLY if summary.finished or summary.skipped else FAILED


def _is_set(image: str) -> bool:
    """Tell whether an argument stands for pictures rather than for one."""
    if os.path.isfile(image):
        from ..inputs.sources import SETS

        return image.lower().endswith(SETS)
    return image == "-" or os.path.isdir(image) or bool(re.search(r"[*?[]", image))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _lines(summary: RunSummary, failed: str) -> list[str]:
    """Word what a run has done, where its time went, and which file tells what failed."""
    parts = [f"{summary.finished} pictures in {summary.seconds:.1f} s, {summary.rate:.1f} a second"]
    if summary.skipped:
        parts.append(f"{summary.skipped} were done before")
    if summary.failed:
        parts.append(f"{summary.failed} failed: see {summary.folder / failed}")
    spent = ", ".join(f"{name} {summary.stages[name]:.1f} s" for name in _STAGES if name in summary.stages)
    return ["; ".join(parts), f"time of all workers: {spent}"]
