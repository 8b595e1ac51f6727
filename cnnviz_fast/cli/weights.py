"""`cnnviz weights`: statistics of a model's parameters, and sheets of their histograms and kernels."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..kernels import backends
from ..options.weights import KernelOptions
from .arguments import add_json, add_options, add_overwrite, add_weights, options_of
from .loading import add_model, load
from .parser import CommandParser, add_command
from .terminal import DONE, everything_is_loaded, print_json, print_table

if TYPE_CHECKING:
    from ..formats.output_folders import OutputFolder
    from ..models.loaded import LoadedModel
    from ..weights.parameters import ParameterInfo

HISTOGRAMS = "histograms"


def add(commands: Any) -> None:
    """Add the command."""
    add_command(
        commands, "weights", run, "print statistics of a model's parameters; draw them",
        declare=_declare,
        usage="MODEL [options]",
        examples=[
            "cnnviz weights resnet50",
            "cnnviz weights resnet50 --layer conv1 layer1 --out weights/",
            "cnnviz weights net.py:make --weights tuned.pth --kernels norm --out weights/",
        ],
    )  # fmt: skip


def _declare(parser: CommandParser) -> None:
    add_model(parser)
    parser.add(
        "job", "-l", "--layer", metavar="L", nargs="+", action="extend",
        text="only parameters of these layers, named as for render",
    )  # fmt: skip
    parser.add("job", "-o", "--out", metavar="DIR", text="files are DIR/PARAMETER.png (default: none are written)")
    add_overwrite(parser)
    add_weights(parser)
    add_options(parser, KernelOptions)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure the parameters, and draw them where a folder is given."""
    options = options_of(arguments, KernelOptions)
    folder = None
    if arguments.out:
        from ..formats.output_folders import output_folder

        folder = output_folder(arguments.out, overwrite=arguments.overwrite)
    if options.colormap:
        from ..palette import make_palette

        make_palette(options.colormap, shows_background=False, shows_bad=False)  # refused before anything is written
    backends.compile_ahead("auto", "numba_values")
    if folder:
        backends.compile_ahead("auto")

    from ..weights.parameters import parameter_statistics

    model = load(arguments, weights=arguments.weights, seed=arguments.seed, device="cpu")
    infos = parameter_statistics(model, arguments.layer, threads=options.threads)
    if not arguments.json:
        _print_statistics(infos)
    files = []
    given = [info for info in infos if not info.missing]  # pictures of random values would pass for trained ones
    for name, path in _write_sheets(model, arguments.layer, given, folder, options) if folder and given else ():
        files.append({"parameter": name, "path": str(path)})
        if not arguments.json:
            print(path, flush=True)
    if arguments.json:
        print_json({"parameters": [dataclasses.asdict(info) for info in infos], "files": files})
    return DONE


def _write_sheets(
    model: LoadedModel,
    layers: Sequence[str] | None,
    infos: list[ParameterInfo],
    folder: OutputFolder,
    options: KernelOptions,
) -> Iterator[tuple[str | None, Path]]:
    """Write all sheets; yield the parameter that each shows (None for the histograms of all) and its path."""
    from ..activations.digests import sample_digest
    from ..formats.names import layer_parts
    from ..provenance import Provenance
    from ..runtime.progress import with_bar
    from ..sheets.render import write_sheet
    from ..weights.histogram_sheet import plan_histograms
    from ..weights.kernel_sheets import kernels_of, plan_kernels, write_kernels
    from ..weights.parameters import held_tensors

    backends.load("auto")
    everything_is_loaded()
    provenance = Provenance(model.spec, model.weights, weights_digest=sample_digest(model))
    histograms = plan_histograms(infos, provenance=provenance, threads=options.threads)
    yield None, write_sheet(histograms, folder.place("", HISTOGRAMS, ".png", histograms.describe))
    if options.kernels == "none":
        return
    drawn = [
        held
        for held in held_tensors(model, layers)
        if held.values.ndim >= 2 and held.values.numel() and not held.missing
    ]
    # With a dot at its end, which no parameter's name has: a parameter called histograms gets digits.
    stems = layer_parts([f"{HISTOGRAMS}.", *(held.name for held in drawn)])[1:]
    for held, stem in zip(with_bar(drawn, "sheet"), stems, strict=True):
        plan = plan_kernels(kernels_of(held), options, name=held.name, provenance=provenance)
        yield held.name, write_kernels(plan, folder.place("", stem, ".png", plan.describe))


def _print_statistics(infos: Sequence[ParameterInfo]) -> None:
    """Print a line for each parameter; with columns of what is not finite, or missing, only where anything is."""
    lacking = any(info.missing for info in infos)
    odd = any(info.nan or info.inf for info in infos)
    header = ["name", "shape", "mean", "std", "min", "max", "zeros", *(["nan", "inf"] if odd else [])]
    header += ["checkpoint"] if lacking else []
    rows = [
        [
            info.name,
            "x".join(map(str, info.shape)) or "1",
            *(_short(value) for value in (info.mean, info.std, info.min, info.max)),
            "-" if info.zeros is None else f"{info.zeros:.1%}",
            *([str(info.nan), str(info.inf)] if odd else []),
            *(["lacks it" if info.missing else ""] if lacking else []),
        ]
        for info in infos
    ]
    print_table(header, rows)


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
