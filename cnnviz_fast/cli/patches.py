"""`cnnviz patches`: the image patches that excite each channel most, cut from the photos of a run.

The model runs again only for --overlay, which lays maps over the patches, and for --deconvolve, which shows the pixels
that units answer to.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from ..options.drawing import DEFAULT_ALPHA
from ..options.patches import PatchOptions
from ..options.reading import ImageOptions, PreprocessOptions
from .arguments import (
    OUT,
    add_device,
    add_json,
    add_max_pixels,
    add_options,
    add_overwrite,
    add_weights,
    given_options,
    options_of,
)
from .loading import load
from .outputs import format_name, output_folder, refuse_several, single_file
from .parser import CommandParser, add_command
from .terminal import DONE, FAILED, PARTLY, complain, everything_is_loaded, print_json, print_path
from .viewer import open_drawn

if TYPE_CHECKING:
    from ..models.loaded import LoadedModel
    from ..patches.top_files import TopFile

STEM = "patches"
"""Of the files of a layer: DIR/LAYER/patches.png."""


_TEXTS = {
    "label": "no response and image over patches",
    "marks": "no mark around the unit",
    "gap": "px between patches, and around the grid (default 4 and 8)",
}


def add(commands: Any) -> None:
    """Add the command."""
    add_command(
        commands, "patches", run, "draw what `cnnviz run --save top` found: the patches that excite each channel",
        declare=_declare,
        usage="RUN [options]",
        examples=[
            "cnnviz patches run/ --layer layer4 --out patches/",
            "cnnviz patches run/ --layer layer3 --channels 0-31 --deconvolve --out 3.png",
            "cnnviz patches run/ --draw bands --each --parquet --out patches/",
        ],
    )  # fmt: skip


def _declare(parser: CommandParser) -> None:
    parser.add("job", "folder", metavar="RUN", text="folder of the run, or its file of strongest responses")
    parser.add(
        "job", "-l", "--layer", metavar="L", nargs="+", action="extend", text="name (default: all that the run kept)"
    )
    parser.add("job", "-o", "--out", metavar="DIR", default=OUT, text=f"files are DIR/LAYER/{STEM}.png (default {OUT})")
    parser.add("job", "--photos", metavar="DIR", text="where the photos lie now, if they were moved")
    parser.add("job", "--format", metavar="F", text="png (default), jpg or webp")
    parser.add("job", "--open", action="store_true", text="show what was drawn in the desktop's viewer")
    add_overwrite(parser)
    parser.add("tiles", "--each", action="store_true", text=f"a file a patch: DIR/LAYER/tiles/{STEM}/CHANNEL_RANK.png")
    parser.add("tiles", "--parquet", action="store_true", text=f"the table as DIR/LAYER/{STEM}.parquet too")
    add_options(parser, PatchOptions, texts=_TEXTS)
    parser.add(
        "text", "--overlay", metavar="MODEL", nargs="?", const=True,
        text="the channel's map over each patch; the model, the run's own or MODEL, runs on each photo again",
    )  # fmt: skip
    parser.add("text", "--alpha", metavar="A", text=f"weight of the map's colours, 0 to 1 (default {DEFAULT_ALPHA})")
    parser.add(
        "text", "--deconvolve", metavar="MODEL", nargs="?", const=True,
        text="beside each patch, which of its pixels the unit answers to; kernels first, of a layer that reads images",
    )  # fmt: skip
    parser.add("text", "--method", metavar="NAME", text="of --deconvolve: guided (default) or deconvolution")
    parser.add(
        "job", "--model-args", metavar="N=V", nargs="+", action="extend", default=[],
        text="arguments that build the model, such as num_classes=10",
    )  # fmt: skip
    add_weights(parser)
    add_options(parser, PreprocessOptions)
    parser.add("reading", "--preprocess", metavar="F", text="your own preprocessing: file.py:FUNCTION, or a transform")
    add_device(parser)
    add_max_pixels(parser)
    add_options(parser, ImageOptions)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Draw a sheet of each layer, or single files; photos that are gone or have changed are named at the end."""
    options = given_options(arguments, PatchOptions)
    PatchOptions.of(options)
    decoding = given_options(arguments, ImageOptions)
    ImageOptions(**decoding)
    file, format = single_file(arguments.out), format_name(arguments)
    if format == "npy":
        raise OptionError("format must be png, jpg or webp, since patches are photos, got 'npy'.")
    if file is not None and (arguments.each or arguments.parquet):
        raise OptionError(f"out must be a folder with each and parquet, got {str(file)!r}.")

    from ..formats.names import layer_parts
    from ..patches.api import open_top, patch_sheet
    from ..runtime.progress import with_bar

    top = open_top(arguments.folder)
    model = _model(arguments, top)
    layers = list(dict.fromkeys(arguments.layer or top))
    refuse_several(file, len(layers))
    out = output_folder(arguments)
    everything_is_loaded()
    files: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    drawn = 0
    for layer, folder in zip(with_bar(layers, "layer"), layer_parts(layers), strict=True):
        sheet = patch_sheet(
            top,
            layer,
            max_pixels=arguments.max_pixels,
            photos=arguments.photos,
            overlay=model if arguments.overlay else None,
            alpha=arguments.alpha,
            deconvolve=model if arguments.deconvolve else None,
            method=arguments.method,
            **decoding,
            **options,
        )
        failed |= {each.name: each.reason for each in sheet.missing}
        if file is not None:
            out.check(file, lambda sheet=sheet: sheet.manifest)  # type: ignore[misc]
            made = [sheet.save(file)]
        elif arguments.each:
            made = sheet.save_each(out.place(folder, STEM, "", lambda sheet=sheet: sheet.manifest, "tiles"), format)  # type: ignore[misc]
        else:
            path = out.place(folder, STEM, f".{format}", lambda sheet=sheet: sheet.manifest)  # type: ignore[misc]
            made = [sheet.save(path)]
        if arguments.parquet:
            made.append(sheet.save_table(out.path_of(folder, STEM, ".parquet")))
        files += [{"layer": layer, "path": str(path)} for path in made]
        if not arguments.json:
            for path in made:
                print_path(path)
        drawn += sheet.drawn
    if arguments.open:
        open_drawn([Path(entry["path"]) for entry in files], out.path)
    if arguments.json:
        print_json({"files": files, "failed": [{"image": name, "reason": why} for name, why in failed.items()]})
    for reason in failed.values():
        complain(reason)
    return DONE if not failed else PARTLY if drawn else FAILED


def _model(arguments: argparse.Namespace, top: TopFile) -> LoadedModel | None:
    """Load the model that runs again: the one that is named, or that of the run; None where none is to run.

    Raises:
        OptionError: what belongs to a model is given and none runs, two are named, or the run does not name its own.
    """
    given = {
        "weights": arguments.weights, "weights-key": arguments.weights_key, "strict-weights": arguments.strict_weights,
        "trust-checkpoint": arguments.trust_checkpoint, "seed": arguments.seed, "model-args": arguments.model_args,
        "device": arguments.device != "auto", "preprocess": arguments.preprocess,
        **given_options(arguments, PreprocessOptions),
    }  # fmt: skip
    from ..models.preprocess import options_in

    asked = {name: spec for name in ("overlay", "deconvolve") if (spec := getattr(arguments, name)) is not None}
    if not asked:
        if named := ", ".join(name for name, value in given.items() if value):
            raise OptionError(f"{named} must go with overlay or deconvolve: without them no model runs.")
        return None
    specs = [spec for spec in dict.fromkeys(asked.values()) if spec is not True]
    if len(specs) > 1:
        raise OptionError(f"deconvolve must be the model of overlay, {specs[0]!r}, got {specs[1]!r}. Name it once.")
    spec = specs[0] if specs else top.facts.get("model")
    preprocess = options_of(arguments, PreprocessOptions)
    if preprocess == PreprocessOptions() and not arguments.preprocess:
        with suppress(OptionError, LookupError, TypeError, ValueError, AttributeError):  # no text of a run
            preprocess = options_in(top.facts.get("preprocess"))
    if not spec:
        option = next(iter(asked))
        raise OptionError(
            f"{option} needs the model here, since the run does not name its own. Give it: --{option} MODEL"
        )
    return load(
        arguments, spec=spec, weights=arguments.weights, seed=arguments.seed, device=arguments.device,
        preprocess=preprocess,
    )  # fmt: skip
