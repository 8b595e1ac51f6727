"""`cnnviz render --from-atlas`: sheets of layers that were kept as atlases; no model runs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import AtlasError, ImageError, InputError, OptionError, reason_of
from ..kernels import backends
from ..options.drawing import RenderOptions
from ..options.reading import MAX_PIXELS, AxesOptions, PreprocessOptions
from ..options.runs import RunOptions
from .arguments import given_options, options_of, output_folder, overlay_of
from .results import Said, ways_of
from .terminal import everything_is_loaded

if TYPE_CHECKING:
    from ..formats.atlas import Atlas


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
        help="draw these atlases, or those in these folders and .tar files, again; without MODEL, IMAGE and --layer",
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
    statistics = options_of(arguments, RunOptions).statistics
    backdrop = overlay_of(arguments, arguments.max_pixels)
    atlases = _find_atlases(arguments.from_atlas)
    folder = output_folder(arguments)

    backends.compile_ahead(options.backend)

    from ..channels.dataset import ranges_of_layer
    from ..models.load import resolve_device
    from ..runs.statistics import ranges_for
    from ..runtime.files import make_folder
    from ..runtime.progress import with_bar

    ranges = ranges_for(Path(statistics), options) if statistics else None
    device = resolve_device(arguments.device)
    plan, write = ways_of(arguments)
    everything_is_loaded()
    said = Said(arguments.json, "atlases")
    for found, path in zip(with_bar(atlases, "atlas"), _outputs(atlases), strict=True):
        try:
            atlas = found.read()
        except AtlasError as error:
            if arguments.debug:
                raise
            said.failed({"atlas": found.name}, error)
            continue
        try:
            shown_on = ranges_of_layer(atlas.provenance.layer, ranges)
            planned = plan(atlas.maps.to(device), options, atlas.provenance, backdrop, ranges=shown_on)
        except InputError as error:
            raise type(error)(f"{Path(found.name).name}: {error}") from error
        make_folder((folder / path).parent)
        shown = {"atlas": found.name, "image": atlas.provenance.image, "layer": atlas.provenance.layer}
        said.written(shown, write(planned, folder / path), planned)
    return said.all(len(atlases))


def _refuse_what_models_take(arguments: argparse.Namespace) -> None:
    """Refuse what would mean nothing without a model, rather than leave it unheard."""
    unset: dict[str, Any] = {"model": None, "images": None, "layer": None, "weights": None, "seed": 0}
    if arguments.overlay is None:
        unset["max_pixels"] = MAX_PIXELS
    given = [name for name, value in unset.items() if getattr(arguments, name) != value]
    for record in (PreprocessOptions, AxesOptions, RunOptions):
        given += given_options(arguments, record)
    shown = {"model": "MODEL", "images": "IMAGE", "max_pixels": "max-pixels"}
    for name in given:
        if name != "statistics":
            raise OptionError(
                f"{shown.get(name, name)} goes with a model, and from-atlas draws what one has put out. Leave it out."
            )
    if arguments.overlay is True:
        raise OptionError("overlay needs a picture with from-atlas, as an atlas holds none. Give its path.")


@dataclass(frozen=True)
class _Found:
    """An atlas that is to be drawn.

    name: its path; in a tar file, that one's path and its own in there.
    below: names of the folders that it lies in, from what was named.
    read: reads it, or raises AtlasError.
    """

    name: str
    below: tuple[str, ...]
    read: Callable[[], Atlas]


def _find_atlases(names: Sequence[str]) -> list[_Found]:
    """List the files that are named, and those in the folders and tar files that are.

    Raises:
        AtlasError: a folder cannot be read, or one or a tar file holds no atlas.
        ImageError: a tar file is compressed.
    """
    from ..formats.atlas import SUFFIX, read_atlas

    found: list[_Found] = []
    for path in map(Path, names):
        if path.is_dir():
            kind, inside = "folder", list(_in_folder(path))
        elif _is_tar(path.name):
            kind, inside = "tar", list(_in_tar(path, ()))
        else:
            kind, inside = "file", [_Found(str(path), (), partial(read_atlas, path))]
        if not inside:
            raise AtlasError(f"{kind} {str(path)!r} holds no atlases ({SUFFIX}).")
        found += inside
    return found


def _in_folder(folder: Path) -> Iterator[_Found]:
    """Find the atlases in a folder, and in the folders and tar files in it, by name; not what is hidden."""
    from ..formats.atlas import SUFFIX, read_atlas

    def refuse(error: OSError) -> NoReturn:
        raise AtlasError(f"folder {error.filename!r} cannot be read: {reason_of(error)}.") from error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = Path(place).relative_to(folder).parts
        for name in sorted(files):
            path = Path(place, name)
            if name.startswith("."):
                continue
            if path.suffix == SUFFIX:
                yield _Found(str(path), below, partial(read_atlas, path))
            elif _is_tar(name):
                yield from _in_tar(path, below)


def _is_tar(name: str) -> bool:
    return name.lower().endswith(".tar")


def _in_tar(path: Path, below: tuple[str, ...]) -> Iterator[_Found]:
    """Find the atlases in a tar file; of members of one name the last counts, and a damage is one that cannot be read.

    A member may have any name, so what leads upwards in it is left out of `below`.
    """
    from ..formats.atlas import SUFFIX
    from ..inputs.tar_shards import members_of

    places: dict[str, tuple[int, int]] = {}
    damage: Exception | None = None
    try:
        for member, start, size in members_of(str(path)):
            if member.endswith(SUFFIX):
                places[member] = (start, size)
    except ImageError:
        raise
    except Exception as error:
        damage = error
    for member, (start, size) in places.items():
        parts = [part for part in member.split("/") if part not in ("", ".", "..")]
        if not any(part.startswith(".") for part in parts):
            name = f"{path}/{member}"
            yield _Found(name, (*below, *parts[:-1]), partial(_read_member, path, start, size, name))
    if damage is not None:
        why = reason_of(damage)
        yield _Found(str(path), below, partial(_refuse, f"tar {str(path)!r} cannot be read to its end: {why}."))


def _read_member(path: Path, start: int, size: int, name: str) -> Atlas:
    """Read an atlas from its place in a tar file."""
    from ..formats.atlas import parse_atlas

    try:
        with open(path, "rb") as file:
            file.seek(start)
            packed = file.read(size)
    except OSError as error:
        raise AtlasError(f"atlas {name!r} cannot be read: {reason_of(error)}.") from error
    return parse_atlas(packed, name)


def _refuse(message: str) -> NoReturn:
    raise AtlasError(message)


def _outputs(atlases: Sequence[_Found]) -> list[Path]:
    """Give each atlas the path of what shows it, from --out and without a suffix: no two the same, none outside it."""
    from ..formats.names import layer_parts, output_stems

    names = list(dict.fromkeys(name for each in atlases for name in each.below))
    folders = dict(zip(names, layer_parts(names), strict=True))
    together: dict[tuple[str, ...], list[int]] = {}
    for number, each in enumerate(atlases):
        together.setdefault(each.below, []).append(number)
    paths = [Path(*(folders[name] for name in each.below)) for each in atlases]
    for numbers in together.values():
        stems = output_stems([atlases[number].name for number in numbers])
        for number, stem in zip(numbers, stems, strict=True):
            paths[number] /= stem
    return paths
