"""The command line: argv -> options -> calls -> lines on stdout and an exit code. It does no arithmetic.

Results go to stdout, one path a line or JSON; progress and errors go to stderr. Exit codes: 0 done, 1 failed,
2 wrong usage, 3 some pictures failed and the rest are done.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from . import backends
from .errors import CaptureError, CnnvizError, ImageError, InputError, ModelError
from .options import MAX_PIXELS, LayoutOptions, PreprocessOptions, RenderOptions

DONE, FAILED, USAGE, PARTLY = 0, 1, 2, 3
INTERRUPTED = 130  # what a shell reports for a program ended by Ctrl-C

MODEL_HELP = "such as resnet50, timm:NAME, hf:NAME, hf:FOLDER, package.module:factory or file.py:factory"
DEMO_LAYERS = ("conv1", "layer1", "layer2", "layer3", "layer4")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: the arguments; None for the process's own.

    Returns:
        The exit code.
    """
    arguments = _parser().parse_args(argv)
    try:
        with _collector_paused():
            code: int = arguments.run(arguments)
        sys.stdout.flush()
        return code
    except CnnvizError as error:
        if arguments.debug:
            raise
        complain(error)
        return USAGE if isinstance(error, InputError) and not isinstance(error, ImageError) else FAILED
    except BrokenPipeError:
        # Whoever read the output has seen enough. Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except Exception as error:
        if arguments.debug:
            raise
        complain(f"{type(error).__name__}: {error}. Run again with --debug to see where.")
        return FAILED


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep Python's garbage collector from walking through torch, torchvision and numba while they are loaded.

    They bring a million objects, and every full collection over them takes 0.15 s; loading used to cause two. A command
    that goes on for long calls `_everything_is_loaded`.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        (gc.enable if enabled else gc.disable)()


def _everything_is_loaded() -> None:
    """Collect garbage again from here on, but none among what has been loaded."""
    gc.freeze()
    gc.enable()


def complain(message: object) -> None:
    """Say one line on stderr."""
    print(f"cnnviz: {' '.join(str(message).split())}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cnnviz", description="Draw every channel of any layer of a convolutional network.", allow_abbrev=False
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    layers = _command(commands, "layers", _layers, "list the layers that can be looked at, with their shapes")
    layers.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    layers.add_argument("--match", metavar="PATTERN", help="only layers that this pattern names, such as type:Conv2d")
    layers.add_argument("--size", metavar="PX", help="input, N or HxW px (default: the model's own)")
    layers.add_argument("--json", action="store_true", help="print JSON instead of a table")

    render = _command(commands, "render", _render, "draw sheets of layers for pictures; prints the path of each file")
    render.add_argument("model", metavar="MODEL", help=MODEL_HELP)
    render.add_argument("images", metavar="IMAGE", nargs="+", help="files, folders or globs")
    render.add_argument(
        "--layer", metavar="L", nargs="+", action="extend", required=True,
        help="names, wildcards, type:Conv2d, numbers from `cnnviz layers`, or name:2 for the third call",
    )  # fmt: skip
    render.add_argument(
        "--weights", "--checkpoint", metavar="W", help="DEFAULT, none, a name such as IMAGENET1K_V1, or a file"
    )
    render.add_argument("--seed", type=int, default=0, metavar="N", help="of the random weights of --weights none")
    _add_output_arguments(render)
    _add_options(render, "preprocessing (default: what the weights say)", PreprocessOptions)
    _add_options(render, "reading", LayoutOptions)
    _add_options(render, "drawing", RenderOptions)

    demo = _command(commands, "demo", _demo, "draw the test chart's way through ResNet-50; needs nothing, offline too")
    demo.add_argument("--layer", metavar="L", nargs="+", default=list(DEMO_LAYERS), help="as for render")
    _add_output_arguments(demo, out="cnnviz_demo")
    _add_options(demo, "drawing", RenderOptions)

    doctor = _command(commands, "doctor", _doctor, "say which backends and encoders are active, and why another is not")
    doctor.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


class _Version(argparse.Action):
    """Look the version up only when it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from .manifest import package_version

        print(f"cnnviz {package_version()}")
        parser.exit()


def _command(commands: Any, name: str, run: Any, description: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=description, description=f"{description[0].upper()}{description[1:]}.", allow_abbrev=False
    )
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run)
    return parser


def _add_output_arguments(parser: argparse.ArgumentParser, out: str | None = None) -> None:
    default = f" (default {out})" if out else ""
    parser.add_argument("--out", metavar="DIR", required=out is None, default=out, help=f"folder to write to{default}")
    parser.add_argument(
        "--format", default="png", metavar="png|jpg|webp|npy", help="of the sheets (default png); npy: the index plane"
    )
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda", help="where the model runs and draws")
    parser.add_argument(
        "--max-pixels", type=int, default=MAX_PIXELS, metavar="N", help=f"of a picture to read (default {MAX_PIXELS})"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of paths")


def _add_options(parser: argparse.ArgumentParser, title: str, record: type) -> None:
    """Add an argument for each field of an option record; the record checks the values and holds the defaults."""
    group = parser.add_argument_group(title)
    for field in dataclasses.fields(record):
        shown = "" if field.default is None else f" (default {field.default})"
        group.add_argument(
            f"--{field.name}",
            default=argparse.SUPPRESS,
            metavar=field.metadata["metavar"],
            help=(field.metadata["description"] + shown).replace("%", "%%"),
        )


def _options(arguments: argparse.Namespace, record: Any) -> Any:
    """Make an option record of the arguments that were given."""
    given = vars(arguments)
    return record(**{f.name: given[f.name] for f in dataclasses.fields(record) if f.name in given})


def _layers(arguments: argparse.Namespace) -> int:
    from .capture import list_layers
    from .layers import resolve
    from .models import load_model

    size = PreprocessOptions(size=arguments.size).size
    model = load_model(arguments.model, weights="none", device="meta")
    try:
        found = list_layers(model, size=size)
    except CaptureError:  # a forward that looks at values, which a model on the meta device does not have
        model = load_model(arguments.model, weights="none", device="cpu")
        found = list_layers(model, size=size)
    if arguments.match:
        matching = {target.module for target in resolve(model.module, arguments.match)}
        found = [layer for layer in found if model.module.get_submodule(layer.name) in matching]
    if arguments.json:
        print(json.dumps([dataclasses.asdict(layer) for layer in found]))
    else:
        print_table(
            ["", "name", "type", "calls", "output", "parameters"],
            [
                [
                    str(layer.index),
                    layer.name,
                    layer.type,
                    str(layer.calls),
                    "x".join(map(str, layer.shape)) if layer.shape else "-",
                    f"{layer.parameters:,}",
                ]
                for layer in found
            ],
        )
    return DONE


def _render(arguments: argparse.Namespace) -> int:
    options = _options(arguments, RenderOptions)
    layout = _options(arguments, LayoutOptions)
    preprocess = _options(arguments, PreprocessOptions)
    folder = _output_folder(arguments)

    backends.compile_ahead(options.backend)

    from .models import load_model
    from .visualize import list_pictures

    pictures = list_pictures(arguments.images)
    model = load_model(
        arguments.model, weights=arguments.weights, seed=arguments.seed, device=arguments.device, preprocess=preprocess
    )
    return _write_sheets(arguments, model, pictures, folder, options, layout)


def _demo(arguments: argparse.Namespace) -> int:
    options = _options(arguments, RenderOptions)
    folder = _output_folder(arguments)

    backends.compile_ahead(options.backend)

    from .chart import draw_chart
    from .models import load_model
    from .visualize import Picture

    try:
        model = load_model("resnet50", weights="DEFAULT", device=arguments.device)
    except ModelError:
        model = load_model("resnet50", weights="none", seed=0, device=arguments.device)
    print(f"cnnviz: resnet50 with weights: {model.weights}", file=sys.stderr)
    return _write_sheets(
        arguments, model, [Picture(draw_chart(), "test chart", "chart")], folder, options, LayoutOptions()
    )


def _output_folder(arguments: argparse.Namespace) -> Path:
    """Check where sheets go before anything slow starts, and make the folder."""
    from .encode.files import make_folder
    from .encode.formats import format_of

    format_of(Path(f"sheet.{arguments.format}"))
    folder = Path(arguments.out)
    make_folder(folder)
    return folder


def _write_sheets(
    arguments: argparse.Namespace,
    model: Any,
    pictures: Sequence[Any],
    folder: Path,
    options: RenderOptions,
    layout: LayoutOptions,
) -> int:
    """Draw every picture; one that cannot be read or run does not stop the others."""
    from tqdm import tqdm

    from .render import write_sheet
    from .visualize import plan_picture, sheet_path

    if options.backend in ("auto", "numba"):
        backends.missing("numba")  # loads it
    _everything_is_loaded()
    files: list[dict[str, str]] = []
    failed: list[dict[str, str]] = []
    for picture in tqdm(pictures, unit="picture", disable=None, file=sys.stderr, leave=False):
        try:
            plans = plan_picture(model, picture, arguments.layer, arguments.max_pixels, options, layout)
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
        print(json.dumps({"files": files, "failed": failed}))
    for failure in failed:
        complain(failure["reason"])
    if failed and files:
        complain(f"{len(failed)} of {len(pictures)} pictures failed.")
    return DONE if not failed else PARTLY if files else FAILED


def _doctor(arguments: argparse.Namespace) -> int:
    from .doctor import examine

    findings = examine()
    if arguments.json:
        print(json.dumps(findings))
    else:
        print_table(["", "", ""], [[f["subject"], f["state"], f["detail"]] for f in findings])
    return DONE


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns, each as wide as its widest entry."""
    shown = [header, *rows] if any(header) else list(rows)
    widths = [max(len(row[i]) for row in shown) for i in range(len(header))]
    for row in shown:
        print("  ".join(entry.ljust(width) for entry, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
