"""`cnnviz atlas`: sheets of layers that a run has kept as atlases; no model runs."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import AtlasError, ImageError, InputError, OptionError, reason_of
from ..kernels import backends
from ..options.drawing import RenderOptions
from ..options.reading import MAX_PIXELS
from ..options.runs import RunOptions
from .arguments import (
    add_max_pixels,
    add_options,
    add_output,
    add_overlay,
    add_overwrite,
    add_tiles,
    check_colours,
    options_of,
    overlay_of,
)
from .outputs import output_folder
from .parser import CommandParser, add_command
from .results import Results, files_of
from .terminal import everything_is_loaded

if TYPE_CHECKING:
    from ..formats.atlas import Atlas


HEAD_BYTES = 4096
"""Of an atlas are read to name its files; 720 were enough at a path of 240. With names of classes all of it is read."""


def add(commands: Any) -> None:
    """Add the command."""
    add_command(
        commands, "atlas", run, "draw what `cnnviz run --save atlases` kept; no model runs",
        declare=_declare,
        usage="ATLAS... [options]",
        examples=[
            "cnnviz atlas run/layer4/cat.atlas --tile 96 --out sheets/",
            "cnnviz atlas run/layer4/ --topk 12 --label --out sheets/",
            "cnnviz atlas shard-000000.tar --normalize layer --out sheets/",
        ],
    )  # fmt: skip


def _declare(parser: CommandParser) -> None:
    parser.add(
        "job", "atlases", metavar="ATLAS", nargs="+", text="files, and folders and .tar files, such as those of a run"
    )
    add_output(parser, "DIR/LAYER/IMAGE.png, by the layer that an atlas names and its file's name")
    add_overwrite(parser)
    parser.add(
        "range", "--statistics", metavar="FILE", default=argparse.SUPPRESS,
        text="of an earlier run, for normalize dataset",
    )  # fmt: skip
    add_tiles(parser)
    add_options(parser, RenderOptions)
    add_overlay(parser, "lay maps over this image")
    add_max_pixels(parser)


def run(arguments: argparse.Namespace) -> int:
    """Draw a sheet, or single files, of each atlas; one that cannot be read does not stop the others.

    Raises:
        InputError: an option does not suit an atlas.
    """
    _refuse_what_needs_an_image(arguments)
    options = options_of(arguments, RenderOptions)
    check_colours(options)
    statistics = options_of(arguments, RunOptions).statistics
    if options.normalize == "dataset" and statistics is None:
        raise OptionError("normalize 'dataset' needs statistics of the data set. Give them with --statistics FILE.")
    backdrop = overlay_of(arguments, arguments.max_pixels)
    atlases = _find_atlases(arguments.atlases)
    files = files_of(arguments, len(atlases))
    out = output_folder(arguments)

    backends.compile_ahead(options.backend)

    from ..channels.dataset import ranges_of_layer
    from ..channels.dataset_files import ranges_for
    from ..models.load import resolve_device
    from ..runtime.progress import with_bar

    ranges = ranges_for(Path(statistics), options) if statistics else None
    device = resolve_device(arguments.device)
    everything_is_loaded()
    results = Results(arguments.json, "atlases")
    for found, (folder, stem) in zip(with_bar(atlases, "atlas"), _names(atlases), strict=True):
        try:
            atlas = found.read()
        except AtlasError as error:
            if arguments.debug:
                raise
            results.fail({"atlas": found.name}, error)
            continue
        try:
            drawn_on = ranges_of_layer(atlas.provenance.layer, ranges)
            plan = files.plan(atlas.maps.to(device), options, atlas.provenance, backdrop, ranges=drawn_on)
        except InputError as error:
            raise type(error)(f"{Path(found.name).name}: {error}") from error
        shown = {"atlas": found.name, "image": atlas.provenance.image, "layer": atlas.provenance.layer}
        results.add(shown, files.write(plan, out, folder, stem), plan)
    return results.finish(len(atlases), out.path if arguments.open else None)


def _refuse_what_needs_an_image(arguments: argparse.Namespace) -> None:
    """Refuse what would mean nothing here, as an atlas holds maps and no image."""
    if arguments.overlay is True:
        raise OptionError("overlay needs the path of an image here, as an atlas holds none. Give it.")
    if arguments.overlay is None and arguments.max_pixels != MAX_PIXELS:
        raise OptionError("max-pixels goes with overlay here, as an atlas holds no image. Leave it out.")


@dataclass(frozen=True)
class _Found:
    """An atlas to draw.

    name: its path; of one in a tar file, the path of the tar and the member's name.
    content: reads its first bytes, as many as are asked for, or with -1 all; or raises AtlasError.
    """

    name: str
    content: Callable[[int], bytes]

    def read(self) -> Atlas:
        """Read the atlas."""
        from ..formats.atlas import parse_atlas

        return parse_atlas(self.content(-1), self.name)

    def layer(self) -> str:
        """Return the layer that it shows; where it does not say, or is damaged, the name of the folder it lies in."""
        from ..formats.atlas import layer_in

        for size in (HEAD_BYTES, -1):
            with contextlib.suppress(AtlasError):  # if all of it is damaged too, drawing it says what is wrong
                if (layer := layer_in(self.content(size), self.name)) is not None:
                    return layer
                break
        return os.path.basename(os.path.dirname(os.path.abspath(self.name)))


def _find_atlases(names: Sequence[str]) -> list[_Found]:
    """List the atlases that are named, and those in the folders and tar files that are named.

    Raises:
        AtlasError: a folder cannot be read, or one or a tar file holds no atlas.
        ImageError: a tar file is compressed.
    """
    from ..formats.atlas import SUFFIX

    found: list[_Found] = []
    for path in map(Path, names):
        if path.is_dir():
            kind, inside = "folder", list(_in_folder(path))
        elif _is_tar(path.name):
            kind, inside = "tar", list(_in_tar(path))
        else:
            kind, inside = "file", [_in_file(path)]
        if not inside:
            raise AtlasError(f"{kind} {str(path)!r} holds no atlases ({SUFFIX}).")
        found += inside
    return list({each.name: each for each in found}.values())


def _in_folder(folder: Path) -> Iterator[_Found]:
    """Find the atlases in a folder and in the folders and tar files below it, by name; hidden ones are left out."""
    from ..formats.atlas import SUFFIX

    def refuse(error: OSError) -> NoReturn:
        raise AtlasError(f"folder {error.filename!r} cannot be read: {reason_of(error)}.") from error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(place, name)
            if name.startswith("."):
                continue
            if path.suffix == SUFFIX:
                yield _in_file(path)
            elif _is_tar(name):
                yield from _in_tar(path)


def _is_tar(name: str) -> bool:
    return name.lower().endswith(".tar")


def _in_file(path: Path) -> _Found:
    from ..formats.atlas import atlas_content

    return _Found(str(path), partial(atlas_content, path))


def _in_tar(path: Path) -> Iterator[_Found]:
    """Find the atlases in a tar file. Of members of the same name the last counts, as when it is unpacked.

    Where the file is damaged, one more is found, which cannot be read.
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
        parts = (part for part in member.split("/") if part not in (".", ".."))
        if not any(part.startswith(".") for part in parts):
            name = f"{path}/{member}"
            yield _Found(name, partial(_member_content, path, start, size, name))
    if damage is not None:
        why = reason_of(damage)
        yield _Found(str(path), partial(_refuse, f"tar {str(path)!r} cannot be read to its end: {why}."))


def _member_content(path: Path, start: int, size: int, name: str, limit: int) -> bytes:
    """Read an atlas from its place in a tar file, or its first bytes."""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            return file.read(size if limit < 0 else min(limit, size))
    except OSError as error:
        raise AtlasError(f"atlas {name!r} cannot be read: {reason_of(error)}.") from error


def _refuse(message: str, limit: int) -> NoReturn:
    raise AtlasError(message)


def _names(atlases: Sequence[_Found]) -> list[tuple[str, str]]:
    """Return the layer's folder below --out and the stem of what shows each atlas, no two the same."""
    from ..formats.names import layer_parts, output_stems

    together: dict[str, list[int]] = {}
    for number, each in enumerate(atlases):
        together.setdefault(each.layer(), []).append(number)
    names = [("", "")] * len(atlases)
    for folder, numbers in zip(layer_parts(list(together)), together.values(), strict=True):
        for number, stem in zip(numbers, output_stems([atlases[number].name for number in numbers]), strict=True):
            names[number] = folder, stem
    return names
