"""`cnnviz weights`: statistics, histograms and pictures of a model's parameters."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..kernels import backends
from ..options.weights import KernelOptions
from .arguments import MODEL_HELP, add_command, add_options, add_weights, options_of
from .exit_codes import DONE
from .terminal import everything_is_loaded, print_json, print_table

if TYPE_CHECKING:
    from ..models.loaded import LoadedModel
    from ..weights.parameters import ParameterInfo

HISTOGRAMS = "histograms"


def add(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "weights", run, "print statistics of a model's parameters; draw their histograms and kernels"
    )
    parser.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument(
        "--layer", metavar="L", nargs="+", action="extend", help="only parameters in these layers, named as for render"
    )
    add_weights(parser)
    parser.add_argument("--out", metavar="DIR", help="folder to write pictures to (default: none are made)")
    parser.add_argument("--json", action="store_true", help="print one JSON document, histograms included")
    add_options(parser, "pictures", KernelOptions)


def run(arguments: argparse.Namespace) -> int:
    """Measure the parameters, and draw them where there is a folder for it."""
    options = options_of(arguments, KernelOptions)
    folder = Path(arguments.out) if arguments.out else None
    if folder:
        from ..runtime.files import make_folder

        make_folder(folder)
    if options.colormap:
        from ..palette import make_palette

        make_palette(options.colormap, shows_background=False, shows_bad=False)  # refused before anything is written
    from ..weights.histograms import NUMBA

    backends.compile_ahead("auto", NUMBA)
    if folder:
        backends.compile_ahead("auto")

    from ..models.load import load_model
    from ..weights.parameters import parameter_statistics

    model = load_model(arguments.model, weights=arguments.weights, seed=arguments.seed, device="cpu")
    infos = parameter_statistics(model, arguments.layer, threads=options.threads)
    if not arguments.json:
        _print_statistics(infos)
    files = []
    for name, path in _write_pictures(model, arguments.layer, infos, folder, options) if folder and infos else ():
        files.append({"parameter": name, "path": str(path)})
        if not arguments.json:
            print(path, flush=True)
    if arguments.json:
        print_json({"parameters": [dataclasses.asdict(info) for info in infos], "files": files})
    return DONE


def _write_pictures(
    model: LoadedModel, layers: Sequence[str] | None, infos: list[ParameterInfo], folder: Path, options: KernelOptions
) -> Iterator[tuple[str | None, Path]]:
    """Write all pictures; yield the parameter that each shows (None for the histograms of all) and its path."""
    from ..formats.names import layer_parts
    from ..provenance import Provenance
    from ..runtime.progress import with_bar
    from ..sheets.render import write_sheet
    from ..weights.histogram_sheet import plan_histograms
    from ..weights.kernel_sheets import kernels_of, plan_kernels, write_kernels
    from ..weights.parameters import held_tensors

    backends.missing("numba")  # loads it
    everything_is_loaded()
    provenance = Provenance(model.spec, model.weights)
    yield (
        None,
        write_sheet(
            plan_histograms(infos, provenance=provenance, threads=options.threads), folder / f"{HISTOGRAMS}.png"
        ),
    )
    if options.kernels == "none":
        return
    drawn = [held for held in held_tensors(model, layers) if held.values.ndim >= 2 and held.values.numel()]
    stems = layer_parts([HISTOGRAMS, *(held.name for held in drawn)])[1:]
    for held, stem in zip(with_bar(drawn, "picture"), stems, strict=True):
        plan = plan_kernels(kernels_of(held), options, name=held.name, provenance=provenance)
        yield held.name, write_kernels(plan, folder / f"{stem}.png")


def _print_statistics(infos: Sequence[ParameterInfo]) -> None:
    """Print a line for each parameter; a column for what is not finite only where there is some."""
    odd = any(info.nan or info.inf for info in infos)
    header = ["name", "shape", "mean", "std", "min", "max", "zeros", *(["nan", "inf"] if odd else [])]
    rows = [
        [
            info.name,
            "x".join(map(str, info.shape)) or "1",
            *(_short(value) for value in (info.mean, info.std, info.min, info.max)),
            "-" if info.zeros is None else f"{info.zeros:.1%}",
            *([str(info.nan), str(info.inf)] if odd else []),
        ]
        for info in infos
    ]
    print_table(header, rows)


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
