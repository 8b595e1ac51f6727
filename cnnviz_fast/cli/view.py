"""`cnnviz view`: a local server over runs and atlases, or a model that looks at images as they come."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from ..options.reading import PreprocessOptions
from .arguments import add_device, add_layers, add_max_pixels, add_options, add_weights, options_of
from .loading import add_calling, add_model_arguments, load
from .parser import CommandParser, add_command
from .terminal import DONE, everything_is_loaded, note, print_path

if TYPE_CHECKING:
    from ..viewer.server.live import LiveRun

LOCAL = "127.0.0.1"


def add(commands: Any) -> None:
    """Add the command."""
    add_command(
        commands, "view", run, "a local server: runs of any size in the browser, or a model that looks at your images",
        declare=_declare,
        usage="[RUN|ATLAS...] [--model MODEL] [options]",
        examples=[
            "cnnviz view run/ --photos photos/",
            "cnnviz view run/ other_run/ --port 9000 --no-open",
            "cnnviz view --model resnet18 --layer layer1 layer4",
        ],
    )  # fmt: skip


def _declare(parser: CommandParser) -> None:
    parser.add("job", "runs", metavar="RUN", nargs="*", text="folders of runs; atlases, folders and tars of them")
    parser.add("job", "--photos", metavar="DIR", text="where the photos of the runs lie now")
    parser.add("job", "--model", metavar="MODEL", text="live: drop an image on the page, and see its layers")
    add_model_arguments(parser)
    add_layers(parser)
    add_weights(parser)
    add_options(parser, PreprocessOptions)
    add_calling(parser)
    add_max_pixels(parser)
    parser.add("running", "--port", type=int, metavar="N", text="port to listen on; where it is in use, the next one")
    parser.add("running", "--no-open", action="store_true", text="open no browser, print the address alone")
    parser.add("running", "--host", default=LOCAL, metavar="NAME", text="let other machines ask, with a token")
    parser.add("running", "--token", metavar="TEXT", text="your own token for --host (default: a new one)")
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    from ..viewer.server.serving import PORT, bound_socket, refuse_without_extra, serve

    refuse_without_extra()
    port = PORT if arguments.port is None else arguments.port
    if not 0 <= port < 1 << 16:
        raise OptionError(f"port must be 0 to 65535, got {port}.")
    if not arguments.runs and arguments.model is None:
        raise OptionError("run must name what to show, got nothing. Name the folder of a run, or give --model.")
    if arguments.photos is not None and not arguments.runs:
        raise OptionError("photos go with a run, got none. A model shows what it saw itself.")

    from ..viewer.collection import Collection
    from ..viewer.opening import open_collection
    from ..viewer.photos import Photos
    from ..viewer.server.apart import Apart

    photos = None if arguments.photos is None else Photos(Path(arguments.photos), arguments.max_pixels)
    live = _live(arguments)
    compute = Apart()
    shown = Collection(str(arguments.model), [])
    if arguments.runs:
        shown = open_collection(arguments.runs, photos, compute=compute)
    if live is not None:
        shown.runs = [*shown.runs, live]
    for reason in shown.notes:
        note(reason)
    listening = bound_socket(arguments.host, port)
    if port and (found := listening.getsockname()[1]) != port:
        note(f"port {port} is in use, so it is {found}")
    everything_is_loaded()

    def started(address: str) -> None:
        print_path(address)
        if not arguments.no_open and not webbrowser.open(address):
            note("no browser opens. Open the address yourself")

    serve(shown, listening, arguments.host, live=live, compute=compute, token=arguments.token, started=started)
    return DONE


def _live(arguments: argparse.Namespace) -> LiveRun | None:
    """Load the model that looks at images; None without --model, where what belongs to one is refused."""
    if arguments.model is None:
        from .page import refuse_of_models

        refuse_of_models(arguments)
        return None
    from ..kernels import backends
    from ..viewer.server.live import LiveRun
    from .page import recipe_of_arguments

    backends.compile_ahead("auto")
    model = load(
        arguments, weights=arguments.weights, seed=arguments.seed, device=arguments.device,
        preprocess=options_of(arguments, PreprocessOptions),
    )  # fmt: skip
    return LiveRun(model, arguments.layer, recipe_of_arguments(arguments, model))
