"""`cnnviz render --from-atlas`: sheets of layers that were kept as atlases; no model runs."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import backends
from ..errors import AtlasError, InputError, OptionError
from ..options import MAX_PIXELS, LayoutOptions, PreprocessOptions, RenderOptions
from .arguments import options_of, output_folder, overlay_of
from .drawing import Said, ways_of
from .terminal import everything_is_loaded


def add_from_atlas(parser: argparse.ArgumentParser, instead_of: Sequence[argparse.Action]) -> None:
    """Add the option to draw atlases.

    Args:
        parser: of the command.
        instead_of: the arguments that the command needs otherwise.
    """

    class FromAtlas(argparse.Action):
        def __call__(
            self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
        ) -> None:
            setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or ()), *values])
            for needed in instead_of:
                needed.required = False

    parser.add_argument(
        "--from-atlas", metavar="FILE", nargs="+", action=FromAtlas,
        help="draw these atlases, or those in these folders, again; without MODEL, IMAGE and --layer",
    )  # fmt: skip


def draw_atlases(arguments: argparse.Namespace) -> int:
    """Draw a sheet, or single files, of each atlas; one that cannot be read does not stop the others.

    Args:
        arguments: of the command.

    Returns:
        The exit code.

    Raises:
        OptionError: an argument belongs to a model.
        InputError: an option does not suit an atlas.
    """
    _refuse_what_models_take(arguments)
    options = options_of(arguments, RenderOptions)
    backdrop = overlay_of(arguments, arguments.max_pixels)
    paths = _find_atlases(arguments.from_atlas)
    folder = output_folder(arguments)

    backends.compile_ahead(options.backend)

    from ..atlas import read_atlas
    from ..file_names import distinct_stems
    from ..models import resolve_device
    from ..progress import with_bar

    device = resolve_device(arguments.device)
    plan, write = ways_of(arguments)
    everything_is_loaded()
    said = Said(arguments.json, "atlases")
    stems = distinct_stems([path.stem for path in paths])
    for path, stem in zip(with_bar(paths, "atlas"), stems, strict=True):
        try:
            atlas = read_atlas(path)
        except AtlasError as error:
            if arguments.debug:
                raise
            said.failed({"atlas": str(path)}, error)
            continue
        try:
            planned = plan(atlas.maps.to(device), options, atlas.source, backdrop)
        except InputError as error:
            raise type(error)(f"{path.name}: {error}") from error
        shown = {"atlas": str(path), "image": atlas.source.image, "layer": atlas.source.layer}
        said.written(shown, write(planned, folder / stem), planned)
    return said.all(len(paths))


def _refuse_what_models_take(arguments: argparse.Namespace) -> None:
    """Refuse what would mean nothing without a model, rather than leave it unheard."""
    given = vars(arguments)
    unset: dict[str, Any] = {"model": None, "images": None, "layer": None, "weights": None, "seed": 0}
    if arguments.overlay is None:
        unset["max_pixels"] = MAX_PIXELS
    for record in (PreprocessOptions, LayoutOptions):
        unset |= {field.name: field.default for field in dataclasses.fields(record)}
    shown = {"model": "MODEL", "images": "IMAGE", "max_pixels": "max-pixels"}
    for name, value in unset.items():
        if given.get(name, value) != value:
            raise OptionError(
                f"{shown.get(name, name)} goes with a model, and from-atlas draws what one has put out. Leave it out."
            )
    if arguments.overlay is True:
        raise OptionError("overlay needs a picture with from-atlas, as an atlas holds none. Give its path.")


def _find_atlases(names: Sequence[str]) -> list[Path]:
    """List the files that are named, and those directly in the folders that are, by name.

    Raises:
        AtlasError: a folder cannot be read, or holds no atlas.
    """
    from ..atlas import SUFFIX

    found: list[Path] = []
    for path in map(Path, names):
        if not path.is_dir():
            found.append(path)
            continue
        try:
            inside = sorted(file for file in path.iterdir() if file.suffix == SUFFIX and not file.name.startswith("."))
        except OSError as error:
            raise AtlasError(f"folder {str(path)!r} cannot be read: {error.strerror or error}.") from error
        if not inside:
            raise AtlasError(f"folder {str(path)!r} holds no atlases ({SUFFIX}).")
        found += inside
    return found
